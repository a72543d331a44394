"""Is a rate known for a day, or said to be missing; are amounts read and written in their currency?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from billing import exchange_rates
from billing.billing_profiles import address_lines, change_profile, name_of, profile_of
from billing.currencies import CURRENCIES, format_amount, parse_amount
from billing.exchange_rates import add_rate, find_rate, get_rate
from billing.minor_units import digits_of
from billing.models import BillingProfile, ExchangeRate
from billing.money import MoneyError
from policies.errors import ConfigurationError
from policies.models import ChangeEvent
from tests.make import world


def day(number: int, month: int = 3) -> dt.date:
    return dt.date(2026, month, number)


FIRST = day(1)


def add(rate: str = "0.92", *, first_day: dt.date = FIRST, **fields: Any) -> ExchangeRate:
    given: dict[str, Any] = {"currency": "EUR", "source": "central bank", "actor": "fin", **fields}
    return add_rate(rate=rate, first_day=first_day, **given)


@pytest.mark.django_db
def test_a_rate_holds_until_the_next_one_or_its_last_day() -> None:
    assert find_rate(currency="USD", on=day(1)) == 1
    add("0.92")
    add("0.95", first_day=day(10), last_day=day(20))
    add("0.9", first_day=day(1, 5))
    found = [find_rate(currency="EUR", on=on) for on in (day(9), day(10), day(20), day(21), day(1, 5))]
    assert found == [Decimal("0.92"), Decimal("0.95"), Decimal("0.95"), None, Decimal("0.9")]
    assert find_rate(currency="EUR", on=day(28, 2)) is None
    with pytest.raises(exchange_rates.RateMissingError, match="no exchange rate of EUR for 2026-03-21"):
        get_rate(currency="EUR", on=day(21))


@pytest.mark.django_db
def test_a_later_row_of_the_same_day_corrects_and_the_same_again_adds_none() -> None:
    add("0.92")
    assert add("0.92") == add("0.920")
    add("0.93")
    assert find_rate(currency="EUR", on=day(1)) == Decimal("0.93")
    assert ChangeEvent.objects.filter(object_type="exchange_rate").count() == 2
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("UPDATE billing_exchangerate SET rate = 1")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(({"rate": rate}, "is not a number") for rate in ("NaN", "Infinity", "one", "", "0,92")),
        *(({"rate": rate}, "a rate is from") for rate in ("0", "-1", "1e30", "1e-30", "1000001")),
        ({"rate": "0.1234567890123"}, "at most 12 digits"),
        ({"rate": "9.2"}, "say that you are sure"),
        ({"rate": "0.4"}, "say that you are sure"),
        ({"currency": "USD"}, "its rate is 1"),
        ({"currency": "EURO"}, "not a currency"),
        ({"last_day": day(28, 2)}, "before the first"),
        ({"source": " "}, "where the number comes from"),
    ],
)
def test_what_is_no_rate_is_refused(fields: dict[str, Any], said: str) -> None:
    add("0.92")
    with pytest.raises(ConfigurationError, match=said):
        add(**fields)
    assert ExchangeRate.objects.count() == 1


@pytest.mark.django_db
def test_a_crash_of_a_currency_can_be_said_to_be_sure() -> None:
    add("0.92")
    assert add("9.2", is_sure=True).rate == Decimal("9.2")


@pytest.mark.parametrize(
    ("text", "currency", "nano", "shown"),
    [
        ("1,204.50", "EUR", 1_204_500_000_000, "1,204.50 EUR"),
        ("$12.5", "USD", 12_500_000_000, "$12.50"),
        ("1200 JPY", "JPY", 1_200_000_000_000, "1,200 JPY"),
        ("0.125", "KWD", 125_000_000, "0.125 KWD"),
        ("-3", "CHF", -3_000_000_000, "−3.00 CHF"),
    ],
)
def test_amounts_are_read_and_written(text: str, currency: str, nano: int, shown: str) -> None:
    assert parse_amount(text, currency) == nano
    assert format_amount(nano, currency) == shown


@pytest.mark.parametrize(
    ("text", "currency"), [("1.5", "JPY"), ("0.001", "EUR"), ("0.0001", "KWD"), ("x", "EUR")]
)
def test_what_is_finer_than_the_smallest_unit_is_refused(text: str, currency: str) -> None:
    with pytest.raises(MoneyError):
        parse_amount(text, currency)


def test_every_currency_has_its_digits() -> None:
    special = {code: digits_of(code) for code in CURRENCIES if digits_of(code) != 2}
    none, three = ("CLP", "ISK", "JPY", "KRW", "VND"), ("BHD", "JOD", "KWD", "OMR", "TND")
    assert special == {**dict.fromkeys(none, 0), **dict.fromkeys(three, 3)}


@pytest.mark.django_db
def test_a_profile_has_defaults_until_it_is_written_and_says_who_changed_it() -> None:
    tenant = world().tenant
    profile = profile_of(tenant)
    assert (profile.pk, profile.currency, profile.tax_ratio, name_of(profile)) == (
        None,
        "USD",
        0,
        tenant.name,
    )
    change_profile(
        tenant=tenant, actor="fin", legal_name=" Acme GmbH ", address="Weg 1\r\n\r\n 10115 Berlin ",
        tax_ratio="0.19", currency="eur",
    )  # fmt: skip
    profile = profile_of(tenant)
    assert (name_of(profile), profile.currency, profile.tax_ratio) == ("Acme GmbH", "EUR", Decimal("0.19"))
    assert address_lines(profile) == ("Weg 1", "10115 Berlin")
    change_profile(tenant=tenant, actor="fin", tax_ratio=Decimal("0.19"))
    change_profile(tenant=tenant, actor="fin", payment_days=14)
    events = ChangeEvent.objects.filter(object_type="billing_profile").order_by("id")
    assert [(event.action, event.after) for event in events][1:] == [("change", {"payment_days": 14})]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {"tax_ratio": "NaN"},
        {"tax_ratio": "1.1"},
        {"tax_ratio": "-0.1"},
        {"tax_ratio": "0.12345678"},
        {"currency": "XYZ"},
        {"payment_days": 400},
        {"email": "nobody"},
        {"address": "\n".join("123456789")},
        {"legal_name": "a\0b"},
        {"number": 1},
    ],
)
def test_what_is_no_profile_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        change_profile(tenant=world().tenant, actor="fin", **fields)
    assert not BillingProfile.objects.exists()


@pytest.mark.django_db
def test_the_issuer_has_a_name_and_no_tax_rate() -> None:
    change_profile(tenant=None, actor="fin", legal_name="Pointsman Ltd")
    assert name_of(profile_of(None)) == "Pointsman Ltd"
    with pytest.raises(ConfigurationError):
        change_profile(tenant=None, actor="fin", tax_ratio="0.2")
