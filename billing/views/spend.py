"""How much is spent, by whom, on what? The Spend page, and its files from the same answer.

Reads: the rollups by `billing.spend`, names. All roles that may read may open it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing import reports
from billing.catalog_ratings import read_router_now
from billing.export_jobs import MAX_ROWS_AT_ONCE
from billing.models import UsageByDay
from billing.money import format_usd, usd_text
from billing.request_questions import LABEL_FILTERS
from billing.spend import Spend, read_spend, with_names
from billing.spend_forecast import LOOK_BACK_DAYS, Forecast, forecast_month
from billing.spend_labels import find_labels_since, list_groupings
from billing.spend_questions import PERIODS, Question, read_question
from billing.spend_rows import Row
from billing.spend_savings import ASSUMPTIONS, can_compare, read_savings
from billing.spend_tables import Answer, money_shown, names_of_filters, spend_table
from billing.spreadsheets import as_csv, as_xlsx
from policies.permissions import Ability, may, needs

ROWS_SHOWN: Final = 100
XLSX_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@needs(Ability.READ)
@require_safe
def show_spend(request: HttpRequest) -> HttpResponse:
    """One question's answer: figures, a chart with its table, and the rows, each a link into itself."""
    today = timezone.now().date()
    question = read_question(request.GET, today=today)
    spend = read_spend(question)
    page = page_of(request, len(spend.rows))
    shown = spend.rows[(page - 1) * ROWS_SHOWN : page * ROWS_SHOWN]
    context = {
        "question": question,
        "spend": spend,
        "rows": [_shown(row, question) for row in with_names(question, shown)],
        "page": page,
        "first_shown": (page - 1) * ROWS_SHOWN + 1,
        "last_shown": (page - 1) * ROWS_SHOWN + len(shown),
        "query": question.link(),
        "has_next": page * ROWS_SHOWN < len(spend.rows),
        "chips": list_chips(question, names_of_filters(question)),
        "groupings": list_groupings(question),
        "is_by_label": question.label_group is not None or bool(question.label_ids),
        "labels_since": find_labels_since(question),
        "periods": list_periods(question),
        "kept": _kept(question),
        "forecast": _forecast(spend, today),
        "keys_query": question.link(by=None),
        "all_requests": question.requests_link(),
        "chart": chart_data(spend),
        "chart_text": chart_text(spend),
        "chart_rows": chart_rows(spend),
        "money": money_shown(may(request.user, Ability.SEE_MARGIN)),
        "today": today,
        "has_any": bool(spend.rows) or UsageByDay.objects.exists(),
    }
    return render(request, "spend/spend.html", context)


@needs(Ability.READ)
@require_safe
def show_savings(request: HttpRequest) -> HttpResponse:
    """What routing saved against each policy's baseline, and what that assumes."""
    now = timezone.now()
    question = read_question(request.GET, today=now.date(), has_labels=False)
    is_comparable = can_compare(question)
    context = {
        "question": question,
        "can_compare": is_comparable,
        "savings": read_savings(question, read_router_now(now), today=now.date()) if is_comparable else None,
        "chips": list_chips(question, names_of_filters(question)),
        "periods": list_periods(question),
        "kept": _kept(question),
        "assumptions": ASSUMPTIONS,
        "today": now.date(),
    }
    return render(request, "spend/savings.html", context)


@needs(Ability.READ)
@require_safe
def export_spend(request: HttpRequest, file_format: str) -> HttpResponse:
    """The whole table of the page with the same address, as a file."""
    query = {name: str(value) for name, value in request.GET.items()}
    sees_margin = may(request.user, Ability.SEE_MARGIN)
    answer = spend_table(query, now=timezone.now(), sees_margin=sees_margin)
    return offer_large("spend", request, answer, file_format) or file_response(answer, file_format)


def offer_large(kind: str, request: HttpRequest, answer: Answer, file_format: str) -> HttpResponse | None:
    """Where a table of too many rows can be had; None for one that is given at once."""
    if len(answer.sheet.rows) <= MAX_ROWS_AT_ONCE:
        return None
    asked = {"kind": kind, "format": file_format, "query": request.GET.urlencode()}
    return redirect(f"{reverse('exports')}?{urlencode(asked)}")


def file_response(answer: Answer, file_format: str) -> HttpResponse:
    """A table as a download, named after its days."""
    file_name = f"{answer.file_stem}.{file_format}"
    sheet = answer.sheet
    if file_format == "csv":
        response = HttpResponse(as_csv(sheet), content_type="text/csv; charset=utf-8")
    elif file_format == "xlsx":
        response = HttpResponse(as_xlsx(sheet), content_type=XLSX_TYPE)
    else:
        raise Http404
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return response


def page_of(request: HttpRequest, row_count: int) -> int:
    """Which hundred rows are asked for: never one past the last."""
    text = request.GET.get("page", "1")
    last = max(1, -(-row_count // ROWS_SHOWN))
    return min(max(int(text[:9]), 1), last) if text.isdecimal() and text.isascii() else 1


def list_chips(question: Question, names: Mapping[str, str]) -> list[dict[str, str]]:
    """The filters in force, each with the query string without it."""
    return [
        {
            "name": "label" if name in LABEL_FILTERS else name,
            "value": value,
            "without": question.link(**{name: None}),
        }
        for name, value in names.items()
    ]


def list_periods(question: Question) -> list[tuple[str, str, str]]:
    """Name, title and query string of the periods that need no dates."""
    return [(name, title, question.period_link(name)) for name, title in PERIODS.items()]


def chart_data(spend: Spend) -> dict[str, Any]:
    """What the chart draws: exact amounts as texts, so that nothing is rounded before it is drawn."""
    return {
        "days": [day.isoformat() for day in spend.days],
        "series": [
            {"name": one.name, "usd": [usd_text(nanousd) for nanousd in one.nanousd]} for one in spend.series
        ],
    }


def chart_text(spend: Spend) -> str:
    """The chart in a sentence, for those who do not see it."""
    costs = spend.day_totals_nanousd
    question = spend.question
    kind = (
        "day"
        if question.by == "day"
        else f"day and {question.title.lower() if question.by != 'key' else 'key'}"
    )
    if not any(costs):
        return f"Spend by {kind}: none."
    dearest = max(range(len(costs)), key=costs.__getitem__)
    return (
        f"Spend by {kind}, {spend.days[0]} to {spend.days[-1]}: {format_usd(sum(costs))} in all, most on "
        f"{spend.days[dearest]} with {format_usd(costs[dearest])}. The same numbers are in the table below."
    )


def chart_rows(spend: Spend) -> list[dict[str, Any]]:
    """The chart as a table, newest day first."""
    totals = spend.day_totals_nanousd or [0] * len(spend.days)
    return [
        {
            "day": day,
            "parts": [one.nanousd[place] for one in spend.series],
            "total": totals[place],
            "requests": spend.question.requests_link(day=day),
        }
        for place, day in reversed(list(enumerate(spend.days)))
    ]


def _kept(question: Question) -> dict[str, str]:
    """The parameters that choosing other days keeps."""
    return {
        name: value for name, value in question.parameters().items() if name not in ("period", "from", "to")
    }


def _forecast(spend: Spend, today: dt.date) -> Forecast | None:
    """To the end of the month, where the month until now is what is asked for."""
    period = spend.question.period
    if period.first_day != today.replace(day=1) or period.last_day != today:
        return None
    since = today - dt.timedelta(days=LOOK_BACK_DAYS)
    points = reports.series_by_day(first_day=since, last_day=today, scope=spend.question.scope)
    return forecast_month(points, spent_nanousd=spend.total.totals.cost_nanousd, today=today)


def _shown(row: Row, question: Question) -> dict[str, Any]:
    if row.day is not None:
        requests = question.requests_link(day=row.day)
        return {"row": row, "into": "", "requests": requests}
    return {"row": row, "into": question.link_into(row.id), "requests": question.requests_link(row_id=row.id)}
