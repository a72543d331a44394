"""Does evidence become tables as it should: paired, weighed, shrunk, forgotten with time?"""

from __future__ import annotations

import pytest

from policies.autorouter.estimating import (
    CHANCE_FACTOR,
    UNCOUNTED,
    WORKLOAD_PSEUDO_COUNT,
    estimate_qualities,
)
from policies.autorouter.learning import Evidence, learn
from policies.autorouter.tables import ALL_TYPES, RouterTables, Workload
from tests.policies.autorouter.made import rated, workload

DAY_S = 86_400.0
NOW = 1_000 * DAY_S


def pairs(count: int, good: float, bad: float, *, of: str = "aa", at: float = NOW) -> list[Evidence]:
    """Requests that m0 (good) and m1 (bad) answered."""
    return [
        Evidence(of, "code", model, quality, at_unix_s=at, pair_id=f"p{number}", source="evaluation")
        for number in range(count)
        for model, quality in (("m0", good), ("m1", bad))
    ]


def learnt(evidence: list[Evidence], priors: RouterTables | None = None) -> RouterTables:
    return learn(evidence, priors=priors or rated([0.6, 0.6]), now_unix_s=NOW, version=3)


def estimates(tables: RouterTables, of: str = "aa") -> list[float]:
    found = estimate_qualities(["m0", "m1"], [1.0, 1.0], workload=of, task_type="", tables=tables)
    return [quality.mean for quality in found]


def test_differences_are_paired_and_centred() -> None:
    # Hard requests went to m0 alone in unpaired records; pairs say that m0 is better all the same.
    tables = learnt(pairs(50, 0.9, 0.5))
    entry = tables.workloads["aa"]
    assert entry.n == pytest.approx(50)
    assert entry.level == pytest.approx(0.7)
    assert entry.models["m0"].difference == pytest.approx(0.2)
    assert entry.models["m1"].difference == pytest.approx(-0.2)
    assert entry.models["m0"].n == pytest.approx(50)
    assert tables.types["code"].n == tables.types[ALL_TYPES].n == pytest.approx(50)
    assert tables.version == 3


def test_an_easy_workload_does_not_flatter_the_model_that_served_it() -> None:
    easy = [Evidence("easy", "chat", "m0", 1.0, at_unix_s=NOW)] * 100
    hard = [Evidence("hard", "code", "m1", 0.2, at_unix_s=NOW)] * 100
    tables = learnt(easy + hard + pairs(60, 0.5, 0.7))
    overall = tables.types[ALL_TYPES].models
    assert overall["m1"].difference > overall["m0"].difference
    # Alone in its workload, a model differs from nobody.
    assert tables.workloads["easy"].models["m0"].difference == pytest.approx(0)
    assert tables.workloads["easy"].level == pytest.approx(1.0)


def test_an_estimate_moves_with_n_over_n_plus_forty() -> None:
    # An error of next to nothing: chance has no part in it.
    for n in (20.0, 50.0, 410.0):
        entry = workload(n, 0.6, m0=0.1, m1=-0.1)
        exact = {model: found._replace(error=1e-9) for model, found in entry.models.items()}
        tables = RouterTables(
            ratings=rated([0.6, 0.6]).ratings, workloads={"aa": entry._replace(models=exact)}
        )
        one, other = estimates(tables)
        share = (n - UNCOUNTED) / (n - UNCOUNTED + WORKLOAD_PSEUDO_COUNT)
        assert one - other == pytest.approx(0.2 * share)
        assert (one + other) / 2 == pytest.approx(0.6)


def test_ten_judgements_and_what_chance_explains_move_nothing() -> None:
    assert estimates(learnt(pairs(10, 1.0, 0.0))) == pytest.approx([0.6, 0.6])
    noisy: Workload = workload(200, 0.6, m0=0.02, m1=-0.02)
    noisy = noisy._replace(models={m: e._replace(error=0.05) for m, e in noisy.models.items()})
    assert CHANCE_FACTOR > 2 * (0.02 / 0.05) ** 2
    tables = RouterTables(ratings=rated([0.6, 0.6]).ratings, workloads={"aa": noisy})
    assert estimates(tables) == pytest.approx([0.6, 0.6])


def test_errors_shrink_with_evidence() -> None:
    def error(count: int) -> float:
        tables = learnt(pairs(count, 0.9, 0.5))
        found = estimate_qualities(["m0"], [1.0], workload="aa", task_type="", tables=tables)
        return found[0].error

    assert error(0) > error(40) > error(400)


def test_old_evidence_halves_every_ninety_days() -> None:
    tables = learnt(pairs(40, 0.9, 0.5, at=NOW - 90 * DAY_S))
    assert tables.workloads["aa"].models["m0"].n == pytest.approx(20)
    both = learnt(pairs(40, 1.0, 0.0, at=NOW - 180 * DAY_S) + pairs(40, 0.0, 1.0, at=NOW))
    assert both.workloads["aa"].models["m1"].difference == pytest.approx(0.3)


def test_a_passed_check_weighs_less_than_a_judgement() -> None:
    check = Evidence("aa", "code", "m0", 1.0, at_unix_s=NOW, source="check")
    judged = check._replace(quality=0.0, source="feedback")
    assert learnt([check] * 40 + [judged] * 40).workloads["aa"].level == pytest.approx(0.2)


def test_output_and_latency_are_kept_by_workload_type_and_model() -> None:
    rows = [
        Evidence("aa", "code", "m0", 1.0, output_tokens=100 + n, latency_ms=100.0 * n, at_unix_s=NOW)
        for n in range(1, 21)
    ]
    tables = learnt(rows)
    assert tables.workload_output_tokens["aa", "m0"] == pytest.approx((110.5, 20))
    assert tables.type_output_tokens["code", "m0"].mean == pytest.approx(110.5)
    assert tables.latencies["aa", "m0"].p50_ms == pytest.approx(1050)
    assert tables.latencies["all", "m0"].p95_ms == pytest.approx(1905)
    assert learnt(rows[:4]).latencies == {}


def test_ratings_pins_and_types_of_the_site_are_kept_and_evidence_is_not() -> None:
    priors = RouterTables(
        ratings=rated([0.5]).ratings,
        pins={"aa": "m0"},
        extra_types={"legal": ("clause",)},
        workloads={"old": workload(50, 0.5, m0=0.1)},
    )
    tables = learnt([], priors)
    assert (tables.ratings, tables.pins, tables.extra_types) == (
        priors.ratings,
        priors.pins,
        priors.extra_types,
    )
    assert not tables.workloads
    assert not tables.types


def test_a_quality_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        learnt([Evidence("aa", "code", "m0", 1.5)])
    with pytest.raises(ValueError, match="between 0 and 1"):
        learnt([Evidence("aa", "code", "m0", float("nan"))])
