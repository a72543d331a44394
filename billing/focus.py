"""What does usage look like to tools that read FOCUS? Meters and statements -> rows of Cost and Usage, 1.4 or 1.2.

Pure. What the costs mean here:

    ListCost         quantity x the rate in the cost book: what the provider charges
    ContractedCost   quantity x the rate that holds for the tenant: its sale terms, or the list rate without any
    BilledCost       what was charged: ContractedCost, rounded to a nano-unit for each request
    EffectiveCost    BilledCost: there is nothing to spread over time (prepaid credit pays an invoice, it lowers none)

Of a statement that is issued, all is in its currency at its rate, and the rows of its InvoiceId sum to its total:
usage, then a row with what rounding its lines to cents added, then its tax.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final, NamedTuple

import orjson

from billing.money import NANO_DIGITS, usd_decimal
from billing.rating import (
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    AUDIO_SECOND,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    IMAGE,
    IMAGE_INPUT,
    IMAGE_OUTPUT,
    OUTPUT,
    PIECES,
    REASONING,
    REQUEST,
    SEARCH,
)
from billing.spreadsheets import Column, Kind, exact_text

VERSIONS: Final = ("1.4", "1.2")
USD: Final = "USD"
# A rate has at most twelve digits after the point and a quantity in millions six, so that products stay exact; that
# of a second is rounded to them.
RATE_STEP: Final = Decimal("1e-12")
NANO_STEP: Final = Decimal("1e-9")
MILLION_DIGITS: Final = 6
_EXACT = Context(prec=80)
NO_TAGS: Final[Mapping[str, str]] = {}

# Column -> what it holds, and the versions that have it ("" is both).
_COLUMNS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("BilledCost", "decimal", ""),
    ("BillingAccountId", "text", ""),
    ("BillingAccountName", "text", ""),
    ("BillingAccountType", "text", ""),
    ("BillingCurrency", "text", ""),
    ("BillingPeriodEnd", "time", ""),
    ("BillingPeriodStart", "time", ""),
    ("ChargeCategory", "text", ""),
    ("ChargeClass", "text", ""),
    ("ChargeDescription", "text", ""),
    ("ChargeFrequency", "text", ""),
    ("ChargePeriodEnd", "time", ""),
    ("ChargePeriodStart", "time", ""),
    ("ConsumedQuantity", "decimal", ""),
    ("ConsumedUnit", "text", ""),
    ("ContractedCost", "decimal", ""),
    ("ContractedUnitPrice", "decimal", ""),
    ("EffectiveCost", "decimal", ""),
    ("HostProviderName", "text", "1.4"),
    ("InvoiceId", "text", ""),
    ("InvoiceIssuerName", "text", ""),
    ("ListCost", "decimal", ""),
    ("ListUnitPrice", "decimal", ""),
    ("PricingCategory", "text", ""),
    ("PricingCurrency", "text", ""),
    ("PricingCurrencyContractedUnitPrice", "decimal", ""),
    ("PricingCurrencyEffectiveCost", "decimal", ""),
    ("PricingCurrencyListUnitPrice", "decimal", ""),
    ("PricingQuantity", "decimal", ""),
    ("PricingUnit", "text", ""),
    ("ProviderName", "text", "1.2"),
    ("PublisherName", "text", "1.2"),
    ("RegionId", "text", ""),
    ("RegionName", "text", ""),
    ("ResourceId", "text", ""),
    ("ResourceName", "text", ""),
    ("ResourceType", "text", ""),
    ("ServiceCategory", "text", ""),
    ("ServiceName", "text", ""),
    ("ServiceProviderName", "text", "1.4"),
    ("ServiceSubcategory", "text", ""),
    ("SkuId", "text", ""),
    ("SkuMeter", "text", ""),
    ("SkuPriceDetails", "text", ""),
    ("SkuPriceId", "text", ""),
    ("SubAccountId", "text", ""),
    ("SubAccountName", "text", ""),
    ("SubAccountType", "text", ""),
    ("Tags", "text", ""),
    # Nothing here has these; a header with all columns of its version is known as such by tools.
    ("AvailabilityZone", "text", ""),
    ("CapacityReservationId", "text", ""),
    ("CapacityReservationStatus", "text", ""),
    ("CommitmentDiscountCategory", "text", ""),
    ("CommitmentDiscountId", "text", ""),
    ("CommitmentDiscountName", "text", ""),
    ("CommitmentDiscountQuantity", "decimal", ""),
    ("CommitmentDiscountStatus", "text", ""),
    ("CommitmentDiscountType", "text", ""),
    ("CommitmentDiscountUnit", "text", ""),
    ("AllocatedMethodDetails", "text", "1.4"),
    ("AllocatedMethodId", "text", "1.4"),
    ("AllocatedResourceId", "text", "1.4"),
    ("AllocatedResourceName", "text", "1.4"),
    ("AllocatedTags", "text", "1.4"),
    ("CommitmentProgramEligibilityDetails", "text", "1.4"),
    ("ContractApplied", "text", "1.4"),
    ("InvoiceDetailId", "text", "1.4"),
    ("x_CacheAction", "text", ""),
    ("x_TokenDirection", "text", ""),
    ("x_TokenModality", "text", ""),
    ("x_ServiceTier", "text", ""),
    ("x_Model", "text", ""),
    ("x_Deployment", "text", ""),
    ("x_Meter", "text", ""),
    ("x_PriceVersion", "count", ""),
    ("x_UsageMonth", "text", ""),
    ("x_CostNanoUsd", "count", ""),
    ("x_ChargeNanoUsd", "count", ""),
)


class Meter(NamedTuple):
    """What FOCUS is told of a meter: its name, what was done with a cache, which way tokens went, of which kind."""

    name: str
    cache_action: str | None
    direction: str | None
    modality: str | None


METERS: Final[Mapping[str, Meter]] = {
    "input": Meter("Input tokens", None, "Input", "Text"),
    CACHE_READ: Meter("Input tokens read from a cache", "Read", "Input", "Text"),
    CACHE_WRITE: Meter("Input tokens written to a cache", "Write", "Input", "Text"),
    CACHE_WRITE_1H: Meter("Input tokens written to a cache for an hour", "Write 1 hour", "Input", "Text"),
    AUDIO_INPUT: Meter("Audio input tokens", None, "Input", "Audio"),
    OUTPUT: Meter("Output tokens", None, "Output", "Text"),
    REASONING: Meter("Reasoning tokens", None, "Output", "Text"),
    AUDIO_OUTPUT: Meter("Audio output tokens", None, "Output", "Audio"),
    REQUEST: Meter("Requests", None, None, None),
    SEARCH: Meter("Searches", None, None, None),
    IMAGE_INPUT: Meter("Image input tokens", None, "Input", "Image"),
    IMAGE_OUTPUT: Meter("Image output tokens", None, "Output", "Image"),
    IMAGE: Meter("Images", None, None, None),
    AUDIO_SECOND: Meter("Seconds", None, None, None),
}


class Account(NamedTuple):
    """Who is billed, and by whom."""

    tenant_id: int
    tenant: str
    issuer: str


class Statement(NamedTuple):
    """An issued statement whose usage this is. Amounts in its smallest unit, `lines_rounding_nano` in billionths."""

    number: str
    is_credit_note: bool
    month: dt.date
    currency: str
    minor_digits: int
    exchange_rate: Decimal
    subtotal_minor: int
    tax_minor: int
    line_count: int
    lines_rounding_nano: int


class Usage(NamedTuple):
    """One row of meter_by_day with its names. `model`, `deployment`: of the record; `sku_deployment`: of the price."""

    day: dt.date
    project_id: int
    project: str
    key_id: int
    key: str
    model: str
    deployment: str
    sku_deployment: str
    provider: str
    price_id: int
    meter: str
    service_tier: str
    cost_rate: str
    sale_rate: str
    late_of: dt.date | None
    is_correction: bool
    quantity: int
    cost_nanousd: int
    charge_nanousd: int
    tags: Mapping[str, str] = NO_TAGS


Row = dict[str, Any]


def columns_of(version: str) -> tuple[Column, ...]:
    """The columns of a version, in the order of the file."""
    return tuple(Column(name, kind) for name, kind, only in _COLUMNS if only in ("", version))


def values_of(row: Row, columns: Sequence[Column]) -> list[Any]:
    """A row's values in the order of the columns; what it does not say is null."""
    return [row.get(column.name) for column in columns]


def usage_row(usage: Usage, account: Account, statement: Statement | None) -> Row:
    """The row of one meter of one key on one day."""
    meter = METERS.get(usage.meter) or Meter(usage.meter, None, None, None)
    pieces = PIECES.get(usage.meter)
    is_tokens = pieces is None
    quantity = Decimal(usage.quantity)
    priced = quantity.scaleb(-MILLION_DIGITS, context=_EXACT) if is_tokens else quantity
    exchange = statement.exchange_rate if statement is not None else Decimal(1)
    list_usd, sale_usd = (_rate(text, pieces or 1) for text in (usage.cost_rate, usage.sale_rate))
    list_price, sale_price = _in(list_usd, exchange), _in(sale_usd, exchange)
    billed = _billed(usage.charge_nanousd, exchange)
    details = {
        "x_PriceVersion": usage.price_id,
        "x_Meter": usage.meter,
        "x_ServiceTier": usage.service_tier,
        "x_ListRateUsd": exact_text(list_usd),
        "x_SaleRateUsd": exact_text(sale_usd),
    }
    start = _midnight(usage.day)
    return {
        **_of_account(account, statement, usage.day),
        "BilledCost": billed,
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if usage.is_correction else None,
        "ChargeDescription": _description(usage, meter),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + dt.timedelta(days=1),
        # Units that are charged in another row than they are paid for in are consumed once.
        "ConsumedQuantity": quantity if usage.sale_rate else Decimal(0),
        "ConsumedUnit": "Tokens" if is_tokens else meter.name,
        "ContractedCost": _EXACT.multiply(sale_price, priced),
        "ContractedUnitPrice": sale_price,
        "EffectiveCost": billed,
        "HostProviderName": usage.provider,
        "PublisherName": usage.provider,
        "ListCost": _EXACT.multiply(list_price, priced),
        "ListUnitPrice": list_price,
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": sale_usd,
        "PricingCurrencyEffectiveCost": usd_decimal(usage.charge_nanousd),
        "PricingCurrencyListUnitPrice": list_usd,
        "PricingQuantity": priced,
        "PricingUnit": "1000000 Tokens" if is_tokens else meter.name,
        "ResourceId": f"key-{usage.key_id}",
        "ResourceName": usage.key,
        "ResourceType": "API key",
        "SkuId": f"{usage.sku_deployment}/{usage.meter}",
        "SkuMeter": meter.name,
        "SkuPriceDetails": orjson.dumps(details).decode(),
        "SkuPriceId": _price_id(usage),
        "SubAccountId": f"project-{usage.project_id}",
        "SubAccountName": usage.project,
        "SubAccountType": "Project",
        "Tags": orjson.dumps(dict(usage.tags), option=orjson.OPT_SORT_KEYS).decode() if usage.tags else None,
        "x_CacheAction": meter.cache_action,
        "x_TokenDirection": meter.direction,
        "x_TokenModality": meter.modality,
        "x_ServiceTier": usage.service_tier or None,
        "x_Model": usage.model,
        "x_Deployment": usage.deployment,
        "x_Meter": usage.meter,
        "x_PriceVersion": usage.price_id,
        "x_UsageMonth": f"{usage.late_of:%Y-%m}" if usage.late_of is not None else None,
        "x_CostNanoUsd": usage.cost_nanousd,
        "x_ChargeNanoUsd": usage.charge_nanousd,
    }


def closing_rows(statement: Statement, account: Account, *, billed: Decimal) -> list[Row]:
    """What makes the rows of a statement its total, after usage of `billed`: rounding, anything unexplained, tax."""
    subtotal = _minor(statement.subtotal_minor, statement.minor_digits)
    if statement.is_credit_note:
        texts = [("Adjustment", f"Credit note {statement.number}", subtotal - billed)]
    else:
        rounding = Decimal(statement.lines_rounding_nano).scaleb(-NANO_DIGITS, context=_EXACT)
        rest = subtotal - billed - rounding
        # Each row of another currency is rounded to a billionth, and so may differ by one; that is rounding too.
        if statement.currency != USD and abs(rest) < _minor(1, statement.minor_digits):
            rounding, rest = rounding + rest, Decimal(0)
        count = statement.line_count
        texts = [
            ("Adjustment", f"Rounding of {count} invoice line{'' if count == 1 else 's'}", rounding),
            ("Adjustment", "Difference between the invoice and usage as it is counted now", rest),
        ]
    texts.append(("Tax", f"Tax of {statement.number}", _minor(statement.tax_minor, statement.minor_digits)))
    return [
        _flat_row(statement, account, category=category, text=text, amount=amount)
        for category, text, amount in texts
        if amount
    ]


def _flat_row(statement: Statement, account: Account, *, category: str, text: str, amount: Decimal) -> Row:
    """An amount for the whole period, with no quantity."""
    period = _of_account(account, statement, statement.month)
    in_usd = _EXACT.divide(amount, statement.exchange_rate).quantize(NANO_STEP, ROUND_HALF_UP, context=_EXACT)
    return {
        **period,
        "BilledCost": amount,
        "ChargeCategory": category,
        "ChargeClass": "Correction" if statement.is_credit_note and category != "Tax" else None,
        "ChargeDescription": text,
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": period["BillingPeriodStart"],
        "ChargePeriodEnd": period["BillingPeriodEnd"],
        "ContractedCost": amount,
        "EffectiveCost": amount,
        "ListCost": amount,
        "PricingCurrencyEffectiveCost": in_usd,
        "HostProviderName": account.issuer,
        "PublisherName": account.issuer,
    }


def _of_account(account: Account, statement: Statement | None, day: dt.date) -> Row:
    """What all rows of a tenant's month have in common."""
    month = statement.month if statement is not None else day.replace(day=1)
    return {
        "BillingAccountId": f"tenant-{account.tenant_id}",
        "BillingAccountName": account.tenant,
        "BillingAccountType": "Tenant",
        "BillingCurrency": statement.currency if statement is not None else USD,
        "BillingPeriodStart": _midnight(month),
        "BillingPeriodEnd": _midnight((month + dt.timedelta(days=32)).replace(day=1)),
        "InvoiceId": statement.number if statement is not None else None,
        "InvoiceIssuerName": account.issuer,
        "PricingCurrency": USD,
        "ProviderName": account.issuer,
        "ServiceProviderName": account.issuer,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "Language models",
    }


def _description(usage: Usage, meter: Meter) -> str:
    late = f", late usage of {usage.late_of:%Y-%m}" if usage.late_of is not None else ""
    tier = f", service tier {usage.service_tier}" if usage.service_tier else ""
    return f"{usage.model or 'no model'}: {meter.name}{tier}{late}"


def _price_id(usage: Usage) -> str:
    """The price version, and which of its rates: one id has one list price, as FOCUS asks."""
    tier = f"@{usage.service_tier}" if usage.service_tier else ""
    return f"price-{usage.price_id}/{usage.meter}{tier}/{usage.cost_rate or 'sale'}"


def _rate(text: str, pieces: int) -> Decimal:
    """The price of a piece, of a rate that is stated for so many (an hour of audio is priced by the second)."""
    return _EXACT.divide(Decimal(text or 0), pieces).quantize(RATE_STEP, ROUND_HALF_UP, context=_EXACT)


def _in(rate_usd: Decimal, exchange: Decimal) -> Decimal:
    if exchange == 1:
        return rate_usd
    return _EXACT.multiply(rate_usd, exchange).quantize(RATE_STEP, ROUND_HALF_UP, context=_EXACT)


def _billed(charge_nanousd: int, exchange: Decimal) -> Decimal:
    usd = usd_decimal(charge_nanousd)
    if exchange == 1:
        return usd
    return _EXACT.multiply(usd, exchange).quantize(NANO_STEP, ROUND_HALF_UP, context=_EXACT)


def _minor(amount: int, digits: int) -> Decimal:
    return Decimal(amount).scaleb(-digits, context=_EXACT)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
