"""How does a worker come by its shares of rate limits? One thread between the `ShareBook` and the database.

Reads: rate_limit. Writes: rate_window, each row under its lock, all that a worker has to tell at once in one
transaction, rows by id. The thread sleeps, without a database connection, until a limited request comes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping

from django.db import DatabaseError, InterfaceError, connection, transaction

from gateway.dataplane.rate_limits import ShareBook
from gateway.dataplane.rate_windows import Answer, Limits, Report, Window, settle

logger = logging.getLogger(__name__)

# A database that takes longer does not answer: requests wait for this.
STATEMENT_TIMEOUT_MS = 1_500
CLOSE_S = 5.0


class ShareKeeper:
    """Asks the database for one worker's book. Made on the event loop on which the book lives."""

    def __init__(self, *, worker: str, worker_count: int) -> None:
        self.book = ShareBook(worker=worker, worker_count=worker_count, send=self._send)
        self._loop = asyncio.get_running_loop()
        self._questions: queue.SimpleQueue[dict[int, Report] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rate limits", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Tell what was taken, give back the rest, and end."""
        self._send(self.book.close())
        self._questions.put(None)
        self._thread.join(timeout=CLOSE_S)

    def _send(self, reports: dict[int, Report]) -> None:
        self._questions.put(reports)

    def _run(self) -> None:
        is_open = True
        while is_open:
            question = self._questions.get()
            reports: dict[int, Report] = {}
            while question is not None:
                # The book asks one question about a limit at a time, so nothing is lost here; the last one may follow.
                reports.update(question)
                try:
                    question = self._questions.get_nowait()
                except queue.Empty:
                    break
            else:
                is_open = False
            if reports:
                self._ask(reports)
        connection.close()

    def _ask(self, reports: dict[int, Report]) -> None:
        book, sent_at_s = self.book, self.book.now_s()
        try:
            answers = settle_all(reports)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Rate limits cannot be read: %s", str(error).strip().partition("\n")[0])
            connection.close()
        except Exception:
            # An edge: without this thread every limited request would wait for an answer that never comes.
            logger.exception("rate limits cannot be kept")
            connection.close()
        else:
            self._tell(lambda: book.receive(answers, sent_at_s))
            return
        self._tell(lambda: book.receive_nothing(reports))

    def _tell(self, news: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(news)
        except RuntimeError:
            return  # the loop has ended, and with it all requests


def settle_all(reports: Mapping[int, Report]) -> dict[int, Answer | None]:
    """Settle each report with its limit's row. Raises DatabaseError; then nothing is written."""
    answers: dict[int, Answer | None] = dict.fromkeys(reports)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        cursor.execute(
            "SELECT w.rate_limit_id, l.requests_per_minute, l.tokens_per_minute, l.concurrent, w.state,"
            " extract(epoch FROM clock_timestamp())::float8"
            " FROM policies_ratewindow w JOIN policies_ratelimit l ON l.id = w.rate_limit_id"
            " WHERE w.rate_limit_id = ANY(%s) ORDER BY w.rate_limit_id FOR UPDATE OF w",
            [sorted(reports)],
        )
        written = []
        for limit_id, requests, tokens, concurrent, state, now_s in cursor.fetchall():
            window = Window.of(json.loads(state) if isinstance(state, str) else state)
            answers[limit_id] = settle(
                window, reports[limit_id], Limits(requests, tokens, concurrent), now_s=now_s
            )
            written.append((json.dumps(window.as_json()), limit_id))
        cursor.executemany("UPDATE policies_ratewindow SET state = %s WHERE rate_limit_id = %s", written)
    return answers
