"""Are the sums by label those of the records, whatever callers name, and do they stay small?"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import labelling, reports, rerating
from billing.models import Label, LabelName, RequestRecord, UsageByLabelDay
from billing.saved_views import clean_query
from billing.spend import read_spend
from billing.spend_questions import read_question
from billing.verifying import verify
from policies import tenancy_changes
from tests import make
from tests.console_people import operator

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 5, 10, 12, tzinfo=dt.UTC)
UNPRICED: dict[str, Any] = {"cost": None, "price": None, "unpriced": True}


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


SAID = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["", "a", "b", "c"]),
        st.integers(0, 13),
        st.sampled_from([{}, UNPRICED, {"status": "error", "error": "x"}]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=SAID, only_first=st.booleans())
def test_the_values_of_a_tag_and_what_is_unallocated_are_the_total(
    tmp_path: Path, said: list[tuple[int, str, int, dict[str, Any]]], only_first: bool
) -> None:
    with transaction.atomic():
        worlds = make.world(), make.world()
        for place, value, days, outcome in said:
            record(tmp_path, worlds[place], tagged(team=value), at=NOW - dt.timedelta(days=days), **outcome)
        scope = reports.Scope(tenant_id=worlds[0].tenant.pk) if only_first else reports.EVERYBODY
        address = {"period": "7d", "by": "tag:team"} | (
            {"tenant": str(worlds[0].tenant.pk)} if only_first else {}
        )
        spend = read_spend(read_question(address, today=NOW.date()))
        expected = reports.totals(
            first_day=NOW.date() - dt.timedelta(days=6), last_day=NOW.date(), scope=scope
        )
        before = reports.totals(
            first_day=NOW.date() - dt.timedelta(days=13),
            last_day=NOW.date() - dt.timedelta(days=7),
            scope=scope,
        )
        assert spend.total.totals == expected
        assert spend.total.before.cost_nanousd == before.cost_nanousd
        assert spend.total.before.request_count == before.request_count
        assert sum(spend.day_totals_nanousd) == expected.cost_nanousd
        wanted = Counter(
            value for place, value, days, _ in said if days < 7 and value and not (only_first and place)
        )
        names = dict(Label.objects.values_list("pk", "value"))
        found = {names[row.id]: row.totals.request_count for row in spend.rows if row.id is not None}
        assert {value: count for value, count in found.items() if count} == wanted
        transaction.set_rollback(True)


def test_spend_by_tag_opens_into_its_requests_and_files_hold_the_same_rows(tmp_path: Path) -> None:
    world, today = make.world(), timezone.now()
    record(tmp_path, world, tagged(team="a"), tagged(team="a"), tagged(team="=b"), tagged(), at=today)
    client = operator()
    page = client.get("/spend?period=7d&by=tag:team").content.decode()
    assert "Tag team" in page
    assert "unallocated" in page
    assert "Summed by label since" in page
    label = Label.objects.get(value="a")
    inner = client.get(f"/spend?period=7d&by=day&label={label.pk}").content.decode()
    assert f"label={label.pk}" in inner
    assert client.get(f"/requests?label={label.pk}").content.decode().count("row-link") == 2
    assert client.get(f"/requests?label={10**17}").content.decode().count("row-link") == 0
    both = client.get(
        f"/spend?period=7d&by=key&label={label.pk}&model={world.deployment.model_id}"
    ).content.decode()
    assert f"{world.tenant}/{world.project.name}/{world.key.name}" in both
    assert "Not filtered by label" not in both
    assert "Not filtered by label" in client.get(f"/spend/savings?label={label.pk}").content.decode()
    unused = make.world()
    keys = client.get(f"/spend/keys?period=7d&label={label.pk}")
    assert [row.key.pk for row in keys.context["report"].rows] == [world.key.pk]
    assert keys.context["report"].total.totals.request_count == 2
    assert "team: a" in keys.content.decode()
    exported = client.get(f"/spend/keys/export.csv?period=7d&label={label.pk}").content.decode()
    assert world.tenant.name in exported
    assert unused.tenant.name not in exported
    assert client.get(f"/spend/savings?label={label.pk}").status_code == 200
    rows = list(csv.DictReader(io.StringIO(client.get("/spend/export.csv?by=tag:team").content.decode())))
    assert {row["tag:team"]: int(row["request_count"]) for row in rows} == {
        "a": 2, "'=b": 1, "unallocated": 1, "Total": 4,
    }  # fmt: skip
    assert sum(int(row["cost_nanousd"]) for row in rows[:-1]) == int(rows[-1]["cost_nanousd"])


@pytest.mark.parametrize(
    ("address", "by", "filters", "left_out"),
    [
        ("by=rule&tenant=3&key=4", "rule", {"tenant": 3, "key": 4}, ()),
        ("by=tag:a&label=5&label2=6", "tag:a", {"label": 5, "label2": 6}, ()),
        ("by=day&label=5&model=3", "day", {"model": 3, "label": 5}, ()),
        ("by=tag:&label=0&label3=x", "tenant", {}, ()),
        ("by=tag:" + "x" * 65, "tenant", {}, ()),
        ("by=tag:a&label=5&key=4", "tenant", {"key": 4}, ("label",)),
    ],
)
def test_an_address_asks_for_labels_with_all_other_filters_but_on_pages_that_have_no_labels(
    address: str, by: str, filters: dict[str, int], left_out: tuple[str, ...]
) -> None:
    has_labels = not left_out
    question = read_question(dict(parse_qsl(address)), today=NOW.date(), has_labels=has_labels)
    assert (question.by, dict(question.filters), question.left_out) == (by, filters, left_out)


@pytest.mark.parametrize("page", ["spend", "spend-keys"])
def test_a_saved_view_keeps_its_labels_beside_its_other_filters(page: str) -> None:
    asked = "period=7d&by=key&key=4&model=3&label=5&label2=6"
    kept = dict(parse_qsl(clean_query(page, asked, today=NOW.date())))
    assert kept == dict(parse_qsl(asked))
