"""Which requests have no price, what would pricing them cost, and who did it when? The page under Prices.

Reads: rollups, unpriced records while they are few. Writes: nothing itself, calls `billing.rerating`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from billing import rerating
from billing.models import ReratingRun
from billing.rerating import Question
from policies.forms import ConsoleForm
from policies.models import Deployment
from policies.permissions import Ability, actor_name, needs

DAYS = rerating.DAYS_LOOKED_AT
# More would keep the page waiting: then the command does it.
MAX_REQUESTS = 5_000
MAX_READ = 200_000
RUNS_SHOWN = 20


class RerateForm(ConsoleForm):
    """Why, and at which price."""

    reason = forms.CharField(
        max_length=300,
        label="Why",
        help_text="Stands with every adjustment: the price list came after the traffic.",
    )
    takes_later_price = forms.BooleanField(
        required=False,
        label="Requests from before a deployment's first price are charged at that first price",
        help_text="Not ticked: they stay without a price.",
    )


@needs(Ability.READ)
@require_safe
def show_unpriced(request: HttpRequest) -> HttpResponse:
    """What has no price, and what pricing it would do."""
    return _show(request, RerateForm())


@needs(Ability.SET_PRICES)
@require_POST
def price_unpriced(request: HttpRequest) -> HttpResponse:
    """Price what can be priced, if it is little enough to wait for."""
    form = RerateForm(request.POST)
    now = timezone.now()
    question = _question(now, bool(request.POST.get("takes_later_price")))
    unpriced = rerating.count_unpriced(question.first_day, question.last_day)
    if unpriced <= 0:
        messages.info(request, "Nothing changed: no request is without a price any more.")
        return redirect("unpriced")
    if not _is_small(question, unpriced, rerating.find_days(question)):
        messages.error(request, "Nothing changed: these are too many requests to wait for; use the command.")
        return redirect("unpriced")
    if form.is_valid():
        run = form.run(
            lambda: rerating.rerate(
                question, actor=actor_name(request), reason=form.cleaned_data["reason"], now=now
            )
        )
        if run is not None:
            messages.success(request, _said_of(run))
            return redirect("unpriced")
    return _show(request, form)


def _show(request: HttpRequest, form: RerateForm) -> HttpResponse:
    now = timezone.now()
    question = _question(now, False)
    unpriced = rerating.count_unpriced(question.first_day, question.last_day)
    days = rerating.find_days(question) if unpriced else []
    context: dict[str, Any] = {
        "form": form,
        "days": DAYS,
        "first_day": question.first_day,
        "unpriced_count": unpriced,
        "runs": ReratingRun.objects.all()[:RUNS_SHOWN],
        "is_small": _is_small(question, unpriced, days),
    }
    if context["unpriced_count"] and context["is_small"]:
        outcome = rerating.preview(_question(now, True), days)
        ids = [pk for pk in outcome.by_deployment if pk is not None]
        names = dict(Deployment.objects.filter(pk__in=ids).values_list("pk", "name"))
        context |= {
            "outcome": outcome,
            "at_once_count": outcome.all.request_count - outcome.all.later_count,
            "rows": [
                {
                    "id": pk,
                    "name": names.get(pk or 0, f"deployment {pk}"),
                    "at_once_count": sums.request_count - sums.later_count,
                    "at_once_nanousd": sums.cost_nanousd - sums.later_nanousd,
                    "sums": sums,
                }
                for pk, sums in sorted(outcome.by_deployment.items(), key=lambda pair: -pair[1].request_count)
            ],
        }
    return render(request, "prices/unpriced.html", context, status=422 if form.errors else 200)


def _said_of(run: ReratingRun) -> str:
    if not run.request_count:
        return f"No request could be priced: {run.left_count:,} wait for a price of their deployment."
    return (
        f"{run.request_count:,} request{'s' if run.request_count != 1 else ''} priced; every total follows."
    )


def _question(now: dt.datetime, takes_later_price: bool) -> Question:
    today = now.astimezone(dt.UTC).date()
    return Question(today - dt.timedelta(days=DAYS - 1), today, takes_later_price)


def _is_small(question: Question, unpriced_count: int, days: rerating.DaysAndKeys) -> bool:
    return unpriced_count <= MAX_REQUESTS and rerating.count_records_to_read(question, days) <= MAX_READ
