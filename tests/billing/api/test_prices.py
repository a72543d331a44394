"""Are prices read and added over HTTP as exact numbers?"""

from __future__ import annotations

from typing import Any

import pytest

from billing.models import Price
from tests.make_configuration import make_deployment, make_price
from tests.policies.api.callers import caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db


def test_a_price_is_added_as_texts_and_never_changed() -> None:
    deployment = make_deployment()
    caller = caller_with("read", "prices")
    body = {
        "deployment_id": deployment.pk,
        "rates": {"input_usd_per_mtok": "0.050", "output_usd_per_mtok": "2E-1"},
        "effective_from": "2026-01-01T00:00:00Z",
        "source": "price list",
    }
    added = caller.send("POST", "prices", body)
    assert added.status_code == 201
    assert added.json()["rates"] == {"input_usd_per_mtok": "0.05", "output_usd_per_mtok": "0.2"}
    assert caller.read(added["Location"]) == added.json()
    assert Price.objects.get().created_by.startswith("token:")
    problem_of(caller.send("POST", "prices", body), 409, "name-taken")
    for method in ("PATCH", "PUT", "DELETE"):
        problem_of(caller.send(method, added["Location"], {}), 405, "method-not-allowed")
    newer = make_price(deployment=deployment)
    make_price()
    found = caller.read(f"prices?deployment_id={deployment.pk}&book=cost")["items"]
    assert [row["id"] for row in found] == [newer.pk, added.json()["id"]]


def test_a_wrong_rate_is_refused() -> None:
    deployment, caller = make_deployment(), caller_with("prices")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"input_usd_per_mtok": 0.05}, "rates.input_usd_per_mtok"),
        ({"input_usd_per_mtok": "-1"}, "rates"),
        ({"input_usd_per_mtok": "NaN"}, "rates"),
        ({"colour": "1"}, "rates"),
        ({}, "rates"),
    ]
    for rates, place in wrong:
        answer = caller.send("POST", "prices", {"deployment_id": deployment.pk, "rates": rates})
        assert places(problem_of(answer, 422, "invalid-value")) == [place]
    assert not Price.objects.exists()
