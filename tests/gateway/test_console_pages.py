"""Does every page of the console keep its promises: who may open it, how many queries, nothing inline?"""

from __future__ import annotations

import re
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

from policies.models import Provider
from policies.permissions import ABILITIES, Ability, Role
from tests.console_people import client_of, operator
from tests.gateway.full_console import Filled, fill_console

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


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return fill_console(tmp_path, pages=CEILINGS)


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
