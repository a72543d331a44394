"""What does the console look like where there is a row of everything, and where is each page then?"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from billing import (
    alerting,
    budgets,
    credits,
    exchange_rates,
    invoicing,
    saved_views,
    scheduled_mail,
    workload_usage,
)
from billing.alert_recipients import add_recipient
from billing.backtest_expectations import Expected
from billing.backtest_results import build_result
from billing.backtest_tally import Latency, Tally, TenantSums
from billing.evaluation_lines import Case
from billing.evaluation_runs import finish_run, record_answer, start_run
from billing.evaluation_sets import create_set
from billing.models import (
    AlertRecipient,
    Backtest,
    Budget,
    BudgetWindow,
    EvaluationAnswer,
    EvaluationRun,
    EvaluationState,
    ExportJob,
    Invoice,
    MailDelivery,
    PriceProposal,
    ProviderBill,
)
from billing.price_proposals import make_proposal
from billing.price_sources import csv_file
from billing.provider_bill_runs import import_bill
from policies import router_tables
from policies.models import Deployment, RateLimit, RateWindow
from policies.rate_limits import set_rate_limit
from tests import make

WORKLOAD = "00112233445566ff"


@dataclass
class Filled:
    """A database with a row of everything, and the address of every page."""

    world: make.World
    request_id: uuid.UUID
    addresses: dict[str, str]


def fill_console(directory: Path, *, pages: Iterable[str]) -> Filled:
    """Make a row of everything, and find the addresses of these pages (names of URL patterns)."""
    world = make.world()
    lines = make.request_lines(world)
    lines[0]["features"] |= {"workload": WORKLOAD, "task_type": "code"}
    make.ingest(directory, [*lines, *make.request_lines(world, price=None, cost=None, unpriced=True)])
    workload_usage.collect_workloads(now=timezone.now())
    table = router_tables.set_workload_pin(workload=WORKLOAD, model=world.deployment.model.name, actor="olga")
    assert table is not None
    world.policy.live_version = world.version
    world.policy.save()
    world.tenant.policies.add(world.policy)
    request_id = uuid.UUID(lines[0]["id"])
    pks: dict[str, Any] = {
        "key": world.key.pk,
        "price": world.deployment.pk,
        "model": world.deployment.model_id,
        "provider": world.deployment.provider_id,
        "deployment": world.deployment.pk,
        "policy": world.policy.pk,
        "budget": _alerted(world).pk,
        "bill": _billed(world).pk,
        "statement": _drafted(world).pk,
        "tenant": world.tenant.pk,
        "project": world.project.pk,
        "request": request_id,
        "backtest": _backtested(world, request_id).pk,
        "workload": WORKLOAD,
        "router": table.pk,
        "evaluation": _evaluated(world).set_id,
        "rate": _limited(world).pk,
        "saved": 0,
        "scheduled": 0,
        "credit": world.tenant.pk,
        "billing": world.tenant.pk,
        "api": "caller",
    }
    addresses = {}
    for name in pages:
        kind = name.partition("-")[0]
        is_new = name.endswith("-new") and name not in ("price-new", "project-new", "scheduled-mail-new")
        if name == "project-new":
            addresses[name] = reverse(name, args=[world.tenant.pk])
        elif (
            (name.endswith("s") and not name.startswith("policy-"))
            or name in ("home", "find", "people", "audit", "router", "unpriced", "spend", "api-reference")
            or is_new
        ):
            addresses[name] = reverse(name)
        else:
            addresses[name] = reverse(name, args=[pks[kind]])
    addresses["api-reference-group"] = reverse("api-reference-group", args=["rate-limits"])
    addresses["spend-savings"] = reverse("spend-savings")
    addresses["budget-recipient-edit"] = reverse(
        "budget-recipient-edit", args=[AlertRecipient.objects.get().pk]
    )
    addresses["statement-close"] = reverse("statement-close", args=[f"{timezone.now():%Y-%m}"])
    addresses["find"] += "?q=smol"
    addresses |= _saved(world)
    addresses |= _credited(world)
    addresses["price-proposal"] = reverse("price-proposal", args=[_proposed(world).pk])
    addresses["evaluation-run"] = reverse("evaluation-run", args=[EvaluationRun.objects.get().pk])
    return Filled(world, request_id, addresses)


def _limited(world: make.World) -> RateLimit:
    """A limit of which something is taken."""
    row = set_rate_limit(owner=world.key, requests_per_minute=60, concurrent=5, actor="olga")
    assert row is not None
    second = int(timezone.now().timestamp())
    RateWindow.objects.update(
        state={"seconds": [[second, 3, 0]], "leases": {"w": [0, 0, 0, 2, second + 9.0]}}
    )
    return row


def _alerted(world: make.World) -> Budget:
    """A budget that is used up, with somebody who was told."""
    budget = budgets.create_budget(tenant=world.tenant, window="month", limit_nanousd=10**9, actor="fin")
    add_recipient(tenant=world.tenant, budget=budget, channel="email", address="fin@example.com", actor="fin")
    BudgetWindow.objects.filter(budget=budget).update(spent_nanousd=10**9)
    alerting.notice(now=timezone.now())
    return budget


def _saved(world: make.World) -> dict[str, str]:
    """A shared view that is sent by mail, a mail that failed, an export that runs; pages over the view."""
    now = timezone.now()
    owner = User.objects.create_superuser("vera", password=None)
    view = saved_views.save_view(
        owner=owner, page="spend", name="By model", query="by=model", is_shared=True, now=now
    )
    mail = scheduled_mail.make_schedule(
        view=view, owner=owner, now=now, rhythm="daily", recipients=["fin@example.com"]
    )
    MailDelivery.objects.create(schedule=mail, due_at=now, state="failed", error="Connection refused")
    for state in ("running", "done", "failed"):
        ExportJob.objects.create(
            kind="requests", file_format="csv", title="Requests", state=state, total_count=9, started_by="vera",
            abilities=["READ"], sha256="ab" * 32, error="disk full", expires_at=now, byte_count=77,
        )  # fmt: skip
    names = ("saved-view", "saved-view-edit", "scheduled-mail-new")
    return {name: reverse(name, args=[view.pk]) for name in names}


def _credited(world: make.World) -> dict[str, str]:
    """Credit of which something was drawn and given back, and an exchange rate; pages over the grant."""
    now = timezone.now()
    grant = credits.grant_credit(
        tenant=world.tenant, kind="paid", amount_nano=10**10, currency="USD", actor="fin", at=now
    )
    taken: dict[str, Any] = {"at": now, "actor": "fin"}
    credits.draw(tenant=world.tenant, currency="USD", wanted_nano=10**9, reference="statement 1", **taken)
    credits.give_back(draw_reference="statement 1", reference="void 1", **taken)
    exchange_rates.add_rate(
        currency="EUR", rate="0.92", first_day=now.date(), source="central bank", actor="fin"
    )
    return {name: reverse(name, args=[grant.pk]) for name in ("credit-refund", "credit-expire")}


def _drafted(world: make.World) -> Invoice:
    """A draft of this month's statement."""
    now = timezone.now()
    invoice = invoicing.draft(tenant=world.tenant, month=now.date().replace(day=1), actor="fin", now=now)
    assert invoice is not None
    return invoice


def _evaluated(world: make.World) -> EvaluationRun:
    """A run of an evaluation set with a bad answer."""
    case = Case([{"role": "user", "content": "Capital of France?"}], "Paris", "exact")
    run = start_run(
        evaluation_set=create_set(name="capitals", cases=[case], actor="olga"),
        deployments=[world.deployment],
        judge=None,
        budget_nanousd=10**9,
        max_output_tokens=100,
        actor="olga",
    )
    answer = EvaluationAnswer(
        run=run,
        case=run.set.cases.get(),
        deployment=world.deployment,
        quality=0.0,
        answer="Rome",
        at=timezone.now(),
    )
    record_answer(answer, case=answer.case, spent_nanousd=100)
    finish_run(run, EvaluationState.DONE)
    return run


def _billed(world: make.World) -> ProviderBill:
    """A provider's bill with a model that is ours and one that is not."""
    text = "day,model,cost,input_tokens\n2026-01-31,smol,1.25,10\n2026-01-31,tool calls,0.50,0\n"
    return import_bill(
        text.encode(),
        file_name="january.csv",
        file_format="csv",
        provider=world.deployment.provider,
        actor="fin",
        now=timezone.now(),
    )[0]


def _proposed(world: make.World) -> PriceProposal:
    """A proposal with a row and a finding."""
    other = Deployment.objects.create(
        name="other@local",
        model=world.deployment.model,
        provider=world.deployment.provider,
        upstream_model="o",
    )
    text = f"deployment,input_usd_per_mtok,input_usd_per_mtok>200000\n{world.deployment.name},5,6\n".encode()
    source = csv_file.read_file(text, name="contract.csv", deployments={world.deployment.name, other.name})
    return make_proposal(source, actor="olga", now=timezone.now())


def _backtested(world: make.World, request_id: uuid.UUID) -> Backtest:
    """A finished backtest in which everything happened that a page can show."""
    name = world.deployment.name
    tally = Tally(count=4, moved=1, compared=2, no_candidate=1, lacking=1, checked=4, reproduced=3)
    tally.tenants[world.tenant.pk] = TenantSums(4, 1, 2, 3_000_000, 1_000_000)
    tally.then_by_deployment[name], tally.now_by_deployment[name] = 4, 3
    tally.then_by_rule["rest"], tally.now_by_rule["rest"] = 4, 3
    tally.moves["", name] = 1
    tally.reasons["vision"] = tally.not_compared["no_candidate"] = tally.mismatches["catalog_changed"] = 1
    tally.first_token, tally.duration = Latency(2, 1, 80.0, 40.0), Latency(2, 0, 900.0, 800.0)
    tally.doubt(Expected(100.0, 2.0, 30.0, "workload", ("w", 1)), 400.0)
    entry = {"id": str(request_id), "tenant": world.tenant.pk, "then": name}
    costs = {"now": name, "rule_then": "rest", "rule_now": "rest", "cost_then": None, "cost_now": 5}
    tally.moved_sample.add(1, {**entry, **costs})
    tally.no_candidate_sample.add(1, {**entry, "reasons": ["vision"]})
    mismatch = {"reason": "catalog_changed", "members": ["dropped"], "then": [name], "now": []}
    tally.mismatch_sample.add(1, {"id": str(request_id), **mismatch})
    result = build_result(
        tally,
        model_of={},
        tenant_names={world.tenant.pk: "acme"},
        text_features=frozenset({"workload"}),
        is_checked=True,
        took_s=1.0,
    )
    now = timezone.now()
    return Backtest.objects.create(
        policy=world.policy, version=world.version, document={}, label="version 1", days=7, since=now, until=now,
        state="done", result=result, total_count=4, done_count=4, started_by="olga",
    )  # fmt: skip
