"""Does `rate` charge what genai-prices calculates, for every model of its list? Thousands of usages, to the nano-USD.

Both begin from one list and share no code for the sum. No sample differs; what would (units that this gateway does not
count) is in NOT_COUNTED with its reason, and each proposed price says so in its notes.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

import genai_prices
import pytest

from billing.price_sources import genai
from billing.pricebook import PriceVersion, read_rate_key
from billing.rating import rate
from billing.usage import Usage

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
BATCH = {"processing": "batch"}
# Their units of which no usage of ours speaks: a difference wherever a request uses them.
NOT_COUNTED = {
    "storage_searches_kcount": "searches of files kept at the provider",
    "audio_hours": "speech in both directions by the hour: no such endpoint here",
    "input_text_messages_kcount": "speech by the message: no such endpoint here",
    "input_mchars": "speech by the character: no such endpoint here",
    "input_document_kpages": "text recognition by the page: no such endpoint here",
    "input_annotated_document_kpages": "text recognition by the page: no such endpoint here",
    "cache_audio_read_mtok": "usage does not say what of the cached input was audio: charged as cached",
    "cache_image_read_mtok": "usage does not say what of the cached input was an image: charged as cached",
    "input_video_mtok": "usage does not say what of the input was video: charged as input",
    "output_video_mtok": "usage does not say what of the output was video: charged as output",
    "output_citation_mtok": "Perplexity's citations: usage counts them inside the output",
}


class Sample(NamedTuple):
    """A usage of one model, and what both say of it."""

    entry: str
    usage: Usage
    ours: int
    theirs: int
    rate_names: frozenset[str]


def draw_usage(draw: random.Random, names: frozenset[str]) -> Usage:
    """A usage with every class of tokens, near a limit of the price where it has limits."""
    limits = sorted({key.start_tokens for name in names if (key := read_rate_key(name)).limit})
    tiers = sorted({read_rate_key(name).service_tier for name in names} | {""})
    read, write, audio, image = (draw.choice((0, draw.randrange(60_000))) for _ in range(4))
    least = read + write + audio + image
    sent = least + draw.randrange(100_000)
    if limits and draw.random() < 0.7:
        sent = max(least, draw.choice(limits) + draw.choice((-1, 0, 1, 50_000)))
    reasoning, audio_out, image_out = (draw.choice((0, draw.randrange(20_000))) for _ in range(3))
    return Usage(
        "reported",
        input_tokens=sent,
        output_tokens=reasoning + audio_out + image_out + draw.randrange(30_000),
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=reasoning,
        audio_input_tokens=audio,
        audio_output_tokens=audio_out,
        service_tier=draw.choice(tiers),
        cache_write_1h_tokens=draw.choice((0, write)),
        search_count=draw.choice((0, 0, draw.randrange(20))),
        image_input_tokens=image,
        image_output_tokens=image_out,
        audio_s=draw.choice((0, draw.randrange(4_000))),
    )


def their_total(provider: Any, model: Any, usage: Usage, at: dt.datetime) -> int:
    """What genai-prices calculates for a request of that moment, in nano-USD."""
    # They charge the tokens of audio besides its seconds; providers that charge by the second count no such tokens.
    rates = model.get_prices(at)
    seconds = usage.audio_s if rates.input_audio_hours is not None else 0
    heard = 0 if seconds and rates.input_audio_mtok is None else usage.audio_input_tokens
    counted = genai_prices.Usage(
        input_tokens=(usage.input_tokens or 0) - usage.audio_input_tokens + heard,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        input_audio_tokens=heard,
        output_audio_tokens=usage.audio_output_tokens,
        web_searches=usage.search_count,
        input_image_tokens=usage.image_input_tokens,
        output_image_tokens=usage.image_output_tokens,
        audio_seconds=seconds,
        input_audio_seconds=seconds,
        cache_audio_read_tokens=0,  # we count no audio and no images among what a cache gave back
        cache_image_read_tokens=0,
    )
    tier = usage.service_tier
    context = BATCH if tier == "batch" else {"service_tier": tier} if tier else None
    price = model.calc_price(counted, provider, genai_request_timestamp=at, price_context=context)
    return int((price.total_price * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_UP))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    draw = random.Random(20261120)
    found: list[Sample] = []
    for provider in genai.GenaiPrices().providers.values():
        for model in provider.models:
            answer = genai.read_model(provider, model, now=NOW)
            if not answer.listings:
                continue
            listing = answer.listings[0]
            price = PriceVersion(len(found), 0, 0.0, dict(listing.rates))
            names = frozenset(listing.rates)
            moments = [NOW] if price.hours is None else list(draw_moments(names))
            is_rare = "reasoning_usd_per_mtok" in names
            for _ in range(
                8 if is_rare else 1 if len(names) < 4 else 4 if any(map(is_limited, names)) else 2
            ):
                for at in moments:
                    usage = draw_usage(draw, names)
                    ours = rate(usage, price.at(at.timestamp())).total_nanousd
                    theirs = their_total(provider, model, usage, at)
                    found.append(Sample(listing.listed_as, usage, ours, theirs, names))
    return found


def draw_moments(names: frozenset[str]) -> Iterator[dt.datetime]:
    """Noon, midnight, and each end of the windows: the minute before, its first and its last second."""
    midnight = NOW.replace(hour=0)
    yield from (NOW, midnight)
    for minute in sorted({minute for name in names for minute in read_rate_key(name).window or ()}):
        for seconds in (-60, -1, 0, 59):
            yield midnight + dt.timedelta(minutes=minute, seconds=seconds)


def is_limited(name: str) -> bool:
    key = read_rate_key(name)
    return bool(key.limit or key.service_tier)


def test_every_model_of_the_list_costs_what_genai_prices_says(samples: list[Sample]) -> None:
    differing = [sample for sample in samples if sample.ours != sample.theirs]
    assert differing == []
    assert len(samples) >= 2_000


def test_what_they_price_and_we_do_not_count_is_told_with_every_price() -> None:
    found = set()
    for provider in genai.GenaiPrices().providers.values():
        for model in provider.models:
            answer = genai.read_model(provider, model, now=NOW)
            for listing in answer.listings[:1]:
                priced = {key for key, price in model.get_prices(NOW).__dict__.items() if price is not None}
                unknown = priced - genai.RATE_OF.keys() - genai.THOUSANDS.keys()
                unknown -= {twice for twice, one in genai.REPEATED.items() if one in priced}
                assert {note.split()[0] for note in listing.notes} >= unknown
                found |= unknown
    assert found <= NOT_COUNTED.keys()


def test_the_samples_cover_what_prices_depend_on(samples: list[Sample]) -> None:
    covered: Counter[str] = Counter()
    for sample in samples:
        usage, keys = sample.usage, [read_rate_key(name) for name in sample.rate_names]
        own = {key.name for key in keys}
        covered["cache read"] += bool(usage.cache_read_tokens) and "cache_read_usd_per_mtok" in own
        covered["cache write"] += bool(usage.cache_write_tokens) and "cache_write_usd_per_mtok" in own
        covered["1 h"] += bool(usage.cache_write_1h_tokens) and "cache_write_1h_usd_per_mtok" in own
        covered["audio"] += bool(usage.audio_input_tokens) and "audio_input_usd_per_mtok" in own
        covered["image in"] += bool(usage.image_input_tokens) and "image_input_usd_per_mtok" in own
        covered["image out"] += bool(usage.image_output_tokens) and "image_output_usd_per_mtok" in own
        covered["audio by the hour"] += bool(usage.audio_s) and "usd_per_audio_hour" in own
        covered["reasoning"] += bool(usage.reasoning_tokens) and "reasoning_usd_per_mtok" in own
        covered["reasoning as output"] += bool(usage.reasoning_tokens) and "reasoning_usd_per_mtok" not in own
        covered["each request"] += "usd_per_request" in own
        covered["searches"] += bool(usage.search_count) and "usd_per_search" in own
        covered["above a size"] += any(
            key.limit and (usage.input_tokens or 0) > key.start_tokens for key in keys
        )
        covered["at a size"] += any(key.limit and usage.input_tokens == key.start_tokens for key in keys)
        covered["hours of the day"] += any(key.window for key in keys)
        covered["service tier"] += bool(usage.service_tier)
    few = {
        "reasoning": 1,
        "each request": 2,
        "audio": 5,
        "image in": 5,
        "image out": 5,
        "audio by the hour": 3,
    }
    assert all(count >= few.get(name, 20) for name, count in covered.items()), covered
