"""Does agreement move what is thought of models the way it should, and by nothing when it is as expected?"""

from __future__ import annotations

import pytest

from policies.autorouter.agreement import OTHER_WORDING, SAME_MISTAKE, judge_agreement

PAIRS = [(0.9, 0.6), (0.5, 0.5), (0.7, 0.95), (0.05, 0.4), (0.98, 0.02)]


def agreement_ratio(one: float, other: float) -> float:
    return one * other * (1 - OTHER_WORDING) + (1 - one) * (1 - other) * SAME_MISTAKE


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_models_that_agree_as_often_as_expected_stay_where_they_are(one: float, other: float) -> None:
    same, different = (judge_agreement(one, other, is_same=is_same) for is_same in (True, False))
    ratio = agreement_ratio(one, other)
    for place, expected in enumerate((one, other)):
        assert ratio * same[place] + (1 - ratio) * different[place] == pytest.approx(expected)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_agreement_makes_models_equal_and_difference_speaks_against_the_one_held_weaker(
    one: float, other: float
) -> None:
    first, second = judge_agreement(one, other, is_same=True)
    assert first == second
    first, second = judge_agreement(one, other, is_same=False)
    assert 0 <= min(first, second) <= max(first, second) <= 1
    assert (first > second) == (one > other)


def test_no_certainty_is_so_great_that_it_breaks_the_arithmetic() -> None:
    for one in (0.0, 1.0):
        for other in (0.0, 1.0):
            for is_same in (True, False):
                assert all(0 <= found <= 1 for found in judge_agreement(one, other, is_same=is_same))
