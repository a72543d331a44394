"""How does a request to an automatic policy run, from its words to its record? In process, over fakes."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dataplane.listings import list_models
from policies.autorouter.tables import Rating, RouterTables
from policies.score_columns import read_rows
from tests.gateway.dataplane.in_process import Answer, Plane, chat, refusal, stream
from tests.make_routing import make_grant, make_policy, make_snapshot

TABLES = RouterTables(
    version=3, ratings={"model-weak": Rating(0.6), "model-fair": Rating(0.7), "model-strong": Rating(0.9)}
)


class Board(dict[str, int]):
    """Conversations in a dictionary."""

    find = dict.get

    def keep(self, conversation: str, deployment_id: int, /) -> None:
        self[conversation] = deployment_id


def auto_plane(**settings: Any) -> Plane:
    """A plane whose policy lets the router choose: the weak model is the cheapest, the strong one the dearest."""
    plane = Plane("weak", "fair", "strong")
    deployments = {
        name: type(found)(
            **{slot: getattr(found, slot) for slot in found.__slots__}
            | {"input_nanousd_per_mtok": 10**9 * price, "output_nanousd_per_mtok": 10**9 * price}
        )
        for (name, found), price in zip(plane.deployments.items(), (10, 11, 100), strict=True)
    }
    rule = {"name": "auto", "strategy": "auto", "deployments": list(deployments), "slider": 10, **settings}
    plane.gateway.configuration.snapshot = make_snapshot(
        deployments, make_policy(deployments, rule), router=TABLES
    )
    plane.gateway.conversations = Board()
    plane.upstream.answers = {name: [chat(name)] for name in deployments}
    return plane


def empty() -> Answer:
    return Answer(
        orjson.dumps({"model": "served", "choices": [{"message": {"content": ""}, "finish_reason": "stop"}]})
    )


def said(body: bytes) -> str:
    return str(orjson.loads(body)["choices"][0]["message"]["content"])


async def test_the_router_chooses_and_the_record_says_by_what():
    plane = auto_plane()
    client = await plane.ask("acme/auto")
    assert (client.status, plane.calls()) == (200, ["weak"])
    intent = plane.lines("intent")[0]
    assert intent["decision"]["tables"] == 3
    assert [row.name for row in read_rows(intent["decision"])] == ["weak", "fair", "strong"]
    assert intent["features"]["task_type"] and len(intent["features"]["workload"]) == 16
    assert b"hi" not in orjson.dumps([intent["features"], intent["decision"]]).replace(b"hint", b"")


async def test_wishes_of_the_caller_reach_the_router_and_not_the_provider():
    plane = auto_plane()
    wishes = {"plugins": [{"id": "auto-router", "cost_quality_tradeoff": 0}], "session_id": "s"}
    await plane.ask("acme/auto", **wishes)
    await plane.ask("acme/auto:quality")
    await plane.ask("acme/auto", provider={"max_price": {"prompt": 10.5}})
    refused = await plane.ask("acme/auto", provider={"zdr": True})
    assert plane.calls() == ["strong", "strong", "weak"]
    assert set(orjson.loads(refused.body)["error"]["reasons"].values()) == {"retention"}
    assert plane.lines("intent")[3]["features"]["retention_limit"] == "none"
    features = plane.lines("intent")[0]["features"]
    assert features["slider"] == 0
    assert plane.lines("intent")[2]["decision"]["dropped"] == [["fair", "price_cap"], ["strong", "price_cap"]]


async def test_presets_are_listed_as_models_where_there_is_an_automatic_rule():
    plane = auto_plane()
    listed = [row["id"] for row in list_models(plane.gateway.configuration.snapshot, make_grant())]
    presets = ["acme/auto", "acme/auto:cost", "acme/auto:fast", "acme/auto:quality"]
    assert listed == [*presets, "model-fair", "model-strong", "model-weak"]


async def test_a_conversation_stays_with_the_model_that_served_it():
    plane = auto_plane()
    plane.upstream.answers["weak"] = [refusal(503), chat("weak")]
    headers = {"x-session-id": "talk"}
    assert (await plane.ask("acme/auto", headers=headers)).status == 200
    assert plane.calls() == ["weak", "fair"]
    await plane.ask("acme/auto", headers=headers)
    await plane.ask("acme/auto", headers={"x-session-id": "another"})
    assert plane.calls() == ["weak", "fair", "fair", "weak"]
    pins = [line["decision"]["pin"] for line in plane.lines("intent")]
    assert pins == [["new"], ["kept", "fair"], ["new"]]


async def test_a_stream_keeps_its_conversation_too():
    plane = auto_plane()
    plane.upstream.answers["weak"] = [stream()]
    await plane.ask("acme/auto", is_stream=True, session_id="talk")
    assert list(plane.gateway.conversations.values()) == [1]


async def test_an_answer_that_fails_its_check_is_asked_of_a_better_model_where_the_policy_says_so():
    plane = auto_plane(check_answers=True)
    plane.upstream.answers["weak"] = [empty()]
    client = await plane.ask("acme/auto")
    assert (client.status, said(client.body), plane.calls()) == (200, "fair", ["weak", "fair"])
    outcome = plane.lines("outcome")[0]
    assert [attempt.get("check") for attempt in outcome["attempts"]] == ["empty", None]
    assert client.headers["x-pointsman-deployment"] == "fair"
    # Both were paid for.
    assert outcome["cost"] == sum(attempt["cost"] for attempt in outcome["attempts"])


async def test_without_that_setting_the_failure_is_only_recorded():
    plane = auto_plane()
    plane.upstream.answers["weak"] = [empty()]
    client = await plane.ask("acme/auto")
    assert (client.status, plane.calls()) == (200, ["weak"])
    assert plane.lines("outcome")[0]["attempts"][0]["check"] == "empty"


async def test_when_the_better_model_fails_too_the_first_answer_is_given_as_what_it_is():
    for second in (refusal(500), empty()):
        plane = auto_plane(check_answers=True, max_attempts=2)
        plane.upstream.answers |= {"weak": [empty()], "fair": [second]}
        client = await plane.ask("acme/auto")
        assert (client.status, plane.calls()) == (200, ["weak", "fair"])
        assert client.headers["x-pointsman-deployment"] == "weak"
        outcome = plane.lines("outcome")[0]
        assert (outcome["status"], outcome["deployment"], len(outcome["attempts"])) == ("ok", 1, 2)
