"""What is at /api/v1 itself, what do the types of problems mean, and what does an address say that nothing is at?

Pure.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from policies.api.access import Operation
from policies.api.problems import CONTENT_TYPE, PROBLEM_TYPES, TYPE_PREFIX, document_of
from policies.api.resources import ManagementView, StrictSerializer
from policies.management_tokens import Scope
from policies.models import ManagementToken
from policies.permissions import role_of


class CallerSerializer(StrictSerializer):
    """Who is calling, and what they may do."""

    actor = serializers.CharField(help_text="The name under which changes stand in the audit log.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=list(Scope)),
        allow_null=True,
        help_text="null: a person, see role.",
    )
    role = serializers.CharField(allow_null=True, help_text="null: a token, see scopes.")
    expires_at = serializers.DateTimeField(allow_null=True)


class CallerView(ManagementView):
    tag = "caller"
    serializer_class = CallerSerializer
    operations = {"GET": Operation("get_caller", "Who am I", None)}

    def get(self, request: Request) -> Response:
        """Say who is calling: a way to try a token. Any token will do."""
        token = request.auth if isinstance(request.auth, ManagementToken) else None
        caller = {
            "actor": self.actor,
            "scopes": token.scopes if token else None,
            "role": None if token else role_of(request.user),
            "expires_at": token.expires_at if token else None,
        }
        return self.show(caller)


@require_safe
def show_problem_type(request: HttpRequest, slug: str) -> HttpResponse:
    """What the `type` of a problem means and what to do about it. For everybody."""
    kind = PROBLEM_TYPES.get(slug)
    if kind is None:
        return show_nothing(request)
    document = {
        "type": TYPE_PREFIX + slug,
        "title": kind.title,
        "status": kind.status,
        "advice": kind.advice,
    }
    return HttpResponse(JSONRenderer().render(document), content_type="application/json")


@csrf_exempt
def show_nothing(request: HttpRequest, **kwargs: object) -> HttpResponse:
    """There is nothing here: said as a problem, because a program is asking."""
    document = document_of("not-found", "There is nothing at this address. See /api/v1/openapi.yaml.")
    return HttpResponse(JSONRenderer().render(document), status=404, content_type=CONTENT_TYPE)
