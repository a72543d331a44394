"""Which requests did several models answer, how well and at what cost, and what do tables foresee of them?

Pure. For evidence, whose texts are gone: a request is its workload, its type and, where its text is kept, a difficulty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from policies.autorouter.difficulty import UNKNOWN
from policies.autorouter.estimating import TYPICAL_OUTPUT_TOKENS
from policies.autorouter.foreseeing import Choices, Floats, Foreseen, foresee
from policies.autorouter.learning import Evidence
from policies.autorouter.ranking import TOKENS_PER_MTOK, TYPICAL_REQUEST, prepare
from policies.autorouter.tables import RouterTables
from policies.features import Features
from policies.snapshot import DeploymentSnapshot

NANO = 1_000_000_000


class Judged(NamedTuple):
    """One judgement; `fold` says which of the tables learnt by folds have not seen it."""

    evidence: Evidence
    fold: int


class Answered(NamedTuple):
    """Requests that the same models answered. `scores` in 0..1 and `costs` in USD: requests by candidates."""

    deployments: tuple[DeploymentSnapshot, ...]
    requests: Sequence[Judged]
    scores: Floats
    costs: Floats


def group_answers(judged: Iterable[Judged], deployments: Mapping[str, DeploymentSnapshot]) -> list[Answered]:
    """Return the requests that a checker judged several models' answers to, by the set of these models.

    `deployments`: what would serve each model; the others are left out, and so are those without a price. What only
    two models' agreement says is left out too: it rests on the tables in force, which are what is to be judged.
    """
    by_request: dict[tuple[str, str], dict[str, Judged]] = {}
    for one in judged:
        found = deployments.get(one.evidence.model)
        is_priced = found is not None and found.output_nanousd_per_mtok is not None
        if one.evidence.source == "evaluation" and one.evidence.pair_id and is_priced:
            key = (one.evidence.workload, one.evidence.pair_id)
            by_request.setdefault(key, {})[one.evidence.model] = one
    by_models: dict[tuple[str, ...], list[dict[str, Judged]]] = {}
    for answers in by_request.values():
        if len(answers) > 1:
            by_models.setdefault(tuple(sorted(answers)), []).append(answers)
    return [
        Answered(
            deployments=tuple(deployments[model] for model in models),
            requests=[next(iter(answers.values())) for answers in requests],
            scores=np.array([[answers[model].evidence.quality for model in models] for answers in requests]),
            costs=np.array(
                [[_cost_usd(answers[m].evidence, deployments[m]) for m in models] for answers in requests]
            ),
        )
        for models, requests in sorted(by_models.items())
    ]


def _cost_usd(answer: Evidence, deployment: DeploymentSnapshot) -> float:
    """What the answer would cost: evidence tells its length, of the request a usual length is assumed."""
    tokens = TYPICAL_OUTPUT_TOKENS if answer.output_tokens is None else answer.output_tokens
    nanousd = TYPICAL_REQUEST.input_tokens * (deployment.input_nanousd_per_mtok or 0)
    return (nanousd + tokens * (deployment.output_nanousd_per_mtok or 0)) / TOKENS_PER_MTOK / NANO


class Routed(NamedTuple):
    """What tables foresee of a group's requests, and what they would choose where the slider stands at its default."""

    foreseen: Foreseen
    by_default: Choices


def route_answered(
    group: Answered, tables_by_fold: Sequence[RouterTables], difficulties: Mapping[str, float]
) -> Routed:
    """Route each request by the tables of its fold. `difficulties`: by pair id, as those tables would tell them."""
    places_by_fold = [
        [at for at, request in enumerate(group.requests) if request.fold == fold]
        for fold in range(len(tables_by_fold))
    ]
    shape = group.scores.shape
    foreseen = Foreseen(np.empty(shape), np.empty(shape), np.empty(shape))
    taus = np.empty((len(group.requests), 1))
    for tables, places in zip(tables_by_fold, places_by_fold, strict=True):
        features = [_features(group.requests[at].evidence, difficulties) for at in places]
        for whole, part in zip(foreseen, foresee(group.deployments, features, tables), strict=True):
            whole[places] = part
        for at, facts in zip(places, features, strict=True):
            taus[at] = prepare(group.deployments, facts.workload, facts.task_type, tables).default_tau
    return Routed(foreseen, foreseen.choose(taus))


def _features(one: Evidence, difficulties: Mapping[str, float]) -> Features:
    return TYPICAL_REQUEST._replace(
        workload=one.workload, task_type=one.task_type, difficulty=difficulties.get(one.pair_id, UNKNOWN)
    )
