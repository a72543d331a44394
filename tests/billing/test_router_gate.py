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
