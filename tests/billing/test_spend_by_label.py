"""Is spend by anything, filtered by anything and by labels, what the records say? Every pair, and many at random."""

from __future__ import annotations

import datetime as dt
import importlib
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.db import connection

from billing import rerating
from billing import spend as spend_module
from billing.label_days import list_due_days, sum_day
from billing.models import (
    Adjustment,
    Label,
    LabelDay,
    LatePosting,
    PeriodLock,
    RequestRecord,
    UsageByKeyLabelSetDay,
    UsageByLabelSetDay,
)
from billing.reports import NONE
from billing.request_listing import filter_requests
from billing.request_questions import read_filters
from billing.spend import read_periods, read_spend
from billing.spend_questions import GROUPINGS, Question, read_question
from billing.verifying import verify
from policies import tenancy_changes
from policies.models import ApiKey, Project
from tests import make

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 5, 10, 12, tzinfo=dt.UTC)
WEEK = dt.timedelta(days=7)
BY_LABEL = ("rule", "app", "user", "tag:team", "tag:env")
REQUESTS = 70
UNPRICED: dict[str, Any] = {"cost": None, "price": None, "unpriced": True}
Sums = dict[int | None, tuple[int, int, int]]


def live(data_dir: Path, draw: random.Random) -> list[make.World]:
    """Two weeks of two tenants with three keys each, in one journal; some of it unpriced, refused, without labels.

    Some days have their sums by one label; of others they were made before half of it came, or before it got a price.
    """
    worlds = [make.world(), make.world()]
    keys: list[tuple[make.World, ApiKey]] = []
    for world in worlds:
        tenancy_changes.change_tenant(tenant=world.tenant, actor="fiona", reports_end_users=True)
        other = Project.objects.create(tenant=world.tenant, name="app")
        for project, name in ((world.project, "second"), (other, "third")):
            secret = f"{world.tenant}/{name}".encode().ljust(32)[:32]
            ApiKey.objects.create(project=project, name=name, secret_hash=secret, secret_hint="pm-…")
        keys += [(world, key) for key in ApiKey.objects.filter(project__tenant=world.tenant).order_by("pk")]
    lines: list[Any] = []
    for _ in range(REQUESTS):
        world, key = draw.choice(keys)
        served = draw.choice(worlds)
        request_id = make.request_id_at(NOW - dt.timedelta(days=draw.randrange(14)))
        said = {
            "project": key.project_id,
            "key": key.pk,
            "policy": draw.choice([world.policy.pk, None]),
            "rule": draw.choice(["", "short", "long"]),
            "tags": {name: value for name in ("team", "env") if (value := draw.choice(["", "a", "b"]))},
            "features": {"app": draw.choice(["", "shop"]), "end_user": draw.choice(["", "u1", "u2"])},
        }
        if said["policy"] is None:
            said["version"] = None
        refused = {
            "deployment": None,
            "status": "refused",
            "http": 402,
            "attempts": [],
            "price": None,
            "cost": 0,
        }
        ended = draw.choice(
            [{"cost": draw.randrange(1, 10**6)}, {"cost": draw.randrange(1, 10**6)}, UNPRICED]
        )
        lines += [
            make.intent_line(world, request_id, **said),
            make.outcome_line(served, request_id, **(refused if draw.random() < 0.1 else ended)),
        ]
    half = REQUESTS // 2 * 2
    make.ingest(data_dir, lines[:half])
    sum_days(draw)
    make.ingest(data_dir, lines[half:], worker="worker-2")
    sum_days(draw)
    assert LabelDay.objects.exists()
    first_day = (NOW - dt.timedelta(days=3)).date()
    rerating.rerate(rerating.Question(first_day, NOW.date()), actor="fiona", reason="late price", now=NOW)
    return worlds


def sum_days(draw: random.Random) -> None:
    """Sum some of the days that are over by one label each."""
    for day in list_due_days(today=NOW.date()):
        if draw.random() < 0.7:
            assert sum_day(day)


class Books:
    """The records as they count now, and what each stands under; all of it read from the records alone."""

    def __init__(self) -> None:
        self.kinds = {
            label.pk: label.kind if label.kind != "tag" else f"tag:{label.name}"
            for label in Label.objects.all()
        }
        priced = dict(Adjustment.objects.filter(number=2).values_list("request_id", "cost_nanousd"))
        self.requests: list[tuple[dict[str, int | None], set[int], dt.datetime, tuple[int, int, int]]] = []
        for record in RequestRecord.objects.select_related("deployment"):
            deployment = record.deployment
            places: dict[str, int | None] = {
                "tenant": record.tenant_id,
                "project": record.project_id,
                "key": record.api_key_id,
                "policy": record.policy_id,
                "deployment": record.deployment_id,
                "model": deployment.model_id if deployment is not None else None,
                "provider": deployment.provider_id if deployment is not None else None,
                **dict.fromkeys(BY_LABEL),
            }
            labels = set(record.label_ids or ())
            places |= {self.kinds[label_id]: label_id for label_id in labels}
            cost = priced.get(record.id, record.cost_nanousd)
            self.requests.append((places, labels, record.started_at, (1, cost or 0, int(cost is None))))

    def sums(self, by: str, filters: Mapping[str, int], *, since: dt.datetime, until: dt.datetime) -> Sums:
        """Requests, cost and how many have no price, by what they stand under."""
        found: Sums = {}
        for places, labels, at, counted in self.requests:
            if since <= at < until and all(
                wanted in labels if name.startswith("label") else (places[name] or NONE) == wanted
                for name, wanted in filters.items()
            ):
                so_far = found.get(places.get(by), (0, 0, 0))
                found[places.get(by)] = (so_far[0] + 1, so_far[1] + counted[1], so_far[2] + counted[2])
        return found

    def list_filters(self, draw: random.Random) -> list[dict[str, int]]:
        """Of each kind two values: of rows with `NONE` where there are requests without, of labels what there is."""
        found: list[dict[str, int]] = []
        for name in (*GROUPINGS, *BY_LABEL):
            values = sorted({places.get(name) or NONE for places, *_ in self.requests})
            if name in BY_LABEL:
                found += [{"label": value} for value in draw.sample([value for value in values if value], 1)]
            elif name != "day":
                found += [{name: value} for value in draw.sample(values, 2)]
        return found


def ask(by: str, filters: Mapping[str, int]) -> Question:
    address = {"period": "7d", "by": by, **{name: str(value) for name, value in filters.items()}}
    question = read_question(address, today=NOW.date())
    assert (question.by, dict(question.filters), question.left_out) == (by, dict(filters), ())
    return question


def assert_rows_are_the_records(books: Books, by: str, filters: Mapping[str, int]) -> None:
    found = read_periods(ask(by, filters))
    rows = [found.row_of(row_id) for row_id in found.list_dearest_first()]
    end = dt.datetime(NOW.year, NOW.month, NOW.day + 1, tzinfo=dt.UTC)
    now = books.sums(by, filters, since=end - WEEK, until=end)
    before = books.sums(by, filters, since=end - 2 * WEEK, until=end - WEEK)
    for wanted, periods in ((now, [row.totals for row in rows]), (before, [row.before for row in rows])):
        told = {
            row.id: (totals.request_count, totals.cost_nanousd, totals.unpriced_count)
            for row, totals in zip(rows, periods, strict=True)
            if totals.request_count
        }
        assert told == wanted, (by, filters)


def test_spend_by_anything_filtered_by_anything_is_what_the_records_say(tmp_path: Path) -> None:
    draw = random.Random(4)
    live(tmp_path, draw)
    books = Books()
    filters = books.list_filters(draw)
    assert {name for one in filters for name in one} == {*GROUPINGS, "label"} - {"day"}
    for by in (*GROUPINGS, *BY_LABEL):
        for one in filters if by != "day" else ():
            assert_rows_are_the_records(books, by, one)
    differences = [one for one in verify(now=NOW).differences if one.kind.startswith("usage_by")]
    assert differences == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_several_filters_and_labels_at_once_are_what_the_records_say_down_to_the_requests(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_module, "SERIES_SHOWN", 2)  # the others are a series too
    draw = random.Random(seed)
    live(tmp_path, draw)
    books = Books()
    label_ids = sorted(books.kinds)
    for _ in range(12):
        filters = {
            **draw.choice(books.list_filters(draw)),
            **draw.choice(books.list_filters(draw)),
            **dict(zip(("label2", "label3"), draw.sample(label_ids, draw.randrange(3)), strict=False)),
        }
        by = draw.choice([*GROUPINGS, *BY_LABEL, "key"])
        if by != "day":
            assert_rows_are_the_records(books, by, filters)
        spend = read_spend(ask(by, filters))
        end = dt.datetime(NOW.year, NOW.month, NOW.day + 1, tzinfo=dt.UTC)
        (total,) = books.sums("", filters, since=end - WEEK, until=end).values() or [(0, 0, 0)]
        totals = spend.total.totals
        assert (totals.request_count, totals.cost_nanousd, totals.unpriced_count) == total
        by_day = [
            sum(cost for _, cost, _ in books.sums("", filters, since=day, until=day + WEEK / 7).values())
            for day in (dt.datetime.combine(day, dt.time(), dt.UTC) for day in spend.days)
        ]
        assert (spend.day_totals_nanousd or [0] * 7) == by_day
        assert sum(by_day) == total[1]
        for row in spend.rows[:3] if by != "day" else ():
            if link := spend.question.requests_link(row_id=row.id):
                listed = filter_requests(read_filters(dict(parse_qsl(link))))
                assert listed.count() == row.totals.request_count
            if into := spend.question.link_into(row.id):
                inner = read_spend(read_question(dict(parse_qsl(into)), today=NOW.date()))
                assert inner.total.totals == row.totals


def test_the_migration_sums_what_was_recorded_before_it_and_goes_on_where_it_was_broken(
    tmp_path: Path,
) -> None:
    live(tmp_path, random.Random(5))
    # As after a closing: what came late for it counts on the first open day.
    PeriodLock.objects.update_or_create(id=1, defaults={"closed_until": NOW.date()})
    live(tmp_path, random.Random(6))
    kept = {table: list_rows(table) for table in (UsageByLabelSetDay, UsageByKeyLabelSetDay)}
    assert len(kept[UsageByKeyLabelSetDay]) > 40
    assert set(LatePosting.objects.values_list("number", flat=True)) == {0, 1, 2}
    fill = importlib.import_module("billing.migrations.0028_fill_sums_by_label_sets").fill
    for days in ({}, {"day__gt": NOW.date() - dt.timedelta(days=5)}):
        for table in kept:
            table._default_manager.filter(**days).delete()
        fill(None, SimpleNamespace(connection=connection))
        assert {table: list_rows(table) for table in kept} == kept
        fill(None, SimpleNamespace(connection=connection))
        assert {table: list_rows(table) for table in kept} == kept


def list_rows(table: Any) -> list[tuple[Any, ...]]:
    names = [field.attname for field in table._meta.fields if field.name != "id"]
    return sorted(table._default_manager.values_list(*names), key=repr)
