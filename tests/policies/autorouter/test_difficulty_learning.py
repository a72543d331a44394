"""Is difficulty learnt where words tell it, and left alone where they do not?"""

from __future__ import annotations

import random

import pytest

from policies.autorouter.difficulty_learning import MIN_EXAMPLES, Example, learn_difficulty
from policies.autorouter.words import read_words
from tests.policies.autorouter.made import rated

WORDS = [f"word{number}" for number in range(60)]


def examples(count: int, *, is_telling: bool) -> list[Example]:
    """Requests of which the weak model m0 fails those with "theorem" in them, or fails at random."""
    drawn = random.Random(4)
    found = []
    for _ in range(count):
        is_hard = drawn.random() < 0.5
        words = [*drawn.sample(WORDS, 12), "theorem" if is_hard else "recipe"]
        fails = is_hard if is_telling else drawn.random() < 0.5
        quality = 0.0 if fails and drawn.random() < 0.8 else 1.0
        found.append(Example(" ".join(words), "aa", "question", {"m0": quality, "m1": 0.9}))
    return found


def test_words_that_tell_which_model_fails_are_learnt() -> None:
    lesson = learn_difficulty(examples(400, is_telling=True), tables=rated([0.6, 0.9]), bucket_count=128)
    assert lesson is not None
    model = lesson.model
    hard = model.difficulty(read_words("a theorem about word3 and word9"))
    easy = model.difficulty(read_words("a recipe with word3 and word9"))
    assert easy < 0.5 < hard
    assert model.slopes["m1"] > 0.2 > -0.2 > model.slopes["m0"]


def test_words_that_tell_nothing_are_next_to_nothing() -> None:
    lesson = learn_difficulty(examples(400, is_telling=False), tables=rated([0.6, 0.9]), bucket_count=128)
    assert lesson is None or max(map(abs, lesson.model.slopes.values())) < 0.1


@pytest.mark.parametrize("count", [0, 1, MIN_EXAMPLES - 1])
def test_few_examples_teach_nothing(count: int) -> None:
    assert (
        learn_difficulty(examples(count, is_telling=True), tables=rated([0.6, 0.9]), bucket_count=128) is None
    )
