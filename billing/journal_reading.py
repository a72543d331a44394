"""What is to be ingested next? The segments of all workers -> batches of checked lines, each with its cursors.

Reads: DATA_DIR/journal, journal_cursor.

Checking lines needs Python; storing them waits for PostgreSQL once all rows have been written to it. In that time a
thread reads what comes behind a full batch, begins where that batch ends, and is forgotten when it cannot be stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from billing import journal_files
from billing.journal_files import SourceLine
from billing.models import JournalCursor
from billing.pairing import Matched, match_lines
from billing.storing import Refused

logger = logging.getLogger(__name__)

BATCH_LINES: Final = 10_000
BATCH_BYTES: Final = 8 * 1024 * 1024
READ_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Batch:
    """What the lines of any workers hold, and how far each (worker, segment) is read when it is stored, in bytes."""

    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    matched: Matched = field(default_factory=lambda: Matched([], [], [], [], []))
    torn: list[Refused] = field(default_factory=list)
    line_count: int = 0
    is_full: bool = False


class ReadingAhead:
    """The batch behind another one, read by a thread. Begun too early, it would only take Python from the storing."""

    def __init__(self, submit: Callable[[], Future[Batch]]) -> None:
        self._submit = submit
        self._future: Future[Batch] | None = None

    def begin(self) -> None:
        """Read it now. May be called again."""
        if self._future is None:
            self._future = self._submit()

    def batch(self) -> Batch:
        """What was read, when it is."""
        assert self._future is not None
        return self._future.result()


class JournalReader:
    """Reads one data directory's journal, and remembers how far it is stored."""

    def __init__(
        self, journal: Path, *, batch_lines: int = BATCH_LINES, batch_bytes: int = BATCH_BYTES
    ) -> None:
        self._journal = journal
        self._batch_lines = batch_lines
        self._batch_bytes = batch_bytes
        self._stored: dict[str, dict[int, int]] = {}
        self._turn = 0

    def offset_of(self, worker: str, segment: int) -> int:
        """How far a segment is stored, in bytes."""
        offsets = self._stored.get(worker)
        if offsets is None:
            rows = JournalCursor.objects.filter(worker=worker).values_list("segment", "offset_bytes")
            offsets = self._stored[worker] = dict(rows)
        return offsets.get(segment, 0)

    def go_on_behind(self, batch: Batch) -> None:
        """Remember that a batch is stored."""
        for (worker, segment), offset in batch.offsets.items():
            self._stored.setdefault(worker, {})[segment] = offset

    def forget(self, worker: str | None = None) -> None:
        """Ask the database again how far is stored: of one worker, or of all."""
        if worker is None:
            self._stored.clear()
        else:
            self._stored.pop(worker, None)

    def read(self, workers: Sequence[Path] | None = None, *, is_final: bool = False) -> Batch:
        """The next lines, of all workers if none are named. Final: nobody writes these any more."""
        return self._read(
            journal_files.list_workers(self._journal) if workers is None else workers, {}, is_final
        )

    @contextmanager
    def reading_behind(self, batch: Batch) -> Iterator[ReadingAhead]:
        """Read what follows a batch while that is stored, from when `begin` is called; at the end it is read."""
        workers = journal_files.list_workers(self._journal)
        for worker in workers:
            self.offset_of(worker.name, 0)  # Asked here: the thread has no connection to the database.
        with ThreadPoolExecutor(1, "journal") as thread:
            ahead = ReadingAhead(lambda: thread.submit(self._read, workers, dict(batch.offsets), False))
            yield ahead
            ahead.begin()

    def _read(self, workers: Sequence[Path], begun: Mapping[tuple[str, int], int], is_final: bool) -> Batch:
        """Another worker begins each time, so that a busy one cannot starve the others."""
        batch, lines = Batch(), _Lines(self._batch_lines, self._batch_bytes)
        self._turn += 1
        for position in range(len(workers)):
            worker = workers[(position + self._turn) % len(workers)]
            segments = journal_files.list_segments(worker)
            for segment in segments:
                start = begun.get((worker.name, segment))
                if start is None:
                    start = self.offset_of(worker.name, segment)
                # Listed before it is read: once a later segment is there, this one grows no more.
                is_closed = is_final or segment != segments[-1]
                if not _read_segment(batch, lines, worker, segment, start, is_closed):
                    break
            if lines.is_full:
                break
        batch.matched = match_lines(lines.found)
        batch.line_count, batch.is_full = len(lines.found), lines.is_full
        return batch


class _Lines:
    """Lines until there are enough of them."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.found: list[SourceLine] = []
        self._max_count = max_count
        self._room_bytes = max_bytes

    @property
    def is_full(self) -> bool:
        return len(self.found) >= self._max_count or self._room_bytes <= 0

    def read_chunk(self, path: Path, offset_bytes: int, source: tuple[str, int]) -> int:
        """Add what one read gives; return the offset behind it: the same when there is no complete line."""
        chunk = journal_files.read_chunk(
            path, offset_bytes, max_bytes=READ_BYTES, max_lines=self._max_count - len(self.found)
        )
        if not chunk.lines:
            return offset_bytes
        self.found += [SourceLine(*source, raw) for raw in chunk.lines]
        self._room_bytes -= chunk.end_bytes - offset_bytes
        return chunk.end_bytes


def _read_segment(
    batch: Batch, lines: _Lines, worker: Path, segment: int, start_bytes: int, is_closed: bool
) -> bool:
    """Add a segment's new lines; say whether all of it is read."""
    path = journal_files.segment_path(worker, segment)
    offset = start_bytes
    size = journal_files.size_of(path)
    while offset < size and not lines.is_full:
        end = lines.read_chunk(path, offset, (worker.name, segment))
        if end == offset:
            if is_closed:
                tail = journal_files.read_tail(path, offset)
                batch.torn.append(Refused(SourceLine(worker.name, segment, tail), "torn line"))
                logger.warning("%s/%d ends in a torn line, which is skipped", worker.name, segment)
                offset += len(tail)
            break
        offset = end
    if offset != start_bytes:
        batch.offsets[worker.name, segment] = offset
    return offset >= size
