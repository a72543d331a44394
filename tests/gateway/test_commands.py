"""Do the commands for scripts say what they did, on the right stream?"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from policies.issuing import is_secret_of
from policies.models import ApiKey, ChangeEvent, Model, Tenant
from tests.make_configuration import make_model, make_project

pytestmark = pytest.mark.django_db

TEXT = "models: [{name: m}]\ntenants: [{name: t, projects: [{name: p, keys: [{name: k}]}]}]\n"


def run(name: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_apply_prints_a_stable_plan_and_the_secrets_it_made_once(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(TEXT)
    plan = run("apply", "-f", str(file), "--plan")
    assert plan.splitlines() == [
        "create   model      m",
        "create   tenant     t",
        "create   project    t/p",
        "issue    api_key    t/p/k",
        "4 changes planned",
    ]
    assert not ChangeEvent.objects.exists()
    done = run("apply", "-f", str(file)).splitlines()
    assert done[:5] == [*plan.splitlines()[:4], "4 changes made"]
    assert is_secret_of(ApiKey.objects.get(), done[5].removeprefix("secret of t/p/k (shown once): "))
    assert run("apply", "-f", str(file)).splitlines() == [
        "nothing  model      m",
        "nothing  tenant     t",
        "nothing  project    t/p",
        "nothing  api_key    t/p/k",
        "0 changes made",
    ]
    assert ChangeEvent.objects.first().actor == f"apply:{file}"  # type: ignore[union-attr]


def test_apply_reads_standard_input_and_prunes_in_the_plan_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    run("apply", "-f", "-")
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("tenants: [{name: t, projects: [{name: p, keys: [{name: k}]}]}]")
    )
    assert "delete   model      m" in run("apply", "-f", "-", "--prune", "--plan")
    assert Model.objects.count() == 1
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("tenants: [{name: t, projects: [{name: p, keys: [{name: k}]}]}]")
    )
    assert "delete   model      m" in run("apply", "-f", "-", "--prune")
    assert Model.objects.count() == 0


def test_a_file_that_is_missing_or_wrong_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run("apply", "-f", str(tmp_path / "none.yaml"))
    file = tmp_path / "config.yaml"
    file.write_text("models: [{name: m}, {name: n, colour: red}]")
    with pytest.raises(CommandError, match=r"nothing was changed\n  models\[1\]\.colour: no such key"):
        run("apply", "-f", str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="not a UTF-8 text"):
        run("apply", "-f", str(file))


def test_export_prints_what_apply_reads(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(TEXT)
    run("apply", "-f", str(file))
    file.write_text(run("export"))
    assert run("apply", "-f", str(file)).splitlines()[-1] == "0 changes made"


def test_issue_key_prints_the_secret_alone() -> None:
    project = make_project(name="web")
    make_model(name="m")
    where = ["--tenant", project.tenant.name, "--project", "web", "--name", "dev"]
    secret = run(
        "issue_key",
        *where,
        "--pinned",
        "--model",
        "m",
        "--owner",
        "ann",
        "--expires-at",
        "2099-01-01T00:00:00Z",
    )
    key = ApiKey.objects.get()
    assert is_secret_of(key, secret.removesuffix("\n"))
    assert (key.is_pinned, key.allowed_models, key.owner, key.expires_at is not None) == (
        True,
        ["m"],
        "ann",
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"tenant": "none"}, "no such tenant: none"),
        ({"project": "none"}, "has no project none"),
        ({"model": "none"}, "no such model or policy: none"),
    ],
)
def test_issue_key_creates_nothing_but_the_key(arguments: dict[str, Any], what: str) -> None:
    project = make_project(name="web")
    wanted = {"tenant": project.tenant.name, "project": "web", "name": "dev", **arguments}
    with pytest.raises(CommandError, match=what):
        run("issue_key", *(part for name, value in wanted.items() for part in (f"--{name}", value)))
    assert not ApiKey.objects.exists()
    assert Tenant.objects.count() == 1


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """`manage.py export_requests … | head -1`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "manage.py", "help"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "POINTSMAN_DATA_DIR": str(tmp_path)},
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")
