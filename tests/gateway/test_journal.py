"""A line is there when `append` returns, in order, in files that rotate."""

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from gateway.journal import JournalError, SegmentJournal


def read_lines(journal):
    return [
        json.loads(line)
        for path in sorted(journal.folder.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_lines_are_written_in_order_over_several_segments(tmp_path):
    journal = SegmentJournal(tmp_path, segment_bytes=200)
    for number in range(50):
        journal.append({"k": "intent", "n": number})
    assert [line["n"] for line in read_lines(journal)] == list(range(50))
    assert len(list(journal.folder.glob("*.jsonl"))) > 2
    journal.close()


def test_the_lock_tells_whether_the_worker_lives(tmp_path):
    journal = SegmentJournal(tmp_path)
    with (journal.folder / "lock").open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    journal = SegmentJournal(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._descriptor)
    with pytest.raises(JournalError):
        journal.append({"k": "intent"})
    os.close(full)


def test_a_journal_tells_whether_its_disk_has_room(tmp_path, monkeypatch):
    journal = SegmentJournal(tmp_path)
    assert journal.has_room()
    disk = os.statvfs(tmp_path)
    blocks_kept = (1024 * 1024 - 1) // disk.f_frsize
    full = os.statvfs_result((*disk[:4], blocks_kept, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda folder: full)
    assert not journal.has_room()
    monkeypatch.undo()
    shutil.rmtree(journal.folder)
    assert not journal.has_room()


def test_kill_9_loses_no_line_that_was_acknowledged(tmp_path):
    program = (
        "import sys; from pathlib import Path; from gateway.journal import SegmentJournal\n"
        "journal = SegmentJournal(Path(sys.argv[1]), segment_bytes=5000)\n"
        "for number in range(10**9):\n"
        "    journal.append({'n': number}); sys.stdout.write(f'{number}\\n'); sys.stdout.flush()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    acknowledged = [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    process.stdout.close()
    written = [
        json.loads(line)["n"]
        for path in sorted((tmp_path / "journal").glob("*/*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert len(acknowledged) > 10
    assert set(acknowledged) <= set(written)
    assert written == sorted(set(written))


def test_a_line_torn_by_a_full_disk_takes_no_other_line_with_it(tmp_path):
    journal = SegmentJournal(tmp_path)
    journal.append({"n": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # the second line finds room for half of it
    try:
        for _ in range(3):
            with pytest.raises(JournalError):
                journal.append({"n": 2, "text": "x" * 50})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append({"n": 3})
    journal.append({"n": 4})
    lines = next(journal.folder.glob("*.jsonl")).read_text().splitlines()
    assert [line for line in lines if line.endswith("}")] == ['{"n":1}', '{"n":3}', '{"n":4}']
    assert len(lines) == 4
    journal.close()


def test_a_segment_that_cannot_be_opened_harms_no_line(tmp_path):
    journal = SegmentJournal(tmp_path, segment_bytes=10)
    (journal.folder / "00000002.jsonl").mkdir()
    for number in range(3):
        journal.append({"number": number})
    (journal.folder / "00000002.jsonl").rmdir()
    journal.append({"number": 3})
    journal.append({"number": 4})
    assert [line["number"] for line in read_lines(journal)] == [0, 1, 2, 3, 4]
    journal.close()
