"""What does a provider's file say that it charged? The lines of a bill, and their sums by day and model.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final, NamedTuple

NANOUSD_PER_USD: Final = 1_000_000_000
# More on one bill is a slip of a decimal point, and would not fit into the database's integers.
MAX_TOTAL_USD: Final = Decimal(1_000_000_000)
_EXACT = Context(prec=80)


class BillError(ValueError):
    """A file or a line that cannot be taken. The text is for the person who sent it, one reason a line."""


class Counts(NamedTuple):
    """What was used; None: the file does not say. `input_tokens` is all that was sent, cached or not."""

    requests: int | None = None
    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None


NO_COUNTS: Final = Counts()


class BillLine(NamedTuple):
    """One line of a file. `billed_as` is the model as the provider calls it, empty for a sum over all models.

    `account` is the project, workspace or key that the file names. `rounded_usd` is how far the stated cost can be from
    the exact one: half of its last digit.
    """

    day: dt.date
    billed_as: str
    account: str
    counts: Counts
    cost_usd: Decimal | None
    rounded_usd: Decimal = Decimal(0)


class BilledGroup(NamedTuple):
    """All lines of one model on one day."""

    day: dt.date
    billed_as: str
    counts: Counts
    cost_nanousd: int | None
    rounding_nanousd: int
    line_count: int

    def as_json(self) -> list[Any]:
        """How a group is stored."""
        return [self.day.isoformat(), self.billed_as, list(self.counts), *self[3:]]

    @classmethod
    def from_json(cls, stored: Sequence[Any]) -> BilledGroup:
        """Read what `as_json` wrote."""
        day, billed_as, counts, *rest = stored
        return cls(dt.date.fromisoformat(day), billed_as, Counts(*counts), *rest)


@dataclass(frozen=True, slots=True)
class Bill:
    """A file that was read. `notes` say what was taken but is worth a look, each with its line."""

    lines: tuple[BillLine, ...]
    notes: tuple[str, ...]

    @property
    def accounts(self) -> list[str]:
        """The projects, workspaces or keys that it names."""
        return sorted({line.account for line in self.lines if line.account})


def group_lines(lines: Iterable[BillLine]) -> list[BilledGroup]:
    """Sum lines by day and model. Raises BillError when the sum is more than anybody is charged."""
    found: dict[tuple[dt.date, str], list[BillLine]] = {}
    for line in lines:
        found.setdefault((line.day, line.billed_as), []).append(line)
    groups = [
        BilledGroup(
            day,
            billed_as,
            _sum_counts(listed),
            _sum_cost(listed),
            _nanousd(sum((line.rounded_usd for line in listed), Decimal(0))),
            len(listed),
        )
        for (day, billed_as), listed in sorted(found.items())
    ]
    if sum(group.cost_nanousd or 0 for group in groups) > MAX_TOTAL_USD * NANOUSD_PER_USD:
        raise BillError(f"the file's total is more than {MAX_TOTAL_USD:,} USD")
    return groups


def _sum_counts(lines: Sequence[BillLine]) -> Counts:
    """Sums of what is stated; nothing, when a line does not say what was used: half a sum compares with nothing."""
    if any(line.counts == NO_COUNTS for line in lines):
        return NO_COUNTS
    columns = zip(*(line.counts for line in lines), strict=True)
    return Counts(*(_sum_stated(column) for column in columns))


def _sum_stated(values: Iterable[int | None]) -> int | None:
    stated = [value for value in values if value is not None]
    return sum(stated) if stated else None


def _sum_cost(lines: Sequence[BillLine]) -> int | None:
    costs = [line.cost_usd for line in lines if line.cost_usd is not None]
    if not costs:
        return None
    total = Decimal(0)
    for cost in costs:
        total = _EXACT.add(total, cost)
    return _nanousd(total)


def _nanousd(usd: Decimal) -> int:
    return int(_EXACT.multiply(usd, Decimal(NANOUSD_PER_USD)).to_integral_value(ROUND_HALF_UP))
