"""What stands in the console's menu for this person? Template context processor.

Reads: the person's role, the health board, today's rollups (for the badges: what needs a person).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from billing.price_proposals import count_waiting
from billing.rerating import count_unpriced_lately
from gateway.needs_attention import count_down_providers
from policies.permissions import Ability, may, role_of
from policies.router_tables import find_waiting_number


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the menu. `shortcut` is the key after `g`; `also`: how addresses begin that belong to it as well."""

    title: str
    url_name: str
    icon: str
    ability: Ability = Ability.READ
    shortcut: str = ""
    also: tuple[str, ...] = ()


MENU: tuple[tuple[str, tuple[Page, ...]], ...] = (
    (
        "",
        (
            Page("Home", "home", "home", shortcut="h"),
            Page("Requests", "requests", "list-details", shortcut="r"),
        ),
    ),
    (
        "Routing",
        (
            Page("Policies", "policies", "route", shortcut="p", also=("/backtests/",)),
            Page("Auto router", "router", "wand", shortcut="w"),
            Page("Models", "models", "box", shortcut="m"),
            Page("Providers", "providers", "plug", shortcut="o"),
            Page("Deployments", "deployments", "server", shortcut="d"),
        ),
    ),
    (
        "Access",
        (
            Page("Tenants", "tenants", "building", shortcut="t", also=("/projects/",)),
            Page("API keys", "keys", "key", shortcut="k"),
            Page("Rate limits", "rate-limits", "filter", shortcut="l"),
            Page("Management tokens", "management-tokens", "terminal-2", Ability.ISSUE_TOKENS),
            Page("Management API", "api-reference", "code"),
            Page("People", "people", "users", Ability.MANAGE_PEOPLE),
        ),
    ),
    (
        "Money",
        (
            Page("Spend", "spend", "coin", shortcut="s"),
            Page("Budgets", "budgets", "gauge", shortcut="b"),
            Page("Prices", "prices", "tag", shortcut="c"),
            Page("Statements", "statements", "receipt", shortcut="i"),
            Page("Credit", "credits", "wallet"),
            Page("Reconciliation", "bills", "circle-check"),
            Page("Exports", "exports", "download"),
        ),
    ),
    (
        "Record",
        (
            Page("Audit", "audit", "history", Ability.SEE_AUDIT, shortcut="a"),
            Page("Back office", "admin:index", "settings", Ability.CONFIGURE),
        ),
    ),
)


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Return {"menu", "role"}; nothing for strangers. Pages of the Django admin have a menu of their own."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or request.path.startswith("/admin/"):
        return {}
    badges = _badges() if may(user, Ability.READ) else {}
    menu = []
    for title, pages in MENU:
        entries = [_entry(page, request.path, badges) for page in pages if may(user, page.ability)]
        if entries:
            menu.append({"title": title, "entries": entries})
    return {"menu": menu, "role": role_of(user)}


def _entry(page: Page, path: str, badges: dict[str, tuple[str, str]]) -> dict[str, Any]:
    url = reverse(page.url_name)
    colour, badge = badges.get(page.url_name, ("", ""))
    return {
        "title": page.title,
        "url": url,
        "icon": page.icon,
        "shortcut": page.shortcut,
        "is_current": path == url or (url != "/" and path.startswith((f"{url.rstrip('/')}/", *page.also))),
        "badge": badge,
        "badge_colour": colour,
    }


def _badges() -> dict[str, tuple[str, str]]:
    badges = {}
    if down := count_down_providers(Path(settings.POINTSMAN_DATA_DIR)):
        badges["providers"] = ("red", f"{down} down")
    if unpriced := count_unpriced_lately(timezone.now().date()):
        badges["requests"] = ("yellow", f"{unpriced:,} unpriced")
    if waiting := count_waiting():
        badges["prices"] = ("azure", f"{waiting:,} to approve")
    if find_waiting_number() is not None:
        badges["router"] = ("azure", "1 new")
    return badges
