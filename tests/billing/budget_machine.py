"""Budgets under everything that can happen, step by step: real workers' memory, real SQL, the real ingester.

A model beside them knows what every request cost or may have cost. At every instant that must fit into the limit, and
at the end the windows must say exactly that.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from django.db import connection
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from billing import budgets, leasing
from billing.budget_scopes import terms_of
from billing.ingesting import Ingester
from billing.models import BudgetLease, BudgetWindow, RequestRecord
from gateway.budget_leases import LeaseKeeper
from gateway.dataplane.budgets import BudgetShortError, Hold, LeaseBook
from policies.snapshot import BudgetTerms
from tests.make import intent_line, outcome_line, request_id_at, usage_line, world

START = dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC)  # the night in which Berlin's clocks go forward is near
DAY_S = 86_400.0
SHARE = st.one_of(st.none(), st.integers(0, 100))
STATE = """
SELECT budget_id, extract(epoch FROM starts_at)::bigint, limit_nanousd, spent_nanousd + uncertain_nanousd,
    leased_nanousd, (SELECT coalesce(sum(greatest(0, amount_nanousd - settled_nanousd)), 0)
                     FROM billing_budgetlease l WHERE l.window_id = w.id)
FROM billing_budgetwindow w WHERE budget_id = ANY(%s)
"""


@dataclass(eq=False)
class Request:
    """What the model knows of one request. `cost` None: nobody knows."""

    id: str
    worker: SimulatedWorker
    hold: Hold
    # Of the budget of its model, and of its deployment.
    model_hold: Hold
    deployment_hold: Hold
    held: int
    windows: list[tuple[int, int]]
    cost: int | None = None
    is_ended: bool = False


@dataclass(eq=False)
class SimulatedWorker:
    name: str
    folder: Path
    book: LeaseBook
    keeper: LeaseKeeper
    lock: Any
    # Written already as far as the worker knows; the reader gets them in any order, some twice.
    lines: list[dict[str, Any]] = field(default_factory=list)
    segment: int = 0

    def write(self, count: int, order: int, *, is_doubled: bool) -> None:
        chosen, self.lines = self.lines[:count], self.lines[count:]
        if chosen:
            turn = order % len(chosen)
            chosen = chosen[turn:] + chosen[:turn]
            if is_doubled:  # and once more with what follows
                self.lines += chosen
        with (self.folder / "00000001.jsonl").open("ab") as file:
            file.write(b"".join(orjson.dumps(line) + b"\n" for line in chosen))


class BudgetMachine(RuleBasedStateMachine):
    @initialize(
        limit=st.integers(50, 3_000),
        second_limit=st.integers(50, 5_000),
        model_limit=st.integers(50, 5_000),
        deployment_limit=st.integers(50, 5_000),
    )
    def begin(self, limit: int, second_limit: int, model_limit: int, deployment_limit: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pmbudget-"))
        self.world = world()
        self.world.tenant.time_zone = "Europe/Berlin"
        self.world.tenant.save()
        made = [
            budgets.create_budget(
                tenant=self.world.tenant, window="day", limit_nanousd=limit, actor="a test", now=START
            ),
            budgets.create_budget(
                tenant=self.world.tenant,
                api_key=self.world.key,
                window="total",
                limit_nanousd=second_limit,
                actor="a test",
                now=START,
            ),
            budgets.create_budget(
                tenant=self.world.tenant,
                model=self.world.deployment.model,
                window="week",
                limit_nanousd=model_limit,
                actor="a test",
                now=START,
            ),
            budgets.create_budget(
                deployment=self.world.deployment,
                window="day",
                limit_nanousd=deployment_limit,
                actor="a test",
                now=START,
            ),
        ]
        self.budget_ids = [budget.pk for budget in made]
        self.terms = tuple(terms_of(budget) for budget in made[:2])
        self.model_terms = (terms_of(made[2]),)
        self.deployment_terms = (terms_of(made[3]),)
        self.unix_s = START.timestamp()
        self.monotonic_s = 100.0
        self.loop = asyncio.new_event_loop()
        self.ingester = Ingester(self.folder)
        self.worker_count = 0
        self.workers = [self._new_worker() for _ in range(2)]
        self.requests: list[Request] = []

    def _new_worker(self) -> SimulatedWorker:
        self.worker_count += 1
        name = f"{self.worker_count}-test{self.world.tenant.pk}"
        folder = self.folder / "journal" / name
        folder.mkdir(parents=True)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "00000001.jsonl").touch()
        book = LeaseBook(now_s=lambda: self.monotonic_s)
        keeper = LeaseKeeper(book, leasing.WorkerName(self.ingester._home, name))
        return SimulatedWorker(name, folder, book, keeper, lock)

    def _open(self) -> list[Request]:
        return [request for request in self.requests if not request.is_ended]

    # What can happen

    @rule(asked=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 400)), min_size=1, max_size=5))
    def admit_and_hold(self, asked: list[tuple[int, int]]) -> None:
        for place, nanousd in asked:
            self._admit(self.workers[place], nanousd)

    def _admit(self, worker: SimulatedWorker, nanousd: int) -> None:
        hold = self._hold(worker, self.terms, nanousd)
        if hold is None:
            return
        model_hold = self._hold(worker, self.model_terms, nanousd)
        if model_hold is None:
            worker.book.settle(hold, 0)
            return
        deployment_hold = self._hold(worker, self.deployment_terms, nanousd)
        if deployment_hold is None:
            worker.book.settle(hold, 0)
            worker.book.settle(model_hold, 0)
            return
        request_id = request_id_at(dt.datetime.fromtimestamp(self.unix_s, dt.UTC))
        parts = [*hold.parts, *model_hold.parts, *deployment_hold.parts]
        windows = [(lease.budget_id, lease.span.starts_unix_s) for lease, _ in parts]
        assert [budget_id for budget_id, _ in windows] == self.budget_ids
        request = Request(request_id, worker, hold, model_hold, deployment_hold, nanousd, windows)
        model_id, deployment_id = self.world.deployment.model_id, self.world.deployment.pk
        leases = {
            "leases": hold.lease_ids(),
            "model_leases": [[lease_id, model_hold.nanousd, model_id] for lease_id in model_hold.lease_ids()],
            "deployment_leases": [
                [lease_id, deployment_hold.nanousd, deployment_id] for lease_id in deployment_hold.lease_ids()
            ],
        }
        worker.lines.append(intent_line(self.world, request_id, hold=hold.nanousd, **leases))
        self.requests.append(request)

    def _hold(self, worker: SimulatedWorker, terms: tuple[BudgetTerms, ...], nanousd: int) -> Hold | None:
        task = self.loop.create_task(worker.book.hold(terms, nanousd, at_unix_s=self.unix_s))
        while True:
            for _ in range(3):
                self.loop.run_until_complete(asyncio.sleep(0))
            if task.done():
                break
            for other in self.workers:
                other.keeper.step()
            self.monotonic_s += 0.3
        try:
            return task.result()
        except BudgetShortError as short:
            assert short.fits_nanousd < nanousd
            return None

    @precondition(lambda self: self._open())
    @rule(shares=st.lists(st.tuples(st.integers(0, 50), SHARE), min_size=1, max_size=5))
    def settle(self, shares: list[tuple[int, int | None]]) -> None:
        """Known cost, nothing (void), or nobody knows."""
        for place, share in shares:
            if self._open():
                self._settle(self._open()[place % len(self._open())], share)

    def _settle(self, request: Request, share: int | None) -> None:
        cost = None if share is None else request.held * share // 100
        uncertain: dict[str, Any] = {}
        if cost is None:
            model_id, deployment_id = self.world.deployment.model_id, self.world.deployment.pk
            uncertain = {
                "uncertain": request.held,
                "model_uncertain": [[model_id, request.held]],
                "deployment_uncertain": [[deployment_id, request.held]],
            }
        usage = usage_line(**({"kind": "unknown", "input": None, "output": None} if cost is None else {}))
        request.worker.lines.append(outcome_line(self.world, request.id, cost=cost, usage=usage, **uncertain))
        for hold in (request.hold, request.model_hold, request.deployment_hold):
            request.worker.book.settle(hold, request.held if cost is None else cost)
        request.cost, request.is_ended = cost, True

    @rule(
        place=st.integers(0, 1), count=st.integers(1, 12), order=st.integers(0, 7), is_doubled=st.booleans()
    )
    def ingest(self, place: int, count: int, order: int, is_doubled: bool) -> None:
        self.workers[place].write(count, order, is_doubled=is_doubled)
        self.ingester.ingest_available()

    @rule(place=st.integers(0, 1), order=st.integers(0, 7))
    def die(self, place: int, order: int) -> None:
        worker = self.workers[place]
        worker.write(len(worker.lines), order, is_doubled=False)
        worker.lock.close()
        for request in self._open():
            if request.worker is worker:
                request.is_ended = True
        self.workers[place] = self._new_worker()

    @rule(seconds=st.sampled_from([0.6, 3.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.unix_s += seconds
        for worker in self.workers:
            worker.keeper.step()

    @rule()
    def expire(self) -> None:
        """Nobody could renew for a while: nothing more may be held of what a worker has."""
        self.monotonic_s += leasing.LEASE_S + 1
        for worker in self.workers:
            for lease in worker.book.leases.values():
                assert not lease.try_hold(0, now_s=self.monotonic_s)

    @rule(days=st.sampled_from([-2.0, -0.5, 0.25, 0.5, 1.0, 1.5]))
    def jump(self, days: float) -> None:
        """The clock jumps, or a window ends."""
        self.unix_s += days * DAY_S

    # What must hold

    def _true_use(self) -> dict[tuple[int, int], int]:
        used: dict[tuple[int, int], int] = defaultdict(int)
        for request in self.requests:
            for window in request.windows:
                used[window] += request.held if request.cost is None else request.cost
        return used

    def _rows(self) -> dict[tuple[int, int], BudgetWindow]:
        rows = BudgetWindow.objects.filter(budget_id__in=self.budget_ids)
        return {(row.budget_id, int(row.starts_at.timestamp())): row for row in rows}

    @invariant()
    def never_overspent(self) -> None:
        if not hasattr(self, "requests"):
            return
        with connection.cursor() as cursor:
            cursor.execute(STATE, [self.budget_ids])
            rows = {row[:2]: row[2:] for row in cursor.fetchall()}
            cursor.execute("SELECT id::text, amount_nanousd FROM billing_budgetlease")
            amounts = dict(cursor.fetchall())
        for window, used in self._true_use().items():
            assert used <= rows[window][0]
        for limit, used, leased, rest_of_leases in rows.values():
            assert leased == rest_of_leases
            assert used + leased <= limit
        for worker in self.workers:
            for memory in worker.book.leases.values():
                assert memory.spent_nanousd + memory.held_nanousd <= memory.amount_nanousd
                assert memory.amount_nanousd <= amounts.get(memory.id, 0)

    def teardown(self) -> None:
        if not hasattr(self, "requests"):
            return
        try:
            for place in range(2):
                self.die(place, 0)
            for worker in self.workers:
                worker.lock.close()
            self.ingester.ingest_available()
            self._check_the_end()
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)

    def _check_the_end(self) -> None:
        rows = self._rows()
        known: dict[tuple[int, int], int] = defaultdict(int)
        unknown: dict[tuple[int, int], int] = defaultdict(int)
        for request in self.requests:
            for window in request.windows:
                known[window] += request.cost or 0
                unknown[window] += request.held if request.cost is None else 0
        for window, row in rows.items():
            assert (row.spent_nanousd, row.uncertain_nanousd, row.leased_nanousd) == (
                known[window],
                unknown[window],
                0,
            )
        assert not BudgetLease.objects.filter(window__budget_id__in=self.budget_ids).exists()
        records = RequestRecord.objects.filter(tenant=self.world.tenant)
        assert records.count() == len(self.requests)
        assert sum(cost or 0 for cost in records.values_list("cost_nanousd", flat=True)) == sum(
            request.cost or 0 for request in self.requests
        )
