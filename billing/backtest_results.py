"""What does a finished backtest say? A tally -> the JSON that the row keeps, the page shows and the API answers.

Pure. Amounts are whole nano-USD, latencies ms, shares are left to who shows them. Of long lists the largest are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from billing.backtest_tally import Latency, Tally

MAX_LISTED: Final = 200
MAX_MOVES: Final = 20

Result = dict[str, Any]


def build_result(
    tally: Tally,
    *,
    model_of: Mapping[str, str],
    tenant_names: Mapping[int, str],
    text_features: frozenset[str],
    is_checked: bool,
    took_s: float,
) -> Result:
    """Write a tally as JSON values. `model_of`: deployment name -> model name."""
    then_nanousd, now_nanousd = tally.cost_then_nanousd(), tally.cost_now_nanousd()
    half_width = tally.half_width_nanousd()
    difference = now_nanousd - then_nanousd
    return {
        "count": tally.count,
        "moved": tally.moved,
        "no_candidate": tally.no_candidate,
        "no_candidate_then": tally.no_candidate_then,
        "took_s": round(took_s, 1),
        "cost": {
            "compared": tally.compared,
            "then": then_nanousd,
            "now": now_nanousd,
            "difference": difference,
            "low": difference - half_width,
            "high": difference + half_width,
        },
        "not_compared": dict(tally.not_compared.most_common()),
        "expected_from": dict(tally.levels.most_common()),
        "latency": {
            "first_token": _latency(tally.first_token),
            "duration": _latency(tally.duration),
        },
        "models": _mix(_by_model(tally.then_by_deployment, model_of), _by_model(tally.now_by_deployment, model_of)),
        "deployments": _mix(tally.then_by_deployment, tally.now_by_deployment),
        "rules": _mix(tally.then_by_rule, tally.now_by_rule),
        "tenants": [
            {
                "id": tenant_id,
                "name": tenant_names.get(tenant_id, f"#{tenant_id}"),
                "count": sums.count,
                "moved": sums.moved,
                "compared": sums.compared,
                "then": sums.cost_then_nanousd,
                "now": sums.cost_now_nanousd,
                "difference": sums.cost_now_nanousd - sums.cost_then_nanousd,
            }
            for tenant_id, sums in sorted(
                tally.tenants.items(), key=lambda item: (-item[1].cost_then_nanousd, -item[1].count, item[0])
            )[:MAX_LISTED]
        ],
        "tenant_count": len(tally.tenants),
        "moves": [
            {"then": then, "now": now, "count": count}
            for (then, now), count in tally.moves.most_common(MAX_MOVES)
        ],
        "reasons": dict(tally.reasons.most_common()),
        "lacking": {"count": tally.lacking, "features": sorted(text_features)} if tally.lacking else None,
        "moved_sample": tally.moved_sample.entries(),
        "no_candidate_sample": tally.no_candidate_sample.entries(),
        "reproduction": {
            "checked": tally.checked,
            "reproduced": tally.reproduced,
            "missed": tally.checked - tally.reproduced,
            "reasons": dict(tally.mismatches.most_common()),
            "sample": tally.mismatch_sample.entries(),
        }
        if is_checked
        else None,
    }  # fmt: skip


def _latency(latency: Latency) -> dict[str, Any] | None:
    count = latency.count
    if not count and not latency.unknown:
        return None
    return {
        "count": count,
        "unknown": latency.unknown,
        "then_ms": round(latency.then_ms / count, 3) if count else None,
        "now_ms": round(latency.now_ms / count, 3) if count else None,
    }


def _by_model(by_deployment: Mapping[str, int], model_of: Mapping[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, count in by_deployment.items():
        found[model_of.get(name, name)] += count
    return found


def _mix(then: Mapping[str, int], now: Mapping[str, int]) -> list[dict[str, Any]]:
    """[{"name", "then", "now"}], the largest first."""
    names = sorted(then.keys() | now.keys(), key=lambda n: (-max(then.get(n, 0), now.get(n, 0)), n))
    return [{"name": name, "then": then.get(name, 0), "now": now.get(name, 0)} for name in names[:MAX_LISTED]]
