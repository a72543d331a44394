"""Are amounts, shares and actions written as people read them?"""

from __future__ import annotations

import pytest

from gateway.templatetags.console import done, signed_percent, usd


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
