"""Does a journal line hold all that the decision of a real request was made from?"""

from __future__ import annotations

import random
from typing import Any

import orjson

from policies.replaying import StoredRequest, recompute
from tests.gateway.dataplane.in_process import Plane, chat, make_fake_deployment
from tests.make_routing import make_grant, make_policy

NAMES = ("a", "b", "c")
WISHES: list[dict[str, Any]] = [
    {},
    {"metadata": {"team": "x", "task": "code", "priority": "high"}},
    {"models": ["model-b", "nobody"]},
    {"provider": {"order": ["C", "b"], "ignore": ["a"]}},
    {"provider": {"only": ["b"], "allow_fallbacks": False}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "required"},
    {
        "n": 3,
        "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
    },
    {"plugins": [{"id": "auto-router", "allowed_models": ["model-*"], "cost_quality_tradeoff": 8}]},
    {"messages": [{"role": "user", "content": "Translate this to French. " * 40}]},
]
HEADERS: list[dict[str, str]] = [
    {},
    {"x-title": "shop", "x-pointsman-quality": "high", "x-pointsman-max-latency-ms": "90"},
    {"x-session-id": "session-7"},
]


class Board:
    """Conversations in memory."""

    def __init__(self) -> None:
        self.served: dict[str, int] = {}

    def find(self, conversation: str, /) -> int | None:
        return self.served.get(conversation)

    def keep(self, conversation: str, deployment_id: int, /) -> None:
        self.served[conversation] = deployment_id


async def test_decisions_of_real_requests_are_made_again_from_their_journal_lines():
    catalog = {name: make_fake_deployment(number, name, None) for number, name in enumerate(NAMES, 1)}
    policy = make_policy(
        catalog,
        {"when": "hour < 24 && weekday == 8", "deployments": ["a"]},
        {"when": "'team' in tags && task == 'code'", "strategy": "weighted", "deployments": [*NAMES]},
        {"when": "app == 'shop'", "strategy": "least_latency", "deployments": ["b", "c"], "fallbacks": ["a"]},
        {"strategy": "auto", "deployments": [*NAMES]},
        session_stickiness=True,
    )
    plane = Plane(*NAMES, policies=[policy])
    dice = random.Random(3)
    plane.gateway.draw = dice.random
    plane.gateway.conversations = Board()
    for name in NAMES:
        plane.upstream.answers[name] = [chat()]
    for wishes in WISHES:
        for headers in HEADERS:
            for _ in range(2):  # the second one may find its conversation served
                await plane.ask("acme/auto", headers=headers, **wishes)
    await plane.ask("acme/auto:cost")
    await plane.ask("b", headers={"x-pointsman-pin": "1"})
    snapshot, grant = plane.gateway.configuration.snapshot, make_grant()
    lines = orjson.loads(orjson.dumps(plane.lines("intent")))
    decided = [line for line in lines if line["decision"]]
    assert len(decided) == len(WISHES) * len(HEADERS) * 2 + 2
    assert {line["decision"].get("strategy") for line in decided} == {
        "weighted",
        "least_latency",
        "auto",
        None,
    }
    assert {"kept", "new"} <= {line["decision"].get("pin", [""])[0] for line in decided}
    for line in decided:
        stored = StoredRequest(
            requested_model=line["model"],
            endpoint=line["endpoint"],
            is_stream=line["stream"],
            is_pinned=line["pinned"],
            tenant=grant.tenant.name,
            project=grant.project_name,
            key=grant.key_name,
            tags=line["tags"],
            features=line["features"],
            decision=line["decision"],
        )
        assert recompute(stored, snapshot=snapshot, grant=grant) == line["decision"]
