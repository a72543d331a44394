"""Do billing details and exchange rates of a file become rows, once, and come back when they are exported?"""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.billing_profiles import profile_of
from billing.models import ExchangeRate
from gateway.configuration_file.exporting import export_text
from gateway.configuration_file.values import FileError
from policies.models import ChangeEvent, Tenant
from tests.gateway.configuration_file.test_applying import apply, changes_of

pytestmark = pytest.mark.django_db

FILE = """
issuer: {legal_name: Us Ltd, address: "Street 1\\nLondon"}
exchange_rates:
  - {currency: EUR, rate: 0.92, first_day: 2026-01-01, source: ECB}
  - {currency: EUR, rate: "0.3", first_day: 2026-02-01, last_day: 2026-02-28, source: ECB, is_sure: true}
tenants:
  - name: acme
    billing: {legal_name: Acme GmbH, tax_id: DE1, tax_ratio: 0.19, currency: EUR, payment_days: 14}
"""


def test_a_file_is_applied_once_and_comes_back() -> None:
    outcome = apply(FILE)
    assert changes_of(outcome) == [
        "add      rate       EUR from 2026-01-01  0.92",
        "add      rate       EUR from 2026-02-01  0.3",
        "create   billing    issuer  legal_name: Us Ltd; address: Street 1\nLondon",
        "create   tenant     acme",
        "create   billing    acme  legal_name: Acme GmbH; tax_id: DE1; tax_ratio: 0.190000; currency: EUR;"
        " payment_days: 14",
    ]
    profile = profile_of(Tenant.objects.get())
    assert (profile.tax_ratio, profile.currency, profile.payment_days) == (Decimal("0.19"), "EUR", 14)
    events = ChangeEvent.objects.count()
    for text in (FILE, export_text()):
        assert changes_of(apply(text)) == []
    assert ChangeEvent.objects.count() == events
    assert ExchangeRate.objects.count() == 2
    changed = apply("tenants: [{name: acme, billing: {payment_days: 30}}]")
    assert changes_of(changed) == ["change   billing    acme  payment_days: 30"]
    assert profile_of(Tenant.objects.get()).legal_name == "Acme GmbH"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("tenants: [{name: acme, billing: {currency: XXX}}]", "tenants[0].billing.currency"),
        ("tenants: [{name: acme, billing: {tax_ratio: 19}}]", "tenants[0].billing.tax_ratio"),
        ("tenants: [{name: acme, billing: {tax_ratio: .nan}}]", "tenants[0].billing.tax_ratio"),
        ("tenants: [{name: acme, billing: {tax_ratio: [1]}}]", "tenants[0].billing.tax_ratio"),
        ("issuer: {currency: EUR}", "issuer.currency"),
        (
            "exchange_rates: [{currency: EUR, rate: 0, first_day: 2026-01-01, source: x}]",
            "exchange_rates[0].rate",
        ),
        ("exchange_rates: [{currency: EUR, rate: 0.9, source: x}]", "exchange_rates[0].first_day"),
        ("exchange_rates: {currency: EUR}", "exchange_rates"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, place: str) -> None:
    with pytest.raises(FileError) as refused:
        apply(text)
    assert [problem.path for problem in refused.value.problems] == [place]
    assert not ExchangeRate.objects.exists()
    assert not Tenant.objects.exists()
