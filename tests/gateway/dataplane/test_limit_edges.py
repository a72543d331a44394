"""What of limits and budgets stays right at the edges? Clients that leave as an answer comes, limits that change."""

from __future__ import annotations

import asyncio

import pytest

from billing.budget_arithmetic import Lease
from gateway.dataplane.budgets import LeaseBook
from gateway.dataplane.rate_limits import ShareBook
from gateway.dataplane.rate_windows import Limits, Report, Window, settle
from policies.snapshot import BudgetTerms, RateTerms

AT_ONCE = RateTerms(1, "key acme/web/dev", None, None, 1)
BUDGET = BudgetTerms(1, "acme each day", "total", "UTC", 1_000, 0)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_place_that_comes_as_the_client_leaves_is_free_again(is_cancelled: bool) -> None:
    sent: list[dict[int, Report]] = []
    book = ShareBook(worker="w", send=sent.append, now_s=lambda: 50.0)
    task = asyncio.create_task(book.hold((AT_ONCE,), 1))
    while not sent:
        await asyncio.sleep(0)
    answer = settle(Window(), sent[0][1], Limits(concurrent=1), now_s=1_000.0)
    book.receive({1: answer}, 50.0)
    if is_cancelled:  # before the task has heard
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        book.refuse(await task)
    share = book.shares[1]
    assert (share.running, share.free_concurrent) == (0, 1)


async def test_what_is_lent_as_the_client_leaves_is_held_by_nobody() -> None:
    book = LeaseBook(now_s=lambda: 0.0)
    task = asyncio.create_task(book.hold((BUDGET,), 600, at_unix_s=0.0))
    while not book.wants:
        await asyncio.sleep(0)
    want = book.wants.popleft()
    lease = Lease("11111111-1111-4111-8111-111111111111", 1, want.span, 1_000, valid_until_s=1.0)
    assert lease.try_hold(600, now_s=0.0)
    want.answer(lease)  # on its way to the loop, and delivered
    loop = asyncio.get_running_loop()
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (lease.held_nanousd, lease.spent_nanousd) == (0, 0)
