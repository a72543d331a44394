"""Does verify_usage find every number that is wrong, and only those?"""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F

from billing import tasks
from billing.models import UsageByDay, UsageByHour
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def recorded(tmp_path: Path, settings: Any) -> make.World:
    """Answered, unknown, unpriced and open requests."""
    settings.POINTSMAN_DATA_DIR = tmp_path
    world = make.world()
    unknown = make.usage_line(kind="unknown", input=None, output=None, cache_read=0)
    make.ingest(
        tmp_path,
        [
            *make.request_lines(world),
            *make.request_lines(world, usage=unknown, cost=None, price=None),
            *make.request_lines(world, cost=None, price=None, unpriced=True),
            make.intent_line(world),
        ],
    )
    return world


def run() -> str:
    output = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("verify_usage", stdout=output)
    assert ended.value.code == 1
    return output.getvalue()


def test_right_numbers_are_said_to_be_right(
    recorded: make.World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call_command("verify_usage")
    assert "every cost and every rollup is right" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "verify.json").read_text())
    assert (result["is_ok"], result["attempt_count"], result["difference_count"]) == (True, 3, 0)


def test_a_rollup_by_day_that_is_off_by_one_is_shown_with_both_numbers(recorded: make.World) -> None:
    UsageByDay.objects.filter(cost_nanousd__gt=0).update(cost_nanousd=F("cost_nanousd") + 1)
    shown = run()
    assert "usage_by_day.cost_nanousd" in shown
    assert str(make.COST_NANOUSD + 1) in shown
    assert "1 differences" in shown


def test_a_rollup_by_hour_that_is_missing_is_shown(recorded: make.World, tmp_path: Path) -> None:
    UsageByHour.objects.all().delete()
    assert "usage_by_hour.request_count" in run()


@pytest.mark.parametrize(
    ("table", "kind"),
    [("billing_attemptrecord", "attempt cost"), ("billing_requestrecord", "request cost")],
)
def test_a_cost_that_does_not_follow_from_usage_and_price_is_shown(
    recorded: make.World, table: str, kind: str
) -> None:
    with connection.cursor() as cursor:
        # Behind the back of the append-only trigger, as a mistake in a restore could.
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
        cursor.execute(f"UPDATE {table} SET cost_nanousd = 7 WHERE cost_nanousd IS NOT NULL")
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER append_only")
    shown = run()
    assert kind in shown
    assert str(make.COST_NANOUSD) in shown


def test_the_hourly_task_keeps_what_it_found(recorded: make.World, tmp_path: Path) -> None:
    UsageByDay.objects.all().delete()
    tasks.verify_usage()
    result = json.loads((tmp_path / "run" / "verify.json").read_text())
    assert result["is_ok"] is False
    assert result["differences"][0]["kind"].startswith("usage_by_day")
