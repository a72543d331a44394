"""How do journal lines become records? Tails the segments of all workers, batch by batch.

Reads: DATA_DIR/journal. Writes: records, rollups and open lines (through `storing`), journal_cursor;
DATA_DIR/journal/rejected.jsonl; DATA_DIR/run/ingest.json. Deletes segments and folders that are done with.

One transaction a batch holds rows and cursors, so a crash anywhere repeats a batch or does not, and repeating
changes nothing. Lines that cannot be stored are written to rejected.jsonl before the commit: after a crash they
may stand there twice, never not at all.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import gc
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson
from django.db import DatabaseError, InterfaceError, connection, transaction

from billing import journal_files, leasing, storing
from billing.journal_files import SourceLine
from billing.journal_lines import interrupted, read_intent
from billing.journal_reading import BATCH_BYTES, BATCH_LINES, Batch, JournalReader, ReadingAhead
from billing.journal_values import LineError
from billing.models import JournalCursor, OpenIntent
from billing.pairing import join_with_open
from billing.partitions import ensure_months, month_of
from billing.shadow_storing import store_shadows
from billing.storing import KnownIds, Pair, Refused

logger = logging.getLogger(__name__)

POLL_S = 0.2
IDLE_POLL_S = 0.4
IDLE_AFTER_S = 10.0
HOUSEKEEPING_S = 1.0
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.25, 5.0
# Clocks of several machines are never quite the same.
CLOCK_SKEW = dt.timedelta(hours=1)


@dataclass(slots=True)
class Counters:
    """What this process has done since it started."""

    line_count: int = 0
    record_count: int = 0
    rejected_count: int = 0
    batch_count: int = 0


class Ingested(NamedTuple):
    """Were there any lines, and are more waiting?"""

    has_worked: bool
    is_behind: bool


class Ingester:
    """Ingests one data directory. One process at a time: see `hold_lock`."""

    def __init__(
        self, data_dir: Path, *, batch_lines: int = BATCH_LINES, batch_bytes: int = BATCH_BYTES
    ) -> None:
        self.journal = data_dir / "journal"
        self._run = data_dir / "run"
        self._reader = JournalReader(self.journal, batch_lines=batch_lines, batch_bytes=batch_bytes)
        self._known = KnownIds()
        self.journal.mkdir(parents=True, exist_ok=True)
        self._home = journal_files.home_of(self.journal)
        self.counters = Counters()

    @contextmanager
    def hold_lock(self, stop: threading.Event) -> Iterator[bool]:
        """Be the only ingester of this data directory; wait for another to end. False: told to stop."""
        self.journal.mkdir(parents=True, exist_ok=True)
        with (self.journal / "ingester.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if stop.wait(POLL_S):
                        yield False
                        return
            yield True

    def run(self, stop: threading.Event) -> None:
        """Ingest until told to stop. While the database is away, wait and try again: nothing is lost."""
        backoff_s = FIRST_BACKOFF_S
        last_work_s = time.monotonic()
        housekeeping_due_s = 0.0
        while not stop.is_set():
            try:
                is_due = time.monotonic() >= housekeeping_due_s
                done = self._ingest(stop, within_s=HOUSEKEEPING_S)
                if is_due:
                    self._look_after_workers(stop)
                    housekeeping_due_s = time.monotonic() + HOUSEKEEPING_S
                    self.write_status()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("The database cannot be written, next try in %.1f s: %s", backoff_s, error)
                self.reset()
                stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                continue
            if backoff_s > FIRST_BACKOFF_S:
                logger.info("The database can be written again.")
                backoff_s = FIRST_BACKOFF_S
            if done.is_behind:
                continue
            now_s = time.monotonic()
            if done.has_worked:
                last_work_s = now_s
            stop.wait(POLL_S if now_s - last_work_s < IDLE_AFTER_S else IDLE_POLL_S)

    def reset(self) -> None:
        """Forget what was only in memory, the database connection included: the database is the truth."""
        self._reader.forget()
        self._known.forget()
        connection.close()

    def ingest_available(self, stop: threading.Event | None = None) -> bool:
        """Ingest all complete lines there are now and look after workers; say whether there were any lines.

        Raises DatabaseError.
        """
        done = self._ingest(stop, within_s=math.inf)
        self._look_after_workers(stop)
        return done.has_worked

    def _ingest(self, stop: threading.Event | None, *, within_s: float) -> Ingested:
        """Ingest what is there, batch after batch; when it is more than the time allows, leave the rest."""
        has_worked, ends_s = False, time.monotonic() + within_s
        # A batch makes a million objects and no cycles: there is nothing to collect in between.
        gc.disable()
        try:
            batch = self._reader.read()
            while batch.offsets and not (stop is not None and stop.is_set()):
                has_worked = True
                if not batch.is_full or time.monotonic() > ends_s:
                    self._store(batch)
                    return Ingested(has_worked, is_behind=batch.is_full)
                with self._reader.reading_behind(batch) as ahead:
                    self._store(batch, ahead)
                batch = ahead.batch()
        finally:
            gc.enable()
        return Ingested(has_worked, is_behind=False)

    def _look_after_workers(self, stop: threading.Event | None) -> None:
        for worker in journal_files.list_workers(self.journal):
            if stop is not None and stop.is_set():
                break
            self._look_after(worker)
        self._close_lost_leases()

    # Storing

    def _store(self, batch: Batch, ahead: ReadingAhead | None = None) -> None:
        matched = batch.matched
        pairs, refused = matched.pairs, batch.torn + matched.refused
        ensure_months({month_of(pair.intent.started_at) for pair in pairs})
        with transaction.atomic():
            more_pairs, closed_ids, kept_refused = join_with_open(matched.alone)
            refused += kept_refused
            ensure_months({month_of(pair.intent.started_at) for pair in more_pairs})
            count = self._store_pairs(pairs + more_pairs, refused, ahead)
            if matched.feedback:
                storing.store_feedback(matched.feedback)
            if matched.shadows:
                store_shadows(matched.shadows)
            if closed_ids:
                storing.forget_open(closed_ids)
            save_cursors(batch.offsets)
            self._reject(refused)
        self._reader.go_on_behind(batch)
        _say_ahead(pairs)
        self.counters.line_count += batch.line_count
        self.counters.batch_count += 1
        self.counters.record_count += count
        self.counters.rejected_count += len(refused)

    def _store_pairs(
        self, pairs: Sequence[Pair], refused: list[Refused], ahead: ReadingAhead | None = None
    ) -> int:
        """Store what can be stored, add the rest to `refused`; return how many requests were new."""
        usable, unknown = self._known.split(pairs)
        refused += [Refused(source, reason) for pair, reason in unknown for source in pair.sources]
        begin = None if ahead is None else ahead.begin
        count, by_database = storing.store_pairs(usable, meanwhile=begin)
        storing.store_failed_checks(usable)
        if by_database or unknown:
            self._known.forget()
        refused += by_database
        return count

    def _reject(self, refused: Iterable[Refused]) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        lines = [
            orjson.dumps(
                {
                    "at": now,
                    "worker": source.worker,
                    "segment": source.segment,
                    "reason": reason,
                    "line": source.raw.decode("utf-8", "backslashreplace"),
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for source, reason in refused
        ]
        if lines:
            logger.warning(
                "%d journal lines cannot be stored: see %s", len(lines), self.journal / "rejected.jsonl"
            )
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self.journal / "rejected.jsonl", flags, 0o600)
            try:
                with os.fdopen(descriptor, "ab", closefd=False) as file:
                    file.write(b"".join(lines))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    # Looking after workers

    def _look_after(self, worker: Path) -> None:
        """Take over a dead worker; delete a living one's segments that are read."""
        with journal_files.held_as_dead(worker) as is_dead:
            if is_dead:
                self._finish(worker)
                return
        segments = journal_files.list_segments(worker)
        for segment in segments[:-1]:
            path = journal_files.segment_path(worker, segment)
            if self._reader.offset_of(worker.name, segment) < journal_files.size_of(path):
                break
            # The file first: a cursor without a file is harmless, a file without a cursor is read again.
            path.unlink(missing_ok=True)
            JournalCursor.objects.filter(worker=worker.name, segment=segment).delete()

    def _finish(self, worker: Path) -> None:
        """Ingest the rest of a dead worker, close its open requests, remove it. May be repeated at any point."""
        while (batch := self._reader.read([worker], is_final=True)).offsets:
            self._store(batch)
        self._interrupt_open(worker.name)
        leasing.close_leases(worker.name)
        journal_files.remove_segments(worker)
        JournalCursor.objects.filter(worker=worker.name).delete()
        self._reader.forget(worker.name)
        journal_files.remove_folder(worker)
        logger.info("Worker %s has ended; its journal is ingested and removed.", worker.name)

    def _close_lost_leases(self) -> None:
        """Close leases that were taken by the last breath of a worker whose folder is done with."""
        for worker in leasing.list_expired_workers(self._home):
            if not (self.journal / worker).exists():
                leasing.close_leases(worker)

    def _interrupt_open(self, worker: str) -> None:
        """Turn what a dead worker left open into `interrupted` records: usage and cost unknown, never nothing."""
        pairs: list[Pair] = []
        refused: list[Refused] = []
        rows = list(OpenIntent.objects.filter(worker=worker).values_list("id", "line"))
        for _, line in rows:
            source = SourceLine(worker, 0, orjson.dumps(line))
            try:
                intent = read_intent(line)
                pairs.append(Pair(intent, interrupted(intent), (source,)))
            except LineError:
                refused.append(Refused(source, "an outcome whose intent never came"))
        if not rows:
            return
        ensure_months({month_of(pair.intent.started_at) for pair in pairs})
        with transaction.atomic():
            count = self._store_pairs(pairs, refused)
            storing.forget_open([row_id for row_id, _ in rows])
            self._reject(refused)
        self.counters.record_count += count
        self.counters.rejected_count += len(refused)
        logger.warning("%d requests were interrupted when worker %s died.", count, worker)

    # Telling

    def behind_bytes(self) -> int:
        """Bytes that are written and not ingested."""
        behind = 0
        for worker in journal_files.list_workers(self.journal):
            for segment in journal_files.list_segments(worker):
                size = journal_files.size_of(journal_files.segment_path(worker, segment))
                behind += max(0, size - self._reader.offset_of(worker.name, segment))
        return behind

    def write_status(self) -> None:
        """Write DATA_DIR/run/ingest.json for the console and /metrics."""
        self._run.mkdir(parents=True, exist_ok=True)
        status = {
            "pid": os.getpid(),
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "lines": self.counters.line_count,
            "records": self.counters.record_count,
            "rejected": self.counters.rejected_count,
            "batches": self.counters.batch_count,
            "behind_bytes": self.behind_bytes(),
        }
        temporary = self._run / "ingest.json.new"
        temporary.write_bytes(orjson.dumps(status))
        temporary.replace(self._run / "ingest.json")


def _say_ahead(pairs: Sequence[Pair]) -> None:
    """Say that a worker's clock is wrong. Its requests are kept at the time that it said: nothing is lost."""
    now = dt.datetime.now(dt.UTC)
    ahead = [began for pair in pairs if (began := pair.intent.started_at) > now + CLOCK_SKEW]
    if ahead:
        logger.warning(
            "%d requests began after now, by up to %s: a clock is wrong; they are recorded at the time it said.",
            len(ahead),
            f"{days} days" if (days := (max(ahead) - now + CLOCK_SKEW).days) else "a day",
        )


def save_cursors(offsets: Mapping[tuple[str, int], int]) -> None:
    """Move the cursors of a batch, in its transaction."""
    keys = list(offsets)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_journalcursor (worker, segment, offset_bytes, updated_at)"
            " SELECT *, now() FROM unnest(%s::text[], %s::int[], %s::bigint[])"
            " ON CONFLICT (worker, segment)"
            " DO UPDATE SET offset_bytes = excluded.offset_bytes, updated_at = excluded.updated_at",
            [
                [worker for worker, _ in keys],
                [segment for _, segment in keys],
                [offsets[key] for key in keys],
            ],
        )
