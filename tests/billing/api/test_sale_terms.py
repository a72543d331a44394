"""Are terms added, read and ended over HTTP, by those alone who set prices?"""

from __future__ import annotations

import pytest

from billing.models import Price, SaleTerm
from tests import make
from tests.policies.api.callers import caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db


def test_a_term_is_added_read_and_ended_and_never_changed() -> None:
    world, caller = make.world(), caller_with("prices")
    added = caller.send(
        "POST", "sale-terms", {"tenant_id": world.tenant.pk, "factor": "1.20", "note": "deal"}
    )
    assert added.status_code == 201
    assert added.json()["factor"] == "1.2"
    assert caller.read(added["Location"]) == added.json()
    for method in ("PATCH", "PUT", "DELETE"):
        problem_of(caller.send(method, added["Location"], {}), 405, "method-not-allowed")
    ended = caller.send("POST", "sale-terms", {"tenant_id": world.tenant.pk, "factor": None})
    assert (ended.status_code, ended.json()["factor"]) == (201, None)
    listed = caller.read(f"sale-terms?tenant_id={world.tenant.pk}")["items"]
    assert [row["id"] for row in listed] == [ended.json()["id"], added.json()["id"]]
    problem_of(caller_with("read").send("GET", "sale-terms"), 403, "forbidden")


def test_wrong_terms_are_refused_with_their_place() -> None:
    caller = caller_with("prices")
    for body, place in (
        ({"factor": "-1"}, "factor"), ({"factor": "NaN"}, "factor"), ({"factor": "101"}, "factor"),
        ({"factor": ""}, "factor"), ({"factor": 1.5}, "factor"), ({"factor": 2}, "factor"),
        ({"factor": "1", "tenant_id": 77_777}, "tenant_id"), ({"factor": "1", "meter": "tokens"}, "meter"),
        ({"factor": "1", "effective_from": "2020-01-01T00:00:00Z"}, "effective_from"), ({}, "factor"),
    ):  # fmt: skip
        answer = caller.send("POST", "sale-terms", body)
        assert places(problem_of(answer, 422, "invalid-value")) == [place], body
    assert not SaleTerm.objects.exists()


def test_an_own_price_names_its_tenant() -> None:
    world, caller = make.world(), caller_with("read", "prices")
    body = {
        "deployment_id": world.deployment.pk,
        "tenant_id": world.tenant.pk,
        "rates": {"input_usd_per_mtok": "3"},
    }
    problem_of(caller.send("POST", "prices", body), 422, "invalid-value")
    added = caller.send("POST", "prices", {**body, "book": "sale"})
    assert (added.status_code, added.json()["tenant_id"]) == (201, world.tenant.pk)
    assert Price.objects.get(book="sale").tenant == world.tenant
