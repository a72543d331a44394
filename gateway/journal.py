"""Where is every request written down before anything else happens? The durable journal, write side.

Writes: DATA_DIR/journal/WORKER/NNNNNNNN.jsonl, and the lock file beside it. Its lines: billing/README.md.
A line is one `write` to a file opened for appending: when it returns, `kill -9` cannot lose it. A power cut can
lose what the kernel had not written yet; `sync` runs every second on a thread for that.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

SEGMENT_BYTES = 16 * 1024 * 1024
SYNC_INTERVAL_S = 1.0
MIN_FREE_BYTES = 1024 * 1024


class JournalError(Exception):
    """A line could not be written (disk full, folder gone). The request must not go on."""


class SegmentJournal:
    """Append-only segment files of one worker process. Not for use from several threads."""

    def __init__(self, data_dir: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.worker = f"{os.getpid()}-{secrets.token_hex(6)}"
        self.folder = data_dir / "journal" / self.worker
        self.folder.mkdir(parents=True)
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._segment_bytes = segment_bytes
        self._segment = 0
        self._descriptor = -1
        self._written = 0
        self._is_torn = False
        self.line_count = 0
        self._open_next()
        self._stopping = threading.Event()
        self._syncer = threading.Thread(target=self._sync_regularly, name="journal-sync", daemon=True)
        self._syncer.start()

    def append(self, line: Mapping[str, Any], /) -> None:
        """Write one line; it survives `kill -9` when this returns. Raises JournalError when it cannot."""
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if self._is_torn:
            # A full disk took half a line. The newline before this one keeps them apart: the reader rejects the
            # torn line and reads on.
            data = b"\n" + data
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise JournalError(f"the journal cannot be written: {error.strerror}") from error
        self._written += written
        if written != len(data):
            self._is_torn = True
            raise JournalError("the journal's disk is full")
        self._is_torn = False
        self.line_count += 1
        if self._written >= self._segment_bytes:
            # The line is written: when no new file can be made, the old one grows on.
            with suppress(OSError):
                self._open_next()

    def has_room(self) -> bool:
        """Whether lines can be written: the disk is there and not full. Asked by readiness checks, not by requests."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize >= MIN_FREE_BYTES

    def close(self) -> None:
        """Let go of the lock: from here on the ingester takes the folder as a finished worker's."""
        self._stopping.set()
        self._syncer.join()
        os.fdatasync(self._descriptor)
        os.close(self._descriptor)
        self._lock.close()

    def _open_next(self) -> None:
        path = self.folder / f"{self._segment + 1:08d}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._segment += 1
        previous, self._descriptor, self._written = self._descriptor, descriptor, 0
        if previous >= 0:
            os.close(previous)

    def _sync_regularly(self) -> None:
        while not self._stopping.wait(SYNC_INTERVAL_S):
            try:
                self._sync_once()
            except OSError:
                continue  # the writer meets the same error and reports it

    def _sync_once(self) -> None:
        # A duplicate stays valid while the writer moves on to the next segment.
        duplicate = os.dup(self._descriptor)
        try:
            os.fdatasync(duplicate)
        finally:
            os.close(duplicate)
