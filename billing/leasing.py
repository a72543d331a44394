"""How does a worker come by a part of a budget, and give it back?

Writes: budget_window, budget_lease. One conditional UPDATE takes a lease, so that spent + uncertain + leased <= limit
whatever other workers do. Rows are locked windows first (by id), then leases: here, in `budget_settling`, everywhere.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from django.db import connection, transaction

from billing.budget_arithmetic import Span, WindowNumbers, plan_loan

LEASE_S = 30.0
# How long a worker that found too little is heard by those who hold something they do not need.
WANTED_S = 2.0
MAX_RACES = 5

_NUMBERS = "limit_nanousd, spent_nanousd, uncertain_nanousd, leased_nanousd"


class WorkerName(NamedTuple):
    """Who takes leases. `home` names the data directory whose ingester reads this worker's journal."""

    home: str
    worker: str


class Window(NamedTuple):
    """A window's row. `own_nanousd` is what this lease may still spend of `numbers.leased_nanousd`."""

    id: int
    numbers: WindowNumbers
    own_nanousd: int = 0


class Granted(NamedTuple):
    """Which needs are served, by their places, by how much the lease grew, and how the window stood before."""

    served: tuple[int, ...]
    grown_nanousd: int
    window: Window


class LeaseState(NamedTuple):
    """A lease as the database knows it."""

    id: str
    amount_nanousd: int
    settled_nanousd: int
    is_wanted: bool
    numbers: WindowNumbers


def find_window(budget_id: int, span: Span, *, lease_id: str | None = None) -> Window | None:
    """The window of a budget, made when it is not there yet; None when the budget is gone.

    A new one has the budget's limit: the lock makes a change of it wait, or be seen.
    """
    starts_at, ends_at = _times(span)
    with connection.cursor() as cursor:
        for _ in range(2):
            cursor.execute(
                f"SELECT w.id, {_NUMBERS}, coalesce((SELECT greatest(0, amount_nanousd - settled_nanousd)"  # noqa: S608  (constants)
                " FROM billing_budgetlease l WHERE l.id = %s), 0)"
                " FROM billing_budgetwindow w WHERE budget_id = %s AND starts_at = %s",
                [lease_id, budget_id, starts_at],
            )
            row = cursor.fetchone()
            if row is not None:
                return Window(row[0], WindowNumbers(*row[1:5]), row[5])
            cursor.execute(
                "INSERT INTO billing_budgetwindow (budget_id, starts_at, ends_at, limit_nanousd, spent_nanousd,"
                " uncertain_nanousd, leased_nanousd)"
                " SELECT id, %s, %s, limit_nanousd, 0, 0, 0 FROM billing_budget WHERE id = %s FOR SHARE"
                " ON CONFLICT (budget_id, starts_at) DO NOTHING",
                [starts_at, ends_at, budget_id],
            )
    return None


def lend(
    *, name: WorkerName, lease_id: str, budget_id: int, span: Span, needs: list[int], free_nanousd: int
) -> Granted | None:
    """Let a lease grow so that as many needs as possible fit; None when the budget is gone."""
    window = None
    for _ in range(MAX_RACES):
        window = find_window(budget_id, span, lease_id=lease_id)
        if window is None:
            return None
        loan = plan_loan(needs, free_nanousd=free_nanousd, room_nanousd=window.numbers.room_nanousd())
        if not loan.grow_nanousd or grow_lease(
            name=name, lease_id=lease_id, window_id=window.id, nanousd=loan.grow_nanousd
        ):
            return Granted(loan.served, loan.grow_nanousd, window)
    return None if window is None else Granted((), 0, window)


def grow_lease(*, name: WorkerName, lease_id: str, window_id: int, nanousd: int) -> bool:
    """Move an amount from a window's room into a lease, which is made when it is new. False: it is not there."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH grown AS (UPDATE billing_budgetwindow SET leased_nanousd = leased_nanousd + %s"
            " WHERE id = %s AND spent_nanousd + uncertain_nanousd + leased_nanousd + %s <= limit_nanousd"
            " RETURNING id)"
            " INSERT INTO billing_budgetlease AS kept"
            " (id, window_id, home, worker, amount_nanousd, settled_nanousd, expires_at, created_at)"
            " SELECT %s, id, %s, %s, %s, 0, now() + make_interval(secs => %s), now() FROM grown"
            # A request that cost more than it could leaves a lease overdrawn: that much is not lent twice.
            " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, amount_nanousd ="
            " greatest(kept.amount_nanousd, kept.settled_nanousd) + excluded.amount_nanousd",
            [nanousd, window_id, nanousd, lease_id, name.home, name.worker, nanousd, LEASE_S],
        )
        return bool(cursor.rowcount == 1)


def shrink_lease(lease_id: str, *, amount_nanousd: int) -> None:
    """Give back what a lease has beyond an amount. May be repeated: the amount is said, not the difference."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT w.id FROM billing_budgetwindow w WHERE w.id ="
            " (SELECT window_id FROM billing_budgetlease WHERE id = %s) FOR UPDATE",
            [lease_id],
        )
        cursor.execute(
            "SELECT window_id, amount_nanousd, settled_nanousd FROM billing_budgetlease WHERE id = %s FOR UPDATE",
            [lease_id],
        )
        row = cursor.fetchone()
        if row is None or row[1] <= amount_nanousd:
            return
        window_id, before, settled = row
        cursor.execute(
            "UPDATE billing_budgetlease SET amount_nanousd = %s WHERE id = %s", [amount_nanousd, lease_id]
        )
        cursor.execute(
            "UPDATE billing_budgetwindow SET leased_nanousd = leased_nanousd - %s WHERE id = %s",
            [max(0, before - settled) - max(0, amount_nanousd - settled), window_id],
        )


def drop_settled(lease_ids: list[str]) -> set[str]:
    """Delete those of one's leases of which nothing is left to settle; return their ids."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM billing_budgetlease WHERE id = ANY(%s::uuid[]) AND settled_nanousd >= amount_nanousd"
            " RETURNING id::text",
            [lease_ids],
        )
        return {row[0] for row in cursor.fetchall()}


def renew(name: WorkerName) -> None:
    """Let a worker's leases be valid for another while."""
    with connection.cursor() as cursor:
        cursor.execute(
            # In the order in which the ingester locks them, so that neither waits for the other for ever.
            "UPDATE billing_budgetlease SET expires_at = now() + make_interval(secs => %s) WHERE id IN"
            " (SELECT id FROM billing_budgetlease WHERE worker = %s ORDER BY id FOR UPDATE)",
            [LEASE_S, name.worker],
        )


def list_leases(name: WorkerName) -> dict[str, LeaseState]:
    """A worker's leases by id, and how their windows stand."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT l.id::text, l.amount_nanousd, l.settled_nanousd,"  # noqa: S608  (constants)
            f" coalesce(w.wanted_at > now() - make_interval(secs => %s), false), {_NUMBERS}"
            " FROM billing_budgetlease l JOIN billing_budgetwindow w ON w.id = l.window_id WHERE l.worker = %s",
            [WANTED_S, name.worker],
        )
        return {
            row[0]: LeaseState(row[0], row[1], row[2], row[3], WindowNumbers(*row[4:]))
            for row in cursor.fetchall()
        }


def ask_others(window_id: int) -> None:
    """Ask the other workers to give back what they do not need of a window."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_budgetwindow SET wanted_at = now() WHERE id = %s", [window_id])


def close_leases(worker: str) -> int:
    """Give back what a dead worker's leases have left. Call when all of its journal is settled; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH gone AS (DELETE FROM billing_budgetlease WHERE worker = %s"
            " RETURNING window_id, greatest(0, amount_nanousd - settled_nanousd) AS rest),"
            " back AS (UPDATE billing_budgetwindow w SET leased_nanousd = leased_nanousd - g.rest"
            " FROM (SELECT window_id, sum(rest)::bigint AS rest FROM gone GROUP BY 1 ORDER BY 1) g"
            " WHERE w.id = g.window_id)"
            " SELECT count(*) FROM gone",
            [worker],
        )
        (count,) = cursor.fetchone()
        return int(count)


def list_expired_workers(home: str) -> list[str]:
    """Workers of this data directory whose leases were not renewed: stopped, dead, or without a database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT worker FROM billing_budgetlease WHERE home = %s AND expires_at < now()", [home]
        )
        return [row[0] for row in cursor.fetchall()]


def _times(span: Span) -> tuple[dt.datetime, dt.datetime | None]:
    starts_at = dt.datetime.fromtimestamp(span.starts_unix_s, dt.UTC)
    ends_at = None if span.ends_unix_s is None else dt.datetime.fromtimestamp(span.ends_unix_s, dt.UTC)
    return starts_at, ends_at
