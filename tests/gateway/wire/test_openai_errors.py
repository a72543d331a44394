"""Error bodies of every provider seen, in the one form clients know, and without secrets."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_errors import fault_in_answer, read_fault
from tests.recorded_traffic import load_openai_records, needs_recorded_traffic


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no","type":"t","param":null,"code":"c"}}', "no"),
        (b'{"detail":"no"}', "no"),
        (b'{"detail":[{"msg":"field required"}]}', '[{"msg":"field required"}]'),
        (b'{"message":"no"}', "no"),
        (b'{"code":"c","error":"no"}', "no"),
        (b'{"id":"x","message":"no"}', "no"),
        (b'{"error":"no"}', "no"),
        (b'[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]', "no"),
        (b"<html>502</html>", "The provider answered 502 without an explanation."),
        (b"", "The provider answered 502 without an explanation."),
    ],
)
def test_the_message_is_found_in_every_form(body, message):
    assert read_fault(body, 502).message == message


def test_a_numeric_code_becomes_text():
    assert read_fault(b'{"error":{"message":"x","code":429}}', 429).code == "429"


def test_what_is_useful_beside_the_four_keys_is_kept():
    fault = read_fault(
        b'{"error":{"message":"x","failed_generation":"{broken","metadata":{"raw":"cause"}}}', 400
    )
    assert fault.extra == {"failed_generation": "{broken", "metadata": {"raw": "cause"}}


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-abcdefgh********wxyz. You can find your API key at",
        "Authorization: Bearer abcdef.ghijkl",
        "key AIzaSyA1234567890abcdefg is invalid",
        "invalid token gsk_abcdefghij",
    ],
)
def test_what_looks_like_a_credential_is_masked(text):
    fault = read_fault(json.dumps({"error": {"message": text, "hint": [text]}}).encode(), 401)
    for secret in ("abcdefgh", "abcdef.g", "AIzaSy", "gsk_abc"):
        assert secret not in fault.message
        assert secret not in json.dumps(dict(fault.extra))


def test_our_own_credential_is_masked_wherever_it_stands():
    fault = read_fault(
        b'{"error":{"message":"you sent topsecretvalue","headers":{"a":"topsecretvalue"}}}',
        400,
        secret="topsecretvalue",
    )
    assert "topsecret" not in fault.message + json.dumps(dict(fault.extra))


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"error": {"message": "x", "code": 502}}, 502),
        ({"error": {"message": "x", "code": "content_filter"}}, 400),
        ({"error": {"message": "x", "status_code": 503}}, 503),
        ({"error": "x"}, 502),
        ({"error": None, "choices": []}, None),
        ({"choices": [{}], "error": {"message": "partial"}}, None),
        ({"choices": []}, None),
    ],
)
def test_an_error_inside_200_is_recognised(payload, status):
    assert fault_in_answer(payload) == status


@given(
    st.binary()
    | st.recursive(
        st.none() | st.text() | st.integers(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    ).map(lambda v: json.dumps(v).encode()),
    st.integers(400, 599),
)
def test_no_body_breaks_the_reader(body, status):
    fault = read_fault(body, status)
    assert fault.message
    assert isinstance(fault.type, str)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "sk-0123456789-" + "a-b_" * 250_000},
        {"message": "bearer " * 140_000 + "credential-9"},
        {"message": "x", "detail_list": ["api_key= " + "x" * 20] * 30_000},
        {"message": "x", **{f"key-{number}": "sk-0123456789" for number in range(30_000)}},
    ],
)
def test_a_megabyte_of_an_error_is_read_in_no_time_and_shows_no_secret(error):
    body = json.dumps({"error": error}).encode()
    begun_s = time.thread_time()
    fault = read_fault(body, 400, secret="credential-9")
    assert time.thread_time() - begun_s < 0.08
    assert fault.message
    shown = f"{fault.message} {fault.extra}"
    assert "0123456789" not in shown
    assert "credential-9" not in shown
    assert len(fault.extra) <= 64


@needs_recorded_traffic
def test_recorded_overflows_are_recognised():
    by_id = {record["id"]: record for record in load_openai_records()}
    for record_id in ("deepseek.chat-completions.b6d46979", "ollama.chat-completions.5fd7b1bd"):
        record = by_id[record_id]
        assert read_fault(record["response"]["body"].encode(), record["status"]).is_context_overflow, (
            record_id
        )
