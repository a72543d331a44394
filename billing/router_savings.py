"""What would a policy's baseline model have cost for what a workload asked?

Pure. The same requests at the baseline's price, with as many output tokens as the baseline usually writes there (where
it never served, as many as were written) and the given share of input read from a cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from billing.pricebook import PriceVersion
from billing.rating import total_nanousd
from billing.usage import Usage


class ServedSum(NamedTuple):
    """Sums over the requests that one model served on one workload."""

    model: str
    request_count: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    output_count: int
    cost_nanousd: int
    priced_count: int


def baseline_nanousd(sums: Iterable[ServedSum], *, baseline: str, price: PriceVersion) -> int:
    """Return what the priced requests among these would have cost with the baseline model.

    What the baseline itself served costs what it did cost. Of the others the mean request is rated and multiplied.
    """
    sums = list(sums)
    cached_ratio = best_cached_ratio(sums)
    own = [one for one in sums if one.model == baseline and one.output_count]
    own_output = sum(o.output_tokens for o in own) / sum(o.output_count for o in own) if own else None
    total = 0
    for one in sums:
        if one.model == baseline:
            total += one.cost_nanousd
            continue
        if not one.priced_count or not one.request_count:
            continue
        input_tokens = round(one.input_tokens / one.request_count)
        output = own_output
        if output is None:
            output = one.output_tokens / one.output_count if one.output_count else 0.0
        mean = Usage(
            kind="estimated",
            input_tokens=input_tokens,
            output_tokens=round(output),
            cache_read_tokens=min(input_tokens, round(input_tokens * cached_ratio)),
        )
        total += total_nanousd(mean, price) * one.priced_count
    return total


def best_cached_ratio(sums: Iterable[ServedSum]) -> float:
    """The largest share of input that any model read from its cache: what staying with one model would have kept."""
    ratios = [one.cache_read_tokens / one.input_tokens for one in sums if one.input_tokens]
    return min(1.0, max(ratios, default=0.0))
