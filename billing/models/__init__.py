"""What traffic recorded and what it cost, as tables. One file per subject; import from here."""

from billing.models.alerts import AlertDelivery, AlertRecipient, BudgetAlert
from billing.models.backtests import Backtest, BacktestState
from billing.models.billing_profile import BillingProfile
from billing.models.budgets import Budget, BudgetLease, BudgetWindow
from billing.models.credits import CreditGrant, ExchangeRate
from billing.models.evaluation import (
    EvaluationAnswer,
    EvaluationCase,
    EvaluationRun,
    EvaluationSet,
    EvaluationState,
)
from billing.models.evidence import Evidence, Feedback, WorkloadDay, WorkloadUsage
from billing.models.exports import ExportJob, ExportKind, ExportState
from billing.models.ingestion import JournalCursor, OpenIntent
from billing.models.invoices import (
    Invoice,
    InvoiceCounter,
    InvoiceKind,
    InvoiceLine,
    InvoiceState,
    IssuedPdf,
)
from billing.models.labels import (
    Label,
    LabelDay,
    LabelKind,
    LabelName,
    LabelSet,
    LabelUse,
    UsageByKeyLabelDay,
    UsageByKeyLabelSetDay,
    UsageByKeySetDay,
    UsageByLabelDay,
    UsageByLabelSetDay,
)
from billing.models.ledger import LedgerEntry, LedgerPosting
from billing.models.meters import MeterByDay, MeterDay
from billing.models.periods import ClosingState, LatePosting, PeriodClosing, PeriodLock
from billing.models.price_proposals import PriceProposal, ProposedPrice
from billing.models.prices import Price
from billing.models.reconciliation import BilledDay, BilledName, ProviderBill
from billing.models.requests import AttemptRecord, RequestRecord
from billing.models.rerating import Adjustment, ReratingRun
from billing.models.sale import SaleTerm
from billing.models.shadow import ShadowSpend
from billing.models.usage import AttemptsByDay, UsageByDay, UsageByHour, UsageByKeyDay
from billing.models.views import DeliveryState, MailDelivery, SavedView, ScheduledMail

__all__ = [
    "Adjustment",
    "AlertDelivery",
    "AlertRecipient",
    "AttemptRecord",
    "AttemptsByDay",
    "Backtest",
    "BacktestState",
    "BilledDay",
    "BilledName",
    "BillingProfile",
    "Budget",
    "BudgetAlert",
    "BudgetLease",
    "BudgetWindow",
    "ClosingState",
    "CreditGrant",
    "DeliveryState",
    "EvaluationAnswer",
    "EvaluationCase",
    "EvaluationRun",
    "EvaluationSet",
    "EvaluationState",
    "Evidence",
    "ExchangeRate",
    "ExportJob",
    "ExportKind",
    "ExportState",
    "Feedback",
    "Invoice",
    "InvoiceCounter",
    "InvoiceKind",
    "InvoiceLine",
    "InvoiceState",
    "IssuedPdf",
    "JournalCursor",
    "Label",
    "LabelDay",
    "LabelKind",
    "LabelName",
    "LabelSet",
    "LabelUse",
    "LatePosting",
    "LedgerEntry",
    "LedgerPosting",
    "MailDelivery",
    "MeterByDay",
    "MeterDay",
    "OpenIntent",
    "PeriodClosing",
    "PeriodLock",
    "Price",
    "PriceProposal",
    "ProposedPrice",
    "ProviderBill",
    "RequestRecord",
    "ReratingRun",
    "SaleTerm",
    "SavedView",
    "ScheduledMail",
    "ShadowSpend",
    "UsageByDay",
    "UsageByHour",
    "UsageByKeyDay",
    "UsageByKeyLabelDay",
    "UsageByKeyLabelSetDay",
    "UsageByKeySetDay",
    "UsageByLabelDay",
    "UsageByLabelSetDay",
    "WorkloadDay",
    "WorkloadUsage",
]
