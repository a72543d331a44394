"""How good were two answers, when all that is known is whether they say the same?

Pure. Nobody knows which of two differing answers is right, so each gets the probability that it is, by Bayes' rule from
what the router expected of both models. Expected over agreement and difference this is again what was expected: it
moves the estimates only as far as models agree more, or less, often than they should if the estimates were right.
"""

from __future__ import annotations

from typing import Final

# How often two wrong answers are the same one, and two right ones are worded differently. Assumed, not measured:
# answers are compared where there are few ways to say the right thing.
SAME_MISTAKE: Final = 0.3
OTHER_WORDING: Final = 0.1
# No estimate is sure enough to make the other answer's word worthless.
LEAST: Final = 0.02


def judge_agreement(one: float, other: float, *, is_same: bool) -> tuple[float, float]:
    """Return how likely each of two answers is right, from the qualities (0 to 1) that were expected of them."""
    one, other = (min(1 - LEAST, max(LEAST, quality)) for quality in (one, other))
    both = one * other
    same = both * (1 - OTHER_WORDING) + (1 - one) * (1 - other) * SAME_MISTAKE
    if is_same:
        right = both * (1 - OTHER_WORDING) / same
        return right, right
    both_reworded = both * OTHER_WORDING
    return (
        (one * (1 - other) + both_reworded) / (1 - same),
        (other * (1 - one) + both_reworded) / (1 - same),
    )
