"""Which credit pays how much of an amount?

Pure. Credit comes in its order (priority, expiry, age). Credit for certain models pays only what is for them; so
credit for any model first pays what the fewest later ones could pay: tax, and models without credit of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Usable(NamedTuple):
    """A grant that may be drawn: what is left of it, and for which models (empty: any)."""

    grant_id: int
    left_nano: int
    models: frozenset[str]


def share_out(
    usable: Sequence[Usable], *, wanted_nano: int, by_model: Mapping[str, int], unit_nano: int
) -> list[tuple[int, int]]:
    """(grant id, nano) in the order of drawing, each a multiple of `unit_nano`, at most `wanted_nano` together."""
    wanted = max(0, wanted_nano - wanted_nano % unit_nano)
    # None: what is for no model (tax, rounding).
    open_nano: dict[str | None, int] = {model: amount for model, amount in by_model.items() if amount > 0}
    open_nano[None] = max(0, wanted - sum(open_nano.values()))
    shares = []
    for number, one in enumerate(usable):
        later = usable[number + 1 :]
        payable = [model for model in open_nano if not one.models or model in one.models]
        payable.sort(key=lambda model: (_count_others(later, model), model or ""))
        amount = min(one.left_nano, wanted, sum(open_nano[model] for model in payable))
        amount -= amount % unit_nano
        shares.append((one.grant_id, amount))
        wanted -= amount
        for model in payable:
            part = min(amount, open_nano[model])
            open_nano[model] -= part
            amount -= part
    return shares


def _count_others(later: Sequence[Usable], model: str | None) -> int:
    return sum(1 for one in later if model in one.models)
