"""Who has how much credit, what made it up, and how is it granted, paid back or ended in the browser?

Reads: `billing.credit_standing`. Writes: nothing itself, calls `billing.credits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from billing import credits
from billing.billing_profiles import name_of, profile_of
from billing.credit_forms import EndCreditForm, GrantForm, RefundForm
from billing.credit_standing import AccountLine, list_account_lines, list_grants, list_standing
from billing.currencies import format_amount
from billing.models import CreditGrant, Invoice, LedgerPosting
from billing.money import usd_text
from policies.models import Tenant
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import posted, show_form

EDIT_METHODS = ["GET", "HEAD", "POST"]
LINES_SHOWN = 50


@needs(Ability.READ)
@require_safe
def list_credit(request: HttpRequest) -> HttpResponse:
    """Credit of all tenants."""
    return render(request, "credits/list.html", {"rows": list_standing(now=timezone.now())})


@needs(Ability.READ)
@require_safe
def show_credit(request: HttpRequest, pk: int) -> HttpResponse:
    """One tenant's credit: its grants, and the ledger entries that make up the balance."""
    tenant, now = get_object_or_404(Tenant, pk=pk), timezone.now()
    profile = profile_of(tenant)
    standing = list_standing([tenant], now=now)
    currencies = [one.currency for one in standing]
    wanted = request.GET.get("currency", "")
    if wanted not in currencies:
        wanted = profile.currency if profile.currency in currencies or not currencies else currencies[0]
    before = request.GET.get("before", "")
    page_from = int(before) if before.isdecimal() and len(before) < 19 else None
    lines = list_account_lines(tenant, wanted, limit=LINES_SHOWN + 1, before=page_from)
    context = {
        "tenant": tenant,
        "profile": profile,
        "billed_name": name_of(profile),
        "tax_percent": f"{(profile.tax_ratio * 100).normalize():f}" if profile.tax_ratio else "",
        "standing": standing,
        "currency": wanted,
        "grants": list_grants(tenant, now=now),
        "lines": _with_statements(lines[:LINES_SHOWN]),
        "older": lines[LINES_SHOWN - 1].entry.pk if len(lines) > LINES_SHOWN else None,
        "is_first_page": page_from is None,
    }
    return render(request, "credits/detail.html", context)


@needs(Ability.SET_BILLING)
@require_http_methods(EDIT_METHODS)
def grant_credit(request: HttpRequest) -> HttpResponse:
    """Grant credit; `?tenant=` fills in whose."""
    name = request.GET.get("tenant", "")[:100]
    tenant = Tenant.objects.filter(name=name).first()
    currency = profile_of(tenant).currency if tenant is not None else "USD"
    form = GrantForm(posted(request), initial={"tenant": name, "currency": currency})
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        grant = form.run(
            lambda: credits.grant_credit(
                tenant=data["tenant"],
                kind=data["kind"],
                amount_nano=data["amount_nano"],
                currency=data["currency"],
                expires_at=data["expires_at"],
                priority=data["priority"],
                model_names=data["model_names"],
                reference=data["reference"].strip(),
                note=data["note"],
                actor=actor_name(request),
            )
        )
        if grant is not None:
            amount = format_amount(grant.amount_nano, grant.currency)
            messages.success(request, f"{grant.tenant} has {amount} more credit.")
            return redirect("credit", pk=grant.tenant_id)
    back = (f"Credit of {tenant}", reverse("credit", args=[tenant.pk])) if tenant else _ALL
    return show_form(
        request,
        form,
        title="Grant credit",
        back=back,
        submit="Grant credit",
        intro="Credit pays statements after tax, when they are issued. It does not limit what keys may spend:"
        " budgets do.",
    )


@needs(Ability.SET_BILLING)
@require_http_methods(EDIT_METHODS)
def refund(request: HttpRequest, pk: int) -> HttpResponse:
    """Pay back what is left of paid credit, or a part of it."""
    grant = _find_grant(pk)
    left = credits.find_left(grant)
    form = RefundForm(
        posted(request),
        initial={"amount": usd_text(left)},
        tenant_name=grant.tenant.name,
        left_nano=left,
        currency=grant.currency,
    )
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        amount = form.run(
            lambda: credits.refund(
                grant=grant, amount_nano=data["amount"], note=data["note"], actor=actor_name(request)
            )
        )
        if amount is not None:
            messages.success(request, f"{format_amount(amount, grant.currency)} is booked as paid back.")
            return redirect("credit", pk=grant.tenant_id)
    return show_form(
        request,
        form,
        title=f"Pay back credit of {grant.tenant}",
        back=_back_of(grant),
        submit="Book the refund",
        intro="This books the refund in the ledger; the money itself is moved at your bank. It cannot be undone:"
        " grant credit anew instead.",
    )


@needs(Ability.SET_BILLING)
@require_http_methods(EDIT_METHODS)
def expire(request: HttpRequest, pk: int) -> HttpResponse:
    """End a grant now."""
    grant = _find_grant(pk)
    left = format_amount(credits.find_left(grant), grant.currency)
    form = EndCreditForm(posted(request), tenant_name=grant.tenant.name)
    if request.method == "POST" and form.is_valid():
        note = form.cleaned_data["note"]
        amount = form.run(lambda: credits.expire(grant=grant, note=note, actor=actor_name(request)))
        if amount is not None:
            messages.success(request, f"{format_amount(amount, grant.currency)} of credit is ended.")
            return redirect("credit", pk=grant.tenant_id)
    return show_form(
        request,
        form,
        title=f"End credit of {grant.tenant}",
        back=_back_of(grant),
        submit=f"End {left}",
        intro=f"The {left} that is left pays no statement any more and is not paid back. It cannot be undone.",
    )


_ALL = ("Credit", "/credits")


def _find_grant(pk: int) -> CreditGrant:
    return get_object_or_404(CreditGrant.objects.select_related("tenant"), pk=pk)


def _back_of(grant: CreditGrant) -> tuple[str, str]:
    return f"Credit of {grant.tenant}", reverse("credit", args=[grant.tenant_id])


def _with_statements(lines: Sequence[AccountLine]) -> list[dict[str, Any]]:
    """Each line with the statement that drew the credit, or that it was given back from."""
    numbers = [_number_in(_drawn_by(line)) for line in lines]
    found = Invoice.objects.defer("document").in_bulk({number for number in numbers if number is not None})
    return [
        {"line": line, "statement": None if number is None else found.get(number)}
        for line, number in zip(lines, numbers, strict=True)
    ]


def _drawn_by(line: AccountLine) -> str:
    posting = line.entry.posting
    drawn = posting.corrects or posting
    return drawn.reference if drawn.kind == LedgerPosting.Kind.DRAW else ""


def _number_in(reference: str) -> int | None:
    """Statements draw under the name `statement ID` (billing.invoicing)."""
    number = reference.removeprefix("statement ")
    return int(number) if number != reference and number.isdecimal() else None
