"""Does a request make no query and run no Django code once its key is cached?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import django
import psycopg
import pytest
from django.db import connection

import billing.models
import policies.models
from gateway.asgi import Application
from gateway.compiled import is_in_use
from gateway.dataplane.app import DataPlane
from gateway.journal import SegmentJournal
from gateway.worker_configuration import WorkerConfiguration
from policies import publishing, tenancy_changes
from tests.gateway.dataplane.in_process import Client, Plane, chat, refusal, stream
from tests.make_configuration import (
    ACTOR,
    make_deployment,
    make_key,
    make_model,
    make_price,
    make_project,
    make_provider,
    make_tenant,
)

FORBIDDEN = tuple(
    str(Path(str(module.__file__)).parent) + "/"
    for module in (django, psycopg, policies.models, billing.models)
)


@pytest.fixture
def secret(transactional_db: None) -> str:
    """A key whose tenant may use a policy with conditions over features, time of day included."""
    model = make_model(name="small", endpoints=["chat"], context_tokens=10_000, capabilities=["tools"])
    for name in ("first", "second"):
        provider = make_provider(name=name, base_url=f"http://{name}/v1", allow_private_network=True)
        make_price(deployment=make_deployment(name=name, model=model, provider=provider))
    policy = publishing.create_policy(public_id="acme/auto", actor=ACTOR)
    rules: list[dict[str, Any]] = [
        {"name": "long", "when": "input_tokens > 4000", "deployments": ["second"]},
        {"name": "night", "when": "hour < 0 || weekday > 7", "deployments": ["second"]},
        {"name": "tagged", "when": 'tags.team == "red"', "deployments": ["second"]},
        {"name": "rest", "strategy": "least_cost", "deployments": ["first"], "fallbacks": ["second"]},
    ]
    publishing.publish(policy=policy, actor=ACTOR, document={"rules": rules})
    tenant = make_tenant()
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["acme/auto"], actor=ACTOR)
    _, secret = make_key(project=make_project(tenant=tenant))
    return secret


@pytest.fixture
def application(secret: str, tmp_path: Path) -> Iterator[tuple[Application, Plane]]:
    """The worker's application over real configuration and journal; only providers are fakes."""
    plane = Plane()
    configuration = WorkerConfiguration()
    journal = SegmentJournal(tmp_path)
    plane.gateway.configuration = configuration
    plane.gateway.journal = journal
    application = Application()
    application.plane = DataPlane(plane.gateway)
    yield application, plane
    configuration.close()
    journal.close()


async def ask(application: Application, plane: Plane, secret: str, **fields: Any) -> Client:
    client = Client(plane, "acme/auto", headers={"authorization": f"Bearer {secret}"}, **fields)
    scope = {**client.scope, "type": "http", "method": "POST", "path": "/v1/chat/completions"}
    await application(scope, client.receive, client.send)
    return client


async def ask_in_every_way(application: Application, plane: Plane, secret: str) -> list[int]:
    """Plain, streamed, fallen back, refused."""
    statuses = []
    for answer in (chat(), refusal(500), refusal(400)):
        plane.upstream.answers = {"first": [answer], "second": [chat()]}
        statuses.append((await ask(application, plane, secret)).status)
    plane.upstream.answers = {"first": [stream()], "second": [stream()]}
    options = {"include_usage": True}
    streamed = await ask(application, plane, secret, is_stream=True, stream_options=options)
    assert b'"cost":' in streamed.body
    statuses.append(streamed.status)
    statuses.append((await ask(application, plane, "pm-nobody")).status)
    statuses.append((await ask(application, plane, secret, temperature="x", messages=[])).status)
    return statuses


@pytest.mark.skipif(is_in_use(), reason="Python sees no call into compiled code")
def test_a_request_makes_no_query_and_enters_no_django_code(application, secret, django_assert_num_queries):
    entered: set[str] = set()
    called: set[str] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            path = frame.f_code.co_filename
            called.add(path)
            if path.startswith(FORBIDDEN):
                entered.add(f"{path}:{frame.f_code.co_name}")

    async def run() -> list[int]:
        await ask_in_every_way(*application, secret)  # warm up
        sys.setprofile(watch)
        try:
            return await ask_in_every_way(*application, secret)
        finally:
            sys.setprofile(None)

    with django_assert_num_queries(0):
        statuses = asyncio.run(run())
    assert statuses == [200, 200, 400, 200, 401, 400]
    assert any(path.endswith("policies/decision.py") for path in called), "the watch saw nothing"
    assert entered == set()
    sys.setprofile(watch)
    connection.ensure_connection()
    sys.setprofile(None)
    assert entered, "the watch would have seen Django"
