"""Which rows and columns does the file of a spend report have? A report -> a `Sheet`.

Reads: names. The file holds what the page shows, whole: the page may show a part of many rows, the total is the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from billing.spend import Spend, with_names
from billing.spend_keys import GROWTH_RULE, KeySpend
from billing.spend_questions import Question
from billing.spend_rows import Row
from billing.spreadsheets import Column, Sheet

_COST = (Column("cost_usd", "usd"), Column("cost_nanousd", "count"))
_CHARGE = (Column("charge_usd", "usd"), Column("charge_nanousd", "count"))
_MARGIN = (Column("margin_usd", "usd"), Column("margin_nanousd", "count"), Column("margin_ratio", "ratio"))
_SUMS = (
    Column("cost_before_usd", "usd"),
    Column("cost_before_nanousd", "count"),
    Column("change_usd", "usd"),
    Column("change_ratio", "ratio"),
    Column("request_count", "count"),
    Column("error_count", "count"),
    Column("unpriced_count", "count"),
    Column("estimated_count", "count"),
    Column("unknown_count", "count"),
    Column("unpriced_before_count", "count"),
    Column("input_tokens", "count"),
    Column("cache_read_tokens", "count"),
    Column("cache_write_tokens", "count"),
    Column("output_tokens", "count"),
    Column("reasoning_tokens", "count"),
    Column("cache_read_ratio", "ratio"),
)
_DAYS = (Column("from_day", "day"), Column("to_day", "day"))


class Money(NamedTuple):
    """What stands beside the cost: charges where anybody has terms, the margin for who may see it."""

    has_charges: bool = False
    has_margin: bool = False


ONLY_COST = Money()


def spend_sheet(
    spend: Spend, *, filters: Mapping[str, str], now: dt.datetime, money: Money = ONLY_COST
) -> Sheet:
    """The rows of one grouping. Of a day nothing is before: those cells are empty."""
    question = spend.question
    is_daily = question.by == "day"
    first, last = question.period.first_day, question.period.last_day
    columns: tuple[Column, ...]
    if is_daily:
        columns = (Column("day", "text"), *_DAYS, *_sum_columns(money))
    else:
        columns = (
            Column(question.by, "text"),
            Column(f"{question.by}_id", "count"),
            *_DAYS,
            *_sum_columns(money),
        )
    rows = [
        [row.name, row.day, row.day, *sums_of_row(row, money, has_before=False)]
        if is_daily
        else [row.name, row.id, first, last, *sums_of_row(row, money)]
        for row in with_names(question, spend.rows)
    ]
    total = ["Total", first, last] if is_daily else ["Total", None, first, last]
    return Sheet(
        name="Spend",
        columns=columns,
        rows=rows,
        total=[*total, *sums_of_row(spend.total, money)],
        about=about(question, money, filters=filters, now=now, title=f"Spend by {question.by}"),
    )


def key_sheet(
    report: KeySpend,
    *,
    states: Mapping[int, str],
    last_used: Mapping[int, dt.date],
    filters: Mapping[str, str],
    now: dt.datetime,
    money: Money = ONLY_COST,
) -> Sheet:
    """One row a key: whose it is, what it spent, whether it grew unusually."""
    question = report.question
    first, last = question.period.first_day, question.period.last_day
    columns = (
        *(Column(name, "text") for name in ("tenant", "project", "key", "owner", "key_hint", "state")),
        Column("key_id", "count"),
        *_DAYS,
        *_sum_columns(money),
        Column("unusual", "text"),
        Column("last_used_day", "day"),
    )
    rows = [
        [
            key.tenant, key.project, key.name, key.owner, key.secret_hint, states[key.pk], key.pk,
            first, last, *sums_of_row(one.row, money), one.growth, last_used.get(key.pk),
        ]
        for one in report.rows
        for key in (one.key,)
    ]  # fmt: skip
    return Sheet(
        name="API keys",
        columns=columns,
        rows=rows,
        total=["Total", *[None] * 6, first, last, *sums_of_row(report.total, money), None, None],
        about=[
            *about(question, money, filters=filters, now=now, title="Spend of every API key"),
            ("Keys", "Those that may be used now, and others with a request in either period."),
            ("Unusual", GROWTH_RULE),
        ],
    )


def _sum_columns(money: Money) -> tuple[Column, ...]:
    charge, margin = _CHARGE if money.has_charges else (), _MARGIN if money.has_margin else ()
    return (*_COST, *charge, *margin, *_SUMS)


def sums_of_row(row: Row, money: Money = ONLY_COST, *, has_before: bool = True) -> list[Any]:
    """The cells of the columns that every sheet ends with."""
    now, before = row.totals, row.before
    cost_before = before.cost_nanousd if has_before else None
    return [
        now.cost_nanousd,
        now.cost_nanousd,
        *([now.charge_nanousd] * 2 if money.has_charges else []),
        *([now.margin_nanousd, now.margin_nanousd, now.margin_ratio] if money.has_margin else []),
        cost_before,
        cost_before,
        row.change_nanousd if has_before else None,
        row.change_ratio if has_before else None,
        now.request_count,
        now.error_count,
        now.unpriced_count,
        now.estimated_count,
        now.unknown_count,
        before.unpriced_count if has_before else None,
        now.input_tokens,
        now.cache_read_tokens,
        now.cache_write_tokens,
        now.output_tokens,
        now.reasoning_tokens,
        now.cache_read_ratio,
    ]


def about(
    question: Question, money: Money, *, filters: Mapping[str, str], now: dt.datetime, title: str
) -> Sequence[tuple[str, str]]:
    """What a reader of the file alone has to know."""
    period = question.period
    return [
        ("Report", title),
        ("Days (UTC)", f"{period.first_day} to {period.last_day}"),
        ("Compared with", f"{period.before_first_day} to {period.before_last_day}"),
        *((f"Only {name}", text) for name, text in filters.items()),
        ("Made at", f"{now.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("Cost", "What providers charge, of requests with a price and known usage. cost_nanousd is exact."),
        *(
            [("Charge", "What tenants are charged by their terms; the cost where they have none.")]
            * money.has_charges
        ),
        *([("Margin", "Charge less cost; margin_ratio is its part of the charge.")] * money.has_margin),
        (
            "Unpriced, unknown",
            "These requests are in request_count and not in the cost: unknown is not zero.",
        ),
        ("Estimated", "These requests are in the cost with token counts of our own."),
        *(
            [
                (
                    "No label",
                    "What the labels leave of the total: requests that have none, and all before sums by label.",
                )
            ]
            * (question.label_group is not None)
        ),
        ("Tokens", "Cache reads and writes are part of the input, reasoning is part of the output."),
    ]
