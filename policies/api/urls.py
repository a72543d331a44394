"""Which resource of the configuration answers which path below /api/v1?"""

from django.urls import path

from policies.api import catalog, keys, overview, policy, publication, rate_limits, tenancy, versions

urlpatterns = [
    path("caller", overview.CallerView.as_view(), name="caller"),
    path("problems/<slug:slug>", overview.show_problem_type, name="problem-type"),
    path("tenants", tenancy.TenantsView.as_view(), name="tenants"),
    path("tenants/<int:pk>", tenancy.TenantView.as_view(), name="tenant"),
    path("projects", tenancy.ProjectsView.as_view(), name="projects"),
    path("projects/<int:pk>", tenancy.ProjectView.as_view(), name="project"),
    path("keys", keys.KeysView.as_view(), name="keys"),
    path("keys/<int:pk>", keys.KeyView.as_view(), name="key"),
    path("keys/<int:pk>/rotate", keys.KeyRotationView.as_view(), name="key-rotate"),
    path("keys/<int:pk>/revoke", keys.KeyRevocationView.as_view(), name="key-revoke"),
    path("rate-limits", rate_limits.RateLimitsView.as_view(), name="rate-limits"),
    path("rate-limits/<int:pk>", rate_limits.RateLimitView.as_view(), name="rate-limit"),
    path("providers", catalog.ProvidersView.as_view(), name="providers"),
    path("providers/<int:pk>", catalog.ProviderView.as_view(), name="provider"),
    path(
        "providers/<int:pk>/retry-credential", catalog.CredentialRetryView.as_view(), name="credential-retry"
    ),
    path("models", catalog.ModelsView.as_view(), name="models"),
    path("models/<int:pk>", catalog.ModelView.as_view(), name="model"),
    path("deployments", catalog.DeploymentsView.as_view(), name="deployments"),
    path("deployments/<int:pk>", catalog.DeploymentView.as_view(), name="deployment"),
    path("policies", policy.PoliciesView.as_view(), name="policies"),
    path("policies/<int:pk>", policy.PolicyView.as_view(), name="policy"),
    path("policies/<int:pk>/draft", policy.DraftView.as_view(), name="draft"),
    path(
        "policies/<int:pk>/draft/differences", policy.DraftDifferencesView.as_view(), name="draft-differences"
    ),
    path("policies/<int:pk>/versions", versions.VersionsView.as_view(), name="versions"),
    path("policies/<int:pk>/versions/<int:number>", versions.VersionView.as_view(), name="version"),
    path("policies/<int:pk>/publish", publication.PublishView.as_view(), name="publish"),
    path("policies/<int:pk>/rollback", publication.RollBackView.as_view(), name="rollback"),
    path("policies/<int:pk>/canary", publication.CanaryView.as_view(), name="canary"),
    path("policies/<int:pk>/canary/promote", publication.PromotionView.as_view(), name="canary-promote"),
    path(
        "policies/<int:pk>/publication-requests",
        publication.PublicationRequestsView.as_view(),
        name="publication-requests",
    ),
    path(
        "publication-requests/<int:pk>",
        publication.PublicationRequestView.as_view(),
        name="publication-request",
    ),
    path("publication-requests/<int:pk>/approve", publication.ApprovalView.as_view(), name="approve"),
    path("publication-requests/<int:pk>/reject", publication.RejectionView.as_view(), name="reject"),
]
