"""Can finance make, read, change and delete a budget in the browser?"""

from __future__ import annotations

from pathlib import Path

import pytest

from billing import budgets, leasing
from billing.models import Budget, BudgetWindow
from policies.permissions import Role
from tests.console_people import client_of, finance
from tests.make import ingest, request_lines, world

pytestmark = pytest.mark.django_db

USD = 1_000_000_000


def test_a_budget_is_made_for_a_key_and_shows_what_it_has_spent(tmp_path: Path) -> None:
    made = world()
    ingest(tmp_path, request_lines(made, cost=USD // 2))
    browser = finance()
    scope = f"{made.tenant}/web/dev"
    page = browser.get("/budgets/new", {"scope": scope})
    assert scope in page.text
    sent = {
        "scope": scope,
        "window": "month",
        "limit_usd": "$0.60",
        "is_hard": "yes",
        "may_lower_limit": "on",
    }
    page = browser.post("/budgets/new", sent, follow=True)
    assert "The budget is made" in page.text
    budget = Budget.objects.get()
    assert (budget.api_key, budget.limit_nanousd) == (made.key, 600_000_000)
    leasing.grow_lease(
        name=leasing.WorkerName("home", "12-abc"),
        lease_id="11111111-1111-4111-8111-111111111111",
        window_id=BudgetWindow.objects.get().pk,
        nanousd=70_000_000,
    )
    page = browser.get(f"/budgets/{budget.pk}")
    for text in ("$0.50", "$0.60", "$0.07", "$0.03", "near the limit", "12-abc"):
        assert text in page.text
    assert f'href="/budgets/{budget.pk}">' in browser.get(f"/keys/{made.key.pk}").text
    assert "83 %" in browser.get("/budgets").text
    again = browser.post("/budgets/new", sent)
    assert again.status_code == 422
    assert "change it" in again.text


def test_a_budget_is_changed_and_deleted() -> None:
    made = world()
    budget = budgets.create_budget(tenant=made.tenant, window="day", limit_nanousd=USD, actor="a test")
    browser = finance()
    browser.post(f"/budgets/{budget.pk}/edit", {"limit_usd": "2.5"})
    budget.refresh_from_db()
    assert (budget.limit_nanousd, budget.may_lower_limit, budget.is_enabled) == (2_500_000_000, False, False)
    assert "switched off" in browser.get("/budgets").text
    browser.post(f"/budgets/{budget.pk}/delete", {"confirm_name": "another"})
    assert Budget.objects.exists()
    browser.post(f"/budgets/{budget.pk}/delete", {"confirm_name": made.tenant.name})
    assert not Budget.objects.exists()


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("scope", "nobody", "There is no tenant nobody"),
        ("scope", "{tenant}/nothing", "has no project nothing"),
        ("scope", "{tenant}/web/none", "has no key none in use"),
        ("limit_usd", "much", "An amount in USD"),
        ("limit_usd", "-1", "more than 0"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(field: str, text: str, said: str) -> None:
    made = world()
    sent = {"scope": made.tenant.name, "window": "month", "limit_usd": "5", "is_hard": "no"}
    answer = finance().post("/budgets/new", {**sent, field: text.format(tenant=made.tenant)})
    assert answer.status_code == 422
    assert said in answer.text


def test_the_home_page_says_which_budgets_are_nearly_used(tmp_path: Path) -> None:
    made = world()
    ingest(tmp_path, request_lines(made, cost=USD))
    for window, limit in (("day", USD), ("week", USD * 11 // 10), ("month", 2 * USD)):
        budgets.create_budget(
            tenant=made.tenant, window=window, limit_nanousd=limit, is_hard=window != "week", actor="a test"
        )
    page = finance().get("/").text
    assert f"{made.tenant} has used 100 % of its budget" in page
    assert "More is refused." in page
    assert f"{made.tenant} has used 90 % of its budget" in page
    assert page.count("of its budget") == 2


def test_viewers_see_budgets_and_change_none() -> None:
    browser = client_of(Role.VIEWER)
    assert "Finance or an operator makes it" in browser.get("/budgets").text
    assert browser.get("/budgets/new").status_code == 403
