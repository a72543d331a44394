"""Which of these deployments should serve a request, and which next if it fails? The automatic router's order.

Pure and deterministic; ties as listed. score = quality - tau(slider) * cost ratio - latency penalty. The ranked list is
the fallback chain. What depends only on tables, workload, type and deployments is computed once and kept in
`tables.memo`; what is left for each request is a few sums a deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
MEMO_SIZE: Final = 2048
# A second more is worth this much quality, where the caller named a latency target that is missed; and everywhere a
# trace of it, so that of two equal models the faster one is taken.
MISSED_TARGET_PENALTY: Final = 0.05
LATENCY_PENALTY: Final = 0.002
MAX_LATENCY_PENALTY: Final = 0.3
NANO_PER_MTOK: Final = 1_000_000
# At the cheap end of the slider: no difference in quality outweighs one in cost that anybody would notice.
MAX_TAU: Final = 1e6
# The default slider gives up this share of the best single model's quality at most, as far as the tables can tell; the
# taus that it may come to, and the one where there is no evidence yet.
DEFAULT_LOSS: Final = 0.003
CALIBRATED_TAUS: Final = tuple(0.01 * step for step in range(1, 13))
USUAL_TAU: Final = 0.03
TYPICAL_REQUEST: Final = Features(input_tokens=500)
# How far from the middle the difficulties of requests lie: as many requests at each.
TYPICAL_OFFSETS: Final = (-0.31, -0.19, -0.09, 0.0, 0.09, 0.19, 0.31)


class AutoScore(NamedTuple):
    """What a deployment was judged by. Quality and error in 0..1; `cost_nanousd` None: unpriced."""

    quality: float
    quality_error: float
    evidence_count: float
    cost_nanousd: int | None
    latency_ms: float | None
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
    input_rate: int | None
    output_nanousd: float
    latency_ms: float | None
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
    quality_floor: float | None,
    latency_ms: Callable[[int], float | None],
) -> Ranked:
    """Rank deployments for a request. `latency_ms` is asked by deployment id for what this worker measured.

    A deployment whose estimate is below `quality_floor` comes after all that reach it; it is left out by nobody, so
    that a request is still served when nothing better can. Unpriced deployments count as the dearest.
    """
    prepared_for = tuple(deployments)
    prepared = prepare(prepared_for, features.workload, features.task_type, tables)
    costs = expected_costs(prepared, features)
    dearest = max((cost for cost in costs if cost is not None), default=0.0)
    weight = tau(slider, find_default_tau(prepared_for, tables))
    offset = features.difficulty - UNKNOWN
    target_ms = features.max_latency_ms
    keys: list[tuple[bool, bool, float, int]] = []
    scores: list[AutoScore] = []
    for index, (entry, cost) in enumerate(zip(prepared, costs, strict=True)):
        quality = min(1.0, max(0.0, entry.quality + entry.slope * offset))
        ratio = 1.0 if cost is None else cost / dearest if dearest else 0.0
        measured = latency_ms(entry.deployment_id)
        latency = entry.latency_ms if measured is None else measured
        score = quality - weight * ratio
        if latency is not None:
            score -= _latency_penalty(latency, target_ms)
        is_below = quality_floor is not None and quality < quality_floor
        keys.append((not entry.is_pinned, is_below, -score, index))
        scores.append(
            AutoScore(
                quality,
                entry.error,
                entry.evidence_count,
                None if cost is None else round(cost),
                latency,
                score,
            )
        )
    keys.sort()
    order = [key[3] for key in keys]
    return Ranked(order, [scores[index] for index in order])


def prepare(
    deployments: tuple[DeploymentSnapshot, ...], workload: str, task_type: str, tables: RouterTables
) -> tuple[Prepared, ...]:
    """Return what is known of each deployment on a workload; from `tables.memo` when it was asked before."""
    key = (workload if _is_known(workload, tables) else "", task_type, deployments)
    found: tuple[Prepared, ...] | None = tables.memo.get(key)
    if found is None:
        if len(tables.memo) >= MEMO_SIZE:
            tables.memo.clear()
        found = tables.memo[key] = _build(deployments, workload, task_type, tables)
    return found


def find_default_tau(deployments: tuple[DeploymentSnapshot, ...], tables: RouterTables) -> float:
    """Return the tau of the default slider for these candidates; from `tables.memo` when it was asked before."""
    key = ("tau", deployments)
    found: float | None = tables.memo.get(key)
    if found is None:
        found = tables.memo[key] = _calibrate(deployments, tables)
    return found


def _calibrate(deployments: tuple[DeploymentSnapshot, ...], tables: RouterTables) -> float:
    """Return the largest tau at which the tables expect nearly the best single model's quality over all workloads.

    So the default means the same for any candidates: as cheap as it gets without a loss that anybody would see.
    """
    weights, qualities, ratios = [], [], []
    for workload, evidence in tables.workloads.items():
        if evidence.n <= 0:
            continue
        prepared = prepare(deployments, workload, evidence.task_type, tables)
        costs = np.array(expected_costs(prepared, TYPICAL_REQUEST), dtype=float)
        if np.isnan(costs).all() or not np.nanmax(costs):
            continue
        for offset in TYPICAL_OFFSETS:
            weights.append(evidence.n)
            qualities.append([entry.quality + entry.slope * offset for entry in prepared])
            ratios.append(np.nan_to_num(costs / np.nanmax(costs), nan=1.0))
    if not weights:
        return USUAL_TAU
    weight, quality, ratio = np.array(weights), np.array(qualities), np.array(ratios)
    single: float = (weight @ quality).max()
    rows = np.arange(len(weight))
    found: float = CALIBRATED_TAUS[0]
    for candidate in CALIBRATED_TAUS[1:]:
        chosen = (quality - candidate * ratio).argmax(axis=1)
        if float(weight @ quality[rows, chosen]) < (1 - DEFAULT_LOSS) * single:
            break
        found = candidate
    return found


def _is_known(workload: str, tables: RouterTables) -> bool:
    return workload in _known_workloads(tables)


def _known_workloads(tables: RouterTables) -> frozenset[str]:
    """Workloads of which the tables know anything: all others share one entry of the memo."""
    known: frozenset[str] | None = tables.memo.get("known workloads")
    if known is None:
        known = frozenset(tables.workloads) | frozenset(tables.pins)
        known |= {workload for workload, _ in tables.workload_output_tokens}
        known |= {workload for workload, _ in tables.latencies}
        tables.memo["known workloads"] = known
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
                slopes.get(model, 0.0),
                (deployment.input_nanousd_per_mtok or 0) if is_priced else None,
                tokens * (deployment.output_nanousd_per_mtok or 0),
                # As exact as a record keeps it, so that the record gives the same score again.
                None if latency is None else round(latency.p50_ms, 1),
                model == pinned_model,
            )
        )
    return tuple(prepared)


def _blended(deployment: DeploymentSnapshot) -> float | None:
    input_rate, output_rate = deployment.input_nanousd_per_mtok, deployment.output_nanousd_per_mtok
    if input_rate is None and output_rate is None:
        return None
    return blended_usd_per_mtok((input_rate or 0) / 1e9, (output_rate or 0) / 1e9)


def expected_costs(prepared: tuple[Prepared, ...], features: Features) -> list[float | None]:
    """Return what the request would about cost at each deployment, in nano-USD; None: unpriced."""
    input_tokens, choices = features.input_tokens, max(1, features.choice_count)
    return [
        None
        if entry.input_rate is None
        else (input_tokens * entry.input_rate + choices * entry.output_nanousd) / NANO_PER_MTOK
        for entry in prepared
    ]


def _latency_penalty(latency_ms: float, target_ms: int) -> float:
    penalty = LATENCY_PENALTY * latency_ms / 1000
    if 0 < target_ms < latency_ms:
        penalty += MISSED_TARGET_PENALTY * (latency_ms - target_ms) / 1000
    return min(MAX_LATENCY_PENALTY, penalty)
