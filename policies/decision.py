"""Which deployments are tried for a request, in which order, and why?

Pure. The same arguments give the same decision for ever: `draw` in [0, 1) is the only randomness, and the health view
is asked for each deployment at most once or twice within one call.

Names resolve in this order: the public id of a policy that the tenant may use (path `routed`), a model (path `fixed`,
its deployments by name), a deployment (path `fixed`, that one). A pinned request gets exactly one deployment: health
does not take it away, unless the provider refused our credential or its own limits leave it no room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

from policies.autorouter.ranking import rank
from policies.conditions import RUN_TIME_ERRORS, first_line, prepare
from policies.features import Features
from policies.filters import (
    HARD_HEALTH_REASONS,
    TEMPORARY_REASONS,
    Needs,
    find_problem,
    find_unwanted,
    needs_of,
)
from policies.naming import (
    FAST_TARGET_MS,
    PRESETS,
    find_deployments,
    find_policy,
    find_preset,
    not_found_text,
)
from policies.snapshot import (
    DeploymentSnapshot,
    KeyGrant,
    PolicySnapshot,
    RoutingSnapshot,
    RuleSnapshot,
    Strategy,
)
from policies.stickiness import Cost, Pin, judge_pin
from policies.strategies import put_in_order, tenth

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
        """Return ejected, cooling, credential_rejected, rate_room, or None when it may be called."""
        ...

    def latency_ms(self, deployment_id: int, /) -> float | None:
        """Running mean of the time to the first token; None: not measured."""
        ...


ProviderSort = Literal["", "least_cost", "least_latency"]


# Named tuples where data classes would do: they are made for every request, and a frozen data class of this size takes
# 2 µs to make, a tuple 0.4.
class Ask(NamedTuple):
    """What a request says about routing. `models` are further names, tried in order after the first.

    `provider_*` name providers, in any case; `provider_order` puts candidates of these providers first. `max_*_price`
    leave out what costs more, USD per million tokens. `slider`, `allowed_models` and `excluded_models` (names, with
    `*`) are for automatic rules. `conversation_deployment` is the one that served this conversation last.
    `retention_limit` is one of `policies.retention`. `provider_sort` is the strategy, if any, by which the caller wants
    the deployments of a model that it names itself; a policy's rules say how theirs are ordered.
    """

    requested_model: str
    models: tuple[str, ...] = ()
    is_pinned: bool = False
    endpoint: str = "chat"
    provider_order: tuple[str, ...] = ()
    provider_only: tuple[str, ...] = ()
    provider_ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    max_input_price: float | None = None
    max_output_price: float | None = None
    slider: float | None = None
    allowed_models: tuple[str, ...] = ()
    excluded_models: tuple[str, ...] = ()
    conversation_deployment: str = ""
    retention_limit: str = ""
    provider_sort: ProviderSort = ""


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
    slider: float | None = None
    pin: Pin | None = None
    is_canary: bool = False
    further_latencies: tuple[tuple[str, float | None], ...] = ()
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
    collected = _Collected(needs, health, snapshot)
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
                is_resolved = True
                continue
            named = find_preset(name, snapshot, grant)
            if named is None:
                collected.dropped.append(Dropped(name, "model_not_found"))
                continue
            found_policy, preset = named
        takes_canary = found_policy.canary is not None and _is_canary(found_policy, features, draw)
        if takes_canary and found_policy.canary is not None:
            found_policy = found_policy.canary
        matched = _match(found_policy, features, trace)
        if not is_resolved:
            policy, rule, is_canary = found_policy, matched, takes_canary
        if matched is not None:
            collected.add_rule(matched, ask, preset)
        is_resolved = True
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


class _Collected:
    """Deployments that survived the hard filters, group by group, each once."""

    __slots__ = (
        "_health",
        "_healthy_groups",
        "_needs",
        "_preset",
        "_router",
        "_rule",
        "_seen",
        "_unfit",
        "_unfit_groups",
        "dropped",
        "further_latencies",
        "slider",
    )

    def __init__(self, needs: Needs, health: HealthView, snapshot: RoutingSnapshot) -> None:
        self.dropped: list[Dropped] = []
        self.further_latencies: list[tuple[str, float | None]] = []
        # Where an automatic rule stands on its slider, for the first such rule.
        self.slider: float | None = None
        self._needs = needs
        self._health = health
        self._router = snapshot.router
        self._rule: RuleSnapshot | None = None
        self._preset = ""
        self._seen: set[int] = set()
        # (strategy, deployments, weights): what is fit to be called, and the same with what health speaks against.
        self._healthy_groups: list[_Group] = []
        self._unfit_groups: list[_Group] = []
        self._unfit: list[Dropped] = []

    def add_rule(self, rule: RuleSnapshot, ask: Ask, preset: str) -> None:
        if rule.missing:
            self.dropped.extend(Dropped(name, "disabled") for name in rule.missing)
        deployments = [choice.deployment for choice in rule.choices]
        if rule.strategy == "auto":
            if self._rule is None and rule.auto is not None:
                self._rule, self._preset = rule, preset
                asked = ask.slider if ask.slider is not None else PRESETS.get(preset)
                self.slider = rule.auto.slider if asked is None else asked
            if ask.allowed_models or ask.excluded_models:
                deployments = self._without_unwanted(deployments, ask)
            self.add_group("auto", deployments)
        else:
            self.add_group(rule.strategy, deployments, [choice.weight for choice in rule.choices])
        if rule.fallbacks:
            self.add_group("priority", rule.fallbacks)

    def _without_unwanted(self, deployments: list[DeploymentSnapshot], ask: Ask) -> list[DeploymentSnapshot]:
        wanted = []
        for deployment in deployments:
            reason = find_unwanted(deployment, ask.allowed_models, ask.excluded_models)
            if reason is None:
                wanted.append(deployment)
            else:
                self._seen.add(deployment.id)
                self.dropped.append(Dropped(deployment.name, reason))
        return wanted

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
            problem = find_problem(deployment, needs)
            if problem is None:
                problem = health.problem(deployment)
                if problem is None:
                    healthy.append(deployment)
                    if weights:
                        healthy_weights.append(weights[index])
                    continue
                if problem not in HARD_HEALTH_REASONS:
                    unfit.append(deployment)
                    if weights:
                        unfit_weights.append(weights[index])
                    self._unfit.append(Dropped(deployment.name, problem))
                    continue
            self.dropped.append(Dropped(deployment.name, problem))
        if healthy:
            self._healthy_groups.append((strategy, healthy, healthy_weights))
        if unfit:
            self._unfit_groups.append((strategy, unfit, unfit_weights))

    def candidates(
        self, ask: Ask, features: Features, draw: float
    ) -> tuple[tuple[DeploymentSnapshot, ...], tuple[tuple[Any, ...], ...]]:
        """Order what is fit to be called. When nothing is, what is ejected or cooling is better than nothing."""
        groups = self._healthy_groups
        if groups:
            self.dropped.extend(self._unfit)
        else:
            groups = self._unfit_groups
        ordered: list[DeploymentSnapshot] = []
        scores: tuple[tuple[Any, ...], ...] = ()
        for strategy, deployments, weights in groups:
            found: Sequence[DeploymentSnapshot]
            if strategy == "auto":
                found, group_scores = self._ranked(deployments, features)
            else:
                found, values = put_in_order(
                    strategy, deployments, weights, features=features, health=self._health, draw=draw
                )
                group_scores = (
                    tuple((d.name, value) for d, value in zip(found, values, strict=True)) if values else ()
                )
            if not scores:
                scores = group_scores
            elif strategy in ("auto", "least_latency"):
                self.further_latencies += [
                    (score[0], score[4 if len(score) > 2 else 1]) for score in group_scores
                ]
            ordered.extend(_prefer(found, ask.provider_order) if ask.provider_order else found)
        return tuple(ordered), scores

    def _ranked(
        self, deployments: list[DeploymentSnapshot], features: Features
    ) -> tuple[list[DeploymentSnapshot], tuple[tuple[Any, ...], ...]]:
        """The automatic router's order, with (name, quality, error, nano-USD, ms, score) for each."""
        settings = self._rule.auto if self._rule is not None else None
        if self._preset == "fast" and not features.max_latency_ms:
            features = features._replace(max_latency_ms=FAST_TARGET_MS)
        latency_ms = self._health.latency_ms
        ranked = rank(
            deployments,
            features,
            tables=self._router,
            slider=self.slider or 0.0,
            quality_floor=None if settings is None else settings.quality_floor,
            # As exact as the record keeps them, so that the record gives the same order again.
            latency_ms=lambda deployment_id: tenth(latency_ms(deployment_id)),
        )
        found = [deployments[index] for index in ranked.order]
        return found, tuple(
            [
                (deployment.name, quality, error, cost_nanousd, latency, score)
                for deployment, (quality, error, _, cost_nanousd, latency, score) in zip(
                    found, ranked.scores, strict=True
                )
            ]
        )


_Group = tuple[Strategy, list[DeploymentSnapshot], list[float]]


def _names_of(ask: Ask) -> Sequence[str]:
    if not ask.models:
        return (ask.requested_model,)
    return [name for name in dict.fromkeys((ask.requested_model, *ask.models)) if name]


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


def _not_found(ask: Ask, snapshot: RoutingSnapshot, grant: KeyGrant) -> ModelNotFound:
    name = ask.requested_model or (ask.models[0] if ask.models else "")
    return ModelNotFound(not_found_text(name, snapshot, grant))
