"""Which journal files are there, who still writes them, and what is new in them?

Reads: DATA_DIR/journal (written by gateway/journal.py; form: billing/README.md). Deletes what is ingested.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

LOCK_NAME: Final = "lock"
HOME_NAME: Final = "home"
# A worker makes its folder, then the lock, then takes it: younger folders without segments are left alone.
GRACE_S: Final = 60.0
MAX_WORKER_NAME: Final = 80


class SourceLine(NamedTuple):
    """One line and where it came from, for the rejects file."""

    worker: str
    segment: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Complete lines of one segment, and the offset behind them."""

    lines: list[bytes]
    end_bytes: int


def list_workers(journal: Path) -> list[Path]:
    """The workers' folders, by name."""
    try:
        with os.scandir(journal) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [journal / name for name in sorted(names) if len(name) <= MAX_WORKER_NAME]


def home_of(journal: Path) -> str:
    """The lasting name of a data directory: machines may share a database, and host names change."""
    path = journal / HOME_NAME
    with suppress(FileExistsError):
        # Linked whole, so that nobody reads half of it.
        own = journal / f".{HOME_NAME}-{secrets.token_hex(8)}"
        if not path.exists():
            own.write_text(secrets.token_hex(16))
            try:
                os.link(own, path)
            finally:
                own.unlink()
    return path.read_text()


def list_segments(worker: Path) -> list[int]:
    """The numbers of a worker's segments, in the order they were written."""
    try:
        with os.scandir(worker) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    numbers = [name[:-6] for name in names if name.endswith(".jsonl")]
    return sorted(int(n) for n in numbers if len(n) == 8 and n.isascii() and n.isdigit())


def segment_path(worker: Path, segment: int) -> Path:
    """Where a segment lies."""
    return worker / f"{segment:08d}.jsonl"


def size_of(path: Path) -> int:
    """A file's size in bytes, 0 when it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_chunk(path: Path, offset_bytes: int, *, max_bytes: int, max_lines: int) -> Chunk:
    """Read complete lines from an offset on. A last line without its newline waits.

    A line longer than `max_bytes` is read whole all the same: nothing could be read behind it otherwise.
    """
    try:
        with path.open("rb") as file:
            while True:
                file.seek(offset_bytes)
                data = file.read(max_bytes)
                end = data.rfind(b"\n")
                if end >= 0 or len(data) < max_bytes:
                    break
                max_bytes *= 2
    except FileNotFoundError:
        return Chunk([], offset_bytes)
    if end < 0:
        return Chunk([], offset_bytes)
    lines = data[:end].split(b"\n")
    if len(lines) > max_lines:
        del lines[max_lines:]
        return Chunk(lines, offset_bytes + sum(map(len, lines)) + len(lines))
    return Chunk(lines, offset_bytes + end + 1)


def read_tail(path: Path, offset_bytes: int) -> bytes:
    """What follows the last newline: the torn line of a writer that is gone."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset_bytes)
        return file.read()
    return b""


@contextmanager
def held_as_dead(worker: Path) -> Iterator[bool]:
    """Say whether a worker is dead, and keep its lock while its folder is taken over."""
    try:
        descriptor = os.open(worker / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Being made, half deleted, or copied here without its lock.
        yield _is_old(worker)
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # Whoever has a segment had the lock once; without one it may be about to take it.
        yield bool(list_segments(worker)) or _is_old(worker)
    finally:
        os.close(descriptor)


def remove_segments(worker: Path) -> None:
    """Delete a dead worker's segments. Its cursors may go next, and then its folder."""
    for segment in list_segments(worker):
        segment_path(worker, segment).unlink(missing_ok=True)


def remove_folder(worker: Path) -> None:
    """Delete what is left of a dead worker; a folder that holds something unknown stays."""
    (worker / LOCK_NAME).unlink(missing_ok=True)
    with suppress(OSError):
        worker.rmdir()


def _is_old(worker: Path) -> bool:
    try:
        return time.time() - worker.stat().st_mtime > GRACE_S
    except FileNotFoundError:
        return False
