"""Does `kill -9` of a real ingest process lose or double anything?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from billing.models import AttemptRecord, JournalCursor, OpenIntent, RequestRecord, UsageByDay
from billing.verifying import verify
from gateway.journal import SegmentJournal
from tests import make

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

KILLS = 5
REQUESTS_A_ROUND = 1_000
MAX_WAIT_S = 20.0


def start(data_dir: Path, *arguments: str) -> subprocess.Popen[bytes]:
    database = connection.settings_dict
    environment = {
        **os.environ,
        "POINTSMAN_DATA_DIR": str(data_dir),
        # A socket's folder stands where the path begins: postgres://user@//folder/name.
        "DATABASE_URL": f"postgres://postgres@/{database['HOST']}/{database['NAME']}",
    }
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "ingest", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for_more_than(count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + MAX_WAIT_S
    while RequestRecord.objects.count() <= count:
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.02)


def test_killed_again_and_again_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    world, draw = make.world(), random.Random(7)
    journal = SegmentJournal(tmp_path, segment_bytes=300_000)
    answered, open_ids = 0, []
    for _ in range(KILLS):
        before = RequestRecord.objects.count()
        process = start(tmp_path)
        try:
            for line in make.request_lines(world):
                journal.append(line)
            answered += 1
            wait_for_more_than(before, process)
            # While it polls and stores what is being written, at a moment nobody chose.
            kill_at, waiting = draw.randrange(REQUESTS_A_ROUND), []
            for number in range(REQUESTS_A_ROUND):
                intent, outcome = make.request_lines(world)
                journal.append(intent)
                if number % 500 == 0:
                    open_ids.append(intent["id"])
                else:
                    waiting.append(outcome)
                    answered += 1
                if len(waiting) > 20:
                    journal.append(waiting.pop(draw.randrange(20)))
                if number % 5 == 0:
                    time.sleep(0.002)
                if number == kill_at:
                    process.send_signal(signal.SIGKILL)
            for outcome in waiting:
                journal.append(outcome)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    journal.close()

    process = start(tmp_path, "--once")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert RequestRecord.objects.filter(status="ok").count() == answered
    assert RequestRecord.objects.filter(status="interrupted").count() == len(open_ids)
    assert AttemptRecord.objects.count() == answered
    totals = UsageByDay.objects.aggregate(requests=Sum("request_count"), cost=Sum("cost_nanousd"))
    assert totals == {"requests": answered + len(open_ids), "cost": answered * make.COST_NANOUSD}
    assert (OpenIntent.objects.count(), JournalCursor.objects.count()) == (0, 0)
    assert not (tmp_path / "journal" / "rejected.jsonl").exists()
    assert verify(now=timezone.now()).differences == ()


def test_sigterm_ends_it_at_once_and_cleanly(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    for line in make.request_lines(make.world()):
        journal.append(line)
    process = start(tmp_path)
    try:
        wait_for_more_than(0, process)
        began_s = time.monotonic()
        process.terminate()
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    journal.close()
    assert process.returncode == 0, output
    assert time.monotonic() - began_s < 2.0
