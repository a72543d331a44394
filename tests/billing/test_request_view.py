"""Is one request shown whole, to its own key only, also while it runs?"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.utils import timezone

from billing.models import OpenIntent, RequestRecord
from billing.request_view import (
    DatabaseRecordLookup,
    attempts_of,
    find_by_answer,
    find_request,
    load_names,
    request_as_json,
)
from gateway.dataplane.request_ids import make_request_id
from tests import make

pytestmark = pytest.mark.django_db


def test_a_request_is_shown_with_names_usage_cost_attempts_and_decision(tmp_path: Path) -> None:
    world = make.world()
    lines = make.request_lines(world)
    make.ingest(tmp_path, lines)
    shown = find_request(uuid.UUID(lines[0]["id"]), key_id=world.key.pk)
    assert shown is not None
    assert orjson.loads(orjson.dumps(shown)) == shown
    expected = {
        "id": lines[0]["id"],
        "status": "ok",
        "tenant": world.tenant.name,
        "project": "web",
        "key": "dev",
        "model": world.deployment.model.name,
        "deployment": world.deployment.name,
        "provider": world.deployment.provider.name,
        "policy": world.policy.public_id,
        "policy_version": 1,
        "rule": "rest",
        "requested_model": world.policy.public_id,
        "served_model": "smol-2025",
        "cost_nanousd": make.COST_NANOUSD,
        "cost_usd": "0.000141",
        "is_unpriced": False,
        "price_id": world.price.pk,
        "decision": lines[0]["decision"],
        "features": {"input_tokens": 12},
        "tags": {"team": "a"},
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown["started_at"].endswith("Z")
    assert shown["usage"]["cache_read_tokens"] == 200
    (attempt,) = shown["attempts"]
    assert (attempt["number"], attempt["deployment"], attempt["cost_usd"]) == (
        1,
        world.deployment.name,
        "0.000141",
    )
    assert attempt["usage"]["input_tokens"] == 1000


def test_another_keys_request_is_not_there(tmp_path: Path) -> None:
    world, stranger = make.world(), make.world()
    lines = make.request_lines(world)
    make.ingest(tmp_path, lines)
    request_id = uuid.UUID(lines[0]["id"])
    assert find_request(request_id, key_id=stranger.key.pk) is None
    assert find_request(request_id, key_id=None) is not None
    assert find_request(uuid.UUID(make_request_id()), key_id=None) is None
    assert find_request(uuid.uuid4(), key_id=None) is None


def test_a_running_request_is_in_flight_for_its_own_key(tmp_path: Path) -> None:
    world, stranger = make.world(), make.world()
    line = make.intent_line(world)
    OpenIntent.objects.create(id=line["id"], worker="w", line=line)
    shown = find_request(uuid.UUID(line["id"]), key_id=world.key.pk)
    assert shown is not None
    assert (shown["status"], shown["cost_usd"], shown["attempts"]) == ("in_flight", None, [])
    assert shown["requested_model"] == world.policy.public_id
    assert find_request(uuid.UUID(line["id"]), key_id=stranger.key.pk) is None
    waiting = make.outcome_line(world, make_request_id())
    OpenIntent.objects.create(id=waiting["id"], worker="w", line=waiting)
    assert find_request(uuid.UUID(waiting["id"]), key_id=None) is None


def test_unknown_and_unpriced_are_null_and_never_zero(tmp_path: Path) -> None:
    world = make.world()
    unpriced = make.request_lines(world, cost=None, price=None, unpriced=True)
    make.ingest(tmp_path, [*unpriced, make.intent_line(world)])
    shown = find_request(uuid.UUID(unpriced[0]["id"]), key_id=None)
    assert shown is not None
    assert (shown["cost_nanousd"], shown["cost_usd"], shown["is_unpriced"]) == (None, None, True)
    interrupted = RequestRecord.objects.get(status="interrupted")
    shown = request_as_json(interrupted, [])
    assert (shown["usage"]["input_tokens"], shown["cost_usd"], shown["deployment"]) == (None, None, None)


def test_many_requests_are_shown_in_a_fixed_number_of_queries(
    tmp_path: Path, django_assert_max_num_queries: object
) -> None:
    worlds = [make.world() for _ in range(4)]
    make.ingest(tmp_path, [line for world in worlds for _ in range(3) for line in make.request_lines(world)])
    with django_assert_max_num_queries(13):  # type: ignore[operator]
        records = list(RequestRecord.objects.all())
        attempts = attempts_of(records)
        load_names(records, [attempt for own in attempts.values() for attempt in own])
        shown = [request_as_json(record, attempts[record.id]) for record in records]
    assert {one["deployment"] for one in shown} == {world.deployment.name for world in worlds}
    assert all(len(one["attempts"]) == 1 for one in shown)


def test_a_name_that_is_gone_is_null_and_the_request_still_shown(tmp_path: Path) -> None:
    world = make.world()
    lines = make.request_lines(world)
    make.ingest(tmp_path, lines)
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM billing_usagebyday; DELETE FROM billing_usagebykeyday; DELETE FROM policies_tenant_policies"
        )
        cursor.execute("DELETE FROM policies_apikey WHERE id = %s", [world.key.pk])
    shown = find_request(uuid.UUID(lines[0]["id"]), key_id=world.key.pk)
    assert shown is not None
    assert (shown["key"], shown["key_id"]) == (None, world.key.pk)


@pytest.mark.django_db
def test_a_request_is_found_by_what_its_answer_calls_itself(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    lines = make.request_lines(world, make.request_id_at(now - dt.timedelta(hours=1)))
    again = make.request_lines(world, make.request_id_at(now - dt.timedelta(minutes=1)))
    old = make.request_lines(world, make.request_id_at(now - dt.timedelta(hours=25)))
    for line, answer_id in ((lines[1], "chatcmpl-1"), (again[1], "chatcmpl-1"), (old[1], "gen-old")):
        line["answer"] = answer_id
    make.ingest(tmp_path, [*lines, *again, *old])
    found = find_by_answer("chatcmpl-1", key_id=world.key.pk, now=now)
    assert found is not None
    assert (found["id"], found["answer_id"]) == (again[0]["id"], "chatcmpl-1"), "the newest"
    assert find_by_answer("chatcmpl-1", key_id=world.key.pk + 1, now=now) is None
    assert find_by_answer("chatcmpl-2", key_id=world.key.pk, now=now) is None
    assert find_by_answer("gen-old", key_id=world.key.pk, now=now) is None
    assert find_by_answer("gen-old", key_id=world.key.pk, now=now - dt.timedelta(hours=2)) is not None
    shown = find_request(uuid.UUID(old[0]["id"]), key_id=None)
    assert shown is not None
    assert shown["answer_id"] == "gen-old"


@pytest.mark.django_db(transaction=True)
def test_the_lookup_of_the_data_plane_queries_on_a_thread_of_its_own(tmp_path: Path) -> None:
    world = make.world()
    lines = make.request_lines(world)
    lines[1]["answer"] = answer_id = str(uuid.uuid4())
    make.ingest(tmp_path, lines)
    lookup = DatabaseRecordLookup()

    async def ask() -> tuple[Any, ...]:
        own = await lookup.find_request(lines[0]["id"], world.key.pk)
        other = await lookup.find_request(lines[0]["id"], world.key.pk + 1)
        nonsense = [
            await lookup.find_request(name, world.key.pk) for name in ("req_1", "", "a\0b", "ä", "x" * 201)
        ]
        by_answer = await lookup.find_request(answer_id, world.key.pk)
        # The thread's connection would keep the test database from being dropped.
        await asyncio.get_running_loop().run_in_executor(lookup._threads, lambda: connection.close())
        return own, other, nonsense, by_answer

    lookup._threads._max_workers = 1
    own, other, nonsense, by_answer = async_to_sync(ask)()
    lookup.close()
    assert isinstance(own, dict)
    assert own["id"] == lines[0]["id"]
    assert (other, nonsense) == (None, [None] * 5)
    assert by_answer == own
