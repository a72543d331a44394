"""Does `manage.py export_focus` write the month that it is asked for?"""

from __future__ import annotations

import csv
import datetime as dt
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests import make


@pytest.mark.django_db
def test_a_month_goes_to_stdout_or_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = make.request_lines(make.world(), make.request_id_at(dt.datetime(2026, 5, 9, tzinfo=dt.UTC)))
    make.ingest(tmp_path, lines)
    call_command("export_focus", "--month", "2026-05", "--focus-version", "1.2")
    written = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(written.out)))
    assert sum(int(row["x_ChargeNanoUsd"]) for row in rows) == make.COST_NANOUSD
    assert ("ProviderName" in rows[0], "3 rows" in written.err) == (True, True)
    file = tmp_path / "focus.parquet"
    call_command("export_focus", "--month", "2026-05", "--format", "parquet", "--output", str(file))
    assert file.read_bytes().startswith(b"PAR1")
    for wrong in (["--month", "May"], ["--month", "2026-05", "--format", "xlsx"]):
        with pytest.raises(CommandError):
            call_command("export_focus", *wrong)
