"""Are searches that a provider did on the way counted, kept, held and charged by the piece?"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

import pytest

from billing.budget_arithmetic import HELD_SEARCHES, most_nanousd, most_output_tokens
from billing.charge_lines import charge_lines
from billing.models import Price, RequestRecord
from billing.price_sources import genai
from billing.price_sources.listing import Called
from billing.pricebook import PriceError, PriceVersion, parse_rates
from billing.rating import rate, total_nanousd
from billing.request_view import find_request
from billing.usage import MAX_TOKENS, Usage
from billing.verifying import verify
from gateway.dataplane.recording import usage_as_line
from gateway.templatetags.console import rate_name
from gateway.wire.openai_usage import read_usage
from tests import make

TOKENS = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({"server_tool_use": {"web_search_requests": 3}}, 3),
        ({"server_tool_use": {"tool_calls_requested": 3}}, 0),
        ({"server_tool_use": None}, 0),
        ({"num_search_queries": 2}, 2),
        ({"num_sources_used": 7}, 7),
        ({"num_sources_used": 0}, 0),
        ({}, 0),
    ],
)
def test_each_provider_says_it_at_its_own_place(more: dict[str, object], count: int) -> None:
    usage = read_usage(TOKENS | more)
    assert (usage.kind, usage.search_count) == ("reported", count)


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf"), "3", True, MAX_TOKENS + 1, [3]])
def test_a_number_that_is_none_makes_the_whole_usage_unknown(value: object) -> None:
    assert read_usage(TOKENS | {"num_sources_used": value}).kind == "unknown"
    assert read_usage(TOKENS | {"server_tool_use": {"web_search_requests": value}}).kind == "unknown"


def test_searches_are_charged_by_the_piece_where_the_price_states_them() -> None:
    usage = Usage("reported", 100, 5, search_count=3)
    priced = make.price_version(input_usd_per_mtok="1", usd_per_search="0.01")
    rated = rate(usage, priced)
    assert [(line.meter, line.quantity, line.nanousd) for line in rated.lines] == [
        ("input", 100, 100_000), ("search", 3, 30_000_000),
    ]  # fmt: skip
    assert total_nanousd(usage, priced) == rated.total_nanousd == 30_100_000
    plain = make.price_version(input_usd_per_mtok="1")
    assert total_nanousd(usage, plain) == 100_000
    with pytest.raises(PriceError, match="by the piece"):
        parse_rates({"usd_per_search": "1", "usd_per_search+10": "2"})
    assert rate_name("usd_per_search@flex") == "each search, flex tier"


def test_a_request_holds_a_number_of_searches_at_a_price_that_states_them() -> None:
    rates = {"input_usd_per_mtok": "1", "usd_per_search": "0.01", "usd_per_search@flex": "0.02"}
    price = PriceVersion(1, 1, 0.0, parse_rates(rates))
    most = most_nanousd(price, input_tokens=100, output_tokens=0)
    assert most == 100_000 + HELD_SEARCHES * 20_000_000
    usage = Usage("reported", 100, 0, service_tier="flex", search_count=HELD_SEARCHES)
    assert total_nanousd(usage, price) <= most
    assert most_output_tokens(price, input_tokens=100, nanousd=most - 1) == 0


def test_the_list_of_anthropic_brings_them() -> None:
    called = Called("claude", "https://api.anthropic.com/v1", "claude-haiku-4-5")
    (listing, *_) = genai.GenaiPrices().find(called, now=NOW).listings
    assert str(listing.rates["usd_per_search"]) == "0.01"
    assert not any("search" in note for note in listing.notes if note.startswith("web"))


@pytest.mark.django_db
def test_they_are_kept_with_the_record_and_rated_again_from_it(tmp_path: Path) -> None:
    world = make.world()
    price = Price.objects.create(
        deployment=world.deployment,
        rates={"input_usd_per_mtok": "1", "usd_per_search": "0.01"},
        effective_from=NOW,
    )
    line = usage_as_line(read_usage(TOKENS | {"server_tool_use": {"web_search_requests": 3}}))
    lines = make.request_lines(world, usage=line, price=price.pk, cost=30_100_000)
    make.ingest(tmp_path, lines)
    assert RequestRecord.objects.get().usage_detail == {"search_count": 3}
    record = find_request(uuid.UUID(lines[0]["id"]), key_id=None)
    assert record is not None
    assert record["usage"]["search_count"] == 3
    (charge,) = charge_lines(record["attempts"], at=dt.datetime.now(dt.UTC))
    assert charge.is_same
    assert [(one.meter, one.unit) for one in charge.lines] == [("input", "a million"), ("search", "a search")]
    assert verify(now=NOW).differences == ()
