"""Who owes whom how much, and why? Tables: ledger_posting, ledger_entry (double entry, append-only).

Triggers keep it: the entries of a posting share its tenant and currency and sum to zero; nothing is changed or
deleted, or added to a posting after the transaction that made it.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models.wide_integer import WideIntegerField


class LedgerPosting(models.Model):
    """One event in money. A kind and reference are posted once. Written by `billing.ledger` alone."""

    class Kind(models.TextChoices):
        GRANT = "grant", "credit granted"
        DRAW = "draw", "credit drawn"
        GIVE_BACK = "give_back", "credit given back"
        EXPIRE = "expire", "credit expired"
        REFUND = "refund", "credit refunded"
        ISSUE = "issue", "statement issued"
        PAY = "pay", "statement paid"
        VOID = "void", "statement voided"
        CREDIT_NOTE = "credit_note", "credit note issued"
        WRITE_OFF = "write_off", "written off"

    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    reference = models.CharField(max_length=200)
    currency = models.CharField(max_length=3)
    corrects = models.ForeignKey(
        "self", null=True, on_delete=models.PROTECT, related_name="corrections", help_text="Draw given back."
    )
    at = models.DateTimeField(help_text="When it counts.")
    note = models.CharField(max_length=300, blank=True, default="")
    made_at = models.DateTimeField(auto_now_add=True)
    made_by = models.CharField(max_length=150)
    # Of the transaction that made it: no other one may add entries.
    transaction_number = models.BigIntegerField(editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["kind", "reference"], name="ledger_posting_once"),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="ledger_posting_currency"
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-id"], name="ledger_posting_tenant")]

    def __str__(self) -> str:
        return f"{self.kind} {self.reference}"


class LedgerEntry(models.Model):
    """One side of a posting: above 0 debit, below 0 credit, in nano of the posting's currency.

    Entries of the two credit accounts name their grant: its balance is their sum.
    """

    class Account(models.TextChoices):
        RECEIVABLE = "receivable", "accounts receivable"
        REVENUE = "revenue", "revenue"
        TAX = "tax", "tax collected"
        ROUNDING = "rounding", "rounding"
        CREDIT_PAID = "credit_paid", "prepaid credit"
        CREDIT_PROMOTIONAL = "credit_promotional", "promotional credit"
        CASH = "cash", "cash"
        PROMOTION = "promotion", "cost of promotions"
        BREAKAGE = "breakage", "prepaid credit expired"
        WRITE_OFF = "write_off", "written off"

    posting = models.ForeignKey(LedgerPosting, on_delete=models.PROTECT, related_name="entries")
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    account = models.CharField(max_length=20, choices=Account.choices)
    amount_nano = WideIntegerField()
    grant = models.ForeignKey(
        "billing.CreditGrant", null=True, on_delete=models.PROTECT, related_name="entries"
    )

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=~Q(amount_nano=0), name="ledger_entry_not_zero"),
            models.CheckConstraint(
                condition=Q(account__in=["credit_paid", "credit_promotional"], grant__isnull=False)
                | (~Q(account__in=["credit_paid", "credit_promotional"]) & Q(grant__isnull=True)),
                name="ledger_entry_credit_has_grant",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "account", "currency"], name="ledger_entry_balance")]

    def __str__(self) -> str:
        return f"{self.account} {self.amount_nano} {self.currency}"
