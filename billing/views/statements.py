"""Which statements are there, and what does one say? The list, a statement's page, and its files.

Reads: invoice, its lines and document, periods. The steps that may be taken: `billing.views.statement_steps`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, NamedTuple

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing.issued_pdfs import find_pdf
from billing.minor_units import minor_for_people
from billing.models import Invoice, InvoiceState
from billing.statement_document import from_json
from billing.statement_files import FILES, file_name
from billing.statement_listing import (
    ROWS_A_PAGE,
    filter_statements,
    find_open_month,
    is_overdue,
    list_months,
    list_rows,
    money,
    name_of,
    owed_minor,
    read_question,
    sum_by_currency,
    sum_credited,
)
from billing.statement_pdf import decimal_text
from billing.statement_view import Served, build_groups, build_totals, exact_text
from billing.views.spend import page_of
from billing.views.statement_steps import can_be_credited, list_steps
from policies.models import Tenant
from policies.permissions import Ability, may, needs

TENANTS_SHOWN = 500


class Done(NamedTuple):
    """A step that somebody took."""

    actor: str
    action: str
    at: dt.datetime


@needs(Ability.READ)
@require_safe
def list_statements(request: HttpRequest) -> HttpResponse:
    """How the months stand, and the statements, newest first."""
    today = timezone.now().date()
    question = read_question(request.GET)
    months = list_months(today=today)
    found = filter_statements(question)
    count = found.count()
    page = page_of(request, count)
    context = {
        "has_any": bool(months),
        "months": months,
        "next": find_open_month(months),
        "question": question,
        "query": question.query,
        "rows": list_rows(list(found[(page - 1) * ROWS_A_PAGE : page * ROWS_A_PAGE]), today=today),
        "sums": sum_by_currency(found),
        "count": count,
        "page": page,
        "has_next": page * ROWS_A_PAGE < count,
        "month_choices": [one.month for one in months],
        "tenant_choices": Tenant.objects.filter(invoices__isnull=False)
        .distinct()
        .order_by("name")[:TENANTS_SHOWN],
        "state_choices": InvoiceState.choices,
    }
    return render(request, "statements/list.html", context)


@needs(Ability.READ)
@require_safe
def show_statement(request: HttpRequest, pk: int) -> HttpResponse:
    """One statement: what it says, what may be done with it, and who did what."""
    invoice = find_statement(pk)
    document = from_json(invoice.document)
    notes = list(invoice.credit_notes.defer("document").order_by("pk"))
    may_act = may(request.user, Ability.ISSUE_STATEMENTS)
    owed = owed_minor(invoice, sum_credited([invoice]).get(invoice.pk, 0))
    shown_minor = owed if invoice.is_issued and invoice.corrects_id is None else document.due_minor
    context: dict[str, Any] = {
        "invoice": invoice,
        "name": name_of(invoice),
        "document": document,
        "groups": build_groups(document, _served(invoice)),
        "totals": build_totals(document),
        "exact_amount": exact_text(document.amount_nanousd),
        "exchange_rate": decimal_text(document.exchange_rate),
        "figure": minor_for_people(abs(shown_minor), document.currency, document.minor_digits),
        "is_in_favour": shown_minor < 0,
        "is_overdue": is_overdue(invoice, owed, today=timezone.now().date()),
        "credit_notes": [(note, name_of(note), money(note.total_minor, note)) for note in notes],
        "history": list_history(invoice),
        "steps": list_steps(invoice, has_notes=bool(notes)) if may_act else [],
        "may_credit": may_act and can_be_credited(invoice),
    }
    return render(request, "statements/statement.html", context)


@needs(Ability.READ)
@require_safe
def download(request: HttpRequest, pk: int, file_format: str) -> HttpResponse:
    """The statement as a file, written from its document; an issued PDF as it was then."""
    kind = FILES.get(file_format)
    if kind is None:
        raise Http404
    invoice = find_statement(pk)
    document = from_json(invoice.document)
    kept = find_pdf(invoice) if file_format == "pdf" else None
    written = kind.write(document) if kept is None else kept
    is_issued_pdf = file_format == "pdf" and bool(invoice.pdf_sha256)
    if is_issued_pdf and hashlib.sha256(written).hexdigest() != invoice.pdf_sha256:
        said = "This PDF is not the one that was issued: its sha256 is another one."
        if kept is None:
            # Issued before PDFs were kept, by another version of their library: the same document, other bytes.
            said = "This PDF says what it said at issue, but another version wrote it: its sha256 is another one."
        messages.warning(request, said)
    response = HttpResponse(written, content_type=kind.media_type)
    response["Content-Disposition"] = f'attachment; filename="{file_name(document, file_format)}"'
    return response


def find_statement(pk: int) -> Invoice:
    """The statement with what its page names, or the 404 page."""
    return get_object_or_404(Invoice.objects.select_related("tenant", "corrects"), pk=pk)


def list_history(invoice: Invoice) -> list[Done]:
    """Who took which step, the last one first."""
    steps = [
        ("drafted it", invoice.drafted_by, invoice.drafted_at),
        ("reviewed it", invoice.reviewed_by, invoice.reviewed_at),
        ("issued it", invoice.issued_by, invoice.issued_at),
        ("marked it as paid", invoice.paid_by, invoice.paid_at),
        ("made it void", invoice.voided_by, invoice.voided_at),
    ]
    if invoice.corrects_id is not None:
        steps = steps[2:3]  # a credit note is written and issued in one step
    return [Done(actor, action, at) for action, actor, at in reversed(steps) if at is not None]


def _served(invoice: Invoice) -> dict[int, Served]:
    rows = invoice.lines.filter(deployment__isnull=False)
    listed = rows.values_list("position", "deployment_id", "deployment__model_id")
    return {position: Served(deployment, model) for position, deployment, model in listed if deployment}
