"""Which deployment does the automatic router put first, and does the order keep its promises?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.autorouter.difficulty import FORM_NAMES, DifficultyModel
from policies.autorouter.ranking import Ranked, rank, tau
from policies.autorouter.tables import Amount, Latency, Rating, RouterTables, empty_tables
from policies.features import Features
from policies.snapshot import DeploymentSnapshot
from tests.policies.autorouter.made import deployment, rated, workload

PRICES = st.one_of(st.none(), st.floats(0.01, 100))
CANDIDATES = st.lists(st.tuples(PRICES, st.floats(0, 1)), min_size=1, max_size=8)
SLIDERS = st.floats(0, 10)


def ranked(
    candidates: list[DeploymentSnapshot],
    tables: RouterTables,
    *,
    slider: float = 5.0,
    floor: float | None = None,
    latencies: dict[int, float] | None = None,
    **features: object,
) -> Ranked:
    return rank(
        candidates,
        Features(**{"input_tokens": 500, **features}),  # type: ignore[arg-type]
        tables=tables,
        slider=slider,
        quality_floor=floor,
        latency_ms=(latencies or {}).get,
    )


def made(candidates: list[tuple[float | None, float]]) -> tuple[list[DeploymentSnapshot], RouterTables]:
    found = [deployment(at, input_usd=price, output_usd=price) for at, (price, _) in enumerate(candidates)]
    return found, rated([quality for _, quality in candidates])


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, SLIDERS, st.one_of(st.none(), st.floats(0, 1)))
def test_every_deployment_is_ranked_once_and_the_same_way_again(
    candidates: list[tuple[float | None, float]], slider: float, floor: float | None
) -> None:
    found, tables = made(candidates)
    first = ranked(found, tables, slider=slider, floor=floor)
    assert sorted(first.order) == list(range(len(found)))
    assert len(first.scores) == len(found)
    # Once more with the memo full, and with the same tables read from their document.
    assert ranked(found, tables, slider=slider, floor=floor) == first
    fresh = RouterTables.from_document(tables.to_document())
    assert ranked(found, fresh, slider=slider, floor=floor).order == first.order


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, SLIDERS, SLIDERS)
def test_the_expected_cost_does_not_rise_with_the_slider(
    candidates: list[tuple[float | None, float]], one: float, other: float
) -> None:
    found, tables = made([(price or 1.0, quality) for price, quality in candidates])
    low, high = sorted((one, other))
    dearer = ranked(found, tables, slider=low).scores[0].cost_nanousd
    cheaper = ranked(found, tables, slider=high).scores[0].cost_nanousd
    assert dearer is not None and cheaper is not None
    assert cheaper <= dearer


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, SLIDERS, st.floats(0, 1))
def test_models_below_the_floor_come_after_all_others(
    candidates: list[tuple[float | None, float]], slider: float, floor: float
) -> None:
    found, tables = made(candidates)
    reaches = [score.quality >= floor for score in ranked(found, tables, slider=slider, floor=floor).scores]
    assert reaches == sorted(reaches, reverse=True)


def test_the_ends_of_the_slider_are_the_best_and_the_cheapest() -> None:
    found, tables = made([(1.0, 0.6), (30.0, 0.9), (0.2, 0.3)])
    assert ranked(found, tables, slider=0).order == [1, 0, 2]
    assert ranked(found, tables, slider=10).order == [2, 0, 1]
    assert tau(0) == 0
    assert tau(5, 0.07) == pytest.approx(0.07)
    assert tau(4) < tau(5) < tau(6) < tau(9.9) < tau(10)


def test_equal_deployments_stay_as_listed() -> None:
    found, tables = made([(1.0, 0.5)] * 4)
    assert ranked(found, tables).order == [0, 1, 2, 3]


def test_an_unpriced_deployment_counts_as_the_dearest() -> None:
    found, tables = made([(None, 0.7), (5.0, 0.7), (1.0, 0.7)])
    assert ranked(found, tables, slider=8).order == [2, 0, 1]
    assert ranked(found, tables, slider=8).scores[1].cost_nanousd is None


def test_a_pinned_workload_gets_its_model_first_whatever_it_costs() -> None:
    found, tables = made([(1.0, 0.9), (50.0, 0.2)])
    pinned = replace(tables, pins={"aa": "m1"}, memo={})
    assert ranked(found, pinned, slider=10, floor=0.5, workload="aa").order == [1, 0]
    assert ranked(found, pinned, slider=10, workload="bb").order == [0, 1]


def test_evidence_of_a_workload_moves_its_own_requests_alone() -> None:
    found, tables = made([(1.0, 0.6), (1.0, 0.7)])
    learnt = replace(tables, workloads={"aa": workload(400, 0.6, m0=0.2, m1=-0.2)}, memo={})
    assert ranked(found, learnt, workload="aa").order == [0, 1]
    assert ranked(found, learnt, workload="aa").scores[0].evidence_count == 400
    assert ranked(found, learnt, workload="bb").order == [1, 0]


def test_cost_is_expected_from_the_models_own_output_on_the_workload() -> None:
    found, tables = made([(1.0, 0.7), (1.0, 0.7)])
    chatty = replace(tables, workload_output_tokens={("aa", "m0"): Amount(4000, 1e6)}, memo={})
    scores = ranked(found, chatty, workload="aa", input_tokens=0)
    assert scores.order == [1, 0]
    # 4,000 tokens at 1 USD a million are 4,000,000 nano-USD; nearly all of it, beside ten pseudo-counts.
    assert scores.scores[1].cost_nanousd == pytest.approx(4_000_000, rel=1e-3)


def test_a_missed_latency_target_costs_what_was_measured() -> None:
    found, tables = made([(1.0, 0.70), (1.0, 0.69)])
    slow = {0: 4000.0, 1: 500.0}
    assert ranked(found, tables, latencies=slow, max_latency_ms=1000).order == [1, 0]
    assert ranked(found, tables, latencies=slow).order == [0, 1]
    known = replace(tables, latencies={("all", "m0"): Latency(9000, 9000, 50)}, memo={})
    assert ranked(found, known, max_latency_ms=1000).order == [1, 0]


def test_a_hard_request_goes_to_the_model_that_difficulty_hurts_less() -> None:
    found, tables = made([(1.0, 0.70), (1.0, 0.72)])
    model = DifficultyModel((0.0,) * (2 + len(FORM_NAMES)), 0.0, {"m0": 0.1, "m1": -0.1})
    learnt = replace(
        tables,
        difficulty=model,
        workloads={"aa": workload(5, 0.7, m0=0.0, m1=0.0)},
        types={"code": workload(500, 0.7), "chat": workload(50, 0.7)},
        memo={},
    )
    assert ranked(found, learnt, workload="aa", difficulty=0.9).order == [0, 1]
    assert ranked(found, learnt, workload="aa", difficulty=0.1).order == [1, 0]
    # Of a new workload words tell half as much, and nothing where its type was never seen.
    known, unseen = (
        ranked(found, learnt, workload=name, task_type="code", difficulty=0.9, slider=0).scores[0].quality
        for name in ("aa", "new")
    )
    assert known - 0.70 == pytest.approx(2 * (unseen - 0.70))
    assert ranked(found, learnt, workload="new", task_type="chat", difficulty=0.9).order == [1, 0]


def test_without_tables_a_model_is_worth_what_public_tables_or_its_price_say() -> None:
    found = [
        deployment(1, model="openai/gpt-4o-2024-08-06", input_usd=2.5, output_usd=10),
        deployment(2, model="llama-3.1-8b-instruct", input_usd=0.1, output_usd=0.1),
        deployment(3, model="house-model", input_usd=0.1, output_usd=0.1),
    ]
    scores = ranked(found, empty_tables(), slider=0).scores
    # The model that nobody rated is taken for a little better, and held to be a little worse.
    assert [score.quality for score in scores] == pytest.approx([0.73, 0.44, 0.45])
    assert scores[2].quality_error > scores[1].quality_error


def test_a_score_is_quality_less_half_its_error_less_tau_times_the_cost_ratio() -> None:
    found, tables = made([(2.0, 0.7), (1.0, 0.6)])
    first, second = ranked(found, tables, slider=5).scores
    assert first.quality - 0.5 * first.quality_error - 0.03 == pytest.approx(first.score)
    assert second.quality - 0.5 * second.quality_error - 0.03 / 2 == pytest.approx(second.score)


def test_an_unknown_model_has_its_price_neighbours_rating_with_a_larger_error() -> None:
    tables = RouterTables(ratings={"known": Rating(0.61, usd_per_mtok=2.0)})
    found = [deployment(1, model="known"), deployment(2, model="new", input_usd=1.9, output_usd=2.2)]
    known, guessed = ranked(found, tables, slider=0).scores
    assert guessed.quality == known.quality == 0.61
    assert guessed.quality_error > known.quality_error


def test_the_default_slider_gives_up_next_to_nothing_that_the_tables_know_of() -> None:
    found, tables = made([(0.1, 0.5), (30.0, 0.8)])
    learnt = replace(
        tables,
        workloads={
            "easy": workload(9000, 0.9, m0=-0.001, m1=0.001),
            "hard": workload(9000, 0.5, m0=-0.3, m1=0.3),
        },
        memo={},
    )
    assert ranked(found, learnt, workload="easy").order == [0, 1]
    assert ranked(found, learnt, workload="hard").order == [1, 0]
