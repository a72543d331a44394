"""How far may the default slider go? As far as it would have lost little on requests that were not learnt from.

Pure. Tables promise more than they keep, the more candidates they choose from the more so; by how much, only requests
tell that they have not seen. So the training requests are split into folds, each is routed by tables that were learnt
without it, and the largest tau is looked for at which the loss against the best single model, and a standard error of
it, stay within MOST_LOSS. The tables keep that tau, and what they themselves foresee to lose there, so that `ranking`
can find the like for any set of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from policies.autorouter.difficulty import UNKNOWN
from policies.autorouter.difficulty_learning import FOLDS, fold_of
from policies.autorouter.foreseeing import Floats, Foreseen, foresee
from policies.autorouter.learning import Evidence, learn
from policies.autorouter.offline_rows import Matrix, Row, list_evidence
from policies.autorouter.ranking import PROVEN_TAUS, foresee_losses
from policies.autorouter.tables import ProvenDefault, RouterTables
from policies.features import Features
from policies.snapshot import DeploymentSnapshot

# What the default may lose of the best single model's quality on the training requests, a standard error of it
# included. Tried on the training rows of five public data sets alone, eight times cut in two: the other part lost more
# than 1.5 % in 3 of 40; in 6 where .015 is allowed here, in 7 where half the error is counted. At .01 it was 2, with
# about a tenth less saved (tests/policies/autorouter/test_cross_validation.py, nightly).
MOST_LOSS: Final = 0.0125
# Of fewer requests nothing is said.
MIN_REQUESTS: Final = 200


class Held(NamedTuple):
    """Requests that the same candidates answered, as tables foresaw them that had not learnt from them.

    Requests by candidates; `scores` in 0..1, `costs` in any one unit.
    """

    foreseen: Foreseen
    scores: Floats
    costs: Floats


class Step(NamedTuple):
    """What a tau came to. Shares of what the best single model earned and cost; `error` is the loss's."""

    tau: float
    loss: float
    error: float
    saving: float


def hold_out(
    training: Sequence[Row], matrix: Matrix, tables: RouterTables, unseen: Mapping[str, float]
) -> Held:
    """Route each request of `matrix` by tables that were learnt from the other folds of the training rows.

    `unseen`: the difficulty of each prompt, as it was foreseen without it. `tables` give priors and slopes.
    """
    evidence: list[list[Evidence]] = [[] for _ in range(FOLDS)]
    for row in training:
        evidence[fold_of(row.prompt)] += list_evidence([row])
    folds = np.array([fold_of(row.prompt) for row in matrix.rows])
    parts: list[tuple[np.ndarray, Foreseen]] = []
    for fold in range(FOLDS):
        (places,) = np.nonzero(folds == fold)
        others = [one for other, part in enumerate(evidence) if other != fold for one in part]
        known = learn(others, priors=tables, now_unix_s=0.0)
        features = [_facts(matrix, at, unseen) for at in places.tolist()]
        parts.append((places, foresee(matrix.deployments, features, known)))
    back = np.argsort(np.concatenate([places for places, _ in parts]))
    foreseen = Foreseen._make(
        np.concatenate(columns)[back] for columns in zip(*(f for _, f in parts), strict=True)
    )
    return Held(foreseen, matrix.scores, matrix.costs)


def _facts(matrix: Matrix, at: int, unseen: Mapping[str, float]) -> Features:
    row = matrix.rows[at]
    return Features(
        input_tokens=round(matrix.input_tokens[at]),
        workload=row.workload,
        task_type=row.task_type,
        difficulty=unseen.get(row.prompt, UNKNOWN),
    )


def walk_taus(held: Sequence[Held], taus: Sequence[float] = PROVEN_TAUS) -> list[Step]:
    """Return what each tau came to, over all requests. Each group has a best single model of its own."""
    best = [
        (group.scores[:, at], group.costs[:, at])
        for group in held
        for at in [group.scores.mean(axis=0).argmax()]
    ]
    quality = np.concatenate([scores for scores, _ in best])
    cost = float(np.concatenate([costs for _, costs in best]).mean())
    whole = float(quality.mean())
    steps = []
    for tau in taus:
        chosen = [(np.arange(len(group.scores)), group.foreseen.choose(tau)) for group in held]
        earned = np.concatenate([group.scores[at] for group, at in zip(held, chosen, strict=True)])
        spent = np.concatenate([group.costs[at] for group, at in zip(held, chosen, strict=True)])
        lost = quality - earned
        error = float(lost.std(ddof=1)) / len(lost) ** 0.5
        steps.append(
            Step(
                tau,
                float(lost.mean()) / whole if whole else 0.0,
                error / whole if whole else 0.0,
                1 - float(spent.mean()) / cost if cost else 0.0,
            )
        )
    return steps


def find_default(
    steps: Sequence[Step], deployments: tuple[DeploymentSnapshot, ...], tables: RouterTables
) -> ProvenDefault | None:
    """Return the largest tau that proved itself, and what `tables` foresee to lose there, never less than nothing.

    A smaller tau that did not prove itself ends the search. None: the tables know no workload.
    """
    foreseen = foresee_losses(deployments, tables, [step.tau for step in steps])
    if not foreseen:
        return None
    found = 0
    for at, step in enumerate(steps):
        if step.loss + step.error > MOST_LOSS:
            break
        found = at
    # The most of what is foreseen so far: it need not rise with tau.
    return ProvenDefault(steps[found].tau, round(float(max(0.0, *foreseen[: found + 1])), 5))


class Calibrated(NamedTuple):
    """Tables with the default that the training rows support, and what each tau came to there."""

    tables: RouterTables
    steps: Sequence[Step]


def calibrate(
    training: Sequence[Row], matrix: Matrix, tables: RouterTables, unseen: Mapping[str, float]
) -> Calibrated:
    """Calibrate tables that were learnt from the training rows; of too few rows they stay as they are."""
    if len(matrix.rows) < MIN_REQUESTS:
        return Calibrated(tables, ())
    steps = walk_taus([hold_out(training, matrix, tables, unseen)])
    default = find_default(steps, matrix.deployments, tables)
    return Calibrated(replace(tables, default=default, memo={}), steps)
