"""What does a name that a client asks for lead to: a policy, a model's deployments, one deployment, nothing?

Pure. A policy with an automatic rule has three further names, its presets: `pointsman/auto:quality`, `:cost`, `:fast`;
`auto:quality` alone is short for the first. A model or deployment of exactly that name goes before a preset.
"""

from __future__ import annotations

from typing import NamedTuple

from policies.snapshot import DeploymentSnapshot, KeyGrant, PolicySnapshot, RoutingSnapshot

DEFAULT_AUTO_POLICY = "pointsman/auto"
# A preset's place on the slider. `fast` keeps the rule's and asks for the fastest instead (FAST_TARGET_MS).
PRESETS: dict[str, float | int | None] = {"quality": 0.0, "cost": 9.0, "fast": None}
# Every answer misses it, so that all waiting counts; what is a little better and much slower then loses.
FAST_TARGET_MS = 1


class NamedPolicy(NamedTuple):
    """A policy and the preset it was asked for with, "" for none."""

    policy: PolicySnapshot
    preset: str = ""


def find_policy(name: str, snapshot: RoutingSnapshot, grant: KeyGrant) -> PolicySnapshot | None:
    """The policy of this public id, if the key may use it."""
    policy = snapshot.policies.get(name)
    if policy is None or name not in grant.tenant.policy_ids:
        return None
    return policy if not grant.allowed_models or name in grant.allowed_models else None


def find_preset(name: str, snapshot: RoutingSnapshot, grant: KeyGrant) -> NamedPolicy | None:
    """The policy and preset that `POLICY:PRESET` names, if the policy has an automatic rule and the key may use it."""
    public_id, _, preset = name.rpartition(":")
    if preset not in PRESETS:
        return None
    policy = find_policy(DEFAULT_AUTO_POLICY if public_id == "auto" else public_id, snapshot, grant)
    return NamedPolicy(policy, preset) if policy is not None and policy.has_auto else None


def names_of(policy: PolicySnapshot) -> list[str]:
    """The names that clients may ask for a policy by."""
    return [policy.public_id, *[f"{policy.public_id}:{preset}" for preset in PRESETS if policy.has_auto]]


def name_instead(name: str, *, of: str, policy: PolicySnapshot) -> str:
    """What a client would ask for that asked for the policy `of` by this name, were `policy` to answer it.

    A preset is kept where the policy has presets; any other name stays as it is.
    """
    if name == of:
        return policy.public_id
    public_id, _, preset = name.rpartition(":")
    if preset not in PRESETS or (DEFAULT_AUTO_POLICY if public_id == "auto" else public_id) != of:
        return name
    return f"{policy.public_id}:{preset}" if policy.has_auto else policy.public_id


def find_named_policy(name: str, snapshot: RoutingSnapshot, grant: KeyGrant) -> PolicySnapshot | None:
    """The policy behind a name, with or without a preset; what `decide` would take."""
    policy = find_policy(name, snapshot, grant)
    if policy is not None or ":" not in name or find_deployments(name, snapshot, grant) is not None:
        return policy
    found = find_preset(name, snapshot, grant)
    return None if found is None else found.policy


def not_found_text(name: str, snapshot: RoutingSnapshot, grant: KeyGrant) -> str:
    """Say that a name leads nowhere, and which nearly equal one the key may ask for: `GPT-4o`, `openai/gpt-4o`."""
    wanted = name.lower()
    last_part = wanted.rpartition("/")[2]
    near = ""
    for known in (*snapshot.policies, *snapshot.deployments_by_model):
        lower = known.lower()
        if (lower == wanted or lower.rpartition("/")[2] == last_part) and (
            find_policy(known, snapshot, grant) or find_deployments(known, snapshot, grant)
        ):
            near = known
            if lower == wanted:
                break
    hint = f" Did you mean '{near}'?" if near else ""
    return (
        f"The model '{name[:200]}' does not exist or you do not have access to it.{hint} "
        "GET /v1/models lists what this key may ask for."
    )


def find_deployments(
    name: str, snapshot: RoutingSnapshot, grant: KeyGrant
) -> tuple[DeploymentSnapshot, ...] | None:
    """The deployments of a model, or the one of this name; None when there is none for this key."""
    deployments = snapshot.deployments_by_model.get(name)
    if not deployments:
        deployment = snapshot.deployments.get(name)
        if deployment is None:
            return None
        deployments = (deployment,)
    allowed = grant.allowed_models
    if allowed and name not in allowed and deployments[0].model.name not in allowed:
        return None
    return deployments
