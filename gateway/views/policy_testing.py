"""What would become of a request under this draft, and why? The test panel of the policy editor.

Reads: configuration, the newest request records of the policy, `gateway.trying_requests`. Nothing is written.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods

from billing.models import RequestRecord
from gateway.trying_requests import Untestable, explain_body, explain_logged, grant_of_key, grant_of_tenant
from policies.editor_form import document_of
from policies.models import ApiKey, Deployment, Policy, PolicyDraft, Tenant
from policies.permissions import Ability, needs
from policies.publishing import EMPTY_DOCUMENT
from policies.snapshot import KeyGrant
from policies.trying import Explanation, UnsoundDraftError

MAX_CALLERS = 200
LOGGED_SHOWN = 20


@needs(Ability.CONFIGURE)
@require_http_methods(["GET", "HEAD", "POST"])
def try_request(request: HttpRequest, pk: int) -> HttpResponse:
    """The panel; with a POST what would become of the request under the form's rules, or under the saved draft.

    `?logged=` decides a logged request against the saved draft at once.
    """
    policy = get_object_or_404(Policy, pk=pk)
    is_fragment = bool(request.headers.get("HX-Request"))
    asked = request.POST if request.method == "POST" else request.GET
    chosen = asked.get("logged", "")
    result = _decide(asked, policy) if request.method == "POST" or chosen else {}
    if is_fragment and request.method == "POST":
        return render(request, "policies/_try_result.html", result)
    context = {
        "policy": policy,
        "tenants": Tenant.objects.filter(is_enabled=True)[:MAX_CALLERS],
        "allowed_tenants": set(policy.tenants.values_list("pk", flat=True)),
        "keys": ApiKey.objects.filter(revoked_at=None).select_related("project__tenant")[:MAX_CALLERS],
        "logged": _logged(policy, chosen),
        "sample": request.POST.get("request") or _sample(policy),
        "chosen": chosen,
        **result,
    }
    return render(request, "policies/_try.html" if is_fragment else "policies/try.html", context)


def _decide(asked: QueryDict, policy: Policy) -> dict[str, Any]:
    try:
        return {"explanation": _explain(asked, policy).as_json()}
    except Untestable as reason:
        return {"failure": str(reason), "problems": reason.problems}
    except UnsoundDraftError as unsound:
        return {"failure": "These rules cannot be tried yet:", "problems": unsound.problems}


def _explain(asked: QueryDict, policy: Policy) -> Explanation:
    document = _document(asked, policy)
    if chosen := asked.get("logged", ""):
        if (wanted := _id_of(chosen)) is None:
            raise Untestable("There is no such logged request.")
        return explain_logged(wanted, policy=policy, document=document)
    return explain_body(
        asked.get("request", "").encode("utf-8", "replace"),
        policy=policy,
        document=document,
        grant=_grant(asked.get("caller", "")),
        draw=_draw(asked.get("draw", "")),
    )


def _document(asked: QueryDict, policy: Policy) -> dict[str, Any]:
    text = asked.get("form")
    if text is None:
        draft = PolicyDraft.objects.filter(policy=policy).first()
        return draft.document if draft else EMPTY_DOCUMENT
    try:
        form = json.loads(text)
    except ValueError:
        form = None
    if not isinstance(form, dict):
        raise Untestable("What the editor sent is not a policy.")
    document, problems = document_of(form)
    if problems:
        raise Untestable("These rules cannot be tried yet:", problems)
    return document


def _id_of(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _grant(caller: str) -> KeyGrant:
    kind, number = caller[:1], caller[1:]
    if number.isdecimal() and len(number) < 16:
        if kind == "k" and (key := ApiKey.objects.filter(pk=int(number)).first()):
            return grant_of_key(key)
        if kind == "t" and (tenant := Tenant.objects.filter(pk=int(number)).first()):
            return grant_of_tenant(tenant)
    raise Untestable("Choose whose request it is: there is no such tenant or key.")


def _draw(text: str) -> float:
    """The number drawn for weights, as typed; the middle when nothing is."""
    try:
        draw = float(text) if text.strip() else 0.5
    except ValueError:
        draw = -1.0
    if not 0 <= draw < 1:
        raise Untestable("The number drawn is from 0 to less than 1.")
    return draw


def _logged(policy: Policy, chosen: str) -> list[dict[str, Any]]:
    records = RequestRecord.objects.filter(policy=policy.pk).order_by("-started_at", "-id")
    rows = list(records[:LOGGED_SHOWN])
    if chosen and chosen not in {str(row.id) for row in rows} and (wanted := _id_of(chosen)):
        rows += records.filter(id=wanted)
    names = dict(
        Deployment.objects.filter(pk__in={row.deployment_id for row in rows}).values_list("pk", "name")
    )
    return [
        {
            "id": row.id,
            "at": row.started_at,
            "rule": row.rule,
            "deployment": names.get(row.deployment_id or 0, ""),
            "input_tokens": row.features.get("input_tokens", 0),
        }
        for row in rows
    ]


def _sample(policy: Policy) -> str:
    asked = json.dumps({"role": "user", "content": "Summarise this ticket in two sentences."})
    return f'{{"model": {json.dumps(policy.public_id)},\n "messages": [\n  {asked}]}}'
