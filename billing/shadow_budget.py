"""May one more shadow request be made today? The daily budget, kept by the database for all workers together.

Reads: tenant. Writes: shadow_spend. What a call can cost at most is added in the same conditional statement that
compares the sum with the tenant's budget, before the call; afterwards it is corrected to what the call did cost. A
worker that dies in between leaves the larger amount standing: never overspent, by however many workers.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

T = TypeVar("T")

_RESERVE = """
INSERT INTO billing_shadowspend AS kept (tenant_id, day, spent_nanousd)
SELECT id, %(day)s, %(amount)s FROM policies_tenant
WHERE id = %(tenant)s AND is_enabled AND shadow_percent > 0
    AND %(amount)s <= shadow_daily_budget_usd * 1000000000
ON CONFLICT (tenant_id, day) DO UPDATE SET spent_nanousd = kept.spent_nanousd + excluded.spent_nanousd
WHERE kept.spent_nanousd + excluded.spent_nanousd <=
    (SELECT shadow_daily_budget_usd * 1000000000 FROM policies_tenant WHERE id = excluded.tenant_id)
RETURNING 1
"""


def reserve(tenant_id: int, day: dt.date, amount_nanousd: int) -> bool:
    """Set an amount aside; False when the tenant's budget for the day does not hold it, or it has not opted in."""
    with connection.cursor() as cursor:
        cursor.execute(_RESERVE, {"tenant": tenant_id, "day": day, "amount": amount_nanousd})
        return cursor.fetchone() is not None


def settle(tenant_id: int, day: dt.date, *, reserved_nanousd: int, cost_nanousd: int) -> None:
    """Put what a call did cost in the place of what was set aside for it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_shadowspend SET spent_nanousd = spent_nanousd + %s WHERE tenant_id = %s AND day = %s",
            [cost_nanousd - reserved_nanousd, tenant_id, day],
        )


class DatabaseShadowBudget:
    """Fills the data plane's ShadowBudget port: one thread of its own, never the loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="shadow-budget")

    async def reserve(self, tenant_id: int, day: dt.date, amount_nanousd: int, /) -> bool:
        """Set an amount aside; False when it is not there, or nobody can tell."""
        try:
            return await self._run(lambda: reserve(tenant_id, day, amount_nanousd))
        except (DatabaseError, InterfaceError):
            return False

    async def settle(self, tenant_id: int, day: dt.date, reserved_nanousd: int, cost_nanousd: int, /) -> None:
        """Correct what was set aside to what the call cost. Without a database the larger amount stays."""
        with suppress(DatabaseError, InterfaceError):
            await self._run(
                lambda: settle(tenant_id, day, reserved_nanousd=reserved_nanousd, cost_nanousd=cost_nanousd)
            )

    def close(self) -> None:
        """Let the thread end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        def run() -> T:
            # Django does this around its own requests; here nobody else would drop a connection that has died.
            close_old_connections()
            try:
                return work()
            finally:
                close_old_connections()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)
