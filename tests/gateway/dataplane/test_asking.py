"""What a caller says in headers or tags must reach the conditions, each on its own."""

import pytest

from gateway.dataplane.asking import read_features
from gateway.dataplane.errors import BadRequest
from gateway.wire.openai_request import parse_request
from policies.features import Features
from tests.make_routing import make_grant, make_policy, make_snapshot

BODY = b'{"model": "support", "messages": [{"role": "user", "content": "Hello"}]}'


def read(headers=None, body=BODY, **named):
    snapshot = make_snapshot(
        {}, make_policy({}, {"when": "hour < 24", "deployments": []}, public_id="support")
    )
    named = {"now_unix_s": 0.0, **named}
    return read_features(parse_request(body, "chat"), headers or {}, make_grant(), snapshot, **named)


@pytest.mark.parametrize(
    ("header", "name", "told", "expected"),
    [
        (b"x-title", "app", b"shop", "shop"),
        (b"http-referer", "app", b"https://shop.test/page?q=word", "https://shop.test/page"),
        (b"referer", "app", b"https://shop.test/page#top", "https://shop.test/page"),
        (b"x-pointsman-task", "task", b"code", "code"),
        (b"x-pointsman-priority", "priority", b"high", "high"),
        (b"x-pointsman-quality", "quality", b"high", "high"),
        (b"x-pointsman-max-latency-ms", "max_latency_ms", b"90", 90),
    ],
)
def test_a_header_tells_one_fact_and_no_other(header, name, told, expected):
    silent, read_one = read(), read({header: told})
    assert getattr(silent, name) == getattr(Features(), name)
    assert read_one == silent._replace(**{name: expected})


def test_a_header_counts_before_the_tag_of_the_same_name():
    body = BODY[:-1] + b', "metadata": {"task": "chat", "max_latency_ms": "70"}}'
    assert read(body=body).max_latency_ms == 70
    told = read({b"x-pointsman-task": b"code"}, body=body)
    assert (told.task, told.max_latency_ms) == ("code", 70)


def test_a_latency_that_is_no_number_is_refused_with_the_headers_name():
    with pytest.raises(BadRequest, match="x-pointsman-max-latency-ms"):
        read({b"x-pointsman-max-latency-ms": b"soon"})


@pytest.mark.parametrize(("at", "expected"), [(3_599.9, (0, 4)), (3_600.0, (1, 4)), (86_400.0, (0, 5))])
def test_the_hour_changes_with_its_first_second(at, expected):
    found = read(now_unix_s=at, needs_all=True)
    assert (found.hour, found.weekday) == expected
