"""What would one request have cost with its policy's baseline model?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from billing.models import Price
from billing.request_view import find_request
from policies.models import PolicyVersion
from tests.make import COST_NANOUSD, World, ingest, request_lines, world

pytestmark = pytest.mark.django_db(transaction=True)


def record_with_baseline(data_dir: Path, baseline: str, **outcome: Any) -> dict[str, Any]:
    known = world()
    known.version = PolicyVersion.objects.create(
        policy=known.policy,
        number=2,
        document={"rules": [], "baseline": baseline or known.deployment.model.name},
    )
    _price_of_a_dearer_deployment(known)
    lines = request_lines(known, **outcome)
    ingest(data_dir, lines)
    found = find_request(UUID(lines[0]["id"]), key_id=None)
    assert found is not None
    return found


def _price_of_a_dearer_deployment(known: World) -> None:
    """A later price must not count, and a request is compared with what held when it began."""
    Price.objects.create(
        deployment=known.deployment,
        rates={"input_usd_per_mtok": "9", "output_usd_per_mtok": "9"},
        effective_from=dt.datetime(2999, 1, 1, tzinfo=dt.UTC),
    )


def test_the_same_tokens_at_the_baselines_price_then_less_what_was_paid(tmp_path: Path) -> None:
    found = record_with_baseline(tmp_path, "", cost=41_000)
    assert found["saving"]["saved_nanousd"] == COST_NANOUSD - 41_000
    assert found["saving"]["baseline_cost_usd"] == "0.000141"


@pytest.mark.parametrize("outcome", [{"cost": None}, {}], ids=["unknown cost", "no such model"])
def test_nothing_is_claimed_where_a_cost_is_not_known(tmp_path: Path, outcome: dict[str, Any]) -> None:
    baseline = "" if outcome else "no-such-model"
    assert record_with_baseline(tmp_path, baseline, **outcome)["saving"] is None


def test_the_answer_says_the_decision_in_sentences(tmp_path: Path) -> None:
    assert record_with_baseline(tmp_path, "")["explanation"]
