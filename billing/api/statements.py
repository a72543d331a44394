"""How are statements drafted, issued, paid, made void and credited over HTTP, and months closed?

Reads: invoice, period_closing. Writes: nothing itself, calls `billing.invoicing`, `billing.credit_notes`,
`billing.closing`. Amounts are whole numbers: minor units of the statement's currency, and nano-USD.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing import closing, invoicing
from billing.credit_notes import write_credit_note
from billing.models import Invoice, InvoiceKind, InvoiceState, PeriodClosing
from billing.statement_listing import read_month
from billing.views.closing import ask_a_worker
from policies.api.access import ISSUE_STATEMENTS, READ, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    ManagementView,
    StrictSerializer,
    find_named,
    invalid,
    row_id,
)
from policies.models import Tenant


class MonthField(serializers.CharField):
    """A month written as 2025-10; inside, its first day."""

    def to_internal_value(self, data: Any) -> Any:
        month = read_month(super().to_internal_value(data))
        if month is None:
            raise serializers.ValidationError("Write the month like 2025-10.")
        return month

    def to_representation(self, value: Any) -> str:
        return f"{value:%Y-%m}"


class StatementLineSerializer(StrictSerializer):
    """One line. `amount_minor` is rounded once; what that added, in billionths of the currency, is `rounding_nano`."""

    position = serializers.IntegerField(read_only=True)
    kind = serializers.CharField(read_only=True, help_text="usage, late, correction or credit")
    text = serializers.CharField(read_only=True)
    model = serializers.CharField(read_only=True)
    provider = serializers.CharField(read_only=True)
    meter = serializers.CharField(read_only=True)
    service_tier = serializers.CharField(read_only=True)
    price_id = row_id(read_only=True, allow_null=True)
    sale_term_id = row_id(
        read_only=True, allow_null=True, help_text="By which it was charged, where not at cost."
    )
    sale_price_id = row_id(read_only=True, allow_null=True, help_text="The own price, where there was one.")
    unit_usd = serializers.CharField(read_only=True, help_text="A decimal text, for `unit_size` units.")
    unit_size = serializers.IntegerField(read_only=True)
    late_of = MonthField(read_only=True, allow_null=True, help_text="The closed month of late usage.")
    quantity = serializers.IntegerField(read_only=True)
    amount_nanousd = serializers.IntegerField(read_only=True)
    amount_nano = serializers.IntegerField(read_only=True)
    amount_minor = serializers.IntegerField(read_only=True)
    rounding_nano = serializers.IntegerField(read_only=True)


class StatementSummarySerializer(StrictSerializer):
    """An invoice of a month, or a credit note over one (with negative amounts)."""

    id = row_id(read_only=True)
    tenant_id = row_id(read_only=True)
    tenant = serializers.CharField(source="tenant.name", read_only=True)
    kind = serializers.CharField(read_only=True, help_text="invoice or credit_note")
    state = serializers.CharField(read_only=True, help_text="draft, reviewed, issued, paid or void")
    number = serializers.CharField(
        source="number_text", read_only=True, help_text="Empty until it is issued."
    )
    month = MonthField(read_only=True)
    corrects_id = row_id(read_only=True, allow_null=True)
    currency = serializers.CharField(read_only=True)
    minor_digits = serializers.IntegerField(read_only=True)
    exchange_rate = serializers.DecimalField(
        max_digits=24, decimal_places=12, read_only=True, normalize_output=True
    )
    amount_nanousd = serializers.IntegerField(read_only=True, help_text="The exact sum of the lines.")
    subtotal_minor = serializers.IntegerField(read_only=True)
    tax_minor = serializers.IntegerField(read_only=True)
    total_minor = serializers.IntegerField(read_only=True)
    credits_minor = serializers.IntegerField(read_only=True)
    due_minor = serializers.IntegerField(read_only=True)
    due_on = serializers.DateField(read_only=True, allow_null=True)
    reason = serializers.CharField(read_only=True)
    void_reason = serializers.CharField(read_only=True)
    payment_reference = serializers.CharField(read_only=True)
    drafted_at = serializers.DateTimeField(read_only=True)
    reviewed_at = serializers.DateTimeField(read_only=True, allow_null=True)
    issued_at = serializers.DateTimeField(read_only=True, allow_null=True)
    paid_at = serializers.DateTimeField(read_only=True, allow_null=True)
    voided_at = serializers.DateTimeField(read_only=True, allow_null=True)


class StatementSerializer(StatementSummarySerializer):
    """A statement with its lines and the document that PDF, CSV and JSON are written from."""

    pdf_sha256 = serializers.CharField(read_only=True)
    lines = StatementLineSerializer(many=True, read_only=True)
    document = serializers.DictField(
        read_only=True, help_text="billing/statement_document.py names its members."
    )


class DraftStatementSerializer(StrictSerializer):
    """Whose statement of which month."""

    tenant_id = row_id()
    month = MonthField()


class PaymentSerializer(StrictSerializer):
    """How it was paid."""

    reference = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class ReasonSerializer(StrictSerializer):
    """Why: it stands with the statement for good."""

    reason = serializers.CharField(max_length=300)


class CreditPartSerializer(StrictSerializer):
    """How much of a line is credited, before tax: an amount, or a quantity at the line's unit price."""

    position = serializers.IntegerField(min_value=1, max_value=2**31 - 1)
    amount_minor = serializers.IntegerField(
        min_value=-(2**62),
        max_value=2**62,
        required=False,
        help_text="In the smallest unit of the invoice's currency.",
    )
    quantity = serializers.IntegerField(
        min_value=-(2**62), max_value=2**62, required=False, help_text="Units of the line's meter."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of both."""
        if ("amount_minor" in attrs) == ("quantity" in attrs):
            raise serializers.ValidationError("write amount_minor or quantity, one of both")
        return attrs


class CreditNoteSerializer(ReasonSerializer):
    """Which lines are credited, whole or in part, and why."""

    positions = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**31 - 1),
        max_length=10_000,
        required=False,
        allow_null=True,
        help_text="null: all lines that are left; missing: those of parts, or all without any.",
    )
    parts = CreditPartSerializer(
        many=True,
        required=False,
        help_text="Of these lines, which stand in positions too where that is given, only so much.",
    )

    def validate_parts(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each line once: nobody knows which of two amounts is meant, or whether both are."""
        counted = Counter(part["position"] for part in parts)
        if twice := sorted(position for position, count in counted.items() if count > 1):
            raise serializers.ValidationError(f"Line {twice[0]} is named twice.")
        return parts


class StatementFilters(Filters):
    tenant_id = row_id()
    month = MonthField()
    kind = serializers.ChoiceField(choices=InvoiceKind.values)
    state = serializers.ChoiceField(choices=InvoiceState.values)


ROWS: QuerySet[Invoice] = Invoice.objects.select_related("tenant").prefetch_related("lines")


class StatementsView(CollectionView):
    tag = "statements"
    location = "/api/v1/statements"
    queryset = Invoice.objects.select_related("tenant").defer("document")
    serializer_class = StatementSummarySerializer
    filters = StatementFilters
    is_newest_first = True
    operations = {
        "GET": Operation("list_statements", "List statements", READ),
        "POST": Operation("draft_statement", "Draft a statement", ISSUE_STATEMENTS),
    }
    sent = {"POST": DraftStatementSerializer}

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Those made last come first; without lines."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Draft the statement of a month, or bring its draft up to date."""
        fields = self.read_body(DraftStatementSerializer)
        tenant = find_named(Tenant.objects.all(), fields["tenant_id"], path="tenant_id")
        row = invoicing.draft(tenant=tenant, month=fields["month"], actor=self.actor, now=timezone.now())
        if row is None:
            raise invalid("month", f"There is nothing to charge {tenant} for in {fields['month']:%Y-%m}.")
        return self.show_added(self.reread(row))


class StatementView(ManagementView):
    tag = "statements"
    queryset = ROWS
    serializer_class = StatementSerializer
    operations = {"GET": Operation("get_statement", "Read a statement", READ)}

    def get(self, request: Request, pk: int) -> Response:
        return self.show(self.find_row())


class StatementReviewView(ManagementView):
    tag = "statements"
    queryset = ROWS
    serializer_class = StatementSerializer
    operations = {"POST": Operation("review_statement", "Review a statement", ISSUE_STATEMENTS)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """Say that somebody looked at a draft and found it right."""
        row = invoicing.review(invoice=self.find_row(), actor=self.actor, now=timezone.now())
        return self.show(self.reread(row))


class StatementIssueView(ManagementView):
    tag = "statements"
    queryset = ROWS
    serializer_class = StatementSerializer
    operations = {"POST": Operation("issue_statement", "Issue a statement", ISSUE_STATEMENTS)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """Give a reviewed statement of a closed month its number. It never changes afterwards."""
        row = invoicing.issue(invoice=self.find_row(), actor=self.actor, now=timezone.now())
        return self.show(self.reread(row))


class StatementPaymentView(ManagementView):
    tag = "statements"
    queryset = ROWS
    serializer_class = StatementSerializer
    operations = {"POST": Operation("pay_statement", "Mark a statement as paid", ISSUE_STATEMENTS)}
    sent = {"POST": PaymentSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Book the payment of what is still due."""
        row = self.find_row()
        fields = self.read_body(PaymentSerializer)
        row = invoicing.mark_paid(
            invoice=row, actor=self.actor, now=timezone.now(), reference=fields["reference"]
        )
        return self.show(self.reread(row))


class StatementVoidView(ManagementView):
    tag = "statements"
    queryset = ROWS
    serializer_class = StatementSerializer
    operations = {"POST": Operation("void_statement", "Make a statement void", ISSUE_STATEMENTS)}
    sent = {"POST": ReasonSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Take an invoice back that is issued and not paid. Its number stays; its month can be drafted anew."""
        row = self.find_row()
        fields = self.read_body(ReasonSerializer)
        row = invoicing.void(invoice=row, actor=self.actor, now=timezone.now(), reason=fields["reason"])
        return self.show(self.reread(row))


class CreditNotesView(ManagementView):
    tag = "statements"
    queryset = ROWS
    serializer_class = StatementSerializer
    adds_a_row = True
    operations = {"POST": Operation("write_credit_note", "Write a credit note", ISSUE_STATEMENTS)}
    sent = {"POST": CreditNoteSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Credit lines of an issued or paid invoice. The note is issued at once; no more than is left of a line."""
        row = self.find_row()
        fields = self.read_body(CreditNoteSerializer)
        note = write_credit_note(
            invoice=row,
            actor=self.actor,
            now=timezone.now(),
            reason=fields["reason"],
            # Who names parts alone means these, never the rest of the invoice with them.
            positions=fields.get("positions", [part["position"] for part in fields.get("parts", ())] or None),
            amounts_minor=_said_of(fields, "amount_minor"),
            units=_said_of(fields, "quantity"),
        )
        headers = {"Location": f"{StatementsView.location}/{note.pk}"}
        return self.show(self.reread(note), code=status.HTTP_201_CREATED, headers=headers)


def _said_of(fields: dict[str, Any], name: str) -> dict[int, int]:
    return {part["position"]: part[name] for part in fields.get("parts", ()) if name in part}


class FindingSerializer(StrictSerializer):
    """One thing to know before a month is closed."""

    kind = serializers.CharField(read_only=True)
    text = serializers.CharField(read_only=True)
    count = serializers.IntegerField(read_only=True)
    is_obstacle = serializers.BooleanField(read_only=True)


class PreviewSerializer(StrictSerializer):
    """What closing a month would meet and do."""

    month = MonthField(read_only=True)
    is_closed = serializers.BooleanField(read_only=True)
    findings = FindingSerializer(many=True, read_only=True)
    tenant_count = serializers.IntegerField(read_only=True)
    charge_nanousd = serializers.IntegerField(read_only=True)


class ClosePeriodSerializer(StrictSerializer):
    """Which month, and how long late records are waited for."""

    month = MonthField()
    grace_days = serializers.IntegerField(
        min_value=0, max_value=closing.MAX_GRACE_DAYS, required=False, default=closing.GRACE_DAYS
    )


class ClosingSerializer(StrictSerializer):
    """How far the closing of a month is."""

    id = row_id(read_only=True)
    month = MonthField(read_only=True)
    state = serializers.CharField(read_only=True, help_text="waiting, running, done or failed")
    asked_at = serializers.DateTimeField(read_only=True)
    asked_by = serializers.CharField(read_only=True)
    locked_at = serializers.DateTimeField(read_only=True, allow_null=True)
    finished_at = serializers.DateTimeField(read_only=True, allow_null=True)
    tenant_count = serializers.IntegerField(read_only=True)
    done_count = serializers.IntegerField(read_only=True)
    left = serializers.ListField(
        child=serializers.DictField(),
        read_only=True,
        help_text="Tenants whose statement was not issued, and why.",
    )
    error = serializers.CharField(read_only=True)


class ClosingsView(CollectionView):
    tag = "statements"
    location = "/api/v1/closings"
    queryset = PeriodClosing.objects.all()
    serializer_class = ClosingSerializer
    is_newest_first = True
    operations = {
        "GET": Operation("list_closings", "List closed months", READ),
        "POST": Operation("close_month", "Close a month", ISSUE_STATEMENTS),
    }
    sent = {"POST": ClosePeriodSerializer}

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Those asked for last come first."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Have a month closed and its statements issued, in the background: watch the address in `Location`."""
        fields = self.read_body(ClosePeriodSerializer)
        row = closing.ask_closing(actor=self.actor, now=timezone.now(), **fields)
        ask_a_worker(row.pk)
        return self.show_added(row)


class ClosingView(ManagementView):
    tag = "statements"
    queryset = PeriodClosing.objects.all()
    serializer_class = ClosingSerializer
    operations = {"GET": Operation("get_closing", "Read how far a closing is", READ)}

    def get(self, request: Request, pk: int) -> Response:
        return self.show(self.find_row())


class ClosingPreviewView(ManagementView):
    tag = "statements"
    serializer_class = PreviewSerializer
    operations = {"GET": Operation("preview_closing", "Preview the closing of the next month", READ)}

    def get(self, request: Request) -> Response:
        """What keeps the month to close next from being closed, and what closing it would do."""
        now = timezone.now()
        return self.show(closing.preview(month=closing.find_closable_month(now), now=now))
