"""Which deployments are tried for a request, in which order, and why?

Pure. The same arguments give the same decision for ever: `draw` in [0, 1) is the only randomness, and the health view
is asked for each deployment at most once or twice within one call.

Names resolve in this order: the public id of a policy that the tenant may use (path `routed`), a model (path `fixed`,
its deployments by name), a deployment (path `fixed`, that one). A pinned request gets exactly one deployment: health
does not take it away, unless the provider refused our credential or its own limits leave it no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from policies.asks import Ask, Dropped, HealthView, ProviderSort
from policies.collecting import Collected
from policies.features import Features
from policies.filters import HARD_HEALTH_REASONS, TEMPORARY_REASONS, Needs, find_problem, needs_of
from policies.naming import find_deployments, find_policy, find_preset, not_found_text
from policies.rule_matching import RuleTrace, match_rule
from policies.snapshot import DeploymentSnapshot, KeyGrant, PolicySnapshot, RoutingSnapshot, RuleSnapshot
from policies.stickiness import Cost, Pin, judge_pin

Path = Literal["fixed", "routed", "pinned"]


class RoutingError(Exception):
    """A request that cannot be routed. RoutingError ── ModelNotFound (404), PinNeedsDeployment (400)."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "routing_error"
    param: ClassVar[str | None] = "model"


class ModelNotFound(RoutingError):
    """No such name, or not for this key: the two look the same, so that names do not leak."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "model_not_found"


class PinNeedsDeployment(RoutingError):
    """A pinned request named a policy, or a model with several deployments."""

    code: ClassVar[str] = "pin_needs_deployment"


class Decision(NamedTuple):
    """Ordered candidates and how they came about.

    `policy` and `rule` are those of the first name that resolved. Without candidates, `is_never_possible` says that
    waiting would not help. `scores` run beside the first rule's candidates: (deployment name, nano-USD or ms); an
    automatic rule's are (name, quality, its error, nano-USD, ms, score). `revision` is the snapshot's,
    `tables_version` and `slider` are those of the automatic router, None where it had no part. `further_latencies`
    (name, ms) are those by which the names after the first were ordered. `sorted_by` is the caller's wish, where the
    first name is a model's.
    """

    path: Path
    requested_model: str
    policy: PolicySnapshot | None
    rule: RuleSnapshot | None
    candidates: tuple[DeploymentSnapshot, ...]
    dropped: tuple[Dropped, ...]
    trace: tuple[RuleTrace, ...]
    draw: float
    is_never_possible: bool = False
    max_attempts: int | None = None
    scores: tuple[tuple[Any, ...], ...] = ()
    revision: int = 0
    tables_version: int | None = None
    slider: float | int | None = None
    pin: Pin | None = None
    is_canary: bool = False
    further_latencies: tuple[tuple[str, float | int | None], ...] = ()
    sorted_by: ProviderSort = ""


def decide(
    ask: Ask,
    features: Features,
    snapshot: RoutingSnapshot,
    grant: KeyGrant,
    health: HealthView,
    *,
    draw: float,
) -> Decision:
    """Decide one request. Raises RoutingError; an empty `candidates` says why in `dropped`."""
    needs = needs_of(
        features,
        grant,
        endpoint=ask.endpoint,
        provider_only=ask.provider_only,
        provider_ignore=ask.provider_ignore,
        max_input_price=ask.max_input_price,
        max_output_price=ask.max_output_price,
        retention_limit=ask.retention_limit,
    )
    if ask.is_pinned:
        return _decide_pinned(ask, snapshot, grant, needs, health, draw)
    collected = Collected(needs, health, snapshot)
    trace: list[RuleTrace] = []
    policy: PolicySnapshot | None = None
    rule: RuleSnapshot | None = None
    is_resolved = is_canary = False
    for name in _names_of(ask):
        preset = ""
        found_policy = find_policy(name, snapshot, grant)
        if found_policy is None:
            deployments = find_deployments(name, snapshot, grant)
            if deployments is not None:
                collected.add_group(ask.provider_sort or "priority", deployments)
                is_resolved, collected.is_first_name = True, False
                continue
            named = find_preset(name, snapshot, grant)
            if named is None:
                collected.dropped.append(Dropped(name, "model_not_found"))
                continue
            found_policy, preset = named
        takes_canary = found_policy.canary is not None and _is_canary(found_policy, features, draw)
        if takes_canary and found_policy.canary is not None:
            found_policy = found_policy.canary
        matched = match_rule(found_policy, features, trace)
        if not is_resolved:
            policy, rule, is_canary = found_policy, matched, takes_canary
        if matched is not None:
            collected.add_rule(matched, ask, preset)
        is_resolved, collected.is_first_name = True, False
    if not is_resolved:
        raise _not_found(ask, snapshot, grant)
    candidates, scores = collected.candidates(ask, features, draw)
    pin = None
    if candidates and policy is not None and features.conversation and _is_sticky(policy, rule):
        pin, candidates, scores = _stay(ask, features, candidates, scores, collected.dropped, rule)
    if not ask.allow_fallbacks:
        collected.dropped.extend(Dropped(deployment.name, "no_fallbacks") for deployment in candidates[1:])
        candidates = candidates[:1]
    dropped = tuple(collected.dropped)
    has_auto = collected.slider is not None
    return Decision(
        "fixed" if policy is None else "routed",
        ask.requested_model,
        policy,
        rule,
        candidates,
        dropped,
        tuple(trace),
        draw,
        not candidates and _is_never_possible(dropped),
        None if rule is None else rule.max_attempts,
        scores,
        snapshot.revision,
        snapshot.router.version if has_auto else None,
        collected.slider,
        pin,
        is_canary,
        tuple(collected.further_latencies),
        ask.provider_sort if policy is None else "",
    )


def _is_canary(policy: PolicySnapshot, features: Features, draw: float) -> bool:
    """Say whether this conversation is the canary's; without one, the draw decides."""
    if features.conversation:
        # Other digits than those a table of conversations is likely to be sorted by.
        place = int(features.conversation[-8:], 16) / 0x1_0000_0000
    else:
        place = draw * 997 % 1
    return place * 100 < policy.canary_percent


def _is_sticky(policy: PolicySnapshot, rule: RuleSnapshot | None) -> bool:
    return policy.session_stickiness or (rule is not None and rule.strategy == "auto")


def _stay(
    ask: Ask,
    features: Features,
    candidates: tuple[DeploymentSnapshot, ...],
    scores: tuple[tuple[Any, ...], ...],
    dropped: Sequence[Dropped],
    rule: RuleSnapshot | None,
) -> tuple[Pin, tuple[DeploymentSnapshot, ...], tuple[tuple[Any, ...], ...]]:
    """Put the conversation's deployment first where it keeps it."""
    name = ask.conversation_deployment
    is_auto = rule is not None and rule.strategy == "auto"
    costs, reason = [], ""
    if name and name != candidates[0].name:  # mostly it is the best one too, and nothing has to be weighed
        if is_auto and not ask.provider_order:
            costs = [Cost(score[3], score[5]) for score in scores]
        reason = next((found.reason for found in dropped if found.deployment == name), "")
    pin, place = judge_pin(name, candidates, costs, features, drop_reason=reason)
    if place:
        candidates = (candidates[place], *candidates[:place], *candidates[place + 1 :])
    return pin, candidates, scores


def _decide_pinned(
    ask: Ask,
    snapshot: RoutingSnapshot,
    grant: KeyGrant,
    needs: Needs,
    health: HealthView,
    draw: float,
) -> Decision:
    name, *others = _names_of(ask) or [""]
    if find_policy(name, snapshot, grant) is not None:
        raise PinNeedsDeployment(
            f"A pinned request names one deployment or model; '{name}' is a routing policy."
        )
    deployments = find_deployments(name, snapshot, grant)
    if deployments is None:
        raise _not_found(ask, snapshot, grant)
    if len(deployments) > 1:
        listed = ", ".join(deployment.name for deployment in deployments)
        raise PinNeedsDeployment(
            f"The model '{name}' has several deployments; a pinned request names one of them: {listed}."
        )
    deployment = deployments[0]
    problem = find_problem(deployment, needs)
    if problem is None:
        of_health = health.problem(deployment)
        problem = of_health if of_health in HARD_HEALTH_REASONS else None
    dropped = tuple(Dropped(other, "pinned") for other in others)
    if problem is not None:
        dropped = (Dropped(deployment.name, problem), *dropped)
    return Decision(
        path="pinned",
        requested_model=ask.requested_model,
        policy=None,
        rule=None,
        candidates=(deployment,) if problem is None else (),
        dropped=dropped,
        trace=(),
        draw=draw,
        is_never_possible=problem is not None and problem not in TEMPORARY_REASONS,
        revision=snapshot.revision,
    )


def _names_of(ask: Ask) -> Sequence[str]:
    if not ask.models:
        return (ask.requested_model,)
    return [name for name in dict.fromkeys((ask.requested_model, *ask.models)) if name]


def _is_never_possible(dropped: tuple[Dropped, ...]) -> bool:
    return not any(reason in TEMPORARY_REASONS for _, reason in dropped)


def _not_found(ask: Ask, snapshot: RoutingSnapshot, grant: KeyGrant) -> ModelNotFound:
    name = ask.requested_model or (ask.models[0] if ask.models else "")
    return ModelNotFound(not_found_text(name, snapshot, grant))
