"""Does a new operator get from nothing to a policy of their own, tried on past traffic, live, and back?

On the demo's week of traffic, which the installation writes by itself after its first start.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.conftest import CHROMIUM, Installation

POLICY = "acme/assistant"
# Every worker has what was published after 2 s; two cores that also draw pages may take longer.
IN_FORCE_S = 5.0
WEEK_S = 60.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"
    ),
]


def add_rule(page: Any, name: str, *deployments: str) -> Any:
    page.click("[data-do=add]")
    page.keyboard.type(name)
    rule = page.locator(".rule").last
    for deployment in deployments:
        rule.locator("[data-add=deployments]").select_option(deployment)
    return rule


def write_condition(page: Any, rule: Any, text: str) -> None:
    rule.locator("[data-mode=text]").click()
    rule.locator("textarea").fill(text)
    page.wait_for_selector(f".rule [data-show=when]:text-is('{text}')")


def publish(page: Any, note: str, number: int) -> None:
    page.fill("#note", note)
    if page.locator("[name=warnings_read]").count():
        page.check("[name=warnings_read]")
    page.click(f"button:has-text('Publish as version {number}')")
    assert f"v{number} live" in page.inner_text("h1")


def served_by(installation: Installation, *, version: int) -> httpx.Headers:
    """Ask with the demo's key until this version answers; other versions only answer before it is in force."""
    body = {"model": POLICY, "messages": [{"role": "user", "content": "Summarise our returns policy."}]}
    deadline = time.monotonic() + IN_FORCE_S
    while True:
        answer = httpx.post(
            f"{installation.url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {installation.api_key}"},
            timeout=30,
        )
        if answer.headers.get("x-pointsman-policy-version") == str(version):
            assert (answer.status_code, answer.headers["x-pointsman-policy"]) == (200, POLICY)
            return answer.headers
        assert time.monotonic() < deadline, f"{answer.status_code} {dict(answer.headers)}"
        time.sleep(0.05)


def wait_for_the_week(page: Any, backtests: str) -> None:
    """All of the week is there when two looks at the form that starts a backtest show the same number of requests."""
    deadline, before = time.monotonic() + WEEK_S, ""
    while time.monotonic() < deadline:
        page.goto(backtests)
        shown = page.inner_text("#traffic option[selected]") if page.locator("#traffic").count() else ""
        if shown and shown == before:
            return
        before = shown
        page.wait_for_timeout(1000)
    raise AssertionError(f"the demo's week did not come: {before}")


def test_from_no_policy_to_one_that_is_live_and_rolled_back(page: Any, installation: Installation) -> None:
    page.goto(f"{installation.url}/policies/new")
    page.fill("#id_public_id", POLICY)
    page.check("text=demo")
    page.click("button:has-text('Add and edit')")
    page.wait_for_selector("#test-form")
    rule = add_rule(page, "pictures", "sim-large@simulated")
    write_condition(page, rule, "has_images")
    rule = add_rule(page, "long prompts", "sim-medium@simulated")
    write_condition(page, rule, "input_tokens > 4000")
    rule = add_rule(page, "everything else", "sim-small@simulated", "sim-large@simulated")
    rule.locator("[data-field=strategy]").select_option("auto")

    # Test: nothing is saved yet, and the panel decides against what stands in the form.
    page.click("text=Decide against this draft")
    page.wait_for_selector(".try-rule:has-text('everything else') .badge:has-text('matched')")

    # Backtest, from the editor, in one click: the new policy has no requests, so those of another one are taken.
    other = page.context.new_page()
    wait_for_the_week(other, page.url.replace("/edit", "/backtests"))
    other.close()
    page.click("#backtest button")
    page.wait_for_selector("text=How these numbers come about", timeout=30_000)
    found = page.inner_text("main")
    assert "on the requests of pointsman/auto" in found
    for title in ("Cost by tenant", "Models", "everything else", "sim-small@simulated"):
        assert title in found
    page.click("text=Publish…")
    publish(page, "our first rules", 1)
    headers = served_by(installation, version=1)
    assert headers["x-pointsman-rule"] == "everything else"

    # A second version, and back.
    page.click("text=Edit draft")
    page.locator(".rule [data-do=toggle]").last.click()
    page.locator(".rule [data-field=strategy]").last.select_option("priority")
    page.click("#publish")
    publish(page, "the small one first", 2)
    assert served_by(installation, version=2)["x-pointsman-deployment"] == "sim-small@simulated"
    page.click("text=Roll back…")
    page.click("dialog[open] button[type=submit]")
    assert "v3 live" in page.inner_text("h1")
    served_by(installation, version=3)

    page.goto(f"{installation.url}/audit")
    page.click(f"summary:has-text('{POLICY}') >> nth=0")
    page.click(f"text=all changes of {POLICY}")
    audit = page.inner_text("main")
    for trace in (
        "created",
        "saved draft",
        "published",
        "our first rules",
        "the small one first",
        "rolled back",
    ):
        assert trace in audit, trace
