"""Does `manage.py up` keep the embedded PostgreSQL running, and itself when that fails?

Starting, stopping and being killed: tests/journeys/test_first_ten_minutes.py and test_kill_any_process.py.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import cast

from django.conf import settings

from gateway import embedded
from gateway.management.commands.up import Command
from gateway.supervisor import Supervisor
from tests.running_gateway import free_port


def test_a_postgresql_that_runs_is_left_alone() -> None:
    out = io.StringIO()
    before = embedded.find_postmaster(settings.POINTSMAN_DATA_DIR)
    assert Command(stdout=out).keep_postgresql(settings.POINTSMAN_DATA_DIR)
    assert embedded.find_postmaster(settings.POINTSMAN_DATA_DIR) == before
    assert out.getvalue() == ""


def test_a_postgresql_that_does_not_come_back_is_told_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "postgresql").mkdir()
    (tmp_path / "postgresql" / "stray").touch()
    out = io.StringIO()
    assert not Command(stdout=out).keep_postgresql(tmp_path)
    assert "is not empty and not a PostgreSQL cluster" in out.getvalue()
    assert "Next try in 5 s; requests of known keys go on." in out.getvalue()


class SlowStart:
    """A supervisor whose gateway is not ready yet, and that is told to stop after a few looks."""

    step_count = 0

    @property
    def is_stopping(self) -> bool:
        return self.step_count > 3

    def step(self, timeout_s: float) -> None:
        self.step_count += 1

    def failures_of(self, prefix: str) -> int:
        return 0


def test_what_the_tables_took_is_not_counted_against_the_gateway() -> None:
    """The first start of a slow or busy machine spends its first minute before any gateway is started."""
    supervisor = SlowStart()
    Command(stdout=io.StringIO()).run_children(
        cast(Supervisor, supervisor),
        port=free_port(),
        news={},
        begun_s=time.monotonic() - 3600,
        is_embedded=False,
    )
    assert supervisor.step_count > 3
