"""Can finance make, read, change and delete a budget in the browser?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from billing import alerting, budgets, leasing
from billing.alert_recipients import add_recipient
from billing.models import AlertDelivery, AlertRecipient, Budget, BudgetWindow
from gateway.tasks import notice_budgets
from policies.credentials import decrypt_credential
from policies.models import ChangeEvent
from policies.permissions import Role
from tests.console_people import client_of, finance, operator
from tests.make import ingest, request_lines, world

pytestmark = pytest.mark.django_db

USD = 1_000_000_000
SECRET = "whsec_" + "bm90IGEgc2VjcmV0" * 3


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


def test_a_recipient_is_added_tested_told_and_removed() -> None:
    made = world()
    budget = budgets.create_budget(tenant=made.tenant, window="total", limit_nanousd=USD, actor="a test")
    browser = finance()
    page = browser.post(
        f"/budgets/recipients/new?budget={budget.pk}",
        {"channel": "email", "address": "fin@example.com"},
        follow=True,
    )
    assert "Mail is not set up" in page.text
    recipient = AlertRecipient.objects.get()
    assert (recipient.budget, recipient.tenant) == (budget, made.tenant)
    page = browser.post(f"/budgets/recipients/{recipient.pk}/test", follow=True)
    assert "is on its way" in page.text
    BudgetWindow.objects.update(spent_nanousd=USD)
    notice_budgets()
    notice_budgets()
    assert [sent.subject for sent in mail.outbox] == [
        f"A test of Pointsman for {made.tenant}",
        f"{made.tenant} has used up its budget of $1.00",
    ]
    page = browser.get(f"/budgets/{budget.pk}")
    for text in ("used up", "1 told.", "Told with a graver one", "fin@example.com"):
        assert text in page.text
    browser.post(f"/budgets/recipients/{recipient.pk}/delete", {"confirm_name": "another"})
    assert AlertRecipient.objects.exists()
    browser.post(f"/budgets/recipients/{recipient.pk}/delete", {"confirm_name": "fin@example.com"})
    assert not AlertDelivery.objects.exists()


def test_a_webhooks_secret_is_shown_once_and_only_operators_open_private_networks() -> None:
    made = world()
    sent = {"tenant": made.tenant.name, "channel": "webhook", "address": "http://10.0.0.5/hook"}
    sent["allow_private_network"] = "on"
    answer = finance().post("/budgets/recipients/new", sent)
    assert answer.status_code == 422
    assert "private or local address" in answer.text
    answer = operator().post("/budgets/recipients/new", sent)
    assert "whsec_" in answer.text
    assert "no-store" in answer["Cache-Control"]
    page = finance().get("/budgets/alerts").text
    assert "http://10.0.0.5/hook" in page
    assert "whsec_" not in page


def test_a_recipient_is_changed_and_keeps_what_was_not_shown() -> None:
    tenant = world().tenant
    add: dict[str, Any] = {"tenant": tenant, "actor": "a test"}
    mailed, _ = add_recipient(channel="email", address="fin@example.com", **add)
    hook, _ = add_recipient(channel="webhook", address="https://hooks.example.com/a", **add)
    private, _ = add_recipient(
        channel="webhook", address="http://10.0.0.5/a", allow_private_network=True, **add
    )
    browser, here = finance(), "/budgets/recipients/{}/edit".format
    page = browser.get(here(mailed.pk)).text
    assert ('value="fin@example.com"' in page, "Another secret" in page) == (True, False)
    sent = {"allow_private_network": "on", "secret": SECRET}

    def send(row: AlertRecipient, address: str, **more: str) -> Any:
        seen = browser.get(here(row.pk)).context["form"]["seen"].value()
        return browser.post(here(row.pk), {"address": address, "seen": seen, **more})

    assert send(mailed, "cfo@example.com", **sent)["Location"] == "/budgets/alerts"
    assert "one e-mail address" in send(mailed, hook.address).text
    assert send(hook, "https://hooks.example.com/b", **sent).status_code == 302
    assert send(hook, "http://10.0.0.6/b", **sent).status_code == 422, "the network is for operators"
    assert "whsec_" in send(hook, "https://hooks.example.com/b", secret="short").text
    for row in (mailed, hook):
        row.refresh_from_db()
        assert not row.allow_private_network
    assert (mailed.address, mailed.secret_ciphertext) == ("cfo@example.com", "")
    assert hook.address == "https://hooks.example.com/b"
    assert decrypt_credential(hook.secret_ciphertext) == SECRET
    change = ChangeEvent.objects.filter(object_type="alert_recipient", action="change").latest("id")
    assert (change.object_name, SECRET in str(change.after)) == (hook.address, False)
    assert browser.get(here(private.pk)).status_code == 403
    assert browser.post(here(private.pk), {"address": "http://10.0.0.6/b"}).status_code == 403
    assert here(private.pk) not in browser.get("/budgets/alerts").text
    browser = operator()
    assert send(private, "http://10.0.0.6/b", allow_private_network="on").status_code == 302
    assert AlertRecipient.objects.filter(address="http://10.0.0.6/b", allow_private_network=True).exists()


def test_the_home_page_says_which_budget_will_be_exceeded() -> None:
    made = world()
    now = timezone.now()
    budget = budgets.create_budget(
        tenant=made.tenant,
        window="month",
        limit_nanousd=10 * USD,
        actor="a test",
        now=now - dt.timedelta(days=400),
    )
    BudgetWindow.objects.update(
        spent_nanousd=6 * USD, starts_at=now - dt.timedelta(days=10), ends_at=now + dt.timedelta(days=20)
    )
    alerting.notice(now=now)
    page = finance().get("/").text
    assert f"{made.tenant} will exceed its budget" in page
    assert "$18.00 of $10.00 foreseen" in page
    BudgetWindow.objects.filter(budget=budget).update(spent_nanousd=9 * USD)
    page = finance().get("/").text  # now it is near its limit, which says more
    assert "will exceed" not in page
    assert "has used 90 %" in page


def test_a_deployments_budget_is_made_shown_and_told_of(tmp_path: Path) -> None:
    made = world()
    ingest(tmp_path, request_lines(made, cost=USD // 2))
    browser = finance()
    assert (
        f'href="/budgets/new?deployment={made.deployment.pk}"'
        in browser.get(f"/deployments/{made.deployment.pk}").text
    )
    page = browser.get("/budgets/new", {"deployment": made.deployment.pk}).text
    assert f'<option value="{made.deployment.pk}" selected>' in page
    sent = {"deployment": made.deployment.pk, "window": "month", "limit_usd": "0.60", "is_hard": "yes"}
    page = browser.post("/budgets/new", sent, follow=True).text
    budget = Budget.objects.get()
    assert (budget.tenant, budget.deployment) == (None, made.deployment)
    for text in ("$0.50", "$0.60", f"deployment {made.deployment}", "of all tenants", "refused with 503"):
        assert text in page
    assert f"deployment={made.deployment.pk}" in page
    assert f"deployment {made.deployment}" in browser.get("/budgets").text
    assert f'href="/budgets/{budget.pk}"' in browser.get(f"/deployments/{made.deployment.pk}").text
    recipient = {"is_of_deployments": "on", "channel": "email", "address": "ops@example.com"}
    assert (
        "all budgets of deployments" in browser.post("/budgets/recipients/new", recipient, follow=True).text
    )
    notice_budgets()
    notice_budgets()
    # Late in a month that it will be exceeded is told besides.
    (told,) = [one for one in mail.outbox if "will exceed" not in one.subject]
    assert told.subject == f"deployment {made.deployment} has used 83 % of its budget of $0.60"
    assert "goes to other deployments, or is refused" in told.body
    browser.post(f"/budgets/{budget.pk}/delete", {"confirm_name": f"deployment {made.deployment}"})
    assert not Budget.objects.exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "choose a deployment"),
        ({"scope": "{tenant}", "deployment": "{deployment}"}, "Either whose it is, or a deployment"),
        ({"deployment": "{deployment}", "model": "{model}"}, "for the deployment alone"),
    ],
)
def test_a_budget_is_either_of_callers_or_of_a_deployment(fields: dict[str, str], said: str) -> None:
    made = world()
    names = {
        "tenant": made.tenant.name,
        "deployment": made.deployment.pk,
        "model": made.deployment.model_id,
    }
    sent = {name: text.format(**names) for name, text in fields.items()}
    answer = finance().post("/budgets/new", {"window": "month", "limit_usd": "5", "is_hard": "no", **sent})
    assert answer.status_code == 422
    assert said in answer.text


def test_a_recipient_is_of_a_tenant_or_of_deployments() -> None:
    made = world()
    sent = {"channel": "email", "address": "fin@example.com"}
    assert "Name a tenant" in finance().post("/budgets/recipients/new", sent).text
    both = {**sent, "tenant": made.tenant.name, "is_of_deployments": "on"}
    assert "Either a tenant" in finance().post("/budgets/recipients/new", both).text
    assert not AlertRecipient.objects.exists()
