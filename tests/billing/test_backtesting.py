"""Does a backtest say what a document would have done, and does the live version come out as it was recorded?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import backtesting
from billing.backtesting import start_backtest
from billing.models import Backtest, RequestRecord
from gateway.snapshots import load_snapshot
from tests import make_traffic
from tests.make_traffic import RULES, Site

pytestmark = pytest.mark.django_db


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_traffic.site(now=timezone.now())
    made.record(tmp_path, 300)
    return made


def run(site: Site, rules: list[dict[str, Any]], days: int = 7) -> Backtest:
    made = start_backtest(
        policy=site.policy, document={"rules": rules}, days=days, actor="ada", now=site.until
    )
    backtesting.run_backtest(made.pk, load_snapshot=load_snapshot)
    made.refresh_from_db()
    assert made.state == "done", made.error
    return made


def test_the_live_version_comes_out_as_it_was_recorded(site: Site) -> None:
    made = run(site, RULES)
    result = made.result
    assert result["count"] == made.total_count == made.done_count == 300
    assert result["reproduction"] == {
        "checked": 300,
        "reproduced": 300,
        "missed": 0,
        "reasons": {},
        "sample": [],
    }
    assert (result["moved"], result["no_candidate"], result["not_compared"]) == (0, 0, {})
    cost = result["cost"]
    total = sum(RequestRecord.objects.values_list("cost_nanousd", flat=True))
    assert cost["then"] == cost["now"] == total and cost["low"] == cost["high"] == 0
    assert all(row["then"] == row["now"] for row in result["deployments"])
