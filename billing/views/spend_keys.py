"""What did every API key spend, and whose is it? The page that finance works through, and its files.

Reads: the rollups and keys by `billing.spend_keys`. All roles that may read may open it.
"""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing.key_usage import last_used_days, state_of
from billing.models import UsageByDay
from billing.spend_keys import GROWTH_RULE
from billing.spend_questions import Question, read_question
from billing.spend_tables import key_table, money_shown, names_of_filters, read_key_extras, read_keys
from billing.views.spend import (
    ROWS_SHOWN,
    file_response,
    list_chips,
    list_periods,
    offer_large,
    page_of,
)
from policies.permissions import Ability, may, needs

_COLUMNS = (
    ("key", "API key"),
    ("owner", "Owner"),
    ("spend", "Spend"),
    ("before", "Period before"),
    ("change", "Change"),
    ("requests", "Requests"),
)
# Names and owners begin with the first letter, amounts with the greatest.
_ASCENDING = ("key", "owner")


@needs(Ability.READ)
@require_safe
def show_key_spend(request: HttpRequest) -> HttpResponse:
    """Every key with its owner, spend in both periods, change, last use; what grew unusually is marked."""
    now = timezone.now()
    question = read_question(_by_key(request), today=now.date(), by="key")
    extra = read_key_extras(_by_key(request))
    report = read_keys(question, extra, now=now)
    page = page_of(request, len(report.rows))
    shown = report.rows[(page - 1) * ROWS_SHOWN : page * ROWS_SHOWN]
    last_used = last_used_days([row.key.pk for row in shown])
    base = f"{question.link(by=None)}&{urlencode(extra)}" if extra else question.link(by=None)
    unsorted = {name: value for name, value in extra.items() if name != "sort"}
    context = {
        "question": question,
        "report": report,
        "spend": report,
        "rows": [
            {
                "row": row,
                "state": state_of(row.key, now),
                "last_used_on": last_used.get(row.key.pk),
                "into": question.link(by="model", key=row.key.pk),
                "requests": question.requests_link(row_id=row.key.pk),
            }
            for row in shown
        ],
        "columns": _columns(question, extra),
        "chips": [
            {**chip, "without": f"{chip['without']}&{urlencode(extra)}"}
            for chip in list_chips(question, names_of_filters(question))
        ],
        "periods": [(name, title, _with(link, extra)) for name, title, link in list_periods(question)],
        "kept": {
            **{
                name: v
                for name, v in question.parameters().items()
                if name not in ("period", "from", "to", "by")
            },
            **extra,
        },
        "searched": {**question.parameters(), **unsorted, "sort": extra.get("sort", "")},
        "q": extra.get("q", ""),
        "only_unusual": extra.get("only") == "unusual",
        "unusual_link": _with(question.link(by=None), {**extra, "only": "unusual"}),
        "all_link": _with(question.link(by=None), {name: v for name, v in extra.items() if name != "only"}),
        "all_requests": question.requests_link(),
        "query": base,
        "page": page,
        "first_shown": (page - 1) * ROWS_SHOWN + 1,
        "last_shown": (page - 1) * ROWS_SHOWN + len(shown),
        "has_next": page * ROWS_SHOWN < len(report.rows),
        "growth_rule": GROWTH_RULE,
        "money": money_shown(may(request.user, Ability.SEE_MARGIN)),
        "today": now.date(),
        "has_any": bool(report.rows) or UsageByDay.objects.exists(),
    }
    return render(request, "spend/keys.html", context)


@needs(Ability.READ)
@require_safe
def export_key_spend(request: HttpRequest, file_format: str) -> HttpResponse:
    """The whole table of the page with the same address, as a file."""
    sees_margin = may(request.user, Ability.SEE_MARGIN)
    answer = key_table(_by_key(request), now=timezone.now(), sees_margin=sees_margin)
    return offer_large("spend-keys", request, answer, file_format) or file_response(answer, file_format)


def _by_key(request: HttpRequest) -> dict[str, str]:
    return {name: str(value) for name, value in request.GET.items()} | {"by": "key"}


def _columns(question: Question, extra: dict[str, str]) -> list[dict[str, str]]:
    """Each heading with the link that sorts by it, or turns the order round."""
    current = extra.get("sort", "-spend")
    columns = []
    for name, title in _COLUMNS:
        is_current = current.removeprefix("-") == name
        first = name if name in _ASCENDING else f"-{name}"
        turned = name if current.startswith("-") else f"-{name}"
        order = "" if not is_current else "descending" if current.startswith("-") else "ascending"
        link = _with(question.link(by=None), {**extra, "sort": turned if is_current else first})
        columns.append({"name": name, "title": title, "order": order, "link": link})
    return columns


def _with(link: str, extra: dict[str, str]) -> str:
    return f"{link}&{urlencode(extra)}" if extra else link
