"""How are the processes of one installation kept running and stopped in order?

Calls: the operating system (processes, signals, pipes). No Django.
"""

# ruff: noqa: S603  (the commands are ours)
from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from gateway.child_processes import die_with_parent

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
# A child that lived this long has started well: its next end is a first failure again.
STEADY_AFTER_S = 30.0
HURRY_S = 2.0
MAX_LINE_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process to keep running. Lower `stop_stage` ends first; a stage ends before the next one begins."""

    name: str
    command: Sequence[str]
    stop_stage: int
    stop_timeout_s: float
    start_delay_s: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Child:
    """What the supervisor knows of one spec: its process, or when to start it."""

    spec: ChildSpec
    start_at_s: float
    process: subprocess.Popen[bytes] | None = None
    started_at_s: float = 0.0
    failure_count: int = 0
    unfinished_line: bytes = b""


def restart_delay_s(failure_count: int) -> float:
    """Return the wait before the next start: 0.5 s after the first failure, doubled up to 30 s. Pure."""
    return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** max(0, failure_count - 1)))


class Supervisor:
    """Starts children, passes their output on line by line, restarts those that end. Used from one thread."""

    def __init__(self, specs: Sequence[ChildSpec], *, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        self.children = [Child(spec, start_at_s=now + spec.start_delay_s) for spec in specs]
        self.stop_request_count = 0
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    def listen_to_signals(self) -> None:
        """Count SIGINT and SIGTERM as wishes to stop, instead of dying of them."""
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_request_count += 1

    @property
    def is_stopping(self) -> bool:
        return self.stop_request_count > 0

    def start_now(self, name: str) -> None:
        """Start a child whose start was delayed."""
        for child in self.children:
            if child.spec.name == name and child.process is None:
                child.start_at_s = 0.0

    def failures_of(self, prefix: str) -> int:
        """How often in a row children of that name have ended."""
        return max((c.failure_count for c in self.children if c.spec.name.startswith(prefix)), default=0)

    def step(self, timeout_s: float) -> None:
        """Start what is due, pass output on, notice ends; return after `timeout_s` at the latest."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None and not self.is_stopping and child.start_at_s <= now:
                self._start(child, now)
        self._pass_output_on(timeout_s)
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._note_end(child)

    def stop(self) -> None:
        """End all children, stage by stage; a further signal in the meantime shortens every wait."""
        self.stop_request_count = max(1, self.stop_request_count)
        for stage in sorted({child.spec.stop_stage for child in self.children}):
            self._stop_stage([child for child in self.children if child.spec.stop_stage == stage])
        self._selector.close()
        signal.set_wakeup_fd(-1)
        self._wake_read.close()
        self._wake_write.close()

    def _stop_stage(self, children: list[Child]) -> None:
        for child in children:
            if child.process is not None:
                self._say(f"stopping {child.spec.name} …")
                child.process.terminate()
        begun, requests = time.monotonic(), self.stop_request_count
        hurry_at: float | None = None
        while any(child.process is not None for child in children):
            self.step(0.1)
            now = time.monotonic()
            if self.stop_request_count > requests and hurry_at is None:
                self._say(f"hurrying: what still runs in {HURRY_S:.0f} s is killed")
                hurry_at = now + HURRY_S
            for child in children:
                late = now > begun + child.spec.stop_timeout_s or (hurry_at is not None and now > hurry_at)
                if late and child.process is not None:
                    self._say(f"{child.spec.name} does not stop and is killed")
                    child.process.kill()
                    child.process.wait()

    def _start(self, child: Child, now: float) -> None:
        child.started_at_s = now
        try:
            child.process = subprocess.Popen(
                child.spec.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **child.spec.environment},
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops them in order.
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        except (OSError, subprocess.SubprocessError) as failure:
            # No memory or process to spare for one child is no reason to end the others.
            self._start_later(child, f"does not start ({failure})")
            return
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _note_end(self, child: Child) -> None:
        process = child.process
        assert process is not None and process.stdout is not None
        self._read(child)
        self._print_lines(child, is_last=True)
        self._selector.unregister(process.stdout)
        process.stdout.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Nothing that the child itself started may stay behind.
            os.killpg(process.pid, signal.SIGKILL)
        child.process = None
        if not self.is_stopping:
            self._start_later(child, f"ended ({describe_end(process.returncode)})")

    def _start_later(self, child: Child, what_happened: str) -> None:
        now = time.monotonic()
        child.failure_count = 1 if now - child.started_at_s > STEADY_AFTER_S else child.failure_count + 1
        delay_s = restart_delay_s(child.failure_count)
        child.start_at_s = now + delay_s
        self._say(f"{child.spec.name} {what_happened}; starting again in {delay_s:g} s")

    def _pass_output_on(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
            elif not self._read(key.data):
                # End of output with the process still there: do not spin on the closed pipe.
                time.sleep(0.02)

    def _read(self, child: Child) -> bool:
        process = child.process
        if process is None or process.stdout is None:
            return False
        try:
            data = os.read(process.stdout.fileno(), 65_536)
        except BlockingIOError:
            return True
        child.unfinished_line += data
        self._print_lines(child, is_last=len(child.unfinished_line) > MAX_LINE_BYTES)
        return bool(data)

    def _print_lines(self, child: Child, *, is_last: bool) -> None:
        *lines, rest = child.unfinished_line.split(b"\n")
        if is_last and rest:
            lines.append(rest)
            rest = b""
        child.unfinished_line = rest
        for line in lines:
            with contextlib.suppress(OSError):
                # A reader that went away must not take the gateway with it.
                sys.stderr.write(f"{child.spec.name:>9} | {line.decode(errors='replace').rstrip()}\n")
        if lines:
            with contextlib.suppress(OSError):
                sys.stderr.flush()


def describe_end(return_code: int) -> str:
    """Say how a process ended: status 1, or killed by SIGKILL. Pure."""
    if return_code >= 0:
        return f"status {return_code}"
    try:
        return f"killed by {signal.Signals(-return_code).name}"
    except ValueError:
        return f"killed by signal {-return_code}"
