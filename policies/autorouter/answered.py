"""Which requests did several models answer, how well and at what cost, and what do tables foresee of them?

Pure. For evidence, whose texts are gone: a request is its workload, its type and, where its text is kept, a difficulty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

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
NO_MEANS: Final[Mapping[str, float]] = {}


class Judged(NamedTuple):
    """One judgement; `fold` says which of the tables learnt by folds have not seen it.

    `input_tokens`: how long the request was by its record, as the model that answered counts; None: no record says.
    """

    evidence: Evidence
    fold: int
    input_tokens: float | None = None


class SizeSource(StrEnum):
    """Where the length of a request comes from."""

    RECORD = "record"
    WORKLOAD = "workload"
    ASSUMED = "assumed"


class Answered(NamedTuple):
    """Requests that the same models answered. `scores` in 0..1, `costs` in USD and `input_tokens`: requests by
    candidates. `size_sources`: by request."""

    deployments: tuple[DeploymentSnapshot, ...]
    requests: Sequence[Judged]
    scores: Floats
    costs: Floats
    input_tokens: Floats
    size_sources: Sequence[SizeSource]


def group_answers(
    judged: Iterable[Judged],
    deployments: Mapping[str, DeploymentSnapshot],
    mean_input_tokens: Mapping[str, float] = NO_MEANS,
) -> list[Answered]:
    """Return the requests that a checker judged several models' answers to, by the set of these models.

    `deployments`: what would serve each model; the others are left out, and so are those without a price. What only
    two models' agreement says is left out too: it rests on the tables in force, which are what is to be judged.
    `mean_input_tokens`: of each workload, for requests of which no record says how long they were.
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
        _build_group(models, requests, deployments, mean_input_tokens)
        for models, requests in sorted(by_models.items())
    ]


def _build_group(
    models: tuple[str, ...],
    requests: Sequence[Mapping[str, Judged]],
    deployments: Mapping[str, DeploymentSnapshot],
    mean_input_tokens: Mapping[str, float],
) -> Answered:
    sizes = [_sizes_of(answers, models, mean_input_tokens) for answers in requests]
    return Answered(
        deployments=tuple(deployments[model] for model in models),
        requests=[next(iter(answers.values())) for answers in requests],
        scores=np.array([[answers[model].evidence.quality for model in models] for answers in requests]),
        costs=np.array(
            [
                [
                    _cost_usd(answers[model].evidence, tokens, deployments[model])
                    for model, tokens in zip(models, row, strict=True)
                ]
                for answers, (row, _) in zip(requests, sizes, strict=True)
            ]
        ),
        input_tokens=np.array([row for row, _ in sizes]),
        size_sources=[source for _, source in sizes],
    )


def _sizes_of(
    answers: Mapping[str, Judged], models: Sequence[str], mean_input_tokens: Mapping[str, float]
) -> tuple[list[float], SizeSource]:
    """How long a request is for each model, and how that is known. Models count the same text a little differently."""
    known = [one.input_tokens for one in answers.values() if one.input_tokens is not None]
    if known:
        usual, source = sum(known) / len(known), SizeSource.RECORD
    else:
        workload = answers[models[0]].evidence.workload
        source = SizeSource.WORKLOAD if workload in mean_input_tokens else SizeSource.ASSUMED
        usual = mean_input_tokens.get(workload, float(TYPICAL_REQUEST.input_tokens))
    by_model = (answers[model].input_tokens for model in models)
    return [usual if tokens is None else float(tokens) for tokens in by_model], source


def _cost_usd(answer: Evidence, input_tokens: float, deployment: DeploymentSnapshot) -> float:
    """What the answer would cost; where evidence does not tell its length, a usual one is assumed."""
    tokens = TYPICAL_OUTPUT_TOKENS if answer.output_tokens is None else answer.output_tokens
    nanousd = input_tokens * (deployment.input_nanousd_per_mtok or 0)
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
        features = [
            _features(group.requests[at].evidence, round(group.input_tokens[at].mean()), difficulties)
            for at in places
        ]
        for whole, part in zip(foreseen, foresee(group.deployments, features, tables), strict=True):
            whole[places] = part
        for at, facts in zip(places, features, strict=True):
            taus[at] = prepare(group.deployments, facts.workload, facts.task_type, tables).default_tau
    return Routed(foreseen, foreseen.choose(taus))


def _features(one: Evidence, input_tokens: int, difficulties: Mapping[str, float]) -> Features:
    return TYPICAL_REQUEST._replace(
        input_tokens=input_tokens,
        workload=one.workload,
        task_type=one.task_type,
        difficulty=difficulties.get(one.pair_id, UNKNOWN),
    )
