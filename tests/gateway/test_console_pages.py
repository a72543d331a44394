"""Does every page of the console keep its promises: who may open it, how many queries, nothing inline?"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, resolve, reverse
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
from policies.models import Deployment, Provider, RateLimit, RateWindow
from policies.permissions import ABILITIES, Ability, Role
from policies.rate_limits import set_rate_limit
from tests import make
from tests.console_people import client_of, operator

pytestmark = pytest.mark.django_db

# Page -> the most queries it may take, 3 of them for the session, the person and the role, 3 for the menu's badges.
CEILINGS = {
    "home": 20, "find": 12, "requests": 22, "request": 22, "keys": 14, "key": 14, "price-new": 8,
    "models": 10, "model": 13, "providers": 8, "provider": 10, "deployments": 8, "deployment": 11,
    "policies": 9, "policy": 14, "tenants": 10, "tenant": 10, "people": 10, "audit": 8,
    "provider-new": 8, "provider-edit": 8, "provider-credential": 8, "model-new": 8, "model-edit": 8,
    "deployment-new": 10, "deployment-edit": 11, "tenant-new": 10, "tenant-edit": 12, "project-new": 8,
    "project-edit": 8, "key-new": 14, "key-rotate": 8, "person-new": 8,
    "management-tokens": 8, "management-token-new": 8,
    "policy-new": 8, "policy-about": 10, "policy-edit": 14, "policy-publish": 16, "policy-try": 12,
    "spend": 15, "spend-keys": 15, "spend-savings": 15,
    "budgets": 9, "budget": 15, "budget-new": 11, "budget-edit": 8,
    "budget-alerts": 10, "budget-recipient-new": 8, "budget-recipient-edit": 7,
    "statements": 18, "statement": 12, "statement-new": 13, "statement-close": 18, "statement-credit": 8,
    "sale-terms": 12, "sale-term-new": 12, "sale-price-new": 9, "end-sale-terms": 8,
    "prices": 11, "unpriced": 18, "price-proposal": 10, "price-proposal-new": 8,
    "bills": 8, "bill": 15, "bill-new": 9,
    "router": 22, "workload": 19, "router-table": 8,
    "policy-backtests": 11, "backtest": 7,
    "credits": 13, "credit": 20, "credit-new": 8, "credit-refund": 9, "credit-expire": 9, "billing-profile": 8,
    "issuer-details": 7, "exchange-rates": 8, "exchange-rate-new": 6,
    "exports": 11, "saved-views": 8, "saved-view": 9, "saved-view-new": 6, "saved-view-edit": 8,
    "scheduled-mail-new": 8,
    "rate-limits": 8, "rate-limit-new": 9, "rate-limit-edit": 8,
    "evaluations": 8, "evaluation-new": 6, "evaluation": 16, "evaluation-run": 12,
    "api-reference": 6, "api-reference-group": 6,
}  # fmt: skip
ABILITY_OF = {
    **dict.fromkeys(CEILINGS, Ability.READ),
    **dict.fromkeys(
        [name for name in CEILINGS if name.endswith(("-new", "-edit", "-credential"))], Ability.CONFIGURE
    ),
    **dict.fromkeys(["policy-about", "policy-publish", "policy-try"], Ability.CONFIGURE),
    "statement-new": Ability.ISSUE_STATEMENTS,
    "statement-credit": Ability.ISSUE_STATEMENTS,
    **dict.fromkeys(["sale-terms", "sale-term-new", "sale-price-new", "end-sale-terms"], Ability.SET_PRICES),
    "price-new": Ability.SET_PRICES,
    "price-proposal-new": Ability.SET_PRICES,
    "bill-new": Ability.SET_PRICES,
    "budget-new": Ability.SET_BUDGETS,
    "budget-edit": Ability.SET_BUDGETS,
    "budget-recipient-new": Ability.SET_BUDGETS,
    "budget-recipient-edit": Ability.SET_BUDGETS,
    **dict.fromkeys(["credit-new", "credit-refund", "credit-expire", "billing-profile"], Ability.SET_BILLING),
    **dict.fromkeys(["issuer-details", "exchange-rate-new"], Ability.SET_BILLING),
    "saved-view-new": Ability.READ,
    "scheduled-mail-new": Ability.MAIL_REPORTS,
    "key-new": Ability.ISSUE_KEYS,
    "key-rotate": Ability.ISSUE_KEYS,
    "people": Ability.MANAGE_PEOPLE,
    "person-new": Ability.MANAGE_PEOPLE,
    "audit": Ability.SEE_AUDIT,
    "management-tokens": Ability.ISSUE_TOKENS,
    "management-token-new": Ability.ISSUE_TOKENS,
}
WORKLOAD = "00112233445566ff"
NOT_PAGES = {
    "sign-in",
    "sign-out",
    "metrics",
    "policy-traffic",
    "bill-export",
    "spend-export",
    "statement-file",
    "spend-keys-export",
    "export-file",
}


@dataclass
class Filled:
    """A database with a row of everything, and the address of every page."""

    world: make.World
    request_id: uuid.UUID
    addresses: dict[str, str]


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    world = make.world()
    lines = make.request_lines(world)
    lines[0]["features"] |= {"workload": WORKLOAD, "task_type": "code"}
    make.ingest(tmp_path, [*lines, *make.request_lines(world, price=None, cost=None, unpriced=True)])
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
    for name in CEILINGS:
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


def named_pages() -> set[str]:
    """The names of all addresses of ours."""
    found: set[str] = set()

    def walk(patterns: list[Any]) -> None:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                if pattern.namespace is None:
                    walk(pattern.url_patterns)
            elif isinstance(pattern, URLPattern) and pattern.name:
                found.add(pattern.name)

    walk(get_resolver().url_patterns)
    return found


def address_of(name: str, filled: Filled) -> str:
    """An address that takes posts, with the number of some row where it needs one."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return reverse(name, args=[filled.world.tenant.pk])


def test_every_address_is_either_tested_here_as_a_page_or_takes_posts_only(filled: Filled) -> None:
    client = operator()
    for name in named_pages() - set(CEILINGS) - NOT_PAGES:
        assert client.get(address_of(name, filled)).status_code == 405, name


@pytest.mark.parametrize("role", [*Role, None], ids=str)
def test_a_page_opens_for_the_roles_that_may_and_says_who_helps_the_others(
    filled: Filled, role: Role | None
) -> None:
    User.objects.create_superuser("olga-the-operator", password=None)
    client = client_of(role)
    for name, address in filled.addresses.items():
        response = client.get(address)
        may_open = role is not None and ABILITY_OF[name] in ABILITIES[role]
        assert response.status_code == (200 if may_open else 403), (name, role)
        if not may_open:
            assert "olga-the-operator" in response.content.decode()


def test_a_stranger_is_sent_to_the_sign_in_page_and_a_fragment_sends_the_whole_page_there(
    filled: Filled,
) -> None:
    for address in filled.addresses.values():
        response = Client().get(address)
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("sign-in"))
    fragment = Client().get(
        "/requests", headers={"HX-Request": "true", "HX-Current-URL": "http://x/requests?a=1"}
    )
    assert fragment["HX-Redirect"] == "/sign-in?next=/requests%3Fa%3D1"


def test_posts_of_others_are_refused_too(filled: Filled) -> None:
    for role in (Role.VIEWER, Role.FINANCE):
        client = client_of(role)
        for name in named_pages() - NOT_PAGES:
            if name in CEILINGS and ABILITY_OF[name] in (Ability.READ, Ability.SEE_AUDIT):
                continue
            if name.startswith(("export-", "saved-view-")):
                continue  # everybody may stop and change what is their own
            if name.startswith("scheduled-mail-") and role is Role.FINANCE:
                continue
            if ABILITY_OF.get(name) is Ability.SET_PRICES and role is Role.FINANCE:
                continue
            if name.startswith(("price-", "budget-", "statement", "bill-")) and role is Role.FINANCE:
                continue
            if ABILITY_OF.get(name) is Ability.SET_BILLING and role is Role.FINANCE:
                continue
            address = filled.addresses.get(name) or address_of(name, filled)
            assert client.post(address, {"confirm_name": "x"}).status_code == 403, (name, role)


@pytest.mark.parametrize("role", [Role.VIEWER, pytest.param(Role.FINANCE, marks=pytest.mark.slow)], ids=str)
def test_no_page_shows_a_link_or_a_button_to_whoever_may_not_follow_it(filled: Filled, role: Role) -> None:
    """One address of each name: a viewer must not be led to a refusal, nor to a page that is gone."""
    client = client_of(role)
    followed: set[tuple[str, str]] = set()
    for name, address in filled.addresses.items():
        if ABILITY_OF[name] not in ABILITIES[role]:
            continue
        html = client.get(address).content.decode()
        for kind, target in re.findall(r'(href|action)="(/[^"]*)"', html):
            path = unescape(target)
            if path.startswith(("/static/", "/admin/", "/api/")):
                continue
            match = resolve(path.partition("?")[0])
            if (
                match.url_name in ("sign-out", "metrics", "export-file")
                or (kind, str(match.url_name)) in followed
            ):
                continue
            followed.add((kind, str(match.url_name)))
            if kind == "href":
                assert client.get(path).status_code == 200, (role, name, path)
            else:
                # Refused before anything is read: a method that no page takes tells who may not even try.
                assert client.put(path).status_code == 405, (role, name, path)
    assert len(followed) > 40


@pytest.mark.parametrize("name", sorted(CEILINGS))
def test_a_page_takes_no_more_queries_than_its_ceiling(filled: Filled, name: str) -> None:
    client = operator()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get(filled.addresses[name]).status_code == 200
    assert len(queries) <= CEILINGS[name], [query["sql"][:150] for query in queries.captured_queries]


class InlineFinder(HTMLParser):
    """Collects what the content security policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "style":
            self.found.append("<style>")
        if tag == "script" and "src" not in named and named.get("type") != "application/json":
            self.found.append("<script> without src")
        for name, value in attrs:
            if name == "style" or re.match(r"(on|hx-on)", name) or (value or "").startswith("javascript:"):
                self.found.append(f"<{tag} {name}={value!r}>")


def inline_parts(html: str) -> list[str]:
    finder = InlineFinder()
    finder.feed(html)
    return finder.found


def test_the_finder_of_inline_parts_finds_them() -> None:
    html = (
        '<style>a{}</style><p style="x" onclick="y" hx-on:click="z"><a href="javascript:0"><script>1</script>'
    )
    assert len(inline_parts(html)) == 6


def test_no_page_holds_inline_script_style_or_handlers(filled: Filled) -> None:
    client = operator()
    addresses = [*filled.addresses.values(), "/admin/", "/admin/policies/tenant/", "/no-such-page"]
    addresses += [reverse("admin:policies_tenant_change", args=[filled.world.tenant.pk])]
    addresses += [reverse("admin:billing_requestrecord_changelist")]
    for address in addresses:
        response = client.get(address)
        assert inline_parts(response.content.decode()) == [], address
        policy = response["Content-Security-Policy"]
        assert "script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    assert inline_parts(Client().get("/sign-in").content.decode()) == []


class UnaskedFinder(HTMLParser):
    """Collects the addresses of forms that take something away without asking first."""

    # What is deleted can be brought back for a while.
    HAS_UNDO = ("saved-view-delete",)

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._dialogs = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._dialogs += tag == "dialog"
        named = dict(attrs)
        address = named.get("action") or ""
        if tag != "form" or named.get("method") != "post" or not address.startswith("/") or self._dialogs:
            return
        name = str(resolve(address.partition("?")[0]).url_name)
        if re.search(r"delete|remove|revoke|password|void", name) and name not in self.HAS_UNDO:
            self.found.add(name)

    def handle_endtag(self, tag: str) -> None:
        self._dialogs -= tag == "dialog"


def test_nothing_is_taken_away_without_being_asked_first(filled: Filled) -> None:
    finder = UnaskedFinder()
    finder.feed('<form method="post" action="/people/1/password"></form>')
    assert finder.found == {"person-password"}
    client = operator()
    for name, address in filled.addresses.items():
        finder = UnaskedFinder()
        finder.feed(client.get(address).content.decode())
        assert finder.found == set(), name


def test_every_page_has_a_title_one_heading_a_place_in_the_menu_and_no_leftover_of_a_template(
    filled: Filled, settings: Any
) -> None:
    # A name that a view forgot to hand over would else be an empty cell that nobody misses.
    (engine,) = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "OPTIONS": {**engine["OPTIONS"], "string_if_invalid": "MISSING:%s"}}]
    client = operator()
    titles = {}
    for name, address in filled.addresses.items():
        html = client.get(address).content.decode()
        assert html.count("<h1") == 1, name
        assert "{{" not in html
        assert "{%" not in html
        # Members of a policy's document may be left out by whoever wrote it.
        assert re.findall(r"MISSING:(?!document\.)[\w.]*", html) == [], name
        assert not re.search(r'>\s*(null|None)\s*</textarea>|value="(null|None)"', html), name
        assert len(re.findall(r'<li><a [^>]*aria-current="page"', html)) == (name != "find"), (
            name,
            "in the menu",
        )
        title = re.findall(r"<title>(.*?)</title>", html)[0]  # the later ones are of charts
        titles[name] = title
    assert len(set(titles.values())) == len(titles), "two pages have one title"


@pytest.mark.parametrize("name", ["home", "requests", "request", "deployment", "backtest", "exports"])
def test_a_fragment_is_a_part_of_the_page_and_the_page_opens_directly(filled: Filled, name: str) -> None:
    client = operator()
    fragment = client.get(filled.addresses[name], headers={"HX-Request": "true"}).content.decode()
    assert fragment.strip()
    assert "<html" not in fragment
    assert "<html" in client.get(filled.addresses[name]).content.decode()


@pytest.mark.parametrize(
    "name",
    [
        "requests",
        "keys",
        "models",
        "providers",
        "deployments",
        "policies",
        "tenants",
        "management-tokens",
        "router",
        "spend",
        "spend-keys",
        "saved-views",
        "exports",
        "prices",
        "statements",
        "bills",
    ],
)
def test_an_empty_list_says_what_the_page_is_for(name: str) -> None:
    html = operator().get(reverse(name)).content.decode()
    assert "empty-state" in html
    assert " yet</h3>" in html


def test_vendored_files_name_no_source_map_and_carry_their_licence() -> None:
    folder = Path(settings.BASE_DIR) / "gateway" / "static" / "vendor"
    for path in folder.rglob("*.min.*"):
        assert b"sourceMappingURL" not in path.read_bytes(), path
        assert (path.parent / "LICENSE").exists()


def test_the_back_office_has_no_sign_in_page_of_its_own() -> None:
    response = Client().post("/admin/login/?next=/admin/", {"username": "walter", "password": "guess"})
    assert (response.status_code, response["Location"]) == (302, "/sign-in?next=/admin/")
    for role in (Role.VIEWER, Role.FINANCE):
        assert client_of(role).get("/admin/", follow=True).status_code == 403
    assert client_of(Role.OPERATOR).get("/admin/").status_code == 200


def test_the_providers_page_counts_the_deployments_of_each(filled: Filled) -> None:
    page = operator().get("/providers").content.decode()
    counts = [int(text) for text in re.findall(r'data-label="deployments">(\d+)<', page)]
    assert counts == [provider.deployments.count() for provider in Provider.objects.all()]
    assert sum(counts) > 0
