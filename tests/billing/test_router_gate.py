"""Does the gate tell versions apart by what they had not seen, and say so where it cannot?"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from billing.router_gate import MIN_COMPARED, Side, gate
from policies.autorouter.answered import Judged, group_answers, route_answered
from policies.autorouter.comparing import compare
from policies.autorouter.difficulty import WORDS_BUCKETS, DifficultyModel
from policies.autorouter.learning import Evidence, learn
from policies.autorouter.tables import RouterTables, empty_tables
from policies.snapshot import DeploymentSnapshot
from tests.policies.autorouter.made import deployment

WORKLOAD = "00112233445566ff"
RIGHT = {"small": 0.55, "large": 0.85}
DEPLOYMENTS: dict[str, DeploymentSnapshot] = {
    "small": deployment(1, model="small", input_usd=0.1, output_usd=0.4),
    "large": deployment(2, model="large", input_usd=5, output_usd=20),
}


def answers(
    count: int, right: dict[str, float], *, seed: int = 1, source: str = "evaluation"
) -> list[Judged]:
    """Requests that both models answered, in two folds."""
    drawn = random.Random(seed)
    return [
        Judged(
            Evidence(
                WORKLOAD,
                "code",
                model,
                float(drawn.random() < right[model]),
                pair_id=f"evaluation-{seed}-{number}",
                source=source,  # type: ignore[arg-type]
            ),
            number % 2,
        )
        for number in range(count)
        for model in right
    ]


def side(judged: Sequence[Judged], difficulties: dict[str, float] | None = None) -> Side:
    """What is learnt from these without each of their folds."""
    return Side(
        [
            learn([one.evidence for one in judged if one.fold != fold], priors=empty_tables(), now_unix_s=0.0)
            for fold in range(2)
        ],
        difficulties or {},
    )


NOTHING = Side([empty_tables()] * 2, {})
SWAPPED = {"small": RIGHT["large"], "large": RIGHT["small"]}


def test_a_version_that_learnt_which_model_is_better_passes_with_its_lead_as_an_interval() -> None:
    held = answers(200, RIGHT)
    found = gate(candidate=side(held), current=side(answers(200, SWAPPED, seed=2)), held_out=held,
                 deployments=DEPLOYMENTS)  # fmt: skip
    assert (found.passes, found.is_thin) == (True, False)
    numbers = found.numbers
    assert numbers["requests_answered_by_several"] == 200
    assert (
        0
        < numbers["aiq_lead_low"]
        <= numbers["aiq_new"] - numbers["aiq_in_force"]
        <= numbers["aiq_lead_high"]
    )
    assert (
        numbers["default_quality_new"] == numbers["best_single_quality"] > numbers["default_quality_in_force"]
    )
    assert numbers["default_cost_usd_new"] == numbers["best_single_cost_usd"]
    assert "routes better than the version in force" in found.reasons[1]


def test_a_version_that_routes_worse_fails_though_it_foresees_as_well() -> None:
    held = answers(200, RIGHT)
    found = gate(candidate=side(answers(200, SWAPPED, seed=2)), current=side(held), held_out=held,
                 deployments=DEPLOYMENTS)  # fmt: skip
    assert not found.passes
    assert found.numbers["aiq_lead_high"] < 0
    assert "routes worse than" in found.reasons[1]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_only_chance_fails_nobody(seed: int) -> None:
    """Two versions learnt from other answers of the same models are each as good as the other."""
    held = answers(150, RIGHT, seed=10 + seed)
    one, other = side(answers(400, RIGHT, seed=20 + seed)), side(answers(400, RIGHT, seed=30 + seed))
    assert gate(candidate=one, current=other, held_out=held, deployments=DEPLOYMENTS).passes


def test_where_too_few_requests_were_answered_by_several_it_says_so() -> None:
    held = answers(MIN_COMPARED - 1, RIGHT)
    known = side(answers(400, RIGHT, seed=2))
    found = gate(candidate=known, current=known, held_out=held, deployments=DEPLOYMENTS)
    assert (found.passes, found.is_thin) == (True, True)
    assert f"of {MIN_COMPARED - 1} requests held back" in found.reasons[1]
    assert "aiq_new" not in found.numbers
    # Better in foresight is something to go by all the same.
    assert not gate(candidate=known, current=NOTHING, held_out=held, deployments=DEPLOYMENTS).is_thin


def test_only_answers_that_a_checker_judged_and_that_have_a_price_are_compared() -> None:
    held = answers(5, RIGHT) + answers(5, RIGHT, seed=2, source="shadow")
    (group,) = group_answers(held, DEPLOYMENTS)
    assert len(group.requests) == 5
    assert [found.name for found in group.deployments] == ["large@local", "small@local"]
    assert group.costs[0].tolist() == pytest.approx([0.0105, 0.00021])
    unpriced = deployment(2, model="large", input_usd=None, output_usd=None)
    assert group_answers(held, {**DEPLOYMENTS, "large": unpriced}) == []
    assert group_answers(held, {"small": DEPLOYMENTS["small"]}) == []


def test_a_request_costs_what_its_record_says_it_held_and_its_workload_does_where_none_does() -> None:
    held = answers(4, RIGHT)
    # Of the first request both models counted, of the second one did; of the others there is no record.
    counted = {0: {"small": 1000.0, "large": 2000.0}, 1: {"large": 4000.0}}
    held = [
        one._replace(input_tokens=counted.get(at // 2, {}).get(one.evidence.model))
        for at, one in enumerate(held)
    ]
    (group,) = group_answers(held, DEPLOYMENTS, {WORKLOAD: 100.0})
    assert group.input_tokens.tolist() == [[2000, 1000], [4000, 4000], [100, 100], [100, 100]]
    assert group.size_sources == ["record", "record", "workload", "workload"]
    output = 400 * 20 / 1e6
    assert group.costs[:, 0].tolist() == pytest.approx(
        [output + tokens * 5 / 1e6 for tokens in (2000, 4000, 100, 100)]
    )
    (assumed,) = group_answers(held[4:], DEPLOYMENTS, {"another": 100.0})
    assert (assumed.size_sources, assumed.input_tokens.tolist()) == (["assumed"] * 2, [[500, 500]] * 2)
    # Nor do tables foresee the cost of another length: what is cheap to answer may be dear to ask.
    dear_to_ask = {**DEPLOYMENTS, "small": deployment(1, model="small", input_usd=5, output_usd=0.4)}
    (group,) = group_answers(held, dear_to_ask, {WORKLOAD: 100.0})
    ratios = route_answered(group, [empty_tables()] * 2, {}).foreseen.cost_ratio[:, 1].tolist()
    assert ratios[1] > ratios[0] > 0.4 > ratios[2] == ratios[3]


def test_the_verdict_says_on_which_lengths_its_costs_rest() -> None:
    held = answers(200, RIGHT)
    known = [one._replace(input_tokens=900.0) if at < 100 else one for at, one in enumerate(held)]
    found = gate(
        candidate=side(held),
        current=side(answers(200, SWAPPED, seed=2)),
        held_out=known,
        deployments=DEPLOYMENTS,
    )
    assert found.reasons[2] == (
        "Costs are those of requests: 50 as long as their records say; 150 of 500 input tokens, which is assumed."
    )
    assert [found.numbers[f"size_of_{name}"] for name in ("record", "workload", "assumed")] == [50, 0, 150]
    of_workload = gate(
        candidate=side(held), current=NOTHING, held_out=held, deployments=DEPLOYMENTS,
        mean_input_tokens={WORKLOAD: 3000.0},
    )  # fmt: skip
    assert "200 as long as their workload's mean." in of_workload.reasons[2]


def test_questions_whose_words_tell_their_difficulty_are_routed_by_it() -> None:
    held = [
        Judged(Evidence(WORKLOAD, "code", model, quality, pair_id=f"evaluation-1-{number}", source="evaluation"), 0)
        for number in range(60)
        for model, quality in (("small", float(number % 2)), ("large", 1.0))
    ]  # fmt: skip
    plain = learn([one.evidence for one in held], priors=empty_tables(), now_unix_s=0.0)
    steep = DifficultyModel((0.0,) * (WORDS_BUCKETS + 8), 0.0, {"small": -0.5, "large": 0.5})
    telling = RouterTables(workloads=plain.workloads, types=plain.types, difficulty=steep)
    difficulties = {f"evaluation-1-{number}": 0.1 if number % 2 else 0.9 for number in range(60)}
    groups = group_answers(held, DEPLOYMENTS)
    found = compare(
        groups,
        [route_answered(group, [plain], {}) for group in groups],
        [route_answered(group, [telling], difficulties) for group in groups],
    )
    # Half of the way from the small model's quality (.5) to the large one's costs; of the other half none is needed.
    assert found.aiq_now == pytest.approx(0.75)
    assert found.aiq_new == pytest.approx(0.875)
    assert 0.1 < found.lead_low < found.lead_high < 0.15
