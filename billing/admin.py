"""What does the back office (Django's admin) show of records and money? Everything, and it changes nothing.

Reads: price, records, rollups. Prices are added in the console; records, rollups and cursors have one writer each.
"""

from __future__ import annotations

from django.contrib import admin

from billing.models import (
    Adjustment,
    AttemptRecord,
    BilledDay,
    BilledName,
    BillingProfile,
    CreditGrant,
    Evidence,
    ExchangeRate,
    Feedback,
    JournalCursor,
    LedgerEntry,
    LedgerPosting,
    OpenIntent,
    Price,
    PriceProposal,
    ProposedPrice,
    ProviderBill,
    RequestRecord,
    ReratingRun,
    UsageByDay,
    UsageByHour,
    WorkloadUsage,
)
from policies.admin import ReadOnlyAdmin


@admin.register(Price)
class PriceAdmin(ReadOnlyAdmin):
    list_display = ("deployment", "book", "effective_from", "rates", "source", "created_by")
    list_select_related = ("deployment",)
    list_filter = ("book",)


@admin.register(RequestRecord)
class RequestRecordAdmin(ReadOnlyAdmin):
    list_display = ("id", "started_at", "status", "requested_model", "cost_nanousd", "duration_ms")
    list_filter = ("status",)


@admin.register(AttemptRecord)
class AttemptRecordAdmin(ReadOnlyAdmin):
    list_display = ("request_id", "number", "deployment", "outcome", "duration_ms")
    list_select_related = ("deployment",)


@admin.register(UsageByDay)
class UsageByDayAdmin(ReadOnlyAdmin):
    list_display = ("day", "tenant", "api_key_id", "request_count", "unpriced_count", "cost_nanousd")
    list_select_related = ("tenant",)


@admin.register(LedgerPosting)
class LedgerPostingAdmin(ReadOnlyAdmin):
    list_display = ("id", "at", "tenant", "kind", "reference", "currency", "made_by")
    list_select_related = ("tenant",)
    list_filter = ("kind",)


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    list_display = ("posting", "tenant", "account", "amount_nano", "currency", "grant")
    list_select_related = ("posting", "tenant", "grant")
    list_filter = ("account",)


@admin.register(CreditGrant)
class CreditGrantAdmin(ReadOnlyAdmin):
    list_display = ("id", "tenant", "kind", "amount_nano", "currency", "priority", "expires_at")
    list_select_related = ("tenant",)
    list_filter = ("kind",)


@admin.register(ExchangeRate)
class ExchangeRateAdmin(ReadOnlyAdmin):
    list_display = ("currency", "first_day", "last_day", "rate", "source", "created_by")
    list_filter = ("currency",)


@admin.register(BillingProfile)
class BillingProfileAdmin(ReadOnlyAdmin):
    list_display = ("tenant", "legal_name", "currency", "tax_ratio", "payment_days")
    list_select_related = ("tenant",)


@admin.register(UsageByHour)
class UsageByHourAdmin(ReadOnlyAdmin):
    list_display = ("hour", "tenant", "request_count", "error_count", "cost_nanousd")
    list_select_related = ("tenant",)


@admin.register(Evidence)
class EvidenceAdmin(ReadOnlyAdmin):
    list_display = ("at", "source", "workload", "task_type", "model", "quality", "detail")
    list_select_related = ("model",)
    list_filter = ("source",)


@admin.register(Feedback)
class FeedbackAdmin(ReadOnlyAdmin):
    list_display = ("at", "request_id", "api_key_id", "quality", "state")
    list_filter = ("state",)


@admin.register(WorkloadUsage)
class WorkloadUsageAdmin(ReadOnlyAdmin):
    list_display = ("day", "workload", "task_type", "app", "deployment", "request_count", "cost_nanousd")
    list_select_related = ("deployment",)


admin.site.register(
    (
        OpenIntent,
        JournalCursor,
        PriceProposal,
        ProposedPrice,
        ReratingRun,
        Adjustment,
        ProviderBill,
        BilledDay,
        BilledName,
    ),
    ReadOnlyAdmin,
)
