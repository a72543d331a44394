"""Which deployments are tried for a request, in which order, and why?

Pure. The same arguments give the same decision for ever: `draw` in [0, 1) is the only randomness, and the health view
is asked for each deployment at most once or twice within one call.

Names resolve in this order: the public id of a policy that the tenant may use (path `routed`), a model (path `fixed`,
its deployments by name), a deployment (path `fixed`, that one). A pinned request gets exactly one deployment: health
does not take it away, unless the provider refused our credential.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

from policies.conditions import RUN_TIME_ERRORS, first_line, prepare
from policies.features import Features
from policies.filters import TEMPORARY_REASONS, Needs, find_problem, needs_of
from policies.snapshot import (
    DeploymentSnapshot,
    KeyGrant,
    PolicySnapshot,
    RoutingSnapshot,
    RuleSnapshot,
    Strategy,
)
from policies.strategies import put_in_order

Path = Literal["fixed", "routed", "pinned"]
RuleOutcome = Literal["matched", "skipped", "failed", "disabled"]


class RoutingError(Exception):
    """A request that cannot be routed. RoutingError ── ModelNotFound (404), PinNeedsDeployment (400)."""

    status = 400
    code = "routing_error"
    param: str | None = "model"


class ModelNotFound(RoutingError):
    """No such name, or not for this key: the two look the same, so that names do not leak."""

    status = 404
    code = "model_not_found"


class PinNeedsDeployment(RoutingError):
    """A pinned request named a policy, or a model with several deployments."""

    code = "pin_needs_deployment"


class HealthView(Protocol):
    """How deployments fare, as one worker sees it."""

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        """Return ejected, cooling, credential_rejected, or None when it may be called."""
        ...

    def latency_ms(self, deployment_id: int, /) -> float | None:
        """Running mean of the time to the first token; None: not measured."""
        ...


# Named tuples where data classes would do: they are made for every request, and a frozen data class of this size takes
# 2 µs to make, a tuple 0.4.
class Ask(NamedTuple):
    """What a request says about routing. `models` are further names, tried in order after the first.

    `provider_*` name providers, in any case; `provider_order` puts candidates of these providers first.
    """

    requested_model: str
    models: tuple[str, ...] = ()
    is_pinned: bool = False
    endpoint: str = "chat"
    provider_order: tuple[str, ...] = ()
    provider_only: tuple[str, ...] = ()
    provider_ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True


class Dropped(NamedTuple):
    """A deployment (or a further name) that is not tried. Reason codes: `policies.filters`."""

    deployment: str
    reason: str


class RuleTrace(NamedTuple):
    """What became of one rule. Rules after the matching one were not looked at and have no trace."""

    rule: str
    outcome: RuleOutcome
    detail: str = ""


class Decision(NamedTuple):
    """Ordered candidates and how they came about.

    `policy` and `rule` are those of the first name that resolved. Without candidates, `is_never_possible` says that
    waiting would not help. `scores` run beside the first rule's candidates: (deployment name, nano-USD or ms).
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
    scores: tuple[tuple[str, float | None], ...] = ()


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
    )
    if ask.is_pinned:
        return _decide_pinned(ask, snapshot, grant, needs, health, draw)
    collected = _Collected(needs, health)
    trace: list[RuleTrace] = []
    policy: PolicySnapshot | None = None
    rule: RuleSnapshot | None = None
    is_resolved = False
    for name in _names_of(ask):
        found_policy = _find_policy(name, snapshot, grant)
        if found_policy is not None:
            matched = _match(found_policy, features, trace)
            if not is_resolved:
                policy, rule = found_policy, matched
            if matched is not None:
                collected.add_rule(matched)
        else:
            deployments = _find_deployments(name, snapshot, grant)
            if deployments is None:
                collected.dropped.append(Dropped(name, "model_not_found"))
                continue
            collected.add_group("priority", deployments)
        is_resolved = True
    if not is_resolved:
        raise _not_found(ask)
    candidates, scores = collected.candidates(ask, features, draw)
    dropped = tuple(collected.dropped)
    return Decision(
        path="fixed" if policy is None else "routed",
        requested_model=ask.requested_model,
        policy=policy,
        rule=rule,
        candidates=candidates,
        dropped=dropped,
        trace=tuple(trace),
        draw=draw,
        is_never_possible=not candidates and _is_never_possible(dropped),
        max_attempts=None if rule is None else rule.max_attempts,
        scores=scores,
    )


def _decide_pinned(
    ask: Ask,
    snapshot: RoutingSnapshot,
    grant: KeyGrant,
    needs: Needs,
    health: HealthView,
    draw: float,
) -> Decision:
    name, *others = _names_of(ask) or [""]
    if _find_policy(name, snapshot, grant) is not None:
        raise PinNeedsDeployment(
            f"A pinned request names one deployment or model; '{name}' is a routing policy."
        )
    deployments = _find_deployments(name, snapshot, grant)
    if deployments is None:
        raise _not_found(ask)
    if len(deployments) > 1:
        listed = ", ".join(deployment.name for deployment in deployments)
        raise PinNeedsDeployment(
            f"The model '{name}' has several deployments; a pinned request names one of them: {listed}."
        )
    deployment = deployments[0]
    problem = find_problem(deployment, needs)
    if problem is None and health.problem(deployment) == "credential_rejected":
        problem = "credential_rejected"
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
    )


class _Collected:
    """Deployments that survived the hard filters, group by group, each once."""

    __slots__ = ("_health", "_healthy_groups", "_needs", "_seen", "_unfit", "_unfit_groups", "dropped")

    def __init__(self, needs: Needs, health: HealthView) -> None:
        self.dropped: list[Dropped] = []
        self._needs = needs
        self._health = health
        self._seen: set[int] = set()
        # (strategy, deployments, weights): what is fit to be called, and the same with what health speaks against.
        self._healthy_groups: list[_Group] = []
        self._unfit_groups: list[_Group] = []
        self._unfit: list[Dropped] = []

    def add_rule(self, rule: RuleSnapshot) -> None:
        self.dropped.extend(Dropped(name, "disabled") for name in rule.missing)
        self.add_group(
            rule.strategy,
            [choice.deployment for choice in rule.choices],
            [choice.weight for choice in rule.choices],
        )
        if rule.fallbacks:
            self.add_group("priority", rule.fallbacks)

    def add_group(
        self, strategy: Strategy, deployments: Sequence[DeploymentSnapshot], weights: Sequence[float] = ()
    ) -> None:
        healthy: list[DeploymentSnapshot] = []
        healthy_weights: list[float] = []
        unfit: list[DeploymentSnapshot] = []
        unfit_weights: list[float] = []
        needs, health, seen = self._needs, self._health, self._seen
        for index, deployment in enumerate(deployments):
            if deployment.id in seen:
                continue
            seen.add(deployment.id)
            weight = weights[index] if weights else 1.0
            problem = find_problem(deployment, needs)
            if problem is None:
                problem = health.problem(deployment)
                if problem is None:
                    healthy.append(deployment)
                    healthy_weights.append(weight)
                    continue
                if problem != "credential_rejected":
                    unfit.append(deployment)
                    unfit_weights.append(weight)
                    self._unfit.append(Dropped(deployment.name, problem))
                    continue
            self.dropped.append(Dropped(deployment.name, problem))
        if healthy:
            self._healthy_groups.append((strategy, healthy, healthy_weights))
        if unfit:
            self._unfit_groups.append((strategy, unfit, unfit_weights))

    def candidates(
        self, ask: Ask, features: Features, draw: float
    ) -> tuple[tuple[DeploymentSnapshot, ...], tuple[tuple[str, float | None], ...]]:
        """Order what is fit to be called. When nothing is, what is ejected or cooling is better than nothing."""
        groups = self._healthy_groups
        if groups:
            self.dropped.extend(self._unfit)
        else:
            groups = self._unfit_groups
        ordered: list[DeploymentSnapshot] = []
        scores: tuple[tuple[str, float | None], ...] = ()
        for strategy, deployments, weights in groups:
            found, values = put_in_order(
                strategy, deployments, weights, features=features, health=self._health, draw=draw
            )
            if values and not scores:
                scores = tuple((d.name, value) for d, value in zip(found, values, strict=True))
            ordered.extend(_prefer(found, ask.provider_order) if ask.provider_order else found)
        if not ask.allow_fallbacks:
            self.dropped.extend(Dropped(deployment.name, "no_fallbacks") for deployment in ordered[1:])
            del ordered[1:]
        return tuple(ordered), scores


_Group = tuple[Strategy, list[DeploymentSnapshot], list[float]]


def _names_of(ask: Ask) -> Sequence[str]:
    if not ask.models:
        return (ask.requested_model,)
    return [name for name in dict.fromkeys((ask.requested_model, *ask.models)) if name]


def _find_policy(name: str, snapshot: RoutingSnapshot, grant: KeyGrant) -> PolicySnapshot | None:
    policy = snapshot.policies.get(name)
    if policy is None or name not in grant.tenant.policy_ids:
        return None
    return policy if not grant.allowed_models or name in grant.allowed_models else None


def _find_deployments(
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


def _match(policy: PolicySnapshot, features: Features, trace: list[RuleTrace]) -> RuleSnapshot | None:
    """The first rule whose condition holds. A condition that fails at run time does not hold."""
    context = None
    for rule, condition, skipped, matched in _steps(policy):
        if not rule.is_enabled:
            trace.append(RuleTrace(rule.name, "disabled"))
            continue
        if condition is not None:
            if context is None:
                context = prepare(features, policy.feature_names)
            try:
                outcome = condition(context)
            except KeyError as missing:
                trace.append(RuleTrace(rule.name, "skipped", f"no tag {missing.args[0]}"[:100]))
                continue
            except RUN_TIME_ERRORS as error:
                trace.append(RuleTrace(rule.name, "failed", first_line(error)))
                continue
            if outcome is False:
                trace.append(skipped)
                continue
            if outcome is not True:
                trace.append(RuleTrace(rule.name, "failed", "neither true nor false"))
                continue
        trace.append(matched)
        return rule
    return None


_Step = tuple[RuleSnapshot, Callable[[Any], Any] | None, RuleTrace, RuleTrace]


@lru_cache(maxsize=1024)
def _steps(policy: PolicySnapshot) -> tuple[_Step, ...]:
    """A policy's rules with the traces they leave, made once: ten rules are passed in every request."""
    return tuple(
        (rule, rule.condition, RuleTrace(rule.name, "skipped"), RuleTrace(rule.name, "matched"))
        for rule in policy.rules
    )


def _prefer(deployments: Sequence[DeploymentSnapshot], order: tuple[str, ...]) -> list[DeploymentSnapshot]:
    """Those of the preferred providers first, in the caller's order; the others keep theirs."""
    rank = {name.lower(): index for index, name in reversed(list(enumerate(order)))}
    return sorted(deployments, key=lambda d: rank.get(d.provider.name.lower(), len(order)))


def _is_never_possible(dropped: tuple[Dropped, ...]) -> bool:
    return not any(reason in TEMPORARY_REASONS for _, reason in dropped)


def _not_found(ask: Ask) -> ModelNotFound:
    name = ask.requested_model or (ask.models[0] if ask.models else "")
    return ModelNotFound(f"The model '{name}' does not exist or you do not have access to it.")
