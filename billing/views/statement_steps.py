"""How is a statement drafted, reviewed, issued, paid, made void or credited in the browser?

Writes: nothing itself, calls `billing.invoicing` and `billing.credit_notes`. What cannot be taken back asks for the
statement's number (or tenant and month, while it has none) to be typed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from billing import invoicing
from billing.credit_notes import Left, choose_parts, list_left, list_open_lines, write_credit_note
from billing.minor_units import minor_text
from billing.models import Invoice, InvoiceKind, InvoiceLine, InvoiceState
from billing.periods import is_closed
from billing.statement_listing import confirm_name, list_months, money, name_of, read_month
from billing.statement_pdf import minor_text_grouped, unit_text
from policies.errors import ConfigurationError, InvalidValueError
from policies.forms import ConsoleForm
from policies.models import Tenant
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import is_confirmed, posted, show_form

TEXT_LENGTH = 300
# A fraction of the smallest unit is an error, not rounded.
EXACT = Context(traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True)
class Field:
    """What else a step asks for."""

    name: str
    label: str
    help: str = ""
    is_required: bool = False
    max_length: int = TEXT_LENGTH


@dataclass(frozen=True, slots=True)
class Step:
    """A button of the page. Without `confirm` it is done at once, else its dialog says what happens and asks."""

    id: str
    button: str
    action: str
    is_main: bool = False
    is_danger: bool = False
    title: str = ""
    effect: str = ""
    submit: str = ""
    confirm: str = ""
    field: Field | None = None


def list_steps(invoice: Invoice, *, has_notes: bool) -> list[Step]:
    """What may be done next with a statement in this state."""
    if invoice.kind != InvoiceKind.INVOICE:
        return []
    amount, pk = money(invoice.due_minor, invoice), invoice.pk
    again = Step("draft", "Draft again", reverse("statement-draft", args=[pk]))
    if invoice.state == InvoiceState.DRAFT:
        return [
            again,
            Step("review", "Mark as reviewed", reverse("statement-review", args=[pk]), is_main=True),
        ]
    if invoice.state == InvoiceState.REVIEWED:
        return [again, _issue(invoice)] if is_closed(invoice.month) else [again]
    if invoice.state == InvoiceState.ISSUED:
        steps = [
            Step(
                "pay",
                "Mark paid…",
                reverse("statement-pay", args=[pk]),
                is_main=True,
                title=f"{invoice.tenant.name} paid {invoice.number_text}",
                effect=f"The payment of what is still due is booked: of {amount}, less what credit notes took off."
                " A paid statement cannot be made void any more, only credited.",
                submit="Mark paid",
                confirm=confirm_name(invoice),
                field=Field(
                    "reference", "Payment reference", "The bank's reference, for example.", max_length=200
                ),
            )
        ]
        return steps if has_notes else [*steps, _void(invoice)]
    return []


def can_be_credited(invoice: Invoice) -> bool:
    """Whether a credit note may take something off it."""
    is_open = invoice.state in (InvoiceState.ISSUED, InvoiceState.PAID)
    return is_open and invoice.kind == InvoiceKind.INVOICE and bool(list_open_lines(invoice))


def _issue(invoice: Invoice) -> Step:
    return Step(
        "issue",
        "Issue…",
        reverse("statement-issue", args=[invoice.pk]),
        is_main=True,
        title=f"Issue the statement of {invoice.tenant.name}",
        effect="It gets the next number, draws prepaid credit, is booked, and never changes again:"
        " corrections are credit notes.",
        submit="Issue",
        confirm=confirm_name(invoice),
    )


def _void(invoice: Invoice) -> Step:
    return Step(
        "void",
        "Void…",
        reverse("statement-void", args=[invoice.pk]),
        is_danger=True,
        title=f"Make {invoice.number_text} void",
        effect=f"{invoice.tenant.name} owes nothing of it any more, and credit that it drew is given back. It stays"
        " in the list under its number; the month can be drafted and issued again.",
        submit="Make it void",
        confirm=confirm_name(invoice),
        field=Field("reason", "Why", "Stands with the statement for good.", is_required=True),
    )


class DraftForm(ConsoleForm):
    """Whose statement, of which month."""

    tenant = forms.ModelChoiceField(Tenant.objects.order_by("name"), empty_label=None)
    month = forms.CharField(
        widget=forms.Select, help_text="A month that is not over can be drafted, but not issued yet."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        months = list_months(today=timezone.now().date())
        choices = [(f"{one.month:%Y-%m}", f"{one.month:%B %Y}") for one in months]
        self.fields["month"].widget.choices = choices

    def clean_month(self) -> dt.date:
        month = read_month(self.cleaned_data["month"])
        if month is None:
            raise forms.ValidationError("This is not a month.")
        return month


@needs(Ability.ISSUE_STATEMENTS)
@require_http_methods(["GET", "HEAD", "POST"])
def draft_one(request: HttpRequest) -> HttpResponse:
    """Draft one tenant's statement, to look at it or to review it before its month is closed."""
    form = DraftForm(posted(request), initial={"tenant": request.GET.get("tenant")})
    if request.method == "POST" and form.is_valid():
        tenant, month = form.cleaned_data["tenant"], form.cleaned_data["month"]
        found = form.run(
            lambda: [
                invoicing.draft(tenant=tenant, month=month, actor=actor_name(request), now=timezone.now())
            ]
        )
        if found and found[0] is not None:
            return redirect("statement", pk=found[0].pk)
        if found:
            form.add_error(
                None, f"{tenant.name} was charged nothing in {month:%B %Y}: there is nothing to bill."
            )
    return show_form(
        request,
        form,
        title="Draft a statement",
        back=("Statements", reverse("statements")),
        submit="Draft it",
        intro="Closing a month drafts and issues every statement by itself. A draft shows one before that; it can be"
        " drafted again as often as you like and has no number.",
    )


@needs(Ability.ISSUE_STATEMENTS)
@require_POST
def draft_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Bring a draft up to date with what was recorded since."""
    invoice = _find(pk)
    before = invoice.document
    drafted: list[Invoice | None] = []

    def run(row: Invoice, actor: str) -> None:
        drafted.append(invoicing.draft(tenant=row.tenant, month=row.month, actor=actor, now=timezone.now()))

    if not _run(request, invoice, run):
        return redirect("statement", pk=pk)
    if drafted[0] is None:
        messages.info(request, "There is nothing to charge any more: the draft is gone.")
        return redirect("statements")
    messages.success(
        request, "Nothing changed." if drafted[0].document == before else "It is up to date again."
    )
    return redirect("statement", pk=drafted[0].pk)


@needs(Ability.ISSUE_STATEMENTS)
@require_POST
def review(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that a draft is right."""
    return _step(request, pk, invoicing.review, done="It is reviewed.", is_asked=False)


@needs(Ability.ISSUE_STATEMENTS)
@require_POST
def issue(request: HttpRequest, pk: int) -> HttpResponse:
    """Give it its number."""
    return _step(request, pk, invoicing.issue, done="It is issued.")


@needs(Ability.ISSUE_STATEMENTS)
@require_POST
def pay(request: HttpRequest, pk: int) -> HttpResponse:
    """Book its payment."""
    reference = _text(request, "reference")
    return _step(request, pk, invoicing.mark_paid, done="It is paid.", reference=reference)


@needs(Ability.ISSUE_STATEMENTS)
@require_POST
def void(request: HttpRequest, pk: int) -> HttpResponse:
    """Take it back as a whole."""
    return _step(request, pk, invoicing.void, done="It is void.", reason=_text(request, "reason"))


@needs(Ability.ISSUE_STATEMENTS)
@require_http_methods(["GET", "HEAD", "POST"])
def credit(request: HttpRequest, pk: int) -> HttpResponse:
    """Choose the lines of a credit note, and write it."""
    invoice = _find(pk)
    left = list_left(invoice) if can_be_credited(invoice) else []
    context: dict[str, Any] = {
        "invoice": invoice,
        "name": name_of(invoice),
        "confirm": confirm_name(invoice),
        "rows": _credit_rows(request, invoice, left),
        "chosen": {one.line.position for one in left},
        "reason": "",
    }
    if request.method != "POST":
        return render(request, "statements/credit.html", context)
    chosen = {int(text[:9]) for text in request.POST.getlist("line") if text.isascii() and text.isdecimal()}
    reason = _text(request, "reason")
    context |= {"chosen": chosen, "reason": reason}
    try:
        units = _read_units(request, chosen)
        amounts = _read_amounts(request, invoice, chosen, left, units)
        if "preview" in request.POST:
            parts = choose_parts(invoice, chosen, amounts, units)
            credited = {part.line.position: _shown(invoice, part.amount_minor) for part in parts}
            context["rows"] = [
                replace(row, credited=credited.get(row.line.position, "")) for row in context["rows"]
            ]
            context["sum"] = money(sum(part.amount_minor for part in parts), invoice)
            return render(request, "statements/credit.html", context)
        if not is_confirmed(request, confirm_name(invoice)):
            raise InvalidValueError({})
        note = write_credit_note(
            invoice=invoice,
            actor=actor_name(request),
            now=timezone.now(),
            reason=reason,
            positions=chosen,
            amounts_minor=amounts,
            units=units,
        )
    except ConfigurationError as refusal:
        context["refusal"] = str(refusal)
        return render(request, "statements/credit.html", context, status=422)
    messages.success(request, f"{note} is issued: it takes {money(-note.total_minor, note)} off {invoice}.")
    return redirect("statement", pk=note.pk)


@dataclass(frozen=True, slots=True)
class CreditRow:
    """A line on the form: what is left of it, what was typed (else all that is left), and what that credits."""

    line: InvoiceLine
    left: str
    units_left: int | None
    unit_price: str
    amount: str
    units: str
    is_all: bool
    credited: str = ""


def _credit_rows(request: HttpRequest, invoice: Invoice, left: list[Left]) -> list[CreditRow]:
    rows = []
    for one in left:
        line, whole = one.line, minor_text(one.amount_minor, invoice.minor_digits)
        typed = request.POST.get(f"amount-{line.position}", whole).replace("\0", "")[:30]
        units = request.POST.get(f"units-{line.position}", "").replace("\0", "")[:30]
        price = unit_text(Decimal(line.unit_usd), line.unit_size) if line.unit_usd else ""
        rows.append(
            CreditRow(line, _shown(invoice, one.amount_minor), one.units, price, typed, units, one.is_all)
        )
    return rows


def _shown(invoice: Invoice, amount_minor: int) -> str:
    return minor_text_grouped(amount_minor, invoice.minor_digits)


def _read_units(request: HttpRequest, chosen: set[int]) -> dict[int, int]:
    """How many units of the chosen lines are to be credited, where that was typed."""
    units = {}
    for position in sorted(chosen):
        text = request.POST.get(f"units-{position}", "").strip()[:30]
        if not text:
            continue
        try:
            units[position] = int(text.replace(",", ""))
        except ValueError:
            raise InvalidValueError({"": [f"line {position}: write a quantity like 120000"]}) from None
    return units


def _read_amounts(
    request: HttpRequest, invoice: Invoice, chosen: set[int], left: list[Left], units: dict[int, int]
) -> dict[int, int]:
    """What is to be credited of the chosen lines, in minor units. Nothing typed: all that is left.

    What the form says before anybody writes into it is no amount beside a quantity.
    """
    whole = {one.line.position: minor_text(one.amount_minor, invoice.minor_digits) for one in left}
    amounts = {}
    for position in sorted(chosen):
        text = request.POST.get(f"amount-{position}", "").strip()[:30]
        if not text or (position in units and text == whole.get(position)):
            continue
        try:
            minor = Decimal(text).scaleb(invoice.minor_digits)
            amounts[position] = int(minor.to_integral_exact(context=EXACT))
        except (ArithmeticError, ValueError):
            example = minor_text(1250, invoice.minor_digits)
            text = f"line {position}: write an amount in {invoice.currency} like {example}"
            raise InvalidValueError({"": [text]}) from None
    return amounts


def _find(pk: int) -> Invoice:
    return get_object_or_404(Invoice.objects.select_related("tenant"), pk=pk)


def _text(request: HttpRequest, name: str) -> str:
    return request.POST.get(name, "").replace("\0", "").strip()[:TEXT_LENGTH]


def _step(
    request: HttpRequest, pk: int, verb: Callable[..., Any], *, done: str, is_asked: bool = True, **more: str
) -> HttpResponse:
    invoice = _find(pk)
    if is_asked and not is_confirmed(request, confirm_name(invoice)):
        return redirect("statement", pk=pk)

    def run(row: Invoice, actor: str) -> None:
        verb(invoice=row, actor=actor, now=timezone.now(), **more)

    if _run(request, invoice, run):
        messages.success(request, done)
    return redirect("statement", pk=pk)


def _run(request: HttpRequest, invoice: Invoice, verb: Callable[[Invoice, str], None]) -> bool:
    try:
        verb(invoice, actor_name(request))
    except ConfigurationError as refusal:
        messages.error(request, f"Nothing changed: {refusal}.")
        return False
    return True
