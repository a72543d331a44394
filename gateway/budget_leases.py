"""How do a worker's leases come, stay and go? One thread between the `LeaseBook` and the database.

Writes: through `billing.leasing`. It lends to requests that wait, renews, gives back what is not used or what others
want, and forgets what is settled. While the database is away, leases that are valid can be spent, and no more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from django.db import DatabaseError, InterfaceError, connection

from billing import leasing
from billing.leasing import LeaseState, WorkerName
from gateway.dataplane.budgets import (
    MAX_SPANS,
    OTHERS_WAIT_S,
    BudgetShortError,
    BudgetUnknownError,
    LeaseBook,
    Want,
)

logger = logging.getLogger(__name__)

TICK_S = 0.5
# While somebody waits for what other workers may give back.
HURRY_S = 0.1
RENEW_S = 5.0
IDLE_S = 2.0
# Earlier than the database lets it end: the clocks do not tick alike.
VALID_S = leasing.LEASE_S - 10.0


class LeaseKeeper:
    """Keeps one worker's leases. Its thread sleeps, without a database connection, until a request wants one."""

    def __init__(self, book: LeaseBook, name: WorkerName) -> None:
        self.book = book
        self.name = name
        # Wants that other workers may still make room for.
        self._waiting: list[Want] = []
        self._renewed_at_s = 0.0
        self._ticked_at_s = 0.0
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="budgets", daemon=True)

    def start(self) -> None:
        """Begin to lend."""
        self._thread.start()

    def close(self) -> None:
        """Give back what is free, and end. What is spent is settled from the journal."""
        self._is_closing.set()
        self.book.is_wanted.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_closing.is_set():
            # Without leases there is nothing to look after: sleep until somebody wants one.
            self.book.is_wanted.wait(HURRY_S if self._waiting else TICK_S if self.book.leases else None)
            try:
                self.step()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("Budgets cannot be read: %s", str(error).strip().partition("\n")[0])
                connection.close()
                self._is_closing.wait(TICK_S)
            except Exception:
                # An edge: without this thread no request of a key with a budget would be served.
                logger.exception("leases cannot be kept")
                self._is_closing.wait(TICK_S)
        try:
            self._give_back(self._leases(), list(self.book.leases))
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Leases could not be given back, they end with this worker's journal: %s", error)
        connection.close()

    def step(self) -> None:
        """Do what is due: serve who waits, look after the leases. Raises DatabaseError."""
        now_s = self.book.now_s()
        groups = self.book.take_wants()
        waiting, self._waiting = self._waiting, []
        for want in waiting:
            groups.setdefault(want.key, []).insert(0, want)
        try:
            for key in list(groups):
                self._serve(groups[key], now_s)
                del groups[key]
        except (DatabaseError, InterfaceError):
            self._refuse(want for wants in groups.values() for want in wants)
            raise
        if self.book.leases and now_s - self._ticked_at_s >= TICK_S:
            self._ticked_at_s = now_s
            self.look_after(now_s)

    def _refuse(self, wants: Iterable[Want]) -> None:
        for want in wants:
            want.answer(BudgetUnknownError("the database does not answer"))

    def _serve(self, wants: list[Want], now_s: float) -> None:
        """Lend to those who wait for one window as much as there is, in the order in which they came."""
        book = self.book
        lease = book.lease_for(wants[0])
        if not lease.amount_nanousd or now_s >= lease.valid_until_s:
            # Also after an outage: the row may have been closed meanwhile, and renewing says so.
            self.look_after(now_s)
            lease = book.lease_for(wants[0])
        granted = leasing.lend(
            name=self.name,
            lease_id=lease.id,
            budget_id=lease.budget_id,
            span=lease.span,
            needs=[want.nanousd for want in wants],
            free_nanousd=book.free_nanousd(lease),
        )
        if granted is None:
            for want in wants:
                want.answer(BudgetUnknownError("the budget is being deleted"))
            return
        numbers = granted.window.numbers
        key = wants[0].key
        if len(book.numbers) >= MAX_SPANS:
            book.numbers.clear()
        book.numbers[key] = numbers
        served = [wants[place] for place in granted.served]
        book.grow(lease, granted.grown_nanousd, valid_until_s=now_s + VALID_S, wants=served)
        # What others hold of leases: some of it may come back.
        of_others = numbers.leased_nanousd - granted.window.own_nanousd
        has_asked = False
        for want in wants:
            if want in served:
                continue
            free = max(0, book.free_nanousd(lease))
            fits = free + max(0, numbers.room_nanousd() - granted.grown_nanousd)
            held = numbers._replace(leased_nanousd=numbers.leased_nanousd + granted.grown_nanousd - free)
            if want.nanousd <= fits + of_others and now_s - want.asked_at_s < OTHERS_WAIT_S:
                self._waiting.append(want)
                if not has_asked:
                    leasing.ask_others(granted.window.id)
                    has_asked = True
            else:
                want.answer(BudgetShortError(want.terms, want.span, held, fits))

    def look_after(self, now_s: float) -> None:
        """Renew leases, give back what is not needed, forget what is settled or gone."""
        book = self.book
        if now_s - self._renewed_at_s >= RENEW_S:
            leasing.renew(self.name)
            self._renewed_at_s = now_s
            is_renewed = True
        else:
            is_renewed = False
        known = self._leases()
        idle: list[tuple[int, int]] = []
        with book.lock:
            for key, lease in list(book.leases.items()):
                state = known.get(lease.id)
                if state is None:  # empty, or its budget was deleted: what is still held ends by itself
                    lease.valid_until_s = 0.0
                    del book.leases[key]
                    continue
                book.numbers[key] = state.numbers
                if is_renewed:
                    lease.valid_until_s = now_s + VALID_S
                # Less than no room: the limit was lowered below what is promised. What nobody holds is over it.
                is_over = state.numbers.room_nanousd() < 0
                if is_over or state.is_wanted or now_s - lease.used_at_s >= IDLE_S:
                    idle.append(key)
                    lease.give_back()
        self._give_back(known, idle)

    def _give_back(self, known: dict[str, LeaseState], keys: list[tuple[int, int]]) -> None:
        """Tell the database of leases that have shrunk; of those of which nothing is left, forget them."""
        settled: list[str] = []
        for key in keys:
            with self.book.lock:
                lease = self.book.leases.get(key)
                if lease is None:
                    continue
                amount = lease.give_back()
                is_done = not lease.held_nanousd
            state = known.get(lease.id)
            if state is not None and state.amount_nanousd > amount:
                leasing.shrink_lease(lease.id, amount_nanousd=amount)
            if state is not None and is_done and state.settled_nanousd >= amount:
                settled.append(lease.id)
        if settled:
            self._forget(leasing.drop_settled(settled))

    def _forget(self, lease_ids: set[str]) -> None:
        with self.book.lock:
            for key, lease in list(self.book.leases.items()):
                if lease.id in lease_ids:  # nothing was held of it meanwhile: nothing was free
                    del self.book.leases[key]

    def _leases(self) -> dict[str, LeaseState]:
        return leasing.list_leases(self.name)
