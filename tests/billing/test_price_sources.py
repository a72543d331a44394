"""Do price lists come in exactly, and is what they cannot say, or what is wrong with them, told?"""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from billing.price_sources import csv_file, genai, litellm
from billing.price_sources.listing import Answer, Called, SourceError
from billing.pricebook import parse_rates
from gateway.known_providers import KNOWN_PROVIDERS

NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
OPENAI = "https://api.openai.com/v1"


def find(upstream_model: str, base_url: str = OPENAI, **chosen: str) -> Answer:
    return genai.GenaiPrices(chosen).find(Called("it", base_url, upstream_model), now=NOW)


def test_genai_prices_says_its_version_and_finds_a_model_by_address_and_name() -> None:
    assert genai.GenaiPrices().title.startswith("genai-prices 0.")
    answer = find("gpt-4o-mini-2024-07-18")
    (listing,) = answer.listings
    assert listing.listed_as == "openai/gpt-4o-mini"
    assert listing.rates["input_usd_per_mtok"] == Decimal("0.15")
    assert listing.effective_from is None


@pytest.mark.parametrize(
    ("model", "base_url", "finding", "text"),
    [
        ("gpt-4o-mini", "http://127.0.0.1:8000/v1", "unlisted", "no provider of the list"),
        ("no-such-model", OPENAI, "unlisted", "has no no-such-model"),
        ("tts-1", OPENAI, "inexpressible", "input_mchars is not counted here"),
    ],
)
def test_genai_prices_never_guesses(model: str, base_url: str, finding: str, text: str) -> None:
    answer = find(model, base_url)
    assert (answer.finding, answer.listings) == (finding, ())
    assert text in answer.text


def test_an_entry_can_be_named_where_it_cannot_be_told() -> None:
    (listing,) = find("mine", "http://proxy.internal/v1", it="openai/gpt-4o-mini").listings
    assert listing.listed_as == "openai/gpt-4o-mini"
    with pytest.raises(SourceError, match="no such provider/model"):
        find("mine", it="openai/gpt-9000")


def test_two_entries_of_different_prices_are_ambiguous() -> None:
    source = genai.GenaiPrices()
    openai = source.providers["openai"]
    pair = [(openai, next(m for m in openai.models if m.id == name)) for name in ("gpt-4o", "gpt-4o-mini")]
    object.__setattr__(source, "_candidates", lambda serving, upstream_model: pair)
    answer = source.find(Called("it", OPENAI, "gpt-4o"), now=NOW)
    assert answer.finding == "ambiguous"
    assert "openai/gpt-4o, openai/gpt-4o-mini" in answer.text


def test_every_entry_of_the_list_is_read_or_said_why_not() -> None:
    listed = 0
    for provider in genai.GenaiPrices().providers.values():
        for model in provider.models:
            answer = genai.read_model(provider, model, now=NOW)
            assert bool(answer.listings) == (answer.finding == "listed"), model.id
            assert answer.listings or answer.text
            for listing in answer.listings:
                assert parse_rates({name: str(rate) for name, rate in listing.rates.items()})
            listed += bool(answer.listings)
    assert listed > 2_000


def test_the_prices_of_the_known_providers_are_those_of_the_list() -> None:
    compared = 0
    for provider in KNOWN_PROVIDERS:
        for model in provider.models:
            if model.price:
                (listing, *_) = find(model.upstream_model, provider.base_url).listings
                listed = {name: rate for name, rate in listing.rates.items() if name in model.price}
                assert listed == parse_rates(model.price), model.name
                compared += 1
    assert compared >= 6


LITELLM = {
    "sample_spec": {"litellm_provider": "openai", "input_cost_per_token": 0},
    "gpt-x": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-07,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "input_cost_per_token_flex": 6.25e-07,
        "output_cost_per_token_batches": 5e-06,
        "search_context_cost_per_query": {"search_context_size_low": 0.01},
        "max_tokens": 1000,
    },
    "gemini/g": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06},
    "g": {"litellm_provider": "gemini", "input_cost_per_token": 2e-06},
    "bad": {"litellm_provider": "openai", "input_cost_per_token": "free"},
    "negative": {"litellm_provider": "openai", "input_cost_per_token": -1e-06},
    "free": {"litellm_provider": "openai", "max_tokens": 5},
}


def find_litellm(model: str, base_url: str = OPENAI, document: Any = LITELLM) -> Answer:
    source = litellm.read_file(json.dumps(document).encode(), name="prices.json")
    return source.find(Called("it", base_url, model), now=NOW)


def test_a_litellm_file_is_read_exactly() -> None:
    (listing,) = find_litellm("gpt-x").listings
    assert listing.rates == {
        "input_usd_per_mtok": Decimal("1.25"),
        "output_usd_per_mtok": Decimal("10"),
        "cache_read_usd_per_mtok": Decimal("0.125"),
        "input_usd_per_mtok>200000": Decimal("2.5"),
        "input_usd_per_mtok@flex": Decimal("0.625"),
        "output_usd_per_mtok@batch": Decimal("5"),
    }
    assert listing.notes == ("search_context_cost_per_query is not counted here",)


@pytest.mark.parametrize(
    ("model", "base_url", "finding"),
    [
        ("g", "https://generativelanguage.googleapis.com/v1beta/openai", "ambiguous"),
        ("g", OPENAI, "unlisted"),
        ("bad", OPENAI, "inexpressible"),
        ("negative", OPENAI, "inexpressible"),
        ("free", OPENAI, "inexpressible"),
    ],
)
def test_what_a_litellm_file_does_not_say_clearly_is_said(model: str, base_url: str, finding: str) -> None:
    answer = find_litellm(model, base_url)
    assert (answer.finding, answer.listings) == (finding, ())
    assert answer.text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not JSON at line 1"),
        (b'{"\xff": 1}', "UTF-8"),
        (b"[]", "an object of models"),
        (b"{}", "no model has a litellm_provider"),
        (b'{"a": {"input_cost_per_token": NaN}}', "NaN is not a number"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (litellm.MAX_FILE_BYTES + 1), "larger than"),
    ],
    ids=range(7),
)
def test_a_file_that_is_not_litellms_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        litellm.read_file(raw, name="prices.json")


def read_csv(text: str | bytes) -> csv_file.CsvFile:
    raw = text if isinstance(text, bytes) else text.encode()
    return csv_file.read_file(raw, name="contract.csv", deployments={"a@x", "b@x"})


def test_a_csv_file_states_dated_and_limited_prices() -> None:
    source = read_csv(
        "\ufeffdeployment,effective_from,effective_until,input_usd_per_mtok,input_usd_per_mtok>200000,source\r\n"
        "a@x,2027-01-01,,2,,the new contract\r\n"
        "a@x,2026-01-01,2027-01-01T01:00:00+01:00,1.50,3,\r\n"
        "\r\n"
        "b@x,,,0,,\r\n"
    )
    first, second = source.find(Called("a@x", "", ""), now=NOW).listings
    assert first.rates == {"input_usd_per_mtok": Decimal("1.5"), "input_usd_per_mtok>200000": 3}
    assert (first.effective_from, first.listed_as) == (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "line 3")
    assert (second.rates, second.listed_as) == ({"input_usd_per_mtok": 2}, "the new contract")
    assert source.find(Called("b@x", "", ""), now=NOW).listings[0].effective_from is None
    assert source.find(Called("c@x", "", ""), now=NOW).finding == "unlisted"


HEAD = "deployment,input_usd_per_mtok\n"
DATED = "deployment,effective_from,effective_until,input_usd_per_mtok\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: the column deployment is missing"),
        ("deployment,price\na@x,1\n", "line 1: no such column: 'price'"),
        ("deployment,source\na@x,1\n", "line 1: no column states a rate"),
        (
            "deployment,input_usd_per_mtok,input_usd_per_mtok\n",
            "line 1: the column input_usd_per_mtok stands twice",
        ),
        (HEAD, "states no price"),
        (HEAD + "a@x\n", "line 2: 1 cells, the first line has 2"),
        (HEAD + "nobody@x,1\n", "line 2: there is no deployment 'nobody@x'"),
        (HEAD + "a@x,1\nb@x,-1\n", "line 3: input_usd_per_mtok: '-1' is negative or a formula"),
        (HEAD + "a@x,=1+1\n", "line 2: input_usd_per_mtok: '=1\\+1' is negative or a formula"),
        (HEAD + "@SUM(A1),1\n", "line 2: deployment: .* a formula"),
        (HEAD + "a@x,NaN\n", "line 2: input_usd_per_mtok: 'NaN' is outside"),
        (HEAD + "a@x,1e999999999\n", "line 2: input_usd_per_mtok: '1e999999999' is outside"),
        (HEAD + "a@x,2000000\n", "line 2: input_usd_per_mtok: '2000000' is outside"),
        (HEAD + 'a@x,"1,50"\n', "line 2: input_usd_per_mtok: '1,50' is not a number"),
        (HEAD + "a@x,\n", "line 2: a price states at least one rate"),
        (HEAD + 'a@x,"1\n', "line 2: unexpected end of data"),
        (HEAD + "a@x,1\na@x,2\n", "line 3: a@x has another price from that time in line 2"),
        (DATED + "a@x,2026-01-01,2026-02-01,1\n", "line 2: after 2026-02-01 00:00 a@x would have no price"),
        (
            DATED + "a@x,2026-01-01,2026-02-01,1\na@x,2026-03-01,,2\n",
            "line 3: a@x has no price from 2026-02-01",
        ),
        (DATED + "a@x,2026-01-01,2026-02-01,1\na@x,2026-01-20,,2\n", "line 3: overlaps with line 2"),
        (DATED + "a@x,2026-02-01,2026-01-01,1\n", "line 2: effective_until is not after effective_from"),
        (DATED + "a@x,soon,,1\n", "line 2: effective_from: 'soon' is no time"),
        (DATED + "a@x,2026-01-01T00:00:00,,1\n", "line 2: effective_from: .* needs its time zone"),
        (DATED + "a@x,0001-01-01,,1\n", "not between the years"),
        (b"deployment\xff", "not text in UTF-8"),
        (HEAD + "a\0@x,1\n", "zero byte"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_line_and_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        read_csv(text)


def test_all_mistakes_of_a_csv_file_are_told_at_once() -> None:
    with pytest.raises(SourceError) as refused:
        read_csv(HEAD + "a@x,free\n" * 30)
    assert str(refused.value).count("\n") == csv_file.MAX_PROBLEMS
    assert str(refused.value).endswith("and 10 more")
