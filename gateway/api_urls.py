"""Which part of the management API answers which path below /api/v1? Its document: gateway/openapi.yaml.

Reads: gateway/openapi.yaml, once.
"""

from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.views.decorators.http import require_safe

from gateway.api_explain import ExplainView
from policies.api.overview import show_nothing

app_name = "api"


@cache
def _document() -> bytes:
    return (Path(settings.BASE_DIR) / "gateway" / "openapi.yaml").read_bytes()


@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """The API's description. It says nothing about this installation, so everybody may read it."""
    return HttpResponse(_document(), content_type="application/yaml")


urlpatterns = [
    path("openapi.yaml", openapi, name="openapi"),
    path("policies/<int:pk>/explain", ExplainView.as_view(), name="explain"),
    path("", include("policies.api.urls")),
    path("", include("billing.api.urls")),
    re_path(r"", show_nothing),
]
