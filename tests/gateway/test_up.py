"""Does `manage.py up` keep the embedded PostgreSQL running, and itself when that fails?

Starting, stopping and being killed: tests/journeys/test_first_ten_minutes.py and test_kill_any_process.py.
"""

from __future__ import annotations

import io
from pathlib import Path

from django.conf import settings

from gateway import embedded
from gateway.management.commands.up import Command


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
