"""Is it healthy, what does it cost today, what needs me?

Reads: sums from `billing.reports`, the workers' reports, whether keys, models and policies are there.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from billing.budget_standing import list_foreseen, list_near
from billing.closing import find_overdue_month
from billing.models import UsageByDay
from billing.money import format_usd
from billing.recent_reports import HourTotals, TodaySummary, today_summary
from billing.request_listing import ANY_FAILURE
from billing.rerating import count_unpriced_lately
from billing.spend_keys import list_unusual
from billing.spend_questions import read_period
from gateway.demo_books import find_invented_until
from gateway.health_board import read_reports
from gateway.needs_attention import count_journal_backlog_bytes, list_down_deployments
from policies.approvals import list_pending
from policies.models import ApiKey, Deployment, Model, Policy
from policies.permissions import Ability, may, needs

CHART_HEIGHT = 100
BUDGETS_SHOWN = 5
PUBLICATIONS_SHOWN = 5
# As the page of all keys names it, to which the line links.
GROWTH_PERIOD = "7d"
BACKLOG_WORTH_A_LOOK_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour of the chart in the SVG's own units: the lower part is failed requests."""

    x: float
    ok_y: float
    ok_height: float
    bad_height: float
    begins_at: dt.datetime
    totals: HourTotals

    @property
    def bad_y(self) -> float:
        return CHART_HEIGHT - self.bad_height


@needs(Ability.READ)
def home(request: HttpRequest) -> HttpResponse:
    """Show the home page, or only its figures when htmx asks for the fresh ones."""
    now = timezone.now()
    today = today_summary(now)
    context: dict[str, Any] = {
        "today": today,
        "figures": list_figures(today),
        "bars": build_bars(today),
        "busiest": max((hour.totals.request_count for hour in today.last_24_hours), default=0),
        "last_hour": today.last_hour,
        "attention": list_attention(today, sees_growth=may(request.user, Ability.SET_BUDGETS)),
        "workers": len(read_reports(Path(settings.POINTSMAN_DATA_DIR))),
        "at": now,
    }
    context["has_history"] = context["busiest"] > 0 or UsageByDay.objects.exists()
    if not context["has_history"]:
        context |= {
            "public_url": settings.POINTSMAN_PUBLIC_URL,
            "first_model": first_callable_name(),
            "has_keys": ApiKey.objects.exists(),
            "has_deployments": Deployment.objects.exists(),
        }
    if request.headers.get("HX-Request"):
        return render(request, "home/_live.html", context)
    return render(request, "home/home.html", {**context, "invented_until": find_invented_until()})


def list_figures(today: TodaySummary) -> list[dict[str, Any]]:
    """The four numbers on top, each with yesterday's at the same time."""
    now, before = today.today, today.yesterday_until_now
    return [
        {
            "title": "Requests",
            "kind": "count",
            "value": now.request_count,
            "before": round(before.request_count),
            "change": relative_change(now.request_count, before.request_count),
            "url": f"{reverse('requests')}?since={today.now:%Y-%m-%d}T00:00Z",
        },
        {
            "title": "Failed",
            "kind": "percent",
            "value": now.error_ratio,
            "before": before.error_ratio,
            "detail": f"{now.error_count:,} request{'' if now.error_count == 1 else 's'}",
            "is_bad": (now.error_ratio or 0) > 0.02,
            "url": f"{reverse('requests')}?status={ANY_FAILURE}&since={today.now:%Y-%m-%d}T00:00Z",
        },
        {
            "title": "Spend",
            "kind": "usd",
            "value": round(now.cost_nanousd),
            "before": round(before.cost_nanousd),
            "change": relative_change(now.cost_nanousd, before.cost_nanousd),
            "unpriced": now.unpriced_count,
            "url": reverse("spend") + "?period=today",
        },
        {
            "title": "Mean first token" if now.first_token_count else "Mean duration",
            "kind": "duration",
            "value": now.mean_first_token_ms if now.first_token_count else now.mean_duration_ms,
            "before": before.mean_first_token_ms if now.first_token_count else before.mean_duration_ms,
            "detail": "streams" if now.first_token_count else "",
            "url": reverse("requests"),
        },
    ]


def relative_change(now: float, before: float) -> str:
    """Write a change against an earlier figure: +12 %, −3 %, ×4.2; nothing when there is no earlier one."""
    if not before:
        return ""
    ratio = now / before
    if ratio >= 3:
        return f"×{ratio:.1f}"
    change = round((ratio - 1) * 100)
    return f"+{change} %" if change > 0 else f"−{-change} %" if change else "±0 %"


def build_bars(today: TodaySummary) -> list[Bar]:
    """Lay the last 24 hours out in a box of 240 by 100."""
    busiest = max((hour.totals.request_count for hour in today.last_24_hours), default=0) or 1
    bars = []
    for index, hour in enumerate(today.last_24_hours):
        # Anything above nothing is at least two units high, so that one failure among thousands is seen.
        bad = max(2.0, hour.totals.error_count / busiest * CHART_HEIGHT) if hour.totals.error_count else 0.0
        served = hour.totals.request_count - hour.totals.error_count
        ok = max(2.0, served / busiest * CHART_HEIGHT) if served else 0.0
        ok = min(ok, CHART_HEIGHT - bad)
        bars.append(Bar(index * 10.0 + 1, CHART_HEIGHT - bad - ok, ok, bad, hour.begins_at, hour.totals))
    return bars


def list_attention(today: TodaySummary, *, sees_growth: bool = True) -> list[dict[str, str]]:
    """What needs a person, most urgent first; each with the page that helps. `sees_growth`: whoever may set budgets."""
    data_dir = Path(settings.POINTSMAN_DATA_DIR)
    items: list[dict[str, str]] = []
    if not read_reports(data_dir):
        items.append(
            {
                "state": "error",
                "title": "No gateway process reports",
                "text": "Requests are not being served on this machine. Start it with make run.",
                "url": "",
            }
        )
    for deployment, health in list_down_deployments(data_dir):
        items.append(
            {
                "state": str(health["state"]),
                "title": f"{deployment.name} is out",
                "text": str(health.get("reason") or "Its provider failed too often."),
                "url": reverse("deployment", args=[deployment.pk]),
            }
        )
    if unpriced := count_unpriced_lately(today.now.date()):
        items.append(
            {
                "state": "unpriced",
                "title": f"{unpriced:,} request{'s' if unpriced != 1 else ''} without a price",
                "text": "They are left out of every sum of money until they are priced.",
                "url": reverse("unpriced"),
            }
        )
    items += [
        {
            "state": "to_approve",
            "title": f"{asked.requested_by} asks to publish {asked.policy.public_id}",
            "text": asked.note or "Another operator approves or rejects it.",
            "url": reverse("policy", args=[asked.policy_id]),
        }
        for asked in list_pending()[:PUBLICATIONS_SHOWN]
    ]
    items += _budgets_to_look_at(timezone.now())
    items += _keys_that_grew(timezone.now()) if sees_growth else []
    if month := find_overdue_month(timezone.now()):
        items.append(
            {
                "state": "to_close",
                "title": f"{month:%B %Y} can be closed",
                "text": "It is over, and late records were waited for. Closing it issues its statements.",
                "url": reverse("statement-close", args=[f"{month:%Y-%m}"]),
            }
        )
    backlog = count_journal_backlog_bytes(data_dir)
    if backlog > BACKLOG_WORTH_A_LOOK_BYTES:
        items.append(
            {
                "state": "estimated",
                "title": f"{backlog / 1e6:,.0f} MB of journal not counted yet",
                "text": "The ingester is behind or stopped; nothing is lost, sums are late.",
                "url": "",
            }
        )
    return items


def _budgets_to_look_at(now: dt.datetime) -> list[dict[str, str]]:
    items = []
    for standing in list_near(now=now, limit=BUDGETS_SHOWN):
        is_used_up = standing.used_ratio >= 1
        refuses = "More is refused." if standing.budget.is_hard else "It is soft: nothing is refused."
        items.append(
            {
                "state": "used_up" if is_used_up else "near_limit",
                "title": f"{standing.budget.scope()} has used {standing.used_percent} % of its budget",
                "text": f"{format_usd(standing.used_nanousd)} of {format_usd(standing.numbers.limit_nanousd)},"
                f" {standing.budget.get_window_display()}." + (f" {refuses}" if is_used_up else ""),
                "url": reverse("budget", args=[standing.budget.pk]),
            }
        )
    for alert in list_foreseen(now=now, limit=BUDGETS_SHOWN):
        items.append(
            {
                "state": "near_limit",
                "title": f"{alert.window.budget.scope()} will exceed its budget",
                "text": f"{format_usd(alert.forecast_nanousd)} of {format_usd(alert.limit_nanousd)} foreseen,"
                f" {alert.window.budget.get_window_display()}.",
                "url": reverse("budget", args=[alert.window.budget_id]),
            }
        )
    return items


def _keys_that_grew(now: dt.datetime) -> list[dict[str, str]]:
    """One line: the key that spent most of those that grew unusually, and how many more did."""
    period = read_period({}, today=now.date(), default=GROWTH_PERIOD)
    assert period is not None  # this one has no dates that could make no sense
    unusual = list_unusual(period)
    if not unusual:
        return []
    first, more = unusual[0], len(unusual) - 1
    spent = format_usd(first.row.totals.cost_nanousd)
    return [
        {
            "state": "grew",
            "title": f"{first.name} spends unusually much",
            "text": (
                f"{spent} in the last {period.day_count} days, nothing in those before."
                if first.growth == "new"
                else f"{spent} in the last {period.day_count} days, {first.times:.1f} times as much as before."
            )
            + (f" {more} more key{'s' if more > 1 else ''} grew so." if more else ""),
            "url": f"{reverse('spend-keys')}?period={GROWTH_PERIOD}&only=unusual",
        }
    ]


def first_callable_name() -> str:
    """A model id for the example request: a live policy, else a model with a deployment, else a placeholder."""
    policy = Policy.objects.filter(is_enabled=True, live_version__isnull=False).first()
    if policy is not None:
        return policy.public_id
    model = Model.objects.filter(is_enabled=True, deployments__is_enabled=True).first()
    return model.name if model else "MODEL"
