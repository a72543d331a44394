"""What is a tenant billed? Tables: invoice (invoices and credit notes), invoice_line, issued_pdf, invoice_counter.

From the moment that it is issued a statement never changes (triggers), but for the steps paid and void.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.models.wide_integer import WideIntegerField


class InvoiceKind(models.TextChoices):
    INVOICE = "invoice", "invoice"
    CREDIT_NOTE = "credit_note", "credit note"


class InvoiceState(models.TextChoices):
    DRAFT = "draft", "draft"
    REVIEWED = "reviewed", "reviewed"
    ISSUED = "issued", "issued"
    PAID = "paid", "paid"
    VOID = "void", "void"


UNNUMBERED = (InvoiceState.DRAFT, InvoiceState.REVIEWED)
NUMBER_PREFIXES = {InvoiceKind.INVOICE: "INV", InvoiceKind.CREDIT_NOTE: "CN"}


class Invoice(models.Model):
    """One statement: an invoice of a month, or a credit note that corrects one. Amounts of credit notes are negative.

    `document` is `billing.statement_document.to_json` of what it says, made anew with each draft and frozen at issue.
    """

    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="invoices")
    kind = models.CharField(max_length=12, choices=InvoiceKind.choices, default=InvoiceKind.INVOICE)
    month = models.DateField(help_text="First day of the UTC month.")
    state = models.CharField(max_length=10, choices=InvoiceState.choices, default=InvoiceState.DRAFT)
    number = models.PositiveBigIntegerField(null=True, help_text="Given at issue, without gaps in its kind.")
    currency = models.CharField(max_length=3)
    minor_digits = models.PositiveSmallIntegerField()
    exchange_rate = models.DecimalField(
        max_digits=24, decimal_places=12, help_text="Of the currency, for 1 USD."
    )
    tax_ratio = models.DecimalField(max_digits=9, decimal_places=6, default=0)
    amount_nanousd = models.BigIntegerField(help_text="Exact sum of the lines.")
    amount_nano = WideIntegerField(help_text="Sum of the lines in billionths of the currency.")
    subtotal_minor = models.BigIntegerField()
    tax_minor = models.BigIntegerField()
    total_minor = models.BigIntegerField()
    credits_minor = models.BigIntegerField(
        default=0, help_text="Prepaid credit drawn (given back: negative)."
    )
    due_minor = models.BigIntegerField()
    document = models.JSONField(default=dict)
    pdf_sha256 = models.CharField(max_length=64, blank=True, default="")
    corrects = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.PROTECT,
        related_name="credit_notes",
        help_text="Of a credit note.",
    )
    reason = models.CharField(max_length=300, blank=True, default="", help_text="Of a credit note.")
    payment_reference = models.CharField(max_length=200, blank=True, default="")
    due_on = models.DateField(null=True)
    drafted_at = models.DateTimeField()
    drafted_by = models.CharField(max_length=150)
    reviewed_at = models.DateTimeField(null=True)
    reviewed_by = models.CharField(max_length=150, blank=True, default="")
    issued_at = models.DateTimeField(null=True)
    issued_by = models.CharField(max_length=150, blank=True, default="")
    paid_at = models.DateTimeField(null=True)
    paid_by = models.CharField(max_length=150, blank=True, default="")
    voided_at = models.DateTimeField(null=True)
    voided_by = models.CharField(max_length=150, blank=True, default="")
    void_reason = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ["-month", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["kind", "number"], name="invoice_number_once"),
            models.UniqueConstraint(
                fields=["tenant", "month"],
                condition=Q(kind=InvoiceKind.INVOICE) & ~Q(state=InvoiceState.VOID),
                name="invoice_one_a_month",
            ),
            models.CheckConstraint(
                condition=Q(number__isnull=True, state__in=UNNUMBERED)
                | (Q(number__isnull=False) & ~Q(state__in=UNNUMBERED)),
                name="invoice_numbered_when_issued",
            ),
            models.CheckConstraint(
                condition=Q(kind=InvoiceKind.INVOICE, corrects__isnull=True)
                | Q(kind=InvoiceKind.CREDIT_NOTE, corrects__isnull=False),
                name="invoice_credit_note_corrects",
            ),
            models.CheckConstraint(
                condition=Q(total_minor=F("subtotal_minor") + F("tax_minor"))
                & Q(due_minor=F("total_minor") - F("credits_minor")),
                name="invoice_totals_tie",
            ),
        ]

    def __str__(self) -> str:
        return self.number_text or f"{self.get_kind_display()} of {self.month:%Y-%m} ({self.state})"

    @property
    def number_text(self) -> str:
        """INV-000042; empty until it is issued."""
        return "" if self.number is None else f"{NUMBER_PREFIXES[InvoiceKind(self.kind)]}-{self.number:06d}"

    @property
    def is_issued(self) -> bool:
        """Whether it has its number, and so never changes."""
        return self.number is not None


class InvoiceLine(models.Model):
    """One line, with names as they were then. `amount_minor` is rounded once; what that adds is `rounding_nano`."""

    class Kind(models.TextChoices):
        USAGE = "usage", "usage of the month"
        LATE = "late", "late usage of a closed month"
        CORRECTION = "correction", "re-rating of a closed month"
        CREDIT = "credit", "line of a credit note"

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.USAGE)
    text = models.CharField(max_length=300)
    model = models.CharField(max_length=300, blank=True, default="")
    provider = models.CharField(max_length=300, blank=True, default="")
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, on_delete=models.PROTECT, related_name="+"
    )
    meter = models.CharField(max_length=40, blank=True, default="")
    service_tier = models.CharField(max_length=40, blank=True, default="")
    price = models.ForeignKey("billing.Price", null=True, on_delete=models.PROTECT, related_name="+")
    sale_term = models.ForeignKey(
        "billing.SaleTerm", null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    sale_price = models.ForeignKey(
        "billing.Price", null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    unit_usd = models.CharField(
        max_length=60, blank=True, default="", help_text="Decimal text, of `unit_size` units."
    )
    unit_size = models.PositiveIntegerField(default=1_000_000)
    late_of = models.DateField(null=True, help_text="Of late usage: first day of its month.")
    quantity = models.BigIntegerField()
    amount_nanousd = models.BigIntegerField(help_text="Exact.")
    amount_nano = WideIntegerField(help_text="In billionths of the currency.")
    amount_minor = models.BigIntegerField(help_text="Rounded half up to the currency's smallest unit.")
    rounding_nano = models.BigIntegerField(help_text="amount_minor less amount_nano, in billionths.")
    corrects = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.PROTECT,
        related_name="credited",
        help_text="Of a credit note's line.",
    )

    class Meta:
        ordering = ["invoice", "position"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="invoice_line_position_once")
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id} #{self.position}"


class IssuedPdf(models.Model):
    """The PDF of an issued statement, byte for byte: another release of the library would write other bytes."""

    invoice = models.OneToOneField(
        Invoice, on_delete=models.PROTECT, primary_key=True, related_name="issued_pdf"
    )
    content = models.BinaryField()

    def __str__(self) -> str:
        return f"PDF of {self.invoice_id}"


class InvoiceCounter(models.Model):
    """The last number of each kind. Its row is locked by whoever issues, so that numbers have no gaps."""

    kind = models.CharField(max_length=12, choices=InvoiceKind.choices, primary_key=True)
    last_number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.kind} {self.last_number}"
