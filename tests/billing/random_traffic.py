"""What is written into journals over three months, and how does it arrive? Part of a random world.

Journals of living and dying workers, read by the real ingester: lines out of order, late, twice, torn; outcomes that
come days later or never; ingesters that die over it. What a request costs is worked out by `oracle_charges`, as a
gateway would have written it.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from django.db import connection, transaction

from billing.ingesting import Ingester
from gateway.journal import SegmentJournal
from tests import make
from tests.billing.oracle_books import Attempt, Books, Request
from tests.billing.oracle_charges import cost_lines, find_price


class _Killed(Exception):
    """The ingester dies before its transaction is committed."""


class RandomTraffic:
    """Requests of some keys at some deployments, none before `first_at`."""

    def __init__(
        self,
        dice: random.Random,
        data_dir: Path,
        books: Books,
        *,
        keys: list[tuple[make.World, int]],
        first_at: dt.datetime,
    ) -> None:
        self.random = dice
        self.data_dir = data_dir
        self.books = books
        self.keys = keys
        self.first_at = first_at
        self.deployments = list(books.models)
        self.journal: SegmentJournal | None = None
        self.open: dict[str, tuple[Request, dict[str, Any]]] = {}  # intents whose outcome is to come
        self.written: list[Request] = []  # both lines are there, and not ingested yet
        self.copies: list[dict[str, Any]] = []  # what was written, and may come a second time

    def make(self, now: dt.datetime) -> None:
        """Write some requests into the journal, out of order and twice, and let them be ingested, or not yet."""
        for _ in range(self.random.randint(1, 8)):
            if self.journal is None:
                self.journal = SegmentJournal(self.data_dir, segment_bytes=6_000)
            request, intent, outcome = self._request(now)
            kind = self.random.random()
            if kind < 0.2:
                self._write(intent)
                self.open[request.id] = request, outcome
                continue
            lines = [intent, outcome] if kind < 0.6 else [outcome, intent]
            if kind > 0.9 and self.copies:
                lines.append(self.random.choice(self.copies))
            self._write(lines.pop(0))
            if self.random.random() < 0.3:
                self.ingest()
            for line in lines:
                self._write(line)
            self.written.append(request)
        for request_id in [one for one in self.open if self.random.random() < 0.3]:
            self._answer(request_id)
        if self.random.random() < 0.7:
            self.ingest()
        if self.random.random() < 0.2:
            self.settle(is_orderly=self.random.random() < 0.5)

    def settle(self, *, is_orderly: bool = True) -> None:
        """End the worker: with all its answers, or suddenly; then another one comes with some lines again."""
        if self.journal is None:
            return
        if is_orderly:
            for request_id in list(self.open):
                self._answer(request_id)
        else:
            segment = max(self.journal.folder.glob("*.jsonl"))
            with segment.open("ab") as file:
                file.write(orjson.dumps(self.random.choice(self.copies))[:-9])
        self.journal.close()
        self.journal = None
        died = [request for request, _ in self.open.values()]
        self.open.clear()
        self.ingest()
        for request in died:
            self.books.record(request._replace(attempts=()))
        if self.random.random() < 0.5:
            again = SegmentJournal(self.data_dir)
            for line in self.random.sample(self.copies, len(self.copies) // 2):
                again.append(line)
            again.close()
            self.ingest()

    def ingest(self) -> None:
        """Let an ingester take what is there; now and then one dies over it first."""
        if self.random.random() < 0.2:
            with suppress(_Killed), transaction.atomic():
                Ingester(self.data_dir)._ingest(None, within_s=math.inf)  # the lines alone: files stay
                raise _Killed
        Ingester(self.data_dir).ingest_available()
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")  # as `make.ingest`
        for request in self.written:
            self.books.record(request)
        self.written.clear()

    def _answer(self, request_id: str) -> None:
        request, outcome = self.open.pop(request_id)
        self._write(outcome)
        self.written.append(request)

    def _write(self, line: dict[str, Any]) -> None:
        assert self.journal is not None
        self.journal.append(line)
        self.copies.append(line)

    def _request(self, now: dt.datetime) -> tuple[Request, dict[str, Any], dict[str, Any]]:
        draw = self.random
        world, key = draw.choice(self.keys)
        at = now - dt.timedelta(milliseconds=draw.randint(0, 80_000_000))
        if draw.random() < 0.2:
            at -= dt.timedelta(days=draw.randint(0, 45))
        if draw.random() < 0.1:
            at = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            at -= dt.timedelta(milliseconds=draw.choice((0, 1)))
        at = max(at, self.first_at)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        attempts = []
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            deployment = draw.choice(self.deployments)
            attempts.append(Attempt(deployment, self._usage(), find_price(self.books.prices, deployment, at)))
        for place in range(len(attempts) - 1):
            if draw.random() < 0.5:
                attempts[place] = attempts[place]._replace(usage=None)
        request_id = make.request_id_at(at)
        request = Request(request_id, world.tenant.pk, key, at, tuple(attempts))
        intent = make.intent_line(world, request_id, key=key)
        if draw.random() < 0.1:
            intent |= {"policy": None, "version": None, "pinned": True,
                       "features": {"shadow_of": make.request_id_at(at)}}  # fmt: skip
        return request, intent, _outcome(world, request, draw.choice(("ok", "ok", "error", "cancelled")))

    def _usage(self) -> dict[str, Any]:
        draw = self.random
        if draw.random() < 0.05:
            return make.usage_line(kind="unknown", input=None, output=None, cache_read=0)
        sent, made = draw.choice((0, 1, 900, 901, 5000, 5001, 12345)), draw.choice((0, 1, 300, 301, 777))
        written = draw.choice((0, 0, sent // 4))
        more = {"cache_write_1h": written // draw.choice((1, 3)), "searches": draw.choice((0, 2))}
        more = {name: count for name, count in more.items() if count}
        if draw.random() < 0.4:
            more |= {"images": draw.choice((0, 1, 3)), "audio_s": draw.choice((0, 1, 59))}
            more |= {"image_in": draw.choice((0, sent // 3)), "image_out": draw.choice((0, made // 2))}
        return make.usage_line(
            kind=draw.choice(("reported", "reported", "estimated")), input=sent, output=made,
            cache_read=draw.choice((0, sent // 3)), cache_write=written, reasoning=draw.choice((0, 0, made // 2)),
            audio_in=draw.choice((0, 0, sent // 5)), audio_out=draw.choice((0, 0, made // 4)),
            tier=draw.choice(("", "", "flex", "priority")), **more,
        )  # fmt: skip


def _outcome(world: make.World, request: Request, status: str) -> dict[str, Any]:
    attempts: list[dict[str, Any]] = []
    for number, one in enumerate(request.attempts, start=1):
        price = one.price if one.is_measured else None
        cost = None
        if price is not None and one.usage is not None:
            cost = sum(line.nanousd for line in cost_lines(one.usage, price.rates, request.at))
        attempts.append({
            "n": number, "deployment": one.deployment, "outcome": "ok", "http": 200, "error": "", "message": "",
            "upstream_id": "", "at": 0.1, "first": 1.0, "ms": 3.0, "usage": one.usage,
            "price": None if price is None else price.id, "cost": cost,
        })  # fmt: skip
    last = attempts[-1]
    cost = None if request.is_unpriced or request.is_unknown else sum(one["cost"] or 0 for one in attempts)
    return make.outcome_line(
        world, request.id, status=status, usage=last["usage"], price=last["price"], cost=cost,
        unpriced=request.is_unpriced, deployment=last["deployment"], attempts=attempts,
    )  # fmt: skip
