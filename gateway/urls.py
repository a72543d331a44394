"""Which page or control-plane call answers which path? The data plane's paths are in dataplane/app.py."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path

from gateway.metrics import metrics
from gateway.views import api_reference, catalog, find, home, policy_testing, rate_limits, sign_in

urlpatterns = [
    path("", home.home, name="home"),
    path("find", find.find, name="find"),
    path("sign-in", sign_in.SignIn.as_view(), name="sign-in"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
    path("models", catalog.list_models, name="models"),
    path("models/<int:pk>", catalog.show_model, name="model"),
    path("providers", catalog.list_providers, name="providers"),
    path("providers/<int:pk>", catalog.show_provider, name="provider"),
    path("deployments", catalog.list_deployments, name="deployments"),
    path("deployments/<int:pk>", catalog.show_deployment, name="deployment"),
    path("policies/<int:pk>/try", policy_testing.try_request, name="policy-try"),
    path("rate-limits", rate_limits.list_limits, name="rate-limits"),
    path("rate-limits/new", rate_limits.create_limit, name="rate-limit-new"),
    path("rate-limits/<int:pk>/edit", rate_limits.change_limit, name="rate-limit-edit"),
    path("rate-limits/<int:pk>/delete", rate_limits.delete_limit, name="rate-limit-delete"),
    path("metrics", metrics, name="metrics"),
    path("", include("policies.urls")),
    path("", include("billing.urls")),
    path("api/v1/docs", api_reference.list_operations, name="api-reference"),
    path("api/v1/docs/<slug:slug>", api_reference.show_group, name="api-reference-group"),
    path("api/v1/", include("gateway.api_urls")),
    path("admin/login/", sign_in.enter_back_office),
    path("admin/", admin.site.urls),
]

handler403 = "gateway.views.errors.forbidden"
handler404 = "gateway.views.errors.not_found"
handler500 = "gateway.views.errors.failed"
