"""Builders of routing snapshots in memory, and a health view that says what a test wants."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from policies.documents import build_policy
from policies.snapshot import (
    DeploymentSnapshot,
    KeyGrant,
    ModelSnapshot,
    PolicySnapshot,
    ProviderSnapshot,
    RoutingSnapshot,
    TenantSnapshot,
)


class FakeHealth:
    """A health view: problems by deployment name, latencies by deployment id."""

    def __init__(
        self, problems: Mapping[str, str] | None = None, latencies: Mapping[int, float] | None = None
    ) -> None:
        self.problems = problems or {}
        self.latencies = latencies or {}

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        return self.problems.get(deployment.name)

    def latency_ms(self, deployment_id: int, /) -> float | None:
        return self.latencies.get(deployment_id)


def make_deployments(
    *names: str, model: ModelSnapshot | None = None, provider: str = "local", **fields: Any
) -> dict[str, DeploymentSnapshot]:
    """Deployments of one model at one provider. Ids follow from the names, the same in every run."""
    model = model or ModelSnapshot(1, "smol", 8192)
    account = ProviderSnapshot(1, provider, "openai_chat", "http://127.0.0.1:1/v1")
    return {
        name: DeploymentSnapshot(
            id=zlib.crc32(name.encode()),
            name=name,
            model=model,
            provider=account,
            upstream_model="u",
            **fields,
        )
        for name in names
    }


def make_policy(
    deployments: Mapping[str, DeploymentSnapshot],
    *rules: Mapping[str, Any],
    public_id: str = "acme/auto",
    number: int = 1,
    session_stickiness: bool = False,
    **canary: Any,
) -> PolicySnapshot:
    """A live policy from rules as a document holds them; names are given where a rule has none."""
    document = {
        "rules": [{"name": f"rule {i}", **rule} for i, rule in enumerate(rules)],
        "session_stickiness": session_stickiness,
    }
    return build_policy(
        document,
        deployments,
        policy_id=1,
        public_id=public_id,
        version_id=number,
        version_number=number,
        **canary,
    )


def make_snapshot(
    deployments: Mapping[str, DeploymentSnapshot], *policies: PolicySnapshot, **fields: Any
) -> RoutingSnapshot:
    by_model: dict[str, list[DeploymentSnapshot]] = {}
    for name in sorted(deployments):
        by_model.setdefault(deployments[name].model.name, []).append(deployments[name])
    return RoutingSnapshot(
        revision=1,
        deployments=dict(deployments),
        deployments_by_model={name: tuple(rows) for name, rows in by_model.items()},
        policies={policy.public_id: policy for policy in policies},
        **fields,
    )


def make_grant(
    *,
    policies: Sequence[str] = ("acme/auto",),
    regions: Sequence[str] = (),
    retention_limit: str = "",
    **fields: Any,
) -> KeyGrant:
    tenant = TenantSnapshot(
        1,
        "acme",
        policy_ids=frozenset(policies),
        allowed_regions=frozenset(regions),
        retention_limit=retention_limit,
    )
    return KeyGrant(
        **{"key_id": 1, "key_name": "dev", "project_id": 1, "project_name": "web", "tenant": tenant, **fields}
    )
