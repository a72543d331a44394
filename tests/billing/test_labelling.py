"""Are the sums by label those of the records, whatever callers name, and do they stay small?"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Sum

from billing import labelling, rerating
from billing.models import Label, LabelName, Price, RequestRecord, UsageByLabelDay
from billing.verifying import verify
from policies import tenancy_changes
from tests import make

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 5, 10, 12, tzinfo=dt.UTC)
UNPRICED = {"cost": None, "price": None, "unpriced": True}


def record(
    data_dir: Path, world: make.World, *said: dict[str, Any], at: dt.datetime = NOW, **outcome: Any
) -> None:
    """One request for each of these intents."""
    lines = []
    for fields in said:
        request_id = make.request_id_at(at)
        lines += [
            make.intent_line(world, request_id, **fields),
            make.outcome_line(world, request_id, **outcome),
        ]
    make.ingest(data_dir, lines)


def tagged(**tags: Any) -> dict[str, Any]:
    return {"rule": "", "tags": tags}


def sums(kind: str, name: str = "") -> dict[str, int]:
    """Requests by value."""
    rows = UsageByLabelDay.objects.filter(label__kind=kind, label__name=name)
    found = rows.values_list("label__value").annotate(sum=Sum("request_count"))
    return dict(found)


def assert_verified() -> None:
    found = verify(now=NOW)
    assert found.is_ok, found.differences


def test_rule_app_and_tags_are_summed_and_the_end_user_only_where_the_tenant_wants_it(tmp_path: Path) -> None:
    world = make.world()
    said = {"rule": "long", "tags": {"team": "a"}, "features": {"app": "shop", "end_user": "u1"}}
    record(tmp_path, world, said, said, {"rule": "", "tags": {}})
    assert (sums("rule"), sums("app"), sums("tag", "team")) == ({"long": 2}, {"shop": 2}, {"a": 2})
    assert sums("user") == {}
    tenancy_changes.change_tenant(tenant=world.tenant, actor="fiona", reports_end_users=True)
    record(tmp_path, world, said)
    assert sums("user") == {"u1": 1}
    assert sums("tag", "team") == {"a": 3}
    row = UsageByLabelDay.objects.get(label__value="long")
    assert (row.cost_nanousd, row.charge_nanousd) == (3 * make.COST_NANOUSD,) * 2
    assert_verified()


def test_reported_are_the_first_five_tags_or_those_that_the_tenant_names(tmp_path: Path) -> None:
    one, other = make.world(), make.world()
    tenancy_changes.change_tenant(tenant=other.tenant, actor="fiona", reported_tags=["t7", "t1"])
    said = tagged(**{f"t{number}": "x" for number in range(8)})
    for world in (one, other):
        record(tmp_path, world, said)
        record(tmp_path, world, said)
    names = LabelName.objects.filter(kind="tag").values_list("tenant", "name")
    assert Counter(tenant for tenant, _ in names) == {
        one.tenant.pk: labelling.MAX_TAG_NAMES,
        other.tenant.pk: 2,
    }
    assert {name for tenant, name in names if tenant == other.tenant.pk} == {"t1", "t7"}
    assert sums("tag", "t1") == {"x": 4}
    assert_verified()


def test_values_beyond_the_bound_count_as_others_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "MAX_VALUES", 2)
    world, neighbour = make.world(), make.world()
    for values in ("ab", "bcd", "acd", "e"):
        record(tmp_path, world, *(tagged(team=value) for value in values))
    record(tmp_path, neighbour, tagged(team="e"))
    found = UsageByLabelDay.objects.filter(tenant=world.tenant)
    assert dict(found.values_list("label__value", "request_count")) == {"a": 2, "b": 2, "": 5}
    assert sums("tag", "team")["e"] == 1, "a neighbour has room of its own"
    assert Label.objects.count() == 4
    assert_verified()


def test_a_repeated_journal_changes_nothing_and_what_is_no_label_is_none(tmp_path: Path) -> None:
    world = make.world()
    request_id = make.request_id_at(NOW)
    odd = {"": "x", "n" * 65: "x", "number": 5, "list": ["x"], "empty": "", "team": "v" * 300}
    lines = [
        make.intent_line(world, request_id, rule="", tags=odd, features={"app": 7}),
        make.outcome_line(world, request_id),
    ]
    make.ingest(tmp_path, lines, worker="worker-1")
    make.ingest(tmp_path, lines, worker="worker-2")
    assert UsageByLabelDay.objects.get().request_count == 1
    assert Label.objects.get().value == "v" * 200
    assert len(RequestRecord.objects.get().label_ids or []) == 1
    assert_verified()


def test_what_is_priced_afterwards_and_what_comes_late_is_in_the_sums_by_label(tmp_path: Path) -> None:
    world = make.world()
    record(tmp_path, world, tagged(team="a"), tagged(team="b"), tagged(), **UNPRICED)
    Price.objects.filter(pk=world.price.pk).exists()
    question = rerating.Question(NOW.date(), NOW.date())
    run = rerating.rerate(question, actor="fiona", reason="late price", now=NOW)
    assert run.request_count == 3
    rows = UsageByLabelDay.objects.order_by("label__value")
    assert [(row.request_count, row.unpriced_count, row.cost_nanousd) for row in rows] == [
        (1, 0, make.COST_NANOUSD)
    ] * 2
    assert_verified()
    rows.filter(label__value="b").update(cost_nanousd=1)
    (wrong,) = verify(now=NOW).differences
    assert (wrong.kind, wrong.stored) == ("usage_by_label_day.cost_nanousd", "1")
