"""Which installation and browser do all browser tests share?

Starts `manage.py up` with its demo in a data directory of its own, as a newcomer would; once for all of them, because
that takes seconds, and not longer: while Playwright is open, no other test can run an event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.running_installation import Up, running_installation

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TIMEOUT_MS = 10_000
# An answer that a page waits for and shows; Chromium writes it down as an error all the same.
EXPECTED_ANSWERS = ("409 (Conflict)",)


@dataclass
class Installation:
    """A running installation, and the password and the demo's key that it printed. Its week of traffic comes later."""

    url: str
    password: str
    api_key: str
    up: Up


@pytest.fixture(scope="package")
def installation() -> Iterator[Installation]:
    with running_installation() as up:
        up.settings["POINTSMAN_DEMO_WEEK"] = "1"
        up.start()
        yield Installation(
            f"http://127.0.0.1:{up.port}",
            password=up.value("Sign in").removeprefix("operator / "),
            api_key=up.value("API key"),
            up=up,
        )


@pytest.fixture(scope="package")
def browser(installation: Installation) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, installation: Installation) -> Iterator[Any]:
    """A page of a signed-in operator; the test fails when the browser complained about anything."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{installation.url}/")
    page.fill("#id_username", "operator")
    page.fill("#id_password", installation.password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{installation.url}/")
    yield page
    context.close()
    assert complaints == []


def _is_complaint(message: Any) -> bool:
    return message.type == "error" and not any(answer in message.text for answer in EXPECTED_ANSWERS)
