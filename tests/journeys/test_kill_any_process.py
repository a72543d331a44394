"""`kill -9` of any process that `manage.py up` runs, PostgreSQL and itself included, under load.

Nothing is lost, nothing is counted twice, and everything comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import yaml

from gateway.embedded import find_postmaster, socket_directory
from tests.fake_provider import FakeProvider, fake_provider
from tests.load_under_kills import SLOW_ANSWER, SLOW_WORD, Load, check_nothing_is_lost_or_doubled
from tests.running_gateway import KEY, simple_config
from tests.running_installation import PROJECT, Up, running_installation

pytestmark = pytest.mark.slow

GATEWAYS = ("serve --worker-index 0", "serve --worker-index 1")
INGESTER = "manage.py ingest"
CELERY = "celery"
CHILDREN = (*GATEWAYS, INGESTER, CELERY)
BACK_WITHIN_S = 30.0


class Killer:
    """Finds the processes of one installation by what they run, kills them and counts."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.kill_count = 0

    @property
    def supervisor(self) -> int:
        assert self.up.process is not None
        return self.up.process.pid

    def child(self, words: str) -> int | None:
        """The supervisor's own child that runs this command."""
        for pid in self.up.processes():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if parent == self.supervisor and words in command:
                    return pid
        return None

    def kill(self, pid: int | None) -> int:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.kill_count += 1
        return pid

    def kill_child(self, words: str) -> int:
        return self.kill(self.child(words))

    def kill_postgresql(self) -> int:
        return self.kill(find_postmaster(self.up.data_dir))

    def wait_for_child(self, words: str, *, other_than: int) -> None:
        wait_until(lambda: self.child(words) not in (None, other_than), f"{words} is back")

    def wait_for_postgresql(self, *, other_than: int) -> None:
        wait_until(lambda: find_postmaster(self.up.data_dir) not in (None, other_than), "PostgreSQL is back")
        wait_until(lambda: query(self.up, "SELECT 1") == [(1,)], "PostgreSQL answers")


def wait_until(condition: Callable[[], bool], what: str, *, within_s: float = BACK_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.05)


def query(up: Up, sql: str) -> list[tuple[Any, ...]]:
    host = str(socket_directory(up.data_dir))
    with psycopg.connect(dbname="pointsman", host=host, user="postgres") as connection:
        return connection.execute(sql).fetchall()  # type: ignore[arg-type]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as running:
        running.answers[SLOW_WORD] = SLOW_ANSWER
        yield running


@pytest.fixture
def up(provider: FakeProvider) -> Iterator[Up]:
    with running_installation() as running:
        config = running.data_dir.parent / "config.yaml"
        config.write_text(yaml.safe_dump(simple_config(provider.url, ["m"])))
        running.settings = {
            "POINTSMAN_WORKERS": str(len(GATEWAYS)),
            "POINTSMAN_DEMO": "0",
            "POINTSMAN_CONFIG": str(config),
            "TEST_KEY": KEY,
        }
        running.start()
        yield running


@contextlib.contextmanager
def under_load(up: Up) -> Iterator[Load]:
    load = Load(f"http://127.0.0.1:{up.port}/v1")
    thread = threading.Thread(target=lambda: asyncio.run(load.run(client_count=3, slow_count=3)), daemon=True)
    thread.start()
    try:
        yield load
    finally:
        load.is_stopping = True
        thread.join(15)
    assert not thread.is_alive()


def wait_for_answers(load: Load, *, more: int) -> None:
    begun_with = len(load.answered)
    wait_until(lambda: len(load.answered) >= begun_with + more, f"{more} more answers")


def kill_one_after_the_other(killer: Killer, load: Load) -> None:
    for words in CHILDREN:
        wait_for_answers(load, more=10)
        killer.wait_for_child(words, other_than=killer.kill_child(words))
    wait_for_answers(load, more=10)
    killer.wait_for_postgresql(other_than=killer.kill_postgresql())
    # A single session of PostgreSQL: the server ends all the others and recovers, its process stays.
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        " ORDER BY backend_start"
    )
    wait_until(lambda: bool(query(killer.up, sessions)), "somebody is connected")
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        killer.kill(query(killer.up, sessions)[0][0])
    wait_until(lambda: query(killer.up, "SELECT 1") == [(1,)], "PostgreSQL has recovered")


def take_the_database_away(killer: Killer, load: Load) -> None:
    """Without PostgreSQL for two seconds (the supervisor stands still), with the ingester killed in between."""
    os.kill(killer.supervisor, signal.SIGSTOP)
    postmaster = killer.kill_postgresql()
    with pytest.raises(psycopg.OperationalError):
        query(killer.up, "SELECT 1")
    begun_with, begun_at = len(load.answered), time.monotonic()
    ingester, worker = killer.kill_child(INGESTER), killer.kill_child(CELERY)
    wait_for_answers(load, more=50)
    time.sleep(max(0.0, begun_at + 2.0 - time.monotonic()))
    assert find_postmaster(killer.up.data_dir) is None
    print(f"answers without PostgreSQL in 2 s: {len(load.answered) - begun_with}")
    # The supervisor wakes up: the ingester starts before or after PostgreSQL, and has to come through either way.
    os.kill(killer.supervisor, signal.SIGCONT)
    killer.wait_for_postgresql(other_than=postmaster)
    killer.wait_for_child(INGESTER, other_than=ingester)
    killer.wait_for_child(CELERY, other_than=worker)


def kill_the_supervisor(killer: Killer, load: Load) -> None:
    wait_for_answers(load, more=10)
    killer.kill(killer.supervisor)
    assert killer.up.process is not None
    killer.up.process.communicate(timeout=30)
    killer.up.wait_until_nothing_is_left(within_s=30)
    killer.up.start()
    wait_for_answers(load, more=10)


def kill_everything_at_once(killer: Killer, load: Load) -> None:
    """As when a container is killed: nobody has a last word."""
    assert killer.up.process is not None
    everything = killer.up.processes()
    for pid in everything:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killer.kill_count += 1
    killer.up.process.communicate(timeout=30)
    killer.up.wait_until_nothing_is_left(within_s=30)
    killer.up.start()
    wait_for_answers(load, more=10)


def test_kill_9_of_any_process_loses_and_doubles_nothing(up: Up, provider: FakeProvider) -> None:
    killer = Killer(up)
    with under_load(up) as load:
        kill_one_after_the_other(killer, load)
        take_the_database_away(killer, load)
        kill_the_supervisor(killer, load)
        # All that write, at once.
        gateway, ingester = killer.kill_child(GATEWAYS[0]), killer.kill_child(INGESTER)
        killer.wait_for_postgresql(other_than=killer.kill_postgresql())
        killer.wait_for_child(GATEWAYS[0], other_than=gateway)
        killer.wait_for_child(INGESTER, other_than=ingester)
        kill_everything_at_once(killer, load)
    assert killer.kill_count >= 12
    statuses = check_nothing_is_lost_or_doubled(
        load, provider, lambda sql: query(up, sql), within_s=BACK_WITHIN_S
    )
    print(
        f"{killer.kill_count} kills, {dict(load.statuses)} answers, {load.broken_count} broken, records {statuses}"
    )
    assert statuses["interrupted"] > 0
    # A gateway that cannot know a key yet says so; it does not take the key for a wrong one.
    assert set(load.statuses) <= {200, 503}
    verified = up.manage("verify_usage")
    assert verified.returncode == 0, verified.stdout

    # The worker does its work again: with a live connection to PostgreSQL, from a queue that outlived it.
    result = up.data_dir / "run" / "verify.json"
    result.unlink()
    task = [sys.executable, "-m", "celery", "-A", "gateway", "--quiet", "call", "billing.tasks.verify_usage"]
    subprocess.run(task, cwd=PROJECT, env=up.environment, check=True, capture_output=True, timeout=60)
    wait_until(result.exists, "the worker has verified")
    assert orjson.loads(result.read_bytes())["is_ok"] is True
    assert "stopped." in up.end(signal.SIGINT)
    assert up.processes() == []
