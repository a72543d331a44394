"""Which of these deployments should serve a request, and which next if it fails? The automatic router's order.

Pure and deterministic; ties as listed. score = quality - caution - tau(slider) * cost ratio - latency penalty, where
caution is half the estimate's error: a model that nobody has tried here has to promise more. The ranked list is the
fallback chain. What depends only on tables, workload, type and deployments is computed once and kept in
`tables.memo`; what is left for each request is a few sums a deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import Final, NamedTuple

import numpy as np

from policies.autorouter.difficulty import UNKNOWN
from policies.autorouter.estimating import (
    blended_usd_per_mtok,
    estimate_qualities,
    expected_latency,
    expected_output_tokens,
)
from policies.autorouter.tables import RouterTables
from policies.features import Features
from policies.snapshot import DeploymentSnapshot

DEFAULT_SLIDER: Final = 5.0
MAX_SLIDER: Final = 10.0
# The share of an estimate's standard error that is held against it.
CAUTION: Final = 0.5
# A second more is worth this much quality, where the caller named a latency target that is missed; and everywhere a
# trace of it, so that of two equal models the faster one is taken.
MISSED_TARGET_PENALTY_PER_MS: Final = 0.05 / 1000
LATENCY_PENALTY_PER_MS: Final = 0.002 / 1000
MAX_LATENCY_PENALTY: Final = 0.3
TOKENS_PER_MTOK: Final = 1_000_000
# More than any two scores lie apart.
APART: Final = 1e7
# At the cheap end of the slider: no difference in quality outweighs one in cost that anybody would notice.
MAX_TAU: Final = 1e6
# What the default slider may come to. How far it goes is cross-validated (`cross_validation`); where that was not
# possible, it gives up this share of the best single model's quality as the tables foresee it; and this is where it
# stands without evidence.
PROVEN_TAUS: Final = tuple(step / 200 for step in range(2, 61))
UNPROVEN_TAUS: Final = tuple(0.01 * step for step in range(1, 16))
DEFAULT_LOSS: Final = 0.003
USUAL_TAU: Final = 0.03
ROUNDING: Final = 1e-9
# Those with most evidence speak for all: this happens on the hot path, once for each set of candidates.
CALIBRATED_WORKLOADS: Final = 16
# Words that told something of other workloads of a type tell half as much of a new one; of fewer requests than this,
# nothing.
UNSEEN_WORKLOAD_TRUST: Final = 0.5
MIN_TYPE_EVIDENCE: Final = 200.0
TYPICAL_REQUEST: Final = Features(input_tokens=500)
# How far from the middle the difficulties of requests lie: as many requests at each.
TYPICAL_OFFSETS: Final = (-0.31, -0.19, -0.09, 0.0, 0.09, 0.19, 0.31)


class AutoScore(NamedTuple):
    """What a deployment was judged by. Quality and error in 0..1; `cost_nanousd` None: unpriced."""

    quality: float
    quality_error: float
    evidence_count: float
    cost_nanousd: int | None
    latency_ms: float | int | None
    score: float


class Ranked(NamedTuple):
    """`order` holds indices into the deployments, best first; `scores` runs beside `order`."""

    order: list[int]
    scores: list[AutoScore]


class Prepared(NamedTuple):
    """One deployment on one workload: what does not change from request to request."""

    deployment_id: int
    quality: float
    error: float
    evidence_count: float
    slope: float
    caution: float
    input_rate: int | None
    output_nanousd: float
    latency_ms: float | int | None
    is_pinned: bool


def tau(slider: float, at_default: float = USUAL_TAU) -> float:
    """Return what the dearest candidate's whole cost is worth in quality: 0 at slider 0, nearly no end at 10.

    `at_default` is what it is at the default 5, see `find_default_tau`.
    """
    place = min(MAX_SLIDER, max(0.0, slider)) / MAX_SLIDER
    return MAX_TAU if place >= 1 else min(MAX_TAU, at_default * 16 * place**5 / (1 - place))


def rank(
    deployments: Sequence[DeploymentSnapshot],
    features: Features,
    *,
    tables: RouterTables,
    slider: float,
    quality_floor: float | int | None,
    latency_ms: Callable[[int], float | int | None],
) -> Ranked:
    """Rank deployments for a request. `latency_ms` is asked by deployment id for what this worker measured.

    A deployment whose estimate is below `quality_floor` comes after all that reach it; it is left out by nobody, so
    that a request is still served when nothing better can. Unpriced deployments count as the dearest.
    """
    prepared, at_default = prepare(tuple(deployments), features.workload, features.task_type, tables)
    costs = expected_costs(prepared, features)
    dearest = max([cost for cost in costs if cost is not None], default=0.0)
    weight = tau(slider, at_default)
    # What one nano-USD is worth in quality.
    cost_weight = weight / dearest if dearest else 0.0
    offset = features.difficulty - UNKNOWN
    target_ms = features.max_latency_ms
    floor = -1.0 if quality_floor is None else quality_floor
    found: list[tuple[float, float, float, int | None, float | int | None, float]] = []
    # Sorted upwards: pinned before all others, those below the floor after all others.
    keys: list[float] = []
    for entry, cost in zip(prepared, costs, strict=True):
        deployment_id, quality, error, evidence_count, slope, caution, _, _, latency, is_pinned = entry
        if slope:
            quality += slope * offset
            quality = 0.0 if quality < 0.0 else min(quality, 1.0)
        if cost is None:
            score = quality - caution - weight
        else:
            score = quality - caution - cost_weight * cost
            cost = int(cost + 0.5)
        measured = latency_ms(deployment_id)
        if measured is not None:
            latency = measured
        if latency is not None:
            penalty = LATENCY_PENALTY_PER_MS * latency
            if 0 < target_ms < latency:
                penalty += MISSED_TARGET_PENALTY_PER_MS * (latency - target_ms)
            score -= penalty if penalty < MAX_LATENCY_PENALTY else MAX_LATENCY_PENALTY
        found.append((quality, error, evidence_count, cost, latency, score))
        if is_pinned:
            keys.append(-score - (APART if quality < floor else 2 * APART))
        else:
            keys.append(APART - score if quality < floor else -score)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    # The name of a tuple's own constructor: a named tuple's takes twice as long, thirty times a request.
    new = tuple.__new__
    return Ranked(order, [new(AutoScore, found[index]) for index in order])


class Ready(NamedTuple):
    """What ranking needs of some deployments on a workload, and the tau of the default slider for them."""

    prepared: tuple[Prepared, ...]
    default_tau: float


def prepare(
    deployments: tuple[DeploymentSnapshot, ...], workload: str, task_type: str, tables: RouterTables
) -> Ready:
    """Return what is known of the deployments on a workload; from `tables.memo` when it was asked before."""
    memo = tables.memo
    key = (workload if workload in _known_workloads(tables) else "", task_type, deployments)
    found: Ready | None = memo.get(key)
    if found is None:
        default_tau = memo.get(deployments)
        if default_tau is None:
            default_tau = tables.remember(deployments, _calibrate(deployments, tables))
        if workload not in tables.workloads:
            # What was calibrated on workloads that are known says little about this one.
            default_tau = min(default_tau, USUAL_TAU)
        found = tables.remember(key, Ready(_build(deployments, workload, task_type, tables), default_tau))
    return found


def _calibrate(deployments: tuple[DeploymentSnapshot, ...], tables: RouterTables) -> float:
    """Return the largest tau at which the tables foresee no more than the allowed loss over all workloads.

    So the default means the same for any candidates: as cheap as it gets without a loss that anybody would see.
    """
    allowed, taus = DEFAULT_LOSS, UNPROVEN_TAUS
    if tables.default is not None:
        most, allowed = tables.default
        taus = tuple(candidate for candidate in PROVEN_TAUS if candidate <= most) or PROVEN_TAUS[:1]
    losses = foresee_losses(deployments, tables, taus)
    if not losses:
        return USUAL_TAU
    found = taus[0]
    for candidate, loss in zip(taus[1:], losses[1:], strict=True):
        if loss > allowed + ROUNDING:
            break
        found = candidate
    return found


def foresee_losses(
    deployments: tuple[DeploymentSnapshot, ...], tables: RouterTables, taus: Sequence[float]
) -> list[float]:
    """Return how much less than the best single model's quality the tables foresee at each tau.

    As a share of that quality; less than nothing: they foresee more. Empty: they know no workload.
    """
    weights, qualities, ratios, cautions = [], [], [], []
    heaviest = nlargest(CALIBRATED_WORKLOADS, tables.workloads.items(), key=lambda item: item[1].n)
    for workload, evidence in heaviest:
        prepared = _build(deployments, workload, evidence.task_type, tables)
        costs = np.array(expected_costs(prepared, TYPICAL_REQUEST), dtype=float)
        if np.isnan(costs).all() or not np.nanmax(costs):
            continue
        ratio_here = np.nan_to_num(costs / np.nanmax(costs), nan=1.0)
        for offset in TYPICAL_OFFSETS:
            weights.append(evidence.n)
            qualities.append([entry.quality + entry.slope * offset for entry in prepared])
            ratios.append(ratio_here)
            cautions.append([entry.caution for entry in prepared])
    if not weights:
        return []
    weight, quality, ratio = np.array(weights), np.array(qualities), np.array(ratios)
    careful = quality - np.array(cautions)
    single: float = (weight @ quality).max()
    rows = np.arange(len(weight))
    return [
        1 - float(weight @ quality[rows, (careful - candidate * ratio).argmax(axis=1)]) / single
        if single
        else 0.0
        for candidate in taus
    ]


def _known_workloads(tables: RouterTables) -> frozenset[str]:
    """Workloads of which the tables know anything: all others share one entry of the memo."""
    known: frozenset[str] | None = tables.memo.get("known workloads")
    if known is None:
        known = frozenset(tables.workloads) | frozenset(tables.pins)
        known |= {workload for workload, _ in tables.workload_output_tokens}
        known |= {workload for workload, _ in tables.latencies}
        tables.remember("known workloads", known)
    return known


def _build(
    deployments: tuple[DeploymentSnapshot, ...], workload: str, task_type: str, tables: RouterTables
) -> tuple[Prepared, ...]:
    models = [deployment.model.name for deployment in deployments]
    qualities = estimate_qualities(
        models, [_blended(d) for d in deployments], workload=workload, task_type=task_type, tables=tables
    )
    pinned_model = tables.pins.get(workload)
    slopes = {} if tables.difficulty is None else tables.difficulty.slopes
    trust = _difficulty_trust(workload, task_type, tables)
    prepared = []
    for deployment, model, quality in zip(deployments, models, qualities, strict=True):
        tokens = expected_output_tokens(model, workload=workload, task_type=task_type, tables=tables)
        latency = expected_latency(model, workload=workload, tables=tables)
        is_priced = _blended(deployment) is not None
        prepared.append(
            Prepared(
                deployment.id,
                quality.mean,
                quality.error,
                quality.evidence_count,
                trust * slopes.get(model, 0.0),
                CAUTION * quality.error,
                (deployment.input_nanousd_per_mtok or 0) if is_priced else None,
                tokens * (deployment.output_nanousd_per_mtok or 0),
                # As exact as a record keeps it, so that the record gives the same score again.
                None if latency is None else round(latency.p50_ms, 1),
                model == pinned_model,
            )
        )
    return tuple(prepared)


def _difficulty_trust(workload: str, task_type: str, tables: RouterTables) -> float:
    """Return how much words are trusted: wholly on workloads that they were learnt on, not at all on another type."""
    if workload in tables.workloads:
        return 1.0
    seen = tables.types.get(task_type)
    return UNSEEN_WORKLOAD_TRUST if seen is not None and seen.n >= MIN_TYPE_EVIDENCE else 0.0


def _blended(deployment: DeploymentSnapshot) -> float | int | None:
    input_rate, output_rate = deployment.input_nanousd_per_mtok, deployment.output_nanousd_per_mtok
    if input_rate is None and output_rate is None:
        return None
    return blended_usd_per_mtok((input_rate or 0) / 1e9, (output_rate or 0) / 1e9)


def expected_costs(prepared: tuple[Prepared, ...], features: Features) -> list[float | int | None]:
    """Return what the request would about cost at each deployment, in nano-USD; None: unpriced."""
    input_mtok, output_share = (
        features.input_tokens / TOKENS_PER_MTOK,
        max(1, features.choice_count) / TOKENS_PER_MTOK,
    )
    return [
        None if entry[6] is None else input_mtok * entry[6] + output_share * entry[7] for entry in prepared
    ]
