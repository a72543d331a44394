"""Does what providers billed agree with what was recorded? The pages under Reconciliation.

Reads: bills and their days. Writes: nothing itself, calls `billing.provider_bill_runs`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from billing import provider_bill_runs
from billing.models import BilledDay, BilledName, ProviderBill
from billing.provider_bill_forms import BillForm, NameForm
from billing.provider_bills.reading import TITLES
from billing.recorded_attempts import count_requests
from billing.spreadsheets import Column, Sheet, as_csv
from policies.models import Deployment, Provider
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import posted, run_and_return

BILLS_SHOWN = 50
ROWS_SHOWN = 100
# More records would keep the page waiting: then the command does it.
MAX_REQUESTS = 500_000
DIFFERS = ~Q(verdict=BilledDay.Verdict.MATCHED)
COUNT_WORDS = {
    "input_tokens": "sent",
    "cache_read_tokens": "from a cache",
    "cache_write_tokens": "into a cache",
    "output_tokens": "generated",
    "requests": "requests",
}
SHEET_COUNTS = tuple(COUNT_WORDS)


@needs(Ability.READ)
@require_safe
def list_bills(request: HttpRequest) -> HttpResponse:
    """The bills that were compared, newest first."""
    bills = ProviderBill.objects.select_related("provider").annotate(
        day_count=Count("days"), differing=Count("days", filter=~Q(days__verdict="matched"))
    )
    rows = [{"bill": bill, "format": TITLES.get(bill.file_format, "")} for bill in bills[:BILLS_SHOWN]]
    return render(request, "reconciliation/list.html", {"rows": rows})


@needs(Ability.SET_PRICES)
@require_http_methods(["GET", "HEAD", "POST"])
def import_bill(request: HttpRequest) -> HttpResponse:
    """Read a file and compare it."""
    form = BillForm(posted(request), request.FILES or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        found = form.run(
            lambda: provider_bill_runs.import_bill(
                form.raw(),
                file_name=data["file"].name,
                file_format=data["file_format"],
                provider=data["provider"],
                account=data["account"].strip(),
                columns=data["columns"],
                tolerance=form.tolerance(),
                actor=actor_name(request),
                now=timezone.now(),
                may_read=_is_small,
            )
        )
        if found is not None:
            bill, is_new = found
            if not is_new:
                messages.info(request, "This file was compared before: it is the same bill, compared anew.")
            return redirect("bill", pk=bill.pk)
    context = {"form": form, "has_providers": Provider.objects.exists()}
    return render(request, "reconciliation/new.html", context, status=422 if form.errors else 200)


@needs(Ability.READ)
@require_safe
def show_bill(request: HttpRequest, pk: int) -> HttpResponse:
    """One bill: what agrees, what does not, day by day and model by model."""
    bill = get_object_or_404(ProviderBill.objects.select_related("provider"), pk=pk)
    wanted = request.GET.get("verdict", "")
    days = _filtered(bill, wanted)
    counts = dict(bill.days.order_by().values_list("verdict").annotate(Count("id")))
    page = Paginator(days, ROWS_SHOWN).get_page(request.GET.get("page"))
    deployments: dict[str, list[int]] = {}
    for name, deployment_id in Deployment.objects.filter(provider=bill.provider_id).values_list(
        "upstream_model", "pk"
    ):
        deployments.setdefault(name, []).append(deployment_id)
    total = sum(counts.values())
    context: dict[str, Any] = {
        "bill": bill,
        "format": TITLES.get(bill.file_format, bill.file_format),
        "page": page,
        "rows": [_as_shown(bill, row, deployments.get(row.upstream_model, [])) for row in page.object_list],
        "totals": _sum(bill.days.all()),
        "shown_totals": _sum(days) if wanted else None,
        "choices": _choices(counts, total, wanted),
        "wanted": wanted,
        "unmatched": sorted(
            bill.days.filter(upstream_model="", verdict=BilledDay.Verdict.MISSING_HERE)
            .exclude(billed_as="")
            .order_by()
            .values_list("billed_as", flat=True)
            .distinct()
        ),
        "names": BilledName.objects.filter(provider=bill.provider_id),
        "upstream_models": sorted(deployments),
        "tolerance_ratio": float(bill.tolerance_ratio),
    }
    return render(request, "reconciliation/bill.html", context)


@needs(Ability.READ)
@require_safe
def export_bill(request: HttpRequest, pk: int) -> HttpResponse:
    """The rows of the page with the same filter, as CSV."""
    bill = get_object_or_404(ProviderBill.objects.select_related("provider"), pk=pk)
    days = _filtered(bill, request.GET.get("verdict", ""))
    response = HttpResponse(as_csv(_sheet(bill, list(days))), content_type="text/csv; charset=utf-8")
    name = f"reconciliation-{bill.provider.name}-{bill.first_day}-{bill.last_day}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@needs(Ability.SET_PRICES)
@require_POST
def compare_bill(request: HttpRequest, pk: int) -> HttpResponse:
    """Compare with what is recorded now."""
    bill = get_object_or_404(ProviderBill, pk=pk)
    if not _is_small(bill.first_day, bill.last_day):
        messages.error(
            request, "Nothing changed: these days hold too many requests to wait for; use the command."
        )
        return redirect("bill", pk=pk)
    return run_and_return(
        request,
        lambda: provider_bill_runs.compare_again(bill, actor=actor_name(request), now=timezone.now()),
        done="Compared with what is recorded now.",
        to="bill",
        pk=pk,
    )


@needs(Ability.SET_PRICES)
@require_POST
def match_name(request: HttpRequest, pk: int) -> HttpResponse:
    """Say which upstream model is meant by a name on the provider's bills."""
    bill = get_object_or_404(ProviderBill, pk=pk)
    form = NameForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing changed: choose a name and a model.")
        return redirect("bill", pk=pk)
    return run_and_return(
        request,
        lambda: provider_bill_runs.match_name(
            bill,
            name=form.cleaned_data["name"],
            upstream_model=form.cleaned_data["upstream_model"],
            actor=actor_name(request),
            now=timezone.now(),
        ),
        done="The name is matched, for all bills of this provider; this one is compared anew.",
        to="bill",
        pk=pk,
    )


def _is_small(first_day: dt.date, last_day: dt.date) -> bool:
    return count_requests(first_day, last_day) <= MAX_REQUESTS


def _filtered(bill: ProviderBill, wanted: str) -> Any:
    if wanted == "differs":
        return bill.days.filter(DIFFERS)
    return bill.days.filter(verdict=wanted) if wanted in BilledDay.Verdict.values else bill.days.all()


def _choices(counts: dict[str, int], total: int, wanted: str) -> list[dict[str, Any]]:
    """What can be shown: all, what differs, each verdict that occurs."""
    matched = counts.get(BilledDay.Verdict.MATCHED, 0)
    found = [("", "all", total), ("differs", "what differs", total - matched)]
    found += [(name, str(label), counts.get(name, 0)) for name, label in BilledDay.Verdict.choices]
    return [
        {"name": name, "label": label, "count": count, "is_shown": name == wanted}
        for name, label, count in found
        if count or name in ("", wanted)
    ]


def _sum(days: Any) -> dict[str, Any]:
    sums = days.order_by().aggregate(
        there=Sum("billed_nanousd"),
        here=Sum("recorded_nanousd"),
        has_gap=Count(
            "id", filter=Q(billed_nanousd__isnull=True, recorded_nanousd__gt=0) & ~Q(verdict="missing_there")
        ),
    )
    there, here = sums["there"], sums["here"]
    gap = None if there is None or sums["has_gap"] else int(there) - int(here or 0)
    ratio = gap / int(here) if gap is not None and here else None
    return {"there": there, "here": here, "gap": gap, "ratio": ratio}


def _as_shown(bill: ProviderBill, row: BilledDay, deployment_ids: Sequence[int]) -> dict[str, Any]:
    following = row.day + dt.timedelta(days=1)
    which = {"deployment": deployment_ids[0]} if len(deployment_ids) == 1 else {"provider": bill.provider_id}
    times = {"since": f"{row.day}T00:00:00Z", "until": f"{following}T00:00:00Z"}
    return {
        "row": row,
        "requests": urlencode(which | times) if row.recorded else "",
        "counts": [(COUNT_WORDS[name], there, here) for name, there, here in row.counts()],
    }


def _sheet(bill: ProviderBill, days: Sequence[BilledDay]) -> Sheet:
    columns = [
        Column("day", "day"),
        Column("upstream_model", "text"),
        Column("billed_as", "text"),
        Column("verdict", "text"),
        Column("billed_usd", "usd"),
        Column("recorded_usd", "usd"),
        Column("difference_usd", "usd"),
        *(Column(f"{side}_{name}", "count") for name in SHEET_COUNTS for side in ("billed", "recorded")),
        Column("reason", "text"),
    ]
    rows = [
        [
            day.day,
            day.upstream_model,
            day.billed_as,
            day.verdict,
            day.billed_nanousd,
            day.recorded_nanousd,
            day.gap_nanousd,
            *((side or {}).get(name) for name in SHEET_COUNTS for side in (day.billed, day.recorded)),
            day.reason,
        ]
        for day in days
    ]
    blank = [None] * (2 * len(SHEET_COUNTS))
    sums = [_stated(days, name) for name in ("billed_nanousd", "recorded_nanousd", "gap_nanousd")]
    about = [("provider", bill.provider.name), ("file", bill.file_name), ("sha256", bill.sha256)]
    return Sheet("Reconciliation", tuple(columns), rows, ["total", "", "", "", *sums, *blank, ""], about)


def _stated(days: Sequence[BilledDay], name: str) -> int | None:
    values = [value for day in days if (value := getattr(day, name)) is not None]
    return sum(values) if values else None
