"""Are months closed, and statements issued, paid and credited over HTTP, by those who may?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from billing.models import ClosingState, Invoice, PeriodClosing
from gateway import tasks
from policies.permissions import Role
from tests.billing.test_invoicing import COST, OCTOBER, spend
from tests.console_people import client_of
from tests.policies.api.callers import Caller, caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller(settings: Any, tmp_path: Path) -> Caller:
    settings.CELERY_BROKER_URL = "memory://"
    return caller_with("read", "statements")


def close(caller: Caller) -> None:
    answer = caller.send("POST", "closings", {"month": "2025-10"})
    assert answer.status_code == 201, answer.json()
    tasks.run_unfinished_closings()
    assert caller.read(answer["Location"])["state"] == ClosingState.DONE


def test_a_month_is_previewed_closed_and_its_statement_paid(tmp_path: Path, caller: Caller) -> None:
    world = spend(tmp_path)
    assert caller.read("closings/preview")["findings"]
    close(caller)
    (row,) = caller.read(f"statements?tenant_id={world.tenant.pk}&month=2025-10&state=issued")["items"]
    assert (row["number"], row["total_minor"], row["amount_nanousd"], row["month"]) == (
        "INV-000001", 14_100, COST, "2025-10",
    )  # fmt: skip
    one = caller.read(f"statements/{row['id']}")
    assert sum(line["amount_minor"] for line in one["lines"]) == one["subtotal_minor"]
    assert one["document"]["number"] == "INV-000001"
    note = caller.send("POST", f"statements/{row['id']}/credit-notes", {"reason": "agreed", "positions": [1]})
    assert (note.status_code, note.json()["number"], note.json()["total_minor"]) == (201, "CN-000001", -4_000)
    parts = [{"position": 2, "quantity": 50}, {"position": 3, "amount_minor": 7}]
    noted = {"reason": "agreed", "positions": [2, 3], "parts": parts}
    part = caller.send("POST", f"statements/{row['id']}/credit-notes", noted)
    assert [line["quantity"] for line in part.json()["document"]["lines"]] == [-50, None]
    assert part.json()["total_minor"] == -(25 + 7)
    alone = caller.send("POST", f"statements/{row['id']}/credit-notes", {"reason": "x", "parts": parts[1:]})
    assert alone.json()["total_minor"] == -7
    one_unit = {"position": 2, "quantity": 1}
    for wrong in ([{"position": 2}], [{**one_unit, "amount_minor": 1}], [one_unit, one_unit]):
        refused = caller.send("POST", f"statements/{row['id']}/credit-notes", {**noted, "parts": wrong})
        problem_of(refused, 422, "invalid-value")
    paid = caller.send("POST", f"statements/{row['id']}/pay", {"reference": "bank 17"})
    assert (paid.json()["state"], paid.json()["payment_reference"]) == ("paid", "bank 17")
    problem_of(caller.send("POST", f"statements/{row['id']}/void", {"reason": "x"}), 409, "refused")
    assert Invoice.objects.get(kind="invoice").issued_by.startswith("token:")


def test_a_statement_is_drafted_reviewed_and_not_issued_before_its_month_is_closed(
    tmp_path: Path, caller: Caller
) -> None:
    world = spend(tmp_path)
    drafted = caller.send("POST", "statements", {"tenant_id": world.tenant.pk, "month": "2025-10"})
    assert (drafted.status_code, drafted.json()["state"]) == (201, "draft")
    here = drafted["Location"]
    problem_of(caller.send("POST", f"{here}/issue"), 409, "refused")
    assert caller.send("POST", f"{here}/review").json()["state"] == "reviewed"
    assert "not closed" in problem_of(caller.send("POST", f"{here}/issue"), 409, "refused")["detail"]
    for month in ("2025-13", "9999-12", "0001-01"):
        wrong = caller.send("POST", "statements", {"tenant_id": world.tenant.pk, "month": month})
        assert places(problem_of(wrong, 422, "invalid-value")) == ["month"]
        problem_of(caller.send("POST", "closings", {"month": month}), 422, "invalid-value")
    empty = caller.send("POST", "statements", {"tenant_id": world.tenant.pk, "month": "2025-01"})
    assert places(problem_of(empty, 422, "invalid-value")) == ["month"]
    future = caller.send("POST", "closings", {"month": "2199-01"})
    assert "It ends on 2199-01-31" in problem_of(future, 409, "refused")["detail"]
    assert not PeriodClosing.objects.exists()


def test_finance_may_issue_and_viewers_may_only_read(tmp_path: Path) -> None:
    world = spend(tmp_path)
    body = {"tenant_id": world.tenant.pk, "month": f"{OCTOBER:%Y-%m}"}
    viewer, finance = (Caller(client=client_of(role)) for role in (Role.VIEWER, Role.FINANCE))
    problem_of(viewer.send("POST", "statements", body), 403, "forbidden")
    assert finance.send("POST", "statements", body).status_code == 201
    assert len(viewer.read("statements")["items"]) == 1
