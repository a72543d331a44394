"""Can shadow requests ever cost a tenant more in a day than it allows?"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections

from billing.learning_costs import learning_nanousd
from billing.models import ShadowSpend
from billing.shadow_budget import DatabaseShadowBudget, reserve, settle
from policies import tenancy_changes
from policies.models import Tenant
from tests.make_configuration import ACTOR, make_tenant

DAY = dt.date(2026, 3, 1)
USD = 1_000_000_000


def opted_in(usd: str = "2.00") -> Tenant:
    return make_tenant(shadow_percent=5, shadow_daily_budget_usd=Decimal(usd))


@pytest.mark.django_db
def test_the_budget_of_a_day_holds_what_fits_and_no_more() -> None:
    tenant = opted_in()
    assert reserve(tenant.pk, DAY, 2 * USD)
    assert not reserve(tenant.pk, DAY, 1)
    assert reserve(tenant.pk, DAY + dt.timedelta(days=1), 2 * USD)
    settle(tenant.pk, DAY, reserved_nanousd=2 * USD, cost_nanousd=USD // 2)
    assert reserve(tenant.pk, DAY, 3 * USD // 2)
    next_day = DAY + dt.timedelta(days=1)
    assert (learning_nanousd(DAY), learning_nanousd(next_day), learning_nanousd(DAY, DAY)) == (
        4 * USD,
        2 * USD,
        2 * USD,
    )


@pytest.mark.django_db
def test_who_has_not_opted_in_has_no_budget() -> None:
    tenant = opted_in()
    assert not reserve(make_tenant().pk, DAY, 0)
    assert not reserve(tenant.pk, DAY, 3 * USD)
    tenancy_changes.change_tenant(tenant=tenant, actor=ACTOR, shadow_daily_budget_usd=Decimal(1))
    assert not reserve(tenant.pk, DAY, 2 * USD)
    tenancy_changes.change_tenant(tenant=tenant, actor=ACTOR, shadow_percent=0)
    assert not reserve(tenant.pk, DAY, 1)
    assert not ShadowSpend.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_workers_that_reserve_at_once_share_one_budget() -> None:
    tenant = opted_in("1.00")
    budgets = [DatabaseShadowBudget() for _ in range(4)]

    async def reserve_all() -> list[bool]:
        calls: list[Coroutine[Any, Any, bool]] = [
            budget.reserve(tenant.pk, DAY, USD // 10) for budget in budgets for _ in range(6)
        ]
        return list(await asyncio.gather(*calls))

    async def close_all() -> None:
        for budget in budgets:
            await budget._run(connections.close_all)  # its thread's connection holds the test's database
            budget.close()

    async def run() -> list[bool]:
        try:
            return await reserve_all()
        finally:
            await close_all()

    assert sum(asyncio.run(run())) == 10
    assert ShadowSpend.objects.get().spent_nanousd == USD
