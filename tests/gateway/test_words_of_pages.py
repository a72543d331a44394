"""Are amounts, shares and actions written as people read them?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.utils import timezone

from gateway.templatetags.console import done, rate, signed_percent, usd, when


def test_amounts_and_shares_below_zero_have_the_same_minus() -> None:
    assert usd(-18_500_000) == "−$0.0185"
    assert signed_percent(-0.09) == "−9 %"
    assert usd(1_204_500_000_000) == "$1,204.50"
    assert usd(None) == "–"


def test_growth_has_thousands() -> None:
    assert signed_percent(43.47) == "4,347 %"


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("create", "created"),
        ("roll_back", "rolled back"),
        ("pay", "paid"),
        ("reset password", "reset password"),
        ("stop_canary", "stopped canary"),
        ("add", "added"),
    ],
)
def test_an_action_of_the_audit_log_is_said_as_what_somebody_did(action: str, said: str) -> None:
    assert done(action) == said


@pytest.mark.parametrize(
    ("usd_per_mtok", "said"),
    [
        ("0.8", "0.80"),
        ("10", "10.00"),
        ("0.0240", "0.024"),
        ("1E+2", "100.00"),
        (Decimal("2.50"), "2.50"),
        (Decimal("5E-8"), "0.00000005"),
        (None, "–"),
        ("", "–"),
    ],
)
def test_a_rate_is_exact_and_has_cents(usd_per_mtok: Decimal | str | None, said: str) -> None:
    assert rate(usd_per_mtok) == said


def test_a_time_is_told_from_now_and_after_a_month_as_its_day() -> None:
    now = timezone.now()
    assert ">3 h ago<" in when(now - dt.timedelta(hours=3.5))
    assert ">in 6 d<" in when(now + dt.timedelta(days=6.5))
    long_ago = now - dt.timedelta(days=31)
    assert f">{long_ago:%Y-%m-%d}<" in when(long_ago)
