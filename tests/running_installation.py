"""A real installation for tests: `manage.py up` on a data directory and an embedded PostgreSQL of its own.

Whatever a test does to its processes, `running_installation` leaves none of them behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.running_gateway import free_port

PROJECT = Path(__file__).resolve().parents[1]


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
            "POINTSMAN_DEMO_WEEK": "0",
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


@contextlib.contextmanager
def running_installation() -> Iterator[Up]:
    """Give an installation that is not started yet; kill and delete what is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pmup-"))
    running = Up(folder / "data", free_port())
    try:
        yield running
    finally:
        for pid in running.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if running.process is not None:
            running.process.wait()
            assert running.process.stdout is not None
            running.process.stdout.close()
        running.wait_until_nothing_is_left(within_s=10)
        shutil.rmtree(folder)
