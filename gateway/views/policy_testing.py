"""What would become of a request under this draft, and why? The test panel of the policy editor.

Reads: configuration, the health board, the newest request records of the policy (features, never prompts). A request
that is pasted is read and forgotten. No provider is called, nothing is written.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from billing.models import RequestRecord
from gateway.dataplane.errors import GatewayError
from gateway.health_board import read_health
from gateway.pasted_request import read_pasted
from gateway.snapshots import load_snapshot
from policies.decision import Ask
from policies.documents import Problem
from policies.editor_form import document_of
from policies.features import Features
from policies.models import ApiKey, Deployment, Policy, PolicyDraft, Tenant
from policies.permissions import Ability, needs
from policies.publishing import EMPTY_DOCUMENT
from policies.replaying import StoredRequest, replay
from policies.snapshot import DeploymentSnapshot, KeyGrant, RoutingSnapshot, TenantSnapshot
from policies.trying import Explanation, UnsoundDraftError, explain_request

MAX_CALLERS = 200
LOGGED_SHOWN = 20
UNFIT_STATES = frozenset({"ejected", "cooling", "credential_rejected"})


class Untestable(Exception):
    """Why nothing can be decided, for the person who asked. `problems` stand in the draft."""

    def __init__(self, message: str, problems: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


@dataclass(frozen=True, slots=True)
class BoardHealth:
    """Health as all workers reported it of late."""

    board: dict[int, dict[str, Any]]

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        """The state that speaks against calling it, if any worker sees one."""
        state = self.board.get(deployment.id, {}).get("state")
        return state if state in UNFIT_STATES else None

    def latency_ms(self, deployment_id: int, /) -> float | None:
        """Mean time to the first token over the workers that measured one."""
        found = self.board.get(deployment_id, {}).get("first_token_ms")
        return None if found is None else float(found)


@needs(Ability.CONFIGURE)
@require_http_methods(["GET", "HEAD", "POST"])
def try_request(request: HttpRequest, pk: int) -> HttpResponse:
    """The panel; with a POST what would become of the request under the form's rules, or under the saved draft."""
    policy = get_object_or_404(Policy, pk=pk)
    is_fragment = bool(request.headers.get("HX-Request"))
    result = _decide(request, policy) if request.method == "POST" else {}
    if is_fragment and request.method == "POST":
        return render(request, "policies/_try_result.html", result)
    context = {
        "policy": policy,
        "tenants": Tenant.objects.filter(is_enabled=True)[:MAX_CALLERS],
        "allowed_tenants": set(policy.tenants.values_list("pk", flat=True)),
        "keys": ApiKey.objects.filter(revoked_at=None).select_related("project__tenant")[:MAX_CALLERS],
        "logged": _logged(policy),
        "sample": request.POST.get("request") or _sample(policy),
        "chosen": request.POST.get("logged") or request.GET.get("logged", ""),
        **result,
    }
    return render(request, "policies/_try.html" if is_fragment else "policies/try.html", context)


def _decide(request: HttpRequest, policy: Policy) -> dict[str, Any]:
    try:
        return {"explanation": _explain(request, policy).as_json()}
    except Untestable as reason:
        return {"failure": str(reason), "problems": reason.problems}
    except UnsoundDraftError as unsound:
        return {"failure": "These rules cannot be tried yet:", "problems": unsound.problems}


def _explain(request: HttpRequest, policy: Policy) -> Explanation:
    document = _document(request, policy)
    snapshot = load_snapshot()
    if chosen := request.POST.get("logged", ""):
        record = _find_record(chosen, policy)
        names = {deployment.id: name for name, deployment in snapshot.deployments.items()}
        replayed = replay(_stored(record), names=names)
        grant = _grant_of_key(record.api_key)
        return explain_request(
            ask=replayed.ask,
            features=replayed.features,
            snapshot=snapshot,
            grant=grant,
            health=replayed.health,
            draw=replayed.draw,
            document=document,
            public_id=policy.public_id,
        )
    grant = _grant(request.POST.get("caller", ""))
    ask, features = _pasted(request, policy, grant, snapshot)
    return explain_request(
        ask=ask,
        features=features,
        snapshot=snapshot,
        grant=grant,
        health=BoardHealth(read_health(Path(settings.POINTSMAN_DATA_DIR))),
        draw=_draw(request.POST.get("draw", "")),
        document=document,
        public_id=policy.public_id,
    )


def _document(request: HttpRequest, policy: Policy) -> dict[str, Any]:
    text = request.POST.get("form")
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


def _pasted(
    request: HttpRequest, policy: Policy, grant: KeyGrant, snapshot: RoutingSnapshot
) -> tuple[Ask, Features]:
    try:
        return read_pasted(
            request.POST.get("request", "").encode("utf-8", "replace"),
            grant=grant,
            snapshot=snapshot,
            default_model=policy.public_id,
            now_unix_s=timezone.now().timestamp(),
        )
    except GatewayError as error:
        raise Untestable(f"The gateway would refuse this request ({error.status}): {error}") from None


def _grant(caller: str) -> KeyGrant:
    kind, number = caller[:1], caller[1:]
    if number.isdecimal() and len(number) < 16:
        if kind == "k" and (key := ApiKey.objects.filter(pk=int(number)).first()):
            return _grant_of_key(key)
        if kind == "t" and (tenant := Tenant.objects.filter(pk=int(number)).first()):
            return KeyGrant(0, "", 0, "", _tenant(tenant))
    raise Untestable("Choose whose request it is: there is no such tenant or key.")


def _grant_of_key(key: ApiKey) -> KeyGrant:
    return KeyGrant(
        key_id=key.pk,
        key_name=key.name,
        project_id=key.project_id,
        project_name=key.project.name,
        tenant=_tenant(key.project.tenant),
        is_pinned=key.is_pinned,
        allowed_models=frozenset(key.allowed_models),
    )


def _tenant(row: Tenant) -> TenantSnapshot:
    return TenantSnapshot(
        id=row.pk,
        name=row.name,
        time_zone=row.time_zone,
        policy_ids=frozenset(row.policies.values_list("public_id", flat=True)),
        allowed_regions=frozenset(row.allowed_regions),
    )


def _draw(text: str) -> float:
    """The number drawn for weights, as typed; the middle when nothing is."""
    try:
        draw = float(text) if text.strip() else 0.5
    except ValueError:
        draw = -1.0
    if not 0 <= draw < 1:
        raise Untestable("The number drawn is from 0 to less than 1.")
    return draw


def _logged(policy: Policy) -> list[dict[str, Any]]:
    rows = list(RequestRecord.objects.filter(policy=policy.pk).order_by("-started_at", "-id")[:LOGGED_SHOWN])
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


def _find_record(text: str, policy: Policy) -> RequestRecord:
    try:
        wanted = uuid.UUID(text)
    except ValueError:
        raise Untestable("There is no such logged request.") from None
    related = ("tenant", "project", "api_key__project__tenant")
    record = RequestRecord.objects.filter(id=wanted, policy=policy.pk).select_related(*related).first()
    if record is None:
        raise Untestable("There is no such logged request of this policy.")
    return record


def _stored(record: RequestRecord) -> StoredRequest:
    return StoredRequest(
        requested_model=record.requested_model,
        endpoint=record.endpoint,
        is_stream=record.is_stream,
        is_pinned=record.is_pinned,
        tenant=record.tenant.name,
        project=record.project.name,
        key=record.api_key.name,
        tags=record.tags,
        features=record.features,
        decision=record.decision,
    )


def _sample(policy: Policy) -> str:
    asked = json.dumps({"role": "user", "content": "Summarise this ticket in two sentences."})
    return f'{{"model": {json.dumps(policy.public_id)},\n "messages": [\n  {asked}]}}'
