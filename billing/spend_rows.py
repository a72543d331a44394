"""What was spent now and before, and how do thousands of rows cost a page no more than the hundred that it shows?

Pure. Sums are read as plain tuples; a `Row` is built of them when somebody looks at it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, overload

from billing.reports import DayTotals, Spent, Sums, place_of, sum_up

NOTHING: Final = Spent()
COST: Final = place_of("cost_nanousd")
REQUESTS: Final = place_of("request_count")
_NO_TOTALS: Final[Sums] = sum_up(DayTotals, [])
_NO_SPENT: Final[Sums] = sum_up(Spent, [])

Of = TypeVar("Of")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Row:
    """One tenant, key, model and so on, or one day (`day` is set, and nothing is before)."""

    id: int | None
    name: str
    totals: DayTotals
    before: Spent
    day: dt.date | None = None

    @property
    def change_nanousd(self) -> int:
        return self.totals.cost_nanousd - self.before.cost_nanousd

    @property
    def change_ratio(self) -> float | None:
        """Of what was spent before; None when that was nothing."""
        return self.change_nanousd / self.before.cost_nanousd if self.before.cost_nanousd else None


class MadeWhenSeen(Sequence[Made], Generic[Of, Made]):
    """A sequence whose members are made each time when they are looked at."""

    __slots__ = ("_make", "_of")

    def __init__(self, of: Sequence[Of], make: Callable[[Of], Made]) -> None:
        self._of, self._make = of, make

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Made]:
        return map(self._make, self._of)

    @overload
    def __getitem__(self, place: int) -> Made: ...

    @overload
    def __getitem__(self, place: slice) -> list[Made]: ...

    def __getitem__(self, place: int | slice) -> Made | list[Made]:
        if isinstance(place, slice):
            return list(map(self._make, self._of[place]))
        return self._make(self._of[place])


@dataclass(frozen=True, slots=True)
class BothPeriods:
    """The sums of `DayTotals` now and of `Spent` before, by id. Id None: requests that had none."""

    now: Mapping[int | None, Sums]
    before: Mapping[int | None, Sums]

    def list_dearest_first(self) -> list[int | None]:
        """The ids of either period."""
        now, before = self.now, self.before

        def order(row_id: int | None) -> tuple[int, int, int, int]:
            sums = now.get(row_id, _NO_TOTALS)
            return -sums[COST], -sums[REQUESTS], -before.get(row_id, _NO_SPENT)[COST], row_id or 0

        return sorted(now.keys() | before.keys(), key=order)

    def cost_nanousd(self, row_id: int | None) -> int:
        return self.now.get(row_id, _NO_TOTALS)[COST]

    def request_count(self, row_id: int | None) -> int:
        return self.now.get(row_id, _NO_TOTALS)[REQUESTS]

    def cost_before_nanousd(self, row_id: int | None) -> int:
        return self.before.get(row_id, _NO_SPENT)[COST]

    def row_of(self, row_id: int | None) -> Row:
        """One row, without a name; of nothing where there was no request."""
        now, before = self.now.get(row_id), self.before.get(row_id)
        totals = DayTotals() if now is None else DayTotals(*now)
        return Row(row_id, "", totals, NOTHING if before is None else Spent(*before))

    def total(self, row_ids: Iterable[int | None] | None = None) -> Row:
        """The sum of these rows, of all where none are named."""
        if row_ids is None:
            now, before = list(self.now.values()), list(self.before.values())
        else:
            asked = list(row_ids)
            now = [self.now[row_id] for row_id in asked if row_id in self.now]
            before = [self.before[row_id] for row_id in asked if row_id in self.before]
        return Row(None, "Total", DayTotals(*sum_up(DayTotals, now)), Spent(*sum_up(Spent, before)))
