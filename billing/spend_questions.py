"""Which spend is asked for? An address's parameters -> period, grouping and filters, and back into links.

Pure. Days are UTC days, like those of the rollups that answer. What makes no sense is not asked, and
`is_period_unclear` says so where it is the period: nobody should take one month's numbers for another's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple
from urllib.parse import urlencode

from billing.label_reports import Labels
from billing.reports import DIMENSIONS, NONE, Scope
from billing.request_questions import LABEL_FILTERS

DAY: Final = dt.timedelta(days=1)
MAX_DAYS: Final = 366
DEFAULT_PERIOD: Final = "30d"
PERIODS: Final[Mapping[str, str]] = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "this-month": "This month",
    "last-month": "Last month",
}
# One of `GROUPINGS`, of `LABEL_KINDS`, or a tag's name after `TAG_PREFIX`.
Grouping = str
GROUPINGS: Final[tuple[Grouping, ...]] = (
    "tenant", "project", "key", "model", "provider", "deployment", "policy", "day",
)  # fmt: skip
LABEL_KINDS: Final[Mapping[str, str]] = {"rule": "Rule", "app": "App", "user": "End user"}
TAG_PREFIX: Final = "tag:"
MAX_TAG_CHARACTERS: Final = 64
# What a row opens into; where that is fixed by a filter already, what that opens into.
_NEXT: Final[Mapping[Grouping, Grouping]] = {
    "tenant": "key",
    "project": "key",
    "policy": "model",
    "provider": "model",
    "key": "model",
    "deployment": "day",
    "model": "day",
}
_NEXT_OF_LABEL: Final[Grouping] = "project"


class Period(NamedTuple):
    """Days, both included, and those that they are compared with."""

    name: str
    first_day: dt.date
    last_day: dt.date
    before_first_day: dt.date
    before_last_day: dt.date

    @property
    def day_count(self) -> int:
        return (self.last_day - self.first_day).days + 1

    @property
    def before_day_count(self) -> int:
        return (self.before_last_day - self.before_first_day).days + 1


@dataclass(frozen=True, slots=True)
class Question:
    """What a page, a CSV or an XLSX of spend answers; the same address parameters ask all three the same."""

    period: Period
    by: Grouping
    filters: Mapping[str, int]
    is_period_unclear: bool = False
    # Filters that the page cannot be asked with: nothing is left out without being said.
    left_out: tuple[str, ...] = ()

    @property
    def label_group(self) -> Labels | None:
        """The labels that it groups by, if it does."""
        return find_label_group(self.by)

    @property
    def title(self) -> str:
        """What its rows are called."""
        group = self.label_group
        if group is None:
            return "API key" if self.by == "key" else self.by.capitalize()
        return LABEL_KINDS.get(group.kind, f"Tag {group.name}")

    def groupings(self, tag_names: Iterable[str], kinds: Collection[str]) -> list[tuple[str, str, str]]:
        """Grouping, title and query string of what can be asked next, as far as there are labels."""
        offered = [*GROUPINGS, *(kind for kind in LABEL_KINDS if kind in kinds)]
        offered += [f"{TAG_PREFIX}{name}" for name in tag_names]
        return [(by, replace(self, by=by).title, self.link(by=by)) for by in offered]

    @property
    def scope(self) -> Scope:
        """The filters, as the query layer takes them."""
        of_rows = {
            _scope_field(name): wanted for name, wanted in self.filters.items() if name not in LABEL_FILTERS
        }
        return Scope(**of_rows, label_ids=self.label_ids)

    @property
    def label_ids(self) -> tuple[int, ...]:
        """The labels that it filters by, in order."""
        return tuple(sorted({self.filters[name] for name in LABEL_FILTERS if name in self.filters}))

    def _with_label(self, label_id: int) -> Mapping[str, int] | None:
        """The filter that asks for this label too; None where there is no room for one more."""
        if label_id in self.label_ids:
            return {}
        free = next((name for name in LABEL_FILTERS if name not in self.filters), None)
        return None if free is None else {free: label_id}

    def parameters(self) -> dict[str, str]:
        """The address parameters that ask this."""
        found = {"period": self.period.name}
        if self.period.name == "custom":
            found |= {"from": self.period.first_day.isoformat(), "to": self.period.last_day.isoformat()}
        found["by"] = self.by
        return found | {name: str(wanted) for name, wanted in self.filters.items()}

    def link(self, **changes: str | int | None) -> str:
        """The query string of this question with some parameters changed; None takes one away."""
        changed = self.parameters() | {name: str(value) for name, value in changes.items()}
        return urlencode(
            {name: value for name, value in changed.items() if changes.get(name, value) is not None}
        )

    def period_link(self, name: str) -> str:
        """The query string of the same question about another period."""
        return self.link(**{"period": name, "from": None, "to": None})

    def link_into(self, row_id: int | None) -> str:
        """The query string that opens a row of this grouping: its filter, and the next grouping that tells more.

        Empty for what has no label, which no filter asks for, and for one label more than can be asked.
        """
        if self.label_group is not None:
            added = None if row_id is None else self._with_label(row_id)
            if added is None:
                return ""
            following = "model" if "key" in self.filters else _NEXT_OF_LABEL
        else:
            added = {self.by: NONE if row_id is None else row_id}
            following = self.by
        while following == self.by or following in self.filters:
            following = _NEXT.get(following, "day")
            if following == "day":
                break
        return self.link(by=following, **added)

    def requests_link(
        self, *, day: dt.date | None = None, row_id: int | Literal["all"] | None = "all"
    ) -> str:
        """The query string of the request list that holds exactly these requests, of a day or of a row.

        Empty for what has no label, or one more than can be asked: the list cannot be asked for that.
        """
        filters = dict(self.filters)
        if self.label_group is not None:
            added = None if row_id is None else {} if row_id == "all" else self._with_label(row_id)
            if added is None:
                return ""
            filters |= added
        elif row_id != "all" and self.by != "day":
            filters[self.by] = NONE if row_id is None else row_id
        first, last = (day, day) if day is not None else (self.period.first_day, self.period.last_day)
        named = {("served" if name == "model" else name): str(wanted) for name, wanted in filters.items()}
        return urlencode(named | {"since": f"{first}T00:00:00Z", "until": f"{last + DAY}T00:00:00Z"})


def read_question(
    query: Mapping[str, str],
    *,
    today: dt.date,
    by: Grouping = "tenant",
    period: str = DEFAULT_PERIOD,
    has_labels: bool = True,
) -> Question:
    """Read an address; `by` and `period` are what is asked when it does not say.

    Without `has_labels` filters by label are left out, and nothing is grouped by them.
    """
    found = read_period(query, today=today, default=period)
    wanted_by = query.get("by", by)
    filters: dict[str, int] = {}
    for name in (*DIMENSIONS, *LABEL_FILTERS):
        value, is_label = query.get(name, ""), name in LABEL_FILTERS
        if value.isdecimal() and value.isascii() and (not is_label or int(value[:9])):
            filters[name] = int(value[:9] if is_label else value[:18])
    is_by_label = has_labels and find_label_group(wanted_by) is not None
    if wanted_by not in GROUPINGS and not is_by_label:
        wanted_by = by
    left_out = () if has_labels else tuple(name for name in LABEL_FILTERS if name in filters)
    return Question(
        period=found or _last_days("30d", 30, today),
        by=wanted_by,
        filters={name: wanted for name, wanted in filters.items() if name not in left_out},
        is_period_unclear=found is None,
        left_out=left_out,
    )


def find_label_group(by: Grouping) -> Labels | None:
    """The labels that a grouping means; None for one that is by something else."""
    if by in LABEL_KINDS:
        return Labels(by, "")
    name = by.removeprefix(TAG_PREFIX)
    if name == by or not 0 < len(name) <= MAX_TAG_CHARACTERS or "\0" in name:
        return None
    return Labels("tag", name)


def read_period(query: Mapping[str, str], *, today: dt.date, default: str = DEFAULT_PERIOD) -> Period | None:
    """The period that an address asks for; None when it makes no sense."""
    name = query.get("period", "") or ("custom" if query.get("from") else default)
    month = today.replace(day=1)
    if name == "today":
        return _last_days(name, 1, today)
    if name in ("7d", "30d"):
        return _last_days(name, int(name[:-1]), today)
    if name == "this-month":
        before = (month - DAY).replace(day=1)
        same_day = min(before + DAY * (today.day - 1), month - DAY)
        return Period(name, month, today, before, same_day)
    if name == "last-month":
        first = (month - DAY).replace(day=1)
        return Period(name, first, month - DAY, (first - DAY).replace(day=1), first - DAY)
    if name == "custom":
        return _custom(query.get("from", ""), query.get("to", ""))
    return None


def _custom(first: str, last: str) -> Period | None:
    try:
        first_day, last_day = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    except ValueError:
        return None
    days = (last_day - first_day).days + 1
    if not 1 <= days <= MAX_DAYS or not 2000 <= first_day.year <= last_day.year <= 2999:
        return None
    return Period("custom", first_day, last_day, first_day - DAY * days, first_day - DAY)


def _last_days(name: str, days: int, today: dt.date) -> Period:
    first = today - DAY * (days - 1)
    return Period(name, first, today, first - DAY * days, first - DAY)


def _scope_field(name: str) -> str:
    return "api_key_id" if name == "key" else f"{name}_id"
