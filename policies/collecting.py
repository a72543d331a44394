"""Which deployments can serve a request, group by group, and in which order are they tried?

Pure. A group is what a rule, its fallbacks or a name brings; each deployment counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policies.asks import Ask, Dropped, HealthView
from policies.autorouter.ranking import rank
from policies.features import Features
from policies.filters import HARD_HEALTH_REASONS, Needs, find_problem, find_unwanted
from policies.naming import FAST_TARGET_MS, PRESETS
from policies.snapshot import DeploymentSnapshot, RoutingSnapshot, RuleSnapshot, Strategy
from policies.strategies import put_in_order, tenth

# (strategy, deployments, weights, whether it belongs to the first name that resolved)
_Group = tuple[Strategy, list[DeploymentSnapshot], list[float], bool]


class Collected:
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
        "is_first_name",
        "slider",
    )

    def __init__(self, needs: Needs, health: HealthView, snapshot: RoutingSnapshot) -> None:
        self.dropped: list[Dropped] = []
        self.further_latencies: list[tuple[str, float | int | None]] = []
        # Where an automatic rule stands on its slider, for the first such rule.
        self.slider: float | int | None = None
        # Whether what is added belongs to the first name that resolved: the rule that the decision names.
        self.is_first_name = True
        self._needs = needs
        self._health = health
        self._router = snapshot.router
        self._rule: RuleSnapshot | None = None
        self._preset = ""
        self._seen: set[int] = set()
        # What is fit to be called, and the same with what health speaks against.
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
            self._healthy_groups.append((strategy, healthy, healthy_weights, self.is_first_name))
        if unfit:
            self._unfit_groups.append((strategy, unfit, unfit_weights, self.is_first_name))

    def candidates(
        self, ask: Ask, features: Features, draw: float
    ) -> tuple[tuple[DeploymentSnapshot, ...], tuple[tuple[Any, ...], ...]]:
        """Order what is fit to be called. When nothing is, what is ejected or cooling is better than nothing.

        Scores are those of the rule that the decision names; another strategy's numbers would be read as its own.
        """
        groups = self._healthy_groups
        if groups:
            self.dropped.extend(self._unfit)
        else:
            groups = self._unfit_groups
        ordered: list[DeploymentSnapshot] = []
        scores: tuple[tuple[Any, ...], ...] = ()
        for strategy, deployments, weights, is_first_name in groups:
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
            if is_first_name and not scores:
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


def _prefer(deployments: Sequence[DeploymentSnapshot], order: tuple[str, ...]) -> list[DeploymentSnapshot]:
    """Those of the preferred providers first, in the caller's order; the others keep theirs."""
    rank = {name.lower(): index for index, name in reversed(list(enumerate(order)))}
    return sorted(deployments, key=lambda d: rank.get(d.provider.name.lower(), len(order)))
