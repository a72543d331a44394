"""Which table answers an address of spend? The one that the page, its files, its exports and its mails all hold.

Reads: rollups by `billing.spend` and `billing.spend_keys`, names.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

from billing import reports
from billing.key_usage import last_used_days, state_of
from billing.models import Label
from billing.request_questions import LABEL_FILTERS
from billing.sale_terms import has_terms
from billing.spend import NO_NAME, read_spend
from billing.spend_keys import SORTS, KeySpend, read_key_spend
from billing.spend_questions import Question, read_question
from billing.spend_sheets import Money, key_sheet, spend_sheet
from billing.spreadsheets import Sheet


class Answer(NamedTuple):
    """A whole table, the question that it answers, and how files of it are named."""

    question: Question
    sheet: Sheet
    file_stem: str


def spend_table(query: Mapping[str, str], *, now: dt.datetime, sees_margin: bool = False) -> Answer:
    """The table of the page Spend at this address. `sees_margin`: whoever reads it has the ability SEE_MARGIN."""
    question = read_question(query, today=now.date())
    sheet = spend_sheet(
        read_spend(question), filters=names_of_filters(question), now=now, money=money_shown(sees_margin)
    )
    return _answer(
        question, sheet, f"spend-by-{question.label_group.kind if question.label_group else question.by}"
    )


def key_table(query: Mapping[str, str], *, now: dt.datetime, sees_margin: bool = False) -> Answer:
    """The table of the page of all keys at this address; the margin as in `spend_table`."""
    question = read_question({**query, "by": "key"}, today=now.date(), by="key")
    report = read_keys(question, read_key_extras(query), now=now)
    sheet = key_sheet(
        report,
        states={row.key.pk: state_of(row.key, now) for row in report.rows},
        last_used=last_used_days([row.key.pk for row in report.rows]),
        filters=names_of_filters(question),
        now=now,
        money=money_shown(sees_margin),
    )
    return _answer(question, sheet, "spend-of-keys")


def money_shown(sees_margin: bool) -> Money:
    """Charges where anybody has terms, else they are the cost; the margin beside them for who may see it. One query."""
    has_charges = has_terms()
    return Money(has_charges, has_charges and sees_margin)


def read_key_extras(query: Mapping[str, str]) -> dict[str, str]:
    """What an address of the key page asks beyond a question, where it makes sense: sort, q, only."""
    wanted = query.get("sort", "")
    extras = {
        "sort": wanted if wanted.removeprefix("-") in SORTS else "",
        "q": query.get("q", "").replace("\0", "").strip()[:200],
        "only": "unusual" if query.get("only") == "unusual" else "",
    }
    return {name: value for name, value in extras.items() if value}


def read_keys(question: Question, extras: Mapping[str, str], *, now: dt.datetime) -> KeySpend:
    """The keys' spend, searched and sorted as the extras say; the dearest first where they do not."""
    sort = extras.get("sort", "-spend")
    return read_key_spend(
        question,
        now=now,
        q=extras.get("q", ""),
        only_unusual="only" in extras,
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
    )


def names_of_filters(question: Question) -> dict[str, str]:
    """What the filters in force are called; one small query each."""
    found: dict[str, str] = {}
    for name, wanted in question.filters.items():
        if name in LABEL_FILTERS:
            label = Label.objects.filter(pk=wanted).first()
            found[name] = f"{label.name or label.kind}: {label}" if label is not None else f"#{wanted}"
            continue
        if wanted == reports.NONE:
            found[name] = NO_NAME.get(name, "none")
        else:
            found[name] = reports.names_of(reports.DIMENSIONS[name][1], [wanted]).get(wanted, f"#{wanted}")
    return found


def _answer(question: Question, sheet: Sheet, name: str) -> Answer:
    return Answer(question, sheet, f"{name}-{question.period.first_day}-to-{question.period.last_day}")
