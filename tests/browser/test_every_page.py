"""Is every page of the console fit for everybody: readable, usable by keyboard and screen reader, on a telephone?

Follows the links from the start page, opens one page of each kind, and lets axe-core look at it (WCAG 2 A and AA).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import Resolver404, resolve

from tests.browser.conftest import Installation

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RULES = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
CONTRAST = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
GRAVE = ("serious", "critical")
# Links that lead out of the console's own pages, or hand a file over.
NO_PAGES = {"metrics", "sign-out", "openapi"}
FEWEST_PAGES = 45
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}


def kind_of(address: str) -> str | None:
    """The name of the page at an address; None for what is no page of the console."""
    try:
        name = resolve(urlsplit(address).path).view_name
    except Resolver404:
        return None
    is_page = name and ":" not in name and name not in NO_PAGES and not name.endswith(("-export", "-file"))
    return name if is_page else None


def links_of(page: Any, installation: Installation) -> list[str]:
    found = page.eval_on_selector_all("a[href]:not([download])", "links => links.map(link => link.href)")
    return [link for link in found if link.startswith(installation.url) and "#" not in link]


def grave(page: Any, rules: dict[str, Any], where: str) -> list[str]:
    answer = Axe().run(page, options=rules).response
    return [
        f"{where}: {violation['id']} ({violation['impact']}): {node['html'][:200]}: {node['failureSummary']}"
        for violation in answer["violations"]
        if violation["impact"] in GRAVE
        for node in violation["nodes"][:3]
    ]


def test_every_page_is_accessible_in_light_and_dark_and_fits_a_telephone(
    page: Any, installation: Installation
) -> None:
    waiting = {"home": f"{installation.url}/"}
    seen: set[str] = set()
    faults: list[str] = []
    # A button that is changing its colour has a poor contrast for a moment.
    page.emulate_media(reduced_motion="reduce")
    while waiting:
        name, address = waiting.popitem()
        seen.add(name)
        answer = page.goto(address)
        if answer.status != 200 or "html" not in answer.headers.get("content-type", ""):
            faults.append(f"{name}: {address} answers {answer.status}")
            continue
        for link in links_of(page, installation):
            kind = kind_of(link)
            if kind is not None and kind not in seen:
                waiting.setdefault(kind, urljoin(address, link))
        faults += grave(page, RULES, name)
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        faults += grave(page, CONTRAST, f"{name} (dark)")
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            faults.append(f"{name}: {width} px wide on a telephone")
        page.set_viewport_size(DESKTOP)
    assert faults == [], "\n".join(faults)
    assert len(seen) >= FEWEST_PAGES, sorted(seen)
