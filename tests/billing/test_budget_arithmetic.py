"""What is a window, what fits, and what can a request cost at most?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.budget_arithmetic import (
    HELD_IMAGES,
    HELD_SEARCHES,
    LEAST_TOKENS_A_SECOND,
    Lease,
    Span,
    most_nanousd,
    most_output_tokens,
    plan_loan,
    span_at,
)
from billing.pricebook import RATE_NAMES, PriceVersion
from billing.rating import total_nanousd
from billing.usage import Usage

BERLIN = ZoneInfo("Europe/Berlin")


def unix(*parts: int) -> int:
    return int(dt.datetime(*parts, tzinfo=BERLIN).timestamp())  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("kind", "starts", "ends"),
    [
        ("day", (2026, 3, 29), (2026, 3, 30)),  # a day of 23 hours
        ("week", (2026, 3, 23), (2026, 3, 30)),
        ("month", (2026, 3, 1), (2026, 4, 1)),
    ],
)
def test_windows_follow_the_calendar_of_their_time_zone(
    kind: str, starts: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    at = unix(2026, 3, 29, 12)
    span = span_at(kind, "Europe/Berlin", at, counted_from_unix_s=0)  # type: ignore[arg-type]
    assert span == Span(unix(*starts), unix(*ends))
    last = span_at(kind, "Europe/Berlin", span.ends_unix_s or 0, counted_from_unix_s=0)  # type: ignore[arg-type]
    assert last.starts_unix_s == span.ends_unix_s


def test_a_clock_that_jumps_back_stays_in_the_first_window() -> None:
    made = unix(2026, 3, 29)
    assert span_at("day", "Europe/Berlin", 0.0, counted_from_unix_s=made).starts_unix_s == made
    assert span_at("total", "Europe/Berlin", 0.0, counted_from_unix_s=made) == Span(made, None)


def test_leases_shrink_near_the_limit() -> None:
    grown = []
    room = 1_000
    while (loan := plan_loan([10], free_nanousd=0, room_nanousd=room)).served:
        grown.append(loan.grow_nanousd)
        room -= loan.grow_nanousd
    assert grown == sorted(grown, reverse=True)
    assert (grown[0], grown[-1], room) == (10 + 990 // 16, 10, 1_000 - sum(grown))
    assert room < 10


def test_who_does_not_fit_does_not_stop_who_does() -> None:
    assert plan_loan([50, 200, 40], free_nanousd=10, room_nanousd=80) == ((0, 2), 80)
    assert plan_loan([5], free_nanousd=10, room_nanousd=-100) == ((0,), 0)
    assert plan_loan([50], free_nanousd=10, room_nanousd=30) == ((), 0)


def test_an_expired_lease_holds_nothing_more() -> None:
    lease = Lease("a", 1, Span(0, None), 100, valid_until_s=10.0)
    assert lease.try_hold(60, now_s=9.0)
    assert not lease.try_hold(41, now_s=9.0)
    assert not lease.try_hold(1, now_s=10.0)
    lease.settle(60, cost_nanousd=25)
    assert (lease.give_back(), lease.free_nanousd()) == (25, 0)


rates = st.dictionaries(
    st.sampled_from([*RATE_NAMES, "input_usd_per_mtok@flex", "output_usd_per_mtok>200000"]),
    st.decimals(0, 500, places=6, allow_nan=False),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(
    rates,
    st.integers(0, 300_000),
    st.integers(0, 300_000),
    st.tuples(*[st.integers(0, 100) for _ in range(10)]),
    st.sampled_from(["", "flex", "default"]),
    st.integers(1, 3),
)
def test_no_usage_within_the_bounds_costs_more_than_the_most(
    stated: dict[str, Decimal], sent: int, generated: int, shares: tuple[int, ...], tier: str, choices: int
) -> None:
    stated = {"input_usd_per_mtok": Decimal(1), "output_usd_per_mtok": Decimal(2), **stated}
    price = PriceVersion(1, 1, 0.0, stated)
    read = sent * shares[0] // 100
    write = (sent - read) * shares[1] // 100
    audio = (sent - read - write) * shares[2] // 100
    reasoning = generated * shares[3] // 100
    usage = Usage(
        "reported", sent, generated, read, write, reasoning, audio, (generated - reasoning) * shares[4] // 100,
        service_tier=tier, image_input_tokens=sent * shares[5] // 100,
        image_output_tokens=generated * shares[6] // 100, image_count=choices * HELD_IMAGES * shares[7] // 100,
        audio_s=sent // LEAST_TOKENS_A_SECOND * shares[8] // 100, search_count=HELD_SEARCHES * shares[9] // 100,
    )  # fmt: skip
    most = most_nanousd(price, input_tokens=sent, output_tokens=generated, choices=choices)
    assert total_nanousd(usage, price) <= most
    fitting = most_output_tokens(price, input_tokens=sent, nanousd=most, choices=choices)
    assert fitting is None or fitting >= generated
