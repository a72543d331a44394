"""Is a usage charged exactly, once rounded, and every line accounted for?"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricebook import RATE_NAMES, PriceVersion
from billing.rating import PIECES, Rated, UsageUnknownError, rate, total_nanousd
from billing.usage import UNKNOWN_USAGE, Usage
from tests import make

rates = st.dictionaries(
    st.sampled_from(RATE_NAMES),
    st.decimals(min_value=0, max_value=1000, places=9, allow_nan=False),
    min_size=1,
)
prices = rates.map(
    lambda stated: PriceVersion(id=1, deployment_id=1, effective_from_unix_s=0.0, rates=stated)
)
counts = st.integers(min_value=0, max_value=2_000_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage whose parts are inside their totals."""
    cache_read, cache_write, audio_in, image_in, uncached, reasoning, audio_out, image_out, plain = (
        draw(counts) for _ in range(9)
    )
    return Usage(
        kind="reported",
        input_tokens=uncached + cache_read + cache_write + audio_in + image_in,
        output_tokens=plain + reasoning + audio_out + image_out,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        reasoning_tokens=reasoning,
        audio_input_tokens=audio_in,
        audio_output_tokens=audio_out,
        image_input_tokens=image_in,
        image_output_tokens=image_out,
        image_count=draw(st.integers(0, 3)),
        audio_s=draw(st.integers(0, 4_000)),
    )


def quantities(rated: Rated) -> dict[str, int]:
    return {line.meter: line.quantity for line in rated.lines}


def test_every_meter_has_its_rate() -> None:
    price = make.price_version(
        input_usd_per_mtok="1",
        cache_read_usd_per_mtok="0.1",
        cache_write_usd_per_mtok="1.25",
        audio_input_usd_per_mtok="3",
        output_usd_per_mtok="4",
        reasoning_usd_per_mtok="5",
        audio_output_usd_per_mtok="6",
        usd_per_request="0.01",
    )
    usage = Usage("reported", 1000, 100, 200, 50, 30, 10, 5)
    rated = rate(usage, price)
    assert [(line.meter, line.quantity, line.nanousd) for line in rated.lines] == [
        ("input", 740, 740_000),
        ("cache_read", 200, 20_000),
        ("cache_write", 50, 62_500),
        ("audio_input", 10, 30_000),
        ("output", 65, 260_000),
        ("reasoning", 30, 150_000),
        ("audio_output", 5, 30_000),
        ("request", 1, 10_000_000),
    ]
    assert rated.total_nanousd == 11_292_500


def test_a_rate_that_is_not_stated_falls_back_to_that_of_its_kind() -> None:
    price = make.price_version(input_usd_per_mtok="1", output_usd_per_mtok="4")
    rated = rate(Usage("reported", 1000, 100, 200, 50, 30, 10, 5), price)
    assert rated.total_nanousd == 1000 * 1000 + 100 * 4000
    assert quantities(rated)["output"] == 95  # reasoning has no rate of its own: it stays inside the output


def test_more_cached_than_sent_tokens_never_make_the_uncached_ones_negative() -> None:
    price = make.price_version(input_usd_per_mtok="1", cache_read_usd_per_mtok="0.1")
    rated = rate(Usage("reported", 235, 0, cache_read_tokens=373), price)
    assert quantities(rated) == {"cache_read": 373}
    assert rated.total_nanousd == 37_300


def test_a_total_is_rounded_half_up_once_and_not_line_by_line() -> None:
    # Half a nano-USD each: line by line both would become 1 and the total 2.
    price = make.price_version(input_usd_per_mtok="0.0005", output_usd_per_mtok="0.0005")
    rated = rate(Usage("reported", 1, 1), price)
    assert rated.total_nanousd == 1
    assert [line.nanousd for line in rated.lines] == [1, 0]
    assert rate(Usage("reported", 1, 0), price).total_nanousd == 1


@pytest.mark.parametrize(
    "usage", [UNKNOWN_USAGE, Usage("reported", None, 5), Usage("estimated", 5, None), Usage("unknown", 1, 1)]
)
def test_unknown_usage_is_refused_and_not_rated_as_zero(usage: Usage) -> None:
    with pytest.raises(UsageUnknownError):
        rate(usage, make.price_version())


def test_two_prices_with_one_id_are_told_apart() -> None:
    usage = Usage("reported", 1000, 0)
    assert rate(usage, make.price_version(7, input_usd_per_mtok="1")).total_nanousd == 1_000_000
    assert rate(usage, make.price_version(7, input_usd_per_mtok="2")).total_nanousd == 2_000_000


@given(usages(), prices)
def test_the_total_is_the_exact_sum_rounded_and_the_lines_sum_to_it(
    usage: Usage, price: PriceVersion
) -> None:
    rated = rate(usage, price)
    exact = sum(
        (
            Fraction(line.usd_per_mtok) * line.quantity * Fraction(10**9, PIECES.get(line.meter, 10**6))
            for line in rated.lines
        ),
        Fraction(0),
    )
    assert rated.total_nanousd == math.floor(exact + Fraction(1, 2))
    assert sum(line.nanousd for line in rated.lines) == rated.total_nanousd
    for line in rated.lines:
        unit = Fraction(10**9, PIECES.get(line.meter, 10**6))
        assert abs(line.nanousd - Fraction(line.usd_per_mtok) * line.quantity * unit) < 1
        assert line.quantity > 0
        assert type(line.nanousd) is int
    assert type(rated.total_nanousd) is int


@given(usages(), prices, counts)
def test_more_tokens_never_cost_less(usage: Usage, price: PriceVersion, more: int) -> None:
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    grown = Usage(
        **{name: getattr(usage, name) for name in Usage._fields}
        | {"input_tokens": usage.input_tokens + more, "output_tokens": usage.output_tokens + more}
    )
    assert rate(grown, price).total_nanousd >= rate(usage, price).total_nanousd


@given(usages(), usages(), prices)
def test_two_usages_cost_what_their_sum_costs_but_for_the_rounding(
    one: Usage, other: Usage, price: PriceVersion
) -> None:
    # An image or a second that is charged takes its tokens out of those of this usage alone.
    one, other = (usage._replace(image_count=0, audio_s=0) for usage in (one, other))
    both = Usage(
        kind="reported",
        **{
            name: getattr(one, name) + getattr(other, name)
            for name in Usage._fields
            if name.endswith("_tokens")
        },
    )
    flat = rate(Usage("reported", 0, 0), price).total_nanousd
    apart = rate(one, price).total_nanousd + rate(other, price).total_nanousd
    assert abs(rate(both, price).total_nanousd + flat - apart) <= 2


@given(usages(), prices)
def test_the_total_alone_is_the_total_of_the_lines(usage: Usage, price: PriceVersion) -> None:
    assert total_nanousd(usage, price) == rate(usage, price).total_nanousd


LIMITED = make.price_version(
    **{
        "input_usd_per_mtok": "1",
        "output_usd_per_mtok": "4",
        "input_usd_per_mtok>200000": "2",
        "output_usd_per_mtok>200000": "6",
        "input_usd_per_mtok>400000": "3",
        "input_usd_per_mtok@flex": "0.5",
        "output_usd_per_mtok@priority": "8",
        "output_usd_per_mtok@priority>200000": "9",
    }
)


@pytest.mark.parametrize(
    ("sent", "tier", "input_rate", "output_rate"),
    [
        (200_000, "", 1, 4),
        (200_001, "", 2, 6),
        (400_000, "default", 2, 6),
        (400_001, "standard", 3, 6),
        (300_000, "flex", Decimal("0.5"), 6),  # flex prices input by itself: its standard limits do not hold
        (100, "priority", 1, 8),
        (300_000, "priority", 2, 9),
        (100, "unheard-of", 1, 4),
    ],
)
def test_a_limited_rate_holds_for_its_size_and_its_service_tier(
    sent: int, tier: str, input_rate: Decimal, output_rate: Decimal
) -> None:
    rated = rate(Usage("reported", sent, 10, service_tier=tier), LIMITED)
    assert {line.meter: line.usd_per_mtok for line in rated.lines} == {
        "input": input_rate,
        "output": output_rate,
    }
    assert rated.total_nanousd == (sent * input_rate + 10 * output_rate) * 1000


def test_a_marginal_rate_is_charged_on_the_tokens_beyond_it_alone() -> None:
    price = make.price_version(
        **{"input_usd_per_mtok": "1", "input_usd_per_mtok+100": "2", "input_usd_per_mtok+300": "3"}
    )
    rated = rate(Usage("reported", 1000, 0), price)
    assert [(line.quantity, line.usd_per_mtok) for line in rated.lines] == [(100, 1), (200, 2), (700, 3)]
    assert rated.total_nanousd == (100 + 2 * 200 + 3 * 700) * 1000
    assert rate(Usage("reported", 100, 0), price).total_nanousd == 100_000
    assert total_nanousd(Usage("reported", 301, 0), price) == (100 + 400 + 3) * 1000


def test_cache_writes_of_an_hour_have_a_rate_of_their_own_where_it_is_stated() -> None:
    usage = Usage("reported", 100, 0, cache_write_tokens=60, cache_write_1h_tokens=20)
    both = make.price_version(
        input_usd_per_mtok="1", cache_write_usd_per_mtok="1.25", cache_write_1h_usd_per_mtok="2"
    )
    assert quantities(rate(usage, both)) == {"input": 40, "cache_write": 40, "cache_write_1h": 20}
    assert rate(usage, both).total_nanousd == 40_000 + 50_000 + 40_000
    one = make.price_version(input_usd_per_mtok="1", cache_write_usd_per_mtok="1.25")
    assert quantities(rate(usage, one)) == {"input": 40, "cache_write": 60}
    wrong = usage._replace(cache_write_1h_tokens=999)
    assert quantities(rate(wrong, both)) == {"input": 40, "cache_write_1h": 60}
