"""Do the files that leave say what the requests in them come to? For tests: an auditor who has the files and prices.

Every attempt in the export of requests is rated again by `oracle_charges`, every request charged again; their sums
are what the files of spend must hold. Of the database it is only asked on which day what came late is counted.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson

from billing.export_tables import open_table
from billing.exporting import export_requests
from billing.models import Adjustment, LatePosting
from tests.billing.oracle_charges import Price, Term, charge_lines, cost_lines

# Of a usage in a file, what the oracle calls it.
_WORDS: Final = {
    "input_tokens": "input", "output_tokens": "output", "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write", "cache_write_1h_tokens": "cache_write_1h", "reasoning_tokens": "reasoning",
    "audio_input_tokens": "audio_in", "audio_output_tokens": "audio_out", "image_input_tokens": "image_in",
    "image_output_tokens": "image_out", "search_count": "searches", "image_count": "images", "audio_s": "audio_s",
    "service_tier": "tier",
}  # fmt: skip
COUNTED: Final = (
    "request_count", "error_count", "unpriced_count", "unknown_count", "estimated_count", "input_tokens",
    "output_tokens", "cache_read_tokens", "reasoning_tokens", "cost_nanousd", "charge_nanousd",
)  # fmt: skip
_FIRST, _LAST = dt.date(2025, 9, 1), dt.date(2025, 12, 31)


class Counted(NamedTuple):
    """What one request, or what an adjustment takes away or adds, counts where."""

    tenant: int
    project: int
    key: int
    deployment: int | None
    day: dt.date
    numbers: tuple[int, ...]


class Auditor:
    """Prices and terms as they were agreed, and which model a deployment serves."""

    def __init__(self, prices: Sequence[Price], terms: Sequence[Term], models: Mapping[int, int]) -> None:
        self.prices = {price.id: price for price in prices}
        self.terms = terms
        self.models = models
        self.read: list[Counted] = []

    def read_requests(self) -> None:
        """Read both files of requests; each must hold the other's, and every amount must come out again."""
        shown = [orjson.loads(line) for line in "".join(export_requests(file_format="jsonl")).splitlines()]
        cells = csv.DictReader(io.StringIO("".join(export_requests(file_format="csv"))))
        posted = {(str(row.request_id), row.number): row.posted_on for row in LatePosting.objects.all()}
        adjusted = {str(row.request_id): row for row in Adjustment.objects.filter(number=2)}
        for one, row in zip(shown, cells, strict=True):
            at = dt.datetime.fromisoformat(one["started_at"])
            self._check(one, row, at)
            counted = _numbers(one, one["cost_nanousd"], one["charge_nanousd"])
            self._add(one, posted.get((one["id"], 0), at.date()), counted)
            if one["id"] in adjusted:
                chosen = {number: price for number, price, _ in adjusted[one["id"]].attempts}
                cost, charge = self._rate(one, at, chosen)
                again = _numbers({**one, "is_unpriced": False}, cost, charge)
                change = tuple(new - old for new, old in zip(again, counted, strict=True))
                self._add(one, posted.get((one["id"], 1), at.date()), change)

    def check_spend(self, *, now: dt.datetime) -> None:
        """Every file of spend, grouped by each thing and of each month, holds these sums and their total."""
        group_of: dict[str, Callable[[Counted], Any]] = {
            "tenant": lambda one: one.tenant, "project": lambda one: one.project, "key": lambda one: one.key,
            "deployment": lambda one: one.deployment, "model": lambda one: self.models.get(one.deployment or 0),
            "day": lambda one: one.day.isoformat(),
        }  # fmt: skip
        for first in (_FIRST, dt.date(2025, 10, 1), dt.date(2025, 11, 1)):
            last = (
                _LAST if first == _FIRST else (first + dt.timedelta(days=32)).replace(day=1) - dt.timedelta(1)
            )
            asked = f"period=custom&from={first}&to={last}"
            for by, name_of in group_of.items():
                wanted = self._sums(name_of, first, last)
                found = _read("spend", f"{asked}&by={by}", "day" if by == "day" else f"{by}_id", now)
                assert found == wanted, (by, first, found.items() ^ wanted.items())
            keys = self._sums(group_of["key"], first, last)
            assert _read("spend-keys", asked, "key_id", now) == keys

    def _check(self, one: Mapping[str, Any], row: Mapping[str, str], at: dt.datetime) -> None:
        priced = {
            part["number"]: part["price_id"] for part in one["attempts"] if part["price_id"] is not None
        }
        for part in one["attempts"]:
            if part["number"] in priced:
                lines = cost_lines(_usage(part), self.prices[part["price_id"]].rates, at)
                assert part["cost_nanousd"] == sum(line.nanousd for line in lines), one["id"]
        if one["cost_nanousd"] is not None:
            assert (one["cost_nanousd"], one["charge_nanousd"]) == self._rate(one, at, priced), one["id"]
        for name in ("id", "cost_nanousd", "charge_nanousd", "cost_usd", "charge_usd"):
            assert row[name] == ("" if one[name] is None else str(one[name]))
        for name in _WORDS:
            stated = one["usage"][name]
            assert row[f"usage_{name}"] == ("" if stated is None else str(stated))
        if one["charge_nanousd"] is not None:
            assert Decimal(one["charge_usd"]) * 10**9 == one["charge_nanousd"]

    def _rate(self, one: Mapping[str, Any], at: dt.datetime, chosen: Mapping[int, int]) -> tuple[int, int]:
        cost = charge = 0
        for part in one["attempts"]:
            if part["number"] in chosen:
                usage, rates = _usage(part), self.prices[chosen[part["number"]]].rates
                place = part["deployment_id"]
                sold = charge_lines(
                    usage, rates, at, self.terms,
                    tenant=one["tenant_id"], model=self.models[place], deployment=place,
                )  # fmt: skip
                cost += sum(line.nanousd for line in cost_lines(usage, rates, at))
                charge += sum(line.nanousd for line in sold)
        return cost, charge

    def _add(self, one: Mapping[str, Any], day: dt.date, numbers: tuple[int, ...]) -> None:
        place = (one["tenant_id"], one["project_id"], one["key_id"], one["deployment_id"])
        self.read.append(Counted(*place, day, numbers))

    def _sums(
        self, name_of: Callable[[Counted], Any], first: dt.date, last: dt.date
    ) -> dict[str, tuple[int, ...]]:
        sums: dict[str, tuple[int, ...]] = defaultdict(lambda: (0,) * len(COUNTED))
        for one in self.read:
            if first <= one.day <= last:
                for name in (str(name_of(one)), "Total"):
                    sums[name] = tuple(a + b for a, b in zip(sums[name], one.numbers, strict=True))
        return {name: numbers for name, numbers in sums.items() if any(numbers)}


def _usage(part: Mapping[str, Any]) -> dict[str, Any]:
    return {word: part["usage"][name] for name, word in _WORDS.items()}


def _numbers(one: Mapping[str, Any], cost: int | None, charge: int | None) -> tuple[int, ...]:
    usage, is_unknown = one["usage"], one["usage"]["kind"] == "unknown"
    flags = (
        one["status"] not in ("ok", "cancelled"),
        one["is_unpriced"],
        is_unknown,
        usage["kind"] == "estimated",
    )
    tokens = (usage[name] or 0 for name in COUNTED[5:9])
    return (1, *map(int, flags), *tokens, cost or 0, charge or 0)


def _read(kind: str, asked: str, named: str, now: dt.datetime) -> dict[str, tuple[int, ...]]:
    """The rows of a file of spend by their names, and its total. Rows of nothing but a period before are left out."""
    table = open_table(kind, asked, "csv", now=now)
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, values, strict=True)) for values in table.rows]
    found = {
        "Total" if place == len(rows) - 1 else str(row[named]): tuple(
            int(row.get(name, row["cost_nanousd"]) or 0) for name in COUNTED
        )
        for place, row in enumerate(rows)
    }
    return {name: numbers for name, numbers in found.items() if any(numbers)}
