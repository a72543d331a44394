"""What would become of a request that nobody sends: one that was pasted, or one that is on record?

Reads: configuration, the health board, request_record (features, never prompts). A request that is given is read and
forgotten. No provider is called, nothing is written. The console's test panel and the management API ask here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from billing.models import RequestRecord
from gateway.dataplane.errors import GatewayError
from gateway.health_board import read_health
from gateway.pasted_request import read_pasted
from gateway.snapshots import load_snapshot
from gateway.wire.openai_request import Endpoint
from policies.document_checks import Problem
from policies.models import ApiKey, Policy, Tenant
from policies.replaying import StoredRequest, replay
from policies.snapshot import DeploymentSnapshot, KeyGrant, TenantSnapshot
from policies.trying import Explanation, explain_request

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


def explain_body(
    body: bytes,
    *,
    policy: Policy,
    document: Mapping[str, Any],
    grant: KeyGrant,
    draw: float,
    endpoint: Endpoint = "chat",
) -> Explanation:
    """Explain a request's body under a document in the place of the policy.

    Raises Untestable when the gateway would refuse the body, UnsoundDraftError for the document.
    """
    snapshot = load_snapshot()
    try:
        ask, features = read_pasted(
            body,
            grant=grant,
            snapshot=snapshot,
            default_model=policy.public_id,
            now_unix_s=timezone.now().timestamp(),
            endpoint=endpoint,
        )
    except GatewayError as error:
        raise Untestable(f"The gateway would refuse this request ({error.status}): {error}") from None
    return explain_request(
        ask=ask,
        features=features,
        snapshot=snapshot,
        grant=grant,
        health=BoardHealth(read_health(Path(settings.POINTSMAN_DATA_DIR))),
        draw=draw,
        document=document,
        public_id=policy.public_id,
    )


def explain_logged(request_id: uuid.UUID, *, policy: Policy, document: Mapping[str, Any]) -> Explanation:
    """Explain a recorded request of the policy, as it was decided then, under a document.

    Raises Untestable when there is no such record, UnsoundDraftError for the document.
    """
    related = ("tenant", "project", "api_key__project__tenant")
    records = RequestRecord.objects.filter(id=request_id, policy=policy.pk).select_related(*related)
    record = records.first()
    if record is None:
        raise Untestable("There is no such logged request of this policy.")
    snapshot = load_snapshot()
    names = {deployment.id: name for name, deployment in snapshot.deployments.items()}
    replayed = replay(_stored(record), names=names)
    return explain_request(
        ask=replayed.ask,
        features=replayed.features,
        snapshot=snapshot,
        grant=grant_of_key(record.api_key),
        health=replayed.health,
        draw=replayed.draw,
        document=document,
        public_id=policy.public_id,
    )


def grant_of_key(key: ApiKey) -> KeyGrant:
    """What a key may do, from its row, also of a revoked one."""
    return KeyGrant(
        key_id=key.pk,
        key_name=key.name,
        project_id=key.project_id,
        project_name=key.project.name,
        tenant=_tenant(key.project.tenant),
        is_pinned=key.is_pinned,
        allowed_models=frozenset(key.allowed_models),
    )


def grant_of_tenant(tenant: Tenant) -> KeyGrant:
    """What a key of this tenant without limits of its own may do."""
    return KeyGrant(0, "", 0, "", _tenant(tenant))


def _tenant(row: Tenant) -> TenantSnapshot:
    return TenantSnapshot(
        id=row.pk,
        name=row.name,
        time_zone=row.time_zone,
        policy_ids=frozenset(row.policies.values_list("public_id", flat=True)),
        allowed_regions=frozenset(row.allowed_regions),
    )


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
