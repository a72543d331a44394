"""Are providers' files read for what they say, and refused whole, with line and reason, when they cannot be trusted?"""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.provider_bills.bill import NO_COUNTS, Bill, BillError, Counts, group_lines
from billing.provider_bills.reading import read_bill

TODAY = dt.date(2026, 11, 23)
D20, D21 = dt.date(2026, 11, 20), dt.date(2026, 11, 21)
S20 = int(dt.datetime(2026, 11, 20, tzinfo=dt.UTC).timestamp())


def find_rate(*, currency: str, on: dt.date) -> Decimal | None:
    return Decimal("0.5") if (currency, on) == ("EUR", D20) else None


def read(content: Any, file_format: str, **columns: str) -> Bill:
    raw = content if isinstance(content, bytes) else (
        content.encode() if isinstance(content, str) else json.dumps(content).encode()
    )  # fmt: skip
    return read_bill(raw, file_format=file_format, today=TODAY, find_rate=find_rate, columns=columns)


def refusals(content: Any, file_format: str = "csv", **columns: str) -> list[str]:
    with pytest.raises(BillError) as caught:
        read(content, file_format, **columns)
    return str(caught.value).split("\n")


def bucket(*results: dict[str, Any], start: int = S20, end: int | None = None) -> dict[str, Any]:
    times = {"start_time": start, "end_time": start + 86_400 if end is None else end}
    return {"object": "bucket", **times, "results": list(results)}


def page(*buckets: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"object": "page", "data": list(buckets), "has_more": has_more, "next_page": None}


def cost(value: Any, item: str | None = "gpt-5-2025-08-07, input", **more: Any) -> dict[str, Any]:
    amount = {"value": value, "currency": "usd"}
    return {
        "object": "organization.costs.result",
        "amount": amount,
        "line_item": item,
        "project_id": None,
        **more,
    }


# ---- what the formats say


def test_costs_of_openai_are_summed_over_the_meters_of_a_model() -> None:
    answer = page(
        bucket(
            cost(0.06, quantity=1000),
            cost("0.003835980000000000000000000000", "gpt-5-2025-08-07, cached input", quantity=400),
            cost(0.1, "gpt-5-2025-08-07, output", quantity=50),
            cost(2.25, "Web search tool calls", quantity=9),
        )
    )
    groups = group_lines(read(answer, "openai-costs").lines)
    search, model = groups
    assert (model.billed_as, model.day, model.cost_nanousd) == ("gpt-5-2025-08-07", D20, 163_835_980)
    # What came from a cache was sent as well.
    assert model.counts == Counts(None, 1400, 400, None, 50)
    assert (search.billed_as, search.counts, search.cost_nanousd) == (
        "Web search tool calls",
        NO_COUNTS,
        2_250_000_000,
    )


def test_the_cost_export_of_openais_dashboard_says_the_same() -> None:
    times = f"{S20},{S20 + 86400},2026-11-20T00:00:00,2026-11-21T00:00:00"
    text = (
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,quantity_unit,"
        "line_item,project_id\n"
        f"{S20 - 86400},{S20},2026-11-19T00:00:00+00:00,2026-11-20T00:00:00+00:00,,,,,,\n"
        f'{times},0.5,usd,1000,tokens,"gpt-5-nano, input_tokens",proj_a\n'
        f'{times},0.25,usd,10,tokens,"gpt-5-nano, output_tokens",proj_a\n'
    )
    bill = read(text, "openai-costs")
    (group,) = group_lines(bill.lines)
    assert (group.billed_as, group.counts, group.cost_nanousd) == (
        "gpt-5-nano", Counts(None, 1000, None, None, 10), 750_000_000,
    )  # fmt: skip
    assert bill.accounts == ["proj_a"]


def test_one_line_without_a_quantity_leaves_its_model_without_any() -> None:
    answer = page(bucket(cost(1, quantity=10), cost(1, "gpt-5-2025-08-07, output")))
    (group,) = group_lines(read(answer, "openai-costs").lines)
    assert (group.counts, group.cost_nanousd) == (NO_COUNTS, 2_000_000_000)


def test_usage_of_openai_counts_audio_beside_text_and_cached_within() -> None:
    result = {
        "object": "organization.usage.completions.result", "model": "gpt-4o-audio", "input_tokens": 1000,
        "input_cached_tokens": 800, "output_tokens": 500, "input_audio_tokens": 30, "output_audio_tokens": 20,
        "num_model_requests": 5, "project_id": "proj_b",
    }  # fmt: skip
    expected = Counts(5, 1030, 800, None, 520)
    (line,) = read(page(bucket(result)), "openai-usage").lines
    assert (line.counts, line.cost_usd, line.account) == (expected, None, "proj_b")
    text = (
        "start_time,end_time,project_id,num_model_requests,model,input_tokens,input_cached_tokens,output_tokens,"
        f"input_audio_tokens,output_audio_tokens\n{S20},{S20 + 86400},proj_b,5,gpt-4o-audio,1000,800,500,30,20\n"
    )
    assert read(text, "openai-usage").lines == (line,)


def test_usage_of_embeddings_says_nothing_of_what_was_generated() -> None:
    result = {
        "object": "organization.usage.embeddings.result",
        "model": "e",
        "input_tokens": 7,
        "num_model_requests": 1,
    }
    (line,) = read(page(bucket(result)), "openai-usage").lines
    assert line.counts == Counts(1, 7, None, None, None)


def test_anthropics_costs_are_cents_in_json_and_rounded_dollars_in_the_export() -> None:
    results = [
        {"amount": "123.45", "currency": "USD", "model": "claude-haiku-4-5", "workspace_id": None},
        {"amount": "0.55", "currency": "USD", "model": None, "cost_type": "web_search", "workspace_id": "w"},
    ]  # fmt: skip
    answer = {
        "data": [
            {"starting_at": "2026-11-20T00:00:00Z", "ending_at": "2026-11-21T00:00:00Z", "results": results}
        ],
        "has_more": False,
    }
    one, search = read(answer, "anthropic-cost").lines
    assert (one.cost_usd, one.billed_as, one.day) == (Decimal("1.2345"), "claude-haiku-4-5", D20)
    assert (search.cost_usd, search.billed_as, search.account) == (Decimal("0.0055"), "web_search", "w")
    text = (
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n"
        "2026-11-20,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,token\n"
        "2026-11-20,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.02,0.02,token\n"
    )
    (group,) = group_lines(read(text, "anthropic-cost").lines)
    assert (group.cost_nanousd, group.rounding_nanousd, group.line_count) == (70_000_000, 10_000_000, 2)


def test_anthropics_usage_adds_up_what_was_sent() -> None:
    result = {
        "model": "claude-haiku-4-5", "uncached_input_tokens": 100, "cache_read_input_tokens": 20,
        "cache_creation": {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 4},
        "output_tokens": 50, "workspace_id": None,
    }  # fmt: skip
    answer = {
        "data": [
            {"starting_at": "2026-11-20T23:00:00Z", "ending_at": "2026-11-21T00:00:00Z", "results": [result]}
        ]
    }
    expected = Counts(None, 127, 20, 7, 50)
    (line,) = read(answer, "anthropic-usage").lines
    assert (line.counts, line.day) == (expected, D20)
    text = (
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
        "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
        "usage_output_tokens,web_search_count,inference_geo,speed\n"
        "2026-11-20,claude-haiku-4-5,k,Default,standard,≤ 200k,100,4,3,20,50,0,,\n"
    )
    (line,) = read(text, "anthropic-usage").lines
    assert (line.counts, line.account) == (expected, "Default")


def test_openrouters_activity_is_read_in_its_three_forms() -> None:
    entry = {
        "date": "2026-11-20", "model": "openai/gpt-5", "model_permaslug": "openai/gpt-5-2025-08-07", "usage": 0.015,
        "byok_usage_inference": 0.012, "requests": 5, "prompt_tokens": 50, "completion_tokens": 125,
    }  # fmt: skip
    (line,) = read({"data": [entry]}, "openrouter").lines
    assert (line.counts, line.cost_usd) == (Counts(5, 50, None, None, 125), Decimal("0.015"))
    by_day = (
        "Date,Slug,Usage,BYOK Usage,Requests,Prompt Tokens,Completion Tokens,Reasoning Tokens\n"
        '"2026-11-20 00:00:00","openai/gpt-5","430.07","0","4115","70965665","3009973","0"\n'
    )
    (line,) = read(by_day, "openrouter").lines
    assert (line.day, line.counts.requests, line.rounded_usd) == (D20, 4115, Decimal("0.005"))
    by_generation = (
        "generation_id,created_at,cost_total,cost_cache,tokens_prompt,tokens_completion,tokens_cached,model_permaslug,api_key_name\n"
        "gen-1,2026-11-20 03:46:57.713,0.0123,-0.001,100,10,20,openai/gpt-5-2025-08-07,prod\n"
        "gen-2,2026-11-20 03:47:57.713,0.0123,0,100,10,0,openai/gpt-5-2025-08-07,prod\n"
    )
    (group,) = group_lines(read(by_generation, "openrouter").lines)
    assert (group.counts, group.cost_nanousd) == (Counts(2, 200, 20, None, 20), 24_600_000)


def test_columns_of_any_csv_can_be_named_and_other_currencies_have_the_rate_of_their_day() -> None:
    text = "When;Wer;Betrag;Waehrung;in\n2026-11-20;m;1.5;EUR;10\n"
    (line,) = read(
        text, "csv", day="When", model="Wer", cost="Betrag", currency="Waehrung", input_tokens="in"
    ).lines
    assert (line.cost_usd, line.counts.input_tokens) == (Decimal(3), 10)


# ---- bad files: refused whole, with line and reason

YEN = {"amount": "1", "currency": "JPY"}
HEAD = "day,model,cost,input_tokens,output_tokens\n"
GOOD = "2026-11-20,m,1.25,10,5\n"


def test_a_good_file_with_a_byte_order_mark_and_windows_line_ends_is_read() -> None:
    raw = b"\xef\xbb\xbf" + (HEAD + GOOD).replace("\n", "\r\n").encode()
    (line,) = read(raw, "csv").lines
    assert line.cost_usd == Decimal("1.25")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("2026-11-20,m,-1.25,10,5", "cost: '-1.25' is negative"),
        ("2026-11-20,m,1.25,-10,5", "input_tokens: '-10' is negative"),
        ("2026-11-20,m,=1+1,10,5", "cost: '=1+1' is a formula"),
        ("2026-11-20,m,1.25,+10,5", "input_tokens: '+10' is a formula"),
        ("2026-11-20,=cmd|'/c calc'!A0,1.25,10,5", "is a formula, not a name"),
        ("2026-11-20,@SUM(A1),1.25,10,5", "is a formula, not a name"),
        ("2026-11-20,m,NaN,10,5", "cost: 'NaN' is not a finite number"),
        ("2026-11-20,m,-Infinity,10,5", "is not a finite number"),
        ("2026-11-20,m,1.25,inf,5", "input_tokens: 'inf' is not a finite number"),
        ("2026-11-20,m,1e30,10,5", "is more than"),
        ("2026-11-20,m,1.25,9999999999999,5", "is more than anybody uses"),
        ("2026-11-20,m,1.25,1.5,5", "is not a whole number"),
        ('2026-11-20,m,"1,25",10,5', "is not a plain number"),
        ('2026-11-20,m,"1,234.50",10,5', "is not a plain number"),
        ("2026-11-20,m,$1.25,10,5", "is not a plain number"),
        ("2026-11-20,m,1.25,ten,5", "is not a plain number"),
        ("2026-11-20,m,1.25,0x10,5", "is not a plain number"),
        ("2026-11-20,m,١,10,5", "is not a plain number"),
        ("2026-13-20,m,1.25,10,5", "is no date"),
        ("11/20/2026,m,1.25,10,5", "is no date"),
        (",m,1.25,10,5", "day is missing"),
        ("2026-11-24,m,1.25,10,5", "2026-11-24 is in the future"),
        ("0001-01-01,m,1.25,10,5", "not between the years"),
        ("2026-11-20,,1.25,10,5", "model is missing"),
        ("2026-11-20,m,,,5", "neither a cost nor the tokens sent"),
        ("2026-11-20,m,1.25,10", "4 cells, the first line has 5"),
        ("2026-11-20,m,1.25,10,5", "the same as line 2: it would count twice"),
        ("2026-11-20,m\x07,1.25,10,5", "is no name"),
    ],
)
def test_one_bad_line_refuses_the_file_and_says_which(cells: str, reason: str) -> None:
    said = refusals(HEAD + GOOD + cells + "\n")
    assert len(said) == 1
    assert said[0].startswith("line 3: ")
    assert reason in said[0]


def test_every_bad_line_is_told_up_to_twenty() -> None:
    lines = "".join(f"2026-11-20,m,-{number},1,1\n" for number in range(1, 31))
    said = refusals(HEAD + GOOD + lines)
    assert len(said) == 21
    assert said[0].startswith("line 3: ")
    assert said[-1] == "and 10 more"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "date,model,cost\n2026-11-20,m,1\n",
            "line 1: the column day is missing; the file has date, model, cost",
        ),
        ("day,model,note\n2026-11-20,m,1\n", "line 1: the column cost is missing"),
        ("Foo,Bar\n1,2\n", "line 1: the columns day, model are missing; the file has Foo, Bar"),
        ("day,model,cost,cost\n2026-11-20,m,1,1\n", "line 1: the column cost stands twice"),
        ("day;model;cost\n2026-11-20;m;1,25\n", "line 2: cost: '1,25' is not a plain number"),
        (HEAD, "nothing is charged in this file"),
        ("", "the file is empty"),
        (b"\xff\xfe" + HEAD.encode("utf-16-le"), "not text in UTF-8"),
        (b"day,model,cost\n2026-11-20,m\0,1\n", "zero byte"),
        ('day,model,cost\n2026-11-20,"m,1\n', "line 2: unexpected end of data"),
        (
            "day,model,cost,currency\n2026-11-21,m,1,EUR\n",
            "line 2: there is no exchange rate of EUR for 2026-11-21",
        ),
        ("day,model,cost,currency\n2026-11-20,m,1,XXXX\n", "there is no exchange rate of XXXX"),
        ("{}", "this is JSON, not CSV"),
    ],
)
def test_files_that_are_something_else_are_refused(content: Any, reason: str) -> None:
    assert reason in "\n".join(refusals(content))


def test_a_total_that_no_one_is_charged_is_refused() -> None:
    text = HEAD + "".join(f"2026-11-20,m{number},100000000,1,1\n" for number in range(11))
    with pytest.raises(BillError, match="total is more than"):
        group_lines(read(text, "csv").lines)


def test_days_out_of_order_are_taken_and_marked() -> None:
    bill = read(HEAD + "2026-11-21,m,1,1,1\n" + GOOD, "csv")
    assert [line.day for line in bill.lines] == [D21, D20]
    assert bill.notes == ("line 3: 2026-11-20 comes after 2026-11-21 (line 2); days may come in any order",)


@pytest.mark.parametrize(
    ("answer", "file_format", "reason"),
    [
        (page(bucket(cost(-1))), "openai-costs", "data[0].results[0]: amount_value: '-1' is negative"),
        (page(bucket(cost(True))), "openai-costs", "amount_value is 'True', not a number"),
        (page(bucket(cost([1]))), "openai-costs", "not a number"),
        ('{"data": [{"results": [{"amount": {"value": NaN}}]}]}', "openai-costs", "NaN is not a number"),
        ('{"data": [{"results": [{"amount": {"value": Infinity}}]}]}', "openai-costs", "Infinity is not"),
        (page(bucket(cost(1), start=-5)), "openai-costs", "no time in seconds"),
        (page(bucket(cost(1), start=0)), "openai-costs", "1970-01-01 is not between the years"),
        (page(bucket(cost(1), end=S20 - 1)), "openai-costs", "end_time is not within a day after start_time"),
        (page(bucket(cost(1), end=S20 + 7 * 86_400)), "openai-costs", "bucket_width=1d"),
        (page(bucket(cost(1), cost(1))), "openai-costs", "data[0].results[1]: the same as data[0].results[0]"),
        (page(bucket({"model": "m", "input_tokens": "10"})), "openai-usage", "is a text, not a number"),
        (page(bucket({"model": "m", "input_tokens": 1e300})), "openai-usage", "more than anybody uses"),
        (page(bucket({"model": "m", "num_model_requests": 1})), "openai-usage", "input_tokens is missing"),
        (page(bucket(cost(1))), "openai-usage", "nothing is charged"),
        (page(bucket({"model": "m"})), "openai-costs", "is this the costs endpoint's answer?"),
        ({"data": [{"starting_at": "2026-11-20", "results": [YEN]}]}, "anthropic-cost", "currency JPY"),
        ({"data": [{"starting_at": "yesterday", "results": [YEN]}]}, "anthropic-cost", "is no date"),
        ({"data": [7]}, "openrouter", "data[0]: not an object"),
        ({"error": {"message": "no"}}, "openrouter", "an object with the list data is needed"),
        ("[" * 100_000, "openrouter", "not JSON"),
        ('{"data": [', "openrouter", "line 1: not JSON"),
        ('{"data": [{"usage": ' + "9" * 5000 + "}]}", "openrouter", "not JSON"),
    ],
)  # fmt: skip
def test_answers_of_an_api_are_refused_with_the_place(answer: Any, file_format: str, reason: str) -> None:
    assert reason in "\n".join(refusals(answer, file_format))


def test_a_page_that_is_followed_by_others_is_marked() -> None:
    bill = read([page(bucket(cost(1))), page(bucket(cost(2)), has_more=True)], "openai-costs")
    assert len(bill.lines) == 2
    assert bill.notes == ("the last page says has_more: days after it are not in this file",)


@settings(max_examples=40)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_file_at_all_brings_anything_but_a_reason(content: str | bytes) -> None:
    for file_format in ("openai-costs", "anthropic-usage", "openrouter", "csv"):
        try:
            read(content.encode("utf-8", "replace") if isinstance(content, str) else content, file_format)
        except BillError as refusal:
            assert str(refusal)


MEMBERS = st.sampled_from(
    ["data", "results", "amount", "value", "start_time", "starting_at", "usage", "date", "model"]
)
ANSWERS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(ANSWERS)
def test_no_answer_at_all_brings_anything_but_a_reason(document: Any) -> None:
    for file_format in ("openai-costs", "openai-usage", "anthropic-cost", "anthropic-usage", "openrouter"):
        with pytest.raises(BillError):
            read({"data": [document]}, file_format)
