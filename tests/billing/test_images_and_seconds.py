"""Are images in an answer, their tokens and seconds of audio counted, kept, held and charged?"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from billing.budget_arithmetic import HELD_IMAGES, most_nanousd
from billing.charge_lines import charge_lines
from billing.focus import METERS as FOCUS_METERS
from billing.focus import Account, usage_row
from billing.focus import Usage as FocusUsage
from billing.models import MeterByDay, Price, RequestRecord
from billing.price_sources import genai, litellm
from billing.price_sources.listing import Called
from billing.rating import METERS, rate, total_nanousd
from billing.request_view import find_request
from billing.statement_document import StatementLine
from billing.statement_pdf import rate_text
from billing.summing_meters import sum_meters
from billing.usage import MAX_PIECES, Usage
from billing.verifying import verify
from gateway.dataplane.recording import usage_as_line
from gateway.templatetags.console import rate_name
from gateway.wire.openai_answer import read_answer
from gateway.wire.openai_answer_check import check_answer
from gateway.wire.openai_stream import OpenAIStream
from gateway.wire.openai_usage import read_usage, with_images
from tests import make

NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
# As OpenRouter states it of an image model.
DRAWN = {
    "prompt_tokens": 12, "completion_tokens": 1303, "total_tokens": 1315,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 1290},
}  # fmt: skip
# As Mistral stated it of four seconds of audio (tests/fixtures of recorded traffic: mistral.chat-completions.37575a20).
HEARD = {
    "prompt_audio_seconds": 4, "prompt_tokens": 9, "total_tokens": 585, "completion_tokens": 201,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375}, "service_tier": "standard",
}  # fmt: skip


def answer(message: dict[str, Any], usage: dict[str, Any] | None = None) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return {"model": "image-model", "choices": [choice], **({"usage": usage} if usage else {})}


@pytest.mark.parametrize(
    ("message", "count"),
    [
        ({"content": "Here.", "images": [IMAGE, IMAGE]}, 2),
        ({"content": [{"type": "text", "text": "Here."}, IMAGE]}, 1),
        ({"content": "", "images": []}, 0),
        ({"content": None, "images": None}, 0),
        ({"content": "", "images": [{}, "x", None, {"image_url": None}]}, 0),
        ({"content": "", "images": "iVBORw0KGgo="}, 0),
    ],
)
def test_images_are_counted_in_the_answer(message: dict[str, Any], count: int) -> None:
    facts = read_answer(answer(message, DRAWN), estimated_input_tokens=1)
    assert (facts.usage.image_count, facts.usage.image_output_tokens) == (count, 1290)
    # Without any usage they are counted all the same, beside what is estimated.
    assert read_answer(answer(message), estimated_input_tokens=1).usage[0] == "estimated"
    assert read_answer(answer(message), estimated_input_tokens=1).usage.image_count == count


def test_an_answer_that_is_an_image_alone_is_not_empty() -> None:
    assert check_answer(answer({"content": "", "images": [IMAGE]}), {}) == ""
    assert check_answer(answer({"content": "", "images": []}), {}) == "empty"


def test_images_of_a_stream_are_counted_as_they_pass_and_stand_in_its_cost() -> None:
    costs: list[int] = []
    stream = OpenAIStream(is_usage_wanted=True, cost_of=lambda _: costs.append(stream.image_count))
    deltas = [
        {"role": "assistant", "content": ""},
        {"content": "", "images": [IMAGE]},
        {"images": [IMAGE]},
        {},
    ]
    for delta in deltas:
        reason = None if delta else "stop"
        event = {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        stream.feed(b"data: " + orjson.dumps(event) + b"\n\n")
    stream.feed(b"data: " + orjson.dumps({"model": "m", "choices": [], "usage": DRAWN}) + b"\n\n")
    assert (stream.image_count, costs) == (2, [2])


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "4", True, [4], MAX_PIECES + 1])
def test_a_number_that_is_none_makes_the_whole_usage_unknown(value: object) -> None:
    assert read_usage(HEARD | {"prompt_audio_seconds": value}).kind == "unknown"
    assert read_usage({"type": "duration", "seconds": value}).kind == "unknown"
    if not isinstance(value, list):
        details = {"image_tokens": value if value != MAX_PIECES + 1 else 10**13}
        assert read_usage(DRAWN | {"completion_tokens_details": details}).kind == "unknown"
    assert with_images(read_usage(DRAWN), MAX_PIECES + 1).kind == "unknown"


def test_seconds_are_read_where_a_provider_states_them() -> None:
    usage = read_usage(HEARD)
    assert (usage.audio_s, usage.input_tokens, usage.audio_input_tokens) == (4, 384, 375)
    assert read_usage(HEARD | {"prompt_audio_seconds": 3.5}).audio_s == 4
    for nothing in (None, 0, {}):
        assert read_usage(HEARD | {"prompt_audio_seconds": nothing}).audio_s == 0
    told = read_usage({"type": "duration", "seconds": 4})
    assert (told.kind, told.input_tokens, told.output_tokens, told.audio_s) == ("reported", 0, 0, 4)
    assert read_usage({"type": "duration"}).kind == "unknown"


def test_what_an_image_or_an_hour_is_charged_with_is_charged_once() -> None:
    drawn = with_images(read_usage(DRAWN), 1)
    by_token = make.price_version(
        1, input_usd_per_mtok="0.3", output_usd_per_mtok="2.5", image_output_usd_per_mtok="30"
    )
    assert [line[:2] for line in rate(drawn, by_token).lines] == [
        ("input", 12), ("image_output", 1290), ("output", 13),
    ]  # fmt: skip
    by_piece = make.price_version(2, output_usd_per_mtok="2.5", usd_per_image="0.039")
    assert [line[:2] for line in rate(drawn, by_piece).lines] == [("output", 13), ("image", 1)]
    assert total_nanousd(drawn, by_piece) == 13 * 2_500 + 39_000_000
    # Where no image was seen, its tokens are all that is known of it.
    assert [line[:2] for line in rate(read_usage(DRAWN), by_piece).lines] == [("output", 1303)]
    plain = make.price_version(3, output_usd_per_mtok="2.5")
    assert [line[:2] for line in rate(drawn, plain).lines] == [("output", 1303)]
    heard = read_usage(HEARD)
    by_hour = make.price_version(
        4, input_usd_per_mtok="0.1", output_usd_per_mtok="0.4", usd_per_audio_hour="0.24"
    )
    assert [line[:2] for line in rate(heard, by_hour).lines] == [
        ("input", 9), ("output", 201), ("audio_second", 4),
    ]  # fmt: skip
    assert total_nanousd(heard, by_hour) == 9 * 100 + 201 * 400 + 266_667  # 4 of 3,600 s, rounded once


def test_images_that_a_cache_gave_back_are_charged_as_cached() -> None:
    price = make.price_version(
        input_usd_per_mtok="1", cache_read_usd_per_mtok="0.1", image_input_usd_per_mtok="8"
    )
    usage = Usage("reported", 1000, 0, 800, image_input_tokens=600)
    assert [line[:2] for line in rate(usage, price).lines] == [("cache_read", 800), ("image_input", 200)]


def test_a_request_holds_images_for_each_answer_and_the_seconds_that_its_input_can_be() -> None:
    price = make.price_version(input_usd_per_mtok="1", output_usd_per_mtok="2", usd_per_image="0.04")
    most = most_nanousd(price, input_tokens=100, output_tokens=0, choices=2)
    assert most == 100_000 + 2 * HELD_IMAGES * 40_000_000
    spoken = make.price_version(9, input_usd_per_mtok="1", usd_per_audio_hour="0.36")
    # 10 tokens at least are a second, and a second is 100,000 nano-USD.
    assert most_nanousd(spoken, input_tokens=100, output_tokens=0) == 100_000 + 10 * 100_000


def test_lists_bring_their_prices() -> None:
    called = Called(
        "nano", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash-image"
    )
    (listing, *_) = genai.GenaiPrices().find(called, now=NOW).listings
    assert listing.rates["image_output_usd_per_mtok"] == 30
    voice = Called("voice", "https://api.mistral.ai/v1", "voxtral-small-24b-2507")
    (listing, *_) = genai.GenaiPrices().find(voice, now=NOW).listings
    assert listing.rates["usd_per_audio_hour"] == Decimal("0.24")
    assert not any("hours" in note for note in listing.notes)
    members = {
        "input_cost_per_token": Decimal("3e-7"), "output_cost_per_image_token": Decimal("3e-5"),
        "output_cost_per_image": Decimal("0.039"), "input_cost_per_image": Decimal("0.001"),
        "input_cost_per_audio_per_second": Decimal("0.0001"),
    }  # fmt: skip
    (read, *_) = litellm.read_entry("x", members).listings
    assert read.rates == {
        "input_usd_per_mtok": Decimal("0.3"), "image_output_usd_per_mtok": 30, "usd_per_audio_hour": Decimal("0.36"),
    }  # fmt: skip
    assert read.notes == (
        "output_cost_per_image is left out: output_cost_per_image_token charges the same images",
        "input_cost_per_image is not counted here",
    )
    del members["output_cost_per_image_token"]
    (read, *_) = litellm.read_entry("x", members).listings
    assert read.rates["usd_per_image"] == Decimal("0.039")


def test_every_meter_has_its_words() -> None:
    assert set(FOCUS_METERS) == set(METERS)
    assert [rate_name(f"usd_per_{one}") for one in ("image", "audio_hour")] == [
        "each image",
        "an hour of audio",
    ]
    by_hour = StatementLine(1, "Speech", 0, 0, 0, unit_usd=Decimal("0.24"), unit_size=3600)
    assert rate_text(by_hour) == "0.24 / hour"


def test_focus_prices_audio_by_the_second_and_images_by_the_piece() -> None:
    account = Account(1, "acme", "issuer")

    def row(meter: str, rate_text: str, quantity: int, nanousd: int) -> dict[str, Any]:
        names = (
            2,
            "app",
            3,
            "key",
            "voice",
            "voice-1",
            "voice-1",
            "mistral",
            4,
            meter,
            "",
            rate_text,
            rate_text,
        )
        used = FocusUsage(dt.date(2026, 11, 1), *names, None, False, quantity, nanousd, nanousd)
        return usage_row(used, account, None)

    heard = row("audio_second", "0.24", 90, 6_000_000)
    assert (heard["ConsumedUnit"], heard["PricingUnit"], heard["PricingQuantity"]) == (
        "Seconds",
        "Seconds",
        90,
    )
    assert heard["ListUnitPrice"] == Decimal("0.000066666667")
    # The exact price of a second has no end: what was charged is exact, the product is as near as twelve digits come.
    assert heard["BilledCost"] == Decimal("0.006")
    assert abs(heard["ListCost"] - heard["BilledCost"]) < Decimal("1e-9")
    drawn = row("image", "0.039", 2, 78_000_000)
    assert (drawn["ConsumedUnit"], drawn["PricingUnit"], drawn["ListCost"]) == (
        "Images",
        "Images",
        Decimal("0.078"),
    )
    assert row("search", "0.01", 1, 10_000_000)["PricingUnit"] == "Searches"
    assert row("image_output", "30", 1290, 38_700_000)["PricingUnit"] == "1000000 Tokens"


@pytest.mark.django_db
def test_they_are_kept_with_the_record_and_in_the_sums_of_its_day(tmp_path: Path) -> None:
    world = make.world()
    rates = {"input_usd_per_mtok": "1", "usd_per_image": "0.04", "usd_per_audio_hour": "0.36"}
    price = Price.objects.create(deployment=world.deployment, rates=rates, effective_from=NOW)
    usage = with_images(read_usage(DRAWN | {"prompt_audio_seconds": 10}), 2)
    cost = 12 * 1_000 + 2 * 40_000_000 + 10 * 100_000
    line = usage_as_line(usage)
    lines = make.request_lines(world, usage=json.loads(orjson.dumps(line)), price=price.pk, cost=cost)
    make.ingest(tmp_path, lines)
    detail = {"image_output_tokens": 1290, "image_count": 2, "audio_s": 10}
    assert RequestRecord.objects.get().usage_detail == detail
    record = find_request(uuid.UUID(lines[0]["id"]), key_id=None)
    assert record is not None
    assert (record["usage"]["image_count"], record["usage"]["audio_s"]) == (2, 10)
    (charge,) = charge_lines(record["attempts"], at=dt.datetime.now(dt.UTC))
    assert charge.is_same
    assert [(one.meter, one.unit) for one in charge.lines] == [
        ("input", "a million"), ("image", "an image"), ("audio_second", "an hour"),
    ]  # fmt: skip
    today = dt.datetime.now(dt.UTC).date()
    sum_meters(first_day=today - dt.timedelta(days=1), last_day=today)
    meters = MeterByDay.objects.order_by("meter").values_list("meter", "quantity", "cost_nanousd")
    assert list(meters) == [
        ("audio_second", 10, 1_000_000), ("image", 2, 80_000_000), ("input", 12, 12_000),
    ]  # fmt: skip
    assert verify(now=dt.datetime.now(dt.UTC)).differences == ()
