"""Are this installation's own secrets made once, and readable for nobody else?"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from gateway.secrets_file import load_or_create_secrets


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    made = load_or_create_secrets(tmp_path / "data")
    assert load_or_create_secrets(tmp_path / "data") == made
    assert mode_of(tmp_path / "data" / "secrets.json") == 0o600
    assert not mode_of(tmp_path / "data") & 0o066
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secrets.json"]
    assert load_or_create_secrets(tmp_path / "other")["pepper"] != made["pepper"]


@pytest.mark.parametrize(
    "name", ["POINTSMAN_KEY_PEPPER", "POINTSMAN_METRICS_TOKEN", "POINTSMAN_CREDENTIAL_KEYS"]
)
def test_an_empty_variable_is_no_secret_and_commands_write_for_us_alone(tmp_path: Path, name: str) -> None:
    code = (
        "import sys; sys.argv = ['manage.py', 'version']; import manage, os; manage.main(); "
        "from django.conf import settings; "
        f"print(bool(settings.{name} and settings.{name} != ['']), oct(os.umask(0)))"
    )
    environment = {**os.environ, name: "", "POINTSMAN_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-2:] == ["True", "0o77"]
