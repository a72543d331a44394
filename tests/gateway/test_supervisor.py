"""Are children kept running, heard, and stopped in order?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.supervisor import ChildSpec, Supervisor, describe_end, restart_delay_s

PROJECT = Path(__file__).resolve().parents[2]
WAIT = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: (print('bye', flush=True), sys.exit(0)))\n"
WAIT += "print('up', flush=True)\ntime.sleep(60)"


def child(name: str, code: str, *, stage: int = 1, timeout_s: float = 5.0, delay_s: float = 0.0) -> ChildSpec:
    return ChildSpec(name, [sys.executable, "-c", code], stage, timeout_s, start_delay_s=delay_s)


def step_until(supervisor: Supervisor, condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        supervisor.step(0.05)


def test_lines_of_children_are_passed_on_under_their_names(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('no newline'); sys.stdout.flush()"
    supervisor = Supervisor([child("talker", code)], say=lambda line: None)
    step_until(supervisor, lambda: supervisor.failures_of("talker") == 1)
    supervisor.stop()
    assert [line.split(" | ") for line in capfd.readouterr().err.splitlines()] == [
        ["   talker", "one"],
        ["   talker", "two"],
        ["   talker", "no newline"],
    ]


def test_a_child_that_dies_is_started_again_after_growing_waits() -> None:
    said: list[str] = []
    supervisor = Supervisor([child("weak", "raise SystemExit(3)")], say=said.append)
    step_until(supervisor, lambda: supervisor.failures_of("weak") == 2)
    supervisor.stop()
    assert said[0] == "weak ended (status 3); starting again in 0.5 s"
    assert said[1] == "weak ended (status 3); starting again in 1 s"
    assert [restart_delay_s(n) for n in (1, 2, 3, 4, 7, 50)] == [0.5, 1.0, 2.0, 4.0, 30.0, 30.0]


def test_a_child_that_cannot_be_started_at_all_ends_no_other(tmp_path: Path) -> None:
    said: list[str] = []
    impossible = ChildSpec("impossible", [str(tmp_path / "missing")], 1, 5.0)
    supervisor = Supervisor([impossible, child("other", WAIT)], say=said.append)
    step_until(supervisor, lambda: supervisor.failures_of("impossible") == 2)
    assert [one.process is not None for one in supervisor.children] == [False, True]
    supervisor.stop()
    assert said[0].startswith("impossible does not start (")
    assert said[0].endswith("; starting again in 0.5 s")


def test_stages_end_one_after_the_other(capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    specs = [child("second", WAIT, stage=2), child("first", WAIT, stage=1)]
    supervisor = Supervisor(specs, say=said.append)
    heard = ""

    def both_are_up() -> bool:
        nonlocal heard
        heard += capfd.readouterr().err
        return heard.count("up") == 2

    step_until(supervisor, both_are_up)
    supervisor.stop()
    assert [line for line in capfd.readouterr().err.splitlines() if "bye" in line] == [
        "    first | bye",
        "   second | bye",
    ]
    assert said == ["stopping first …", "stopping second …"]


def test_a_child_that_does_not_stop_is_killed_after_its_time() -> None:
    said: list[str] = []
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    stubborn += "open({!r}, 'w').close()\ntime.sleep(60)"
    marker = Path(os.environ["POINTSMAN_DATA_DIR"]) / f"stubborn-{os.getpid()}"
    supervisor = Supervisor([child("stubborn", stubborn.format(str(marker)), timeout_s=0.3)], say=said.append)
    step_until(supervisor, marker.exists)
    supervisor.stop()
    assert said[-1] == "stubborn does not stop and is killed"


def test_a_delayed_child_waits_until_it_is_called() -> None:
    supervisor = Supervisor([child("late", WAIT, delay_s=60)], say=lambda line: None)
    supervisor.step(0.01)
    assert supervisor.children[0].process is None
    supervisor.start_now("late")
    supervisor.step(0.01)
    assert supervisor.children[0].process is not None
    supervisor.stop()


def test_children_end_when_the_supervisor_is_killed() -> None:
    code = (
        "import sys, time; from gateway.supervisor import *\n"
        "s = Supervisor([ChildSpec('c', [sys.executable, '-c', 'import time; time.sleep(60)'], 1, 5)], say=print)\n"
        "s.step(0.1); print(s.children[0].process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        os.kill(pid, 0)
        supervisor.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the child outlived its supervisor"
        time.sleep(0.02)


def test_ends_are_described_for_people() -> None:
    assert describe_end(1) == "status 1"
    assert describe_end(-9) == "killed by SIGKILL"
    assert describe_end(-250) == "killed by signal 250"
