"""Can an operator write, test, publish and take back a policy in the browser, beside a colleague?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import CHROMIUM, Installation

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"
    ),
]


def names(page: Any) -> list[str]:
    return page.locator(".rule [data-show=name]").all_inner_texts()  # type: ignore[no-any-return]


def add_rule(page: Any, name: str, deployment: str) -> Any:
    """Add a rule by keyboard: the new rule's name has the focus and is selected."""
    page.focus("[data-do=add]")
    page.keyboard.press("Enter")
    page.keyboard.type(name)
    rule = page.locator(".rule").last
    rule.locator("[data-add=deployments]").select_option(deployment)
    return rule


def wait_until(page: Any, state: str) -> None:
    page.wait_for_selector(f"#draft-state:text-is('{state}')")


def save(page: Any) -> None:
    page.keyboard.press("Control+s")
    wait_until(page, "saved just now")


def test_a_policy_is_written_tested_published_and_rolled_back_beside_a_colleague(
    page: Any, installation: Installation
) -> None:
    page.goto(f"{installation.url}/policies/new")
    page.fill("#id_public_id", "acme/journey")
    page.check("text=demo")
    page.click("button:has-text('Add and edit')")
    page.wait_for_selector("#test-form")

    # Three rules, the last one automatic; a condition as rows, another as text with completion.
    rule = add_rule(page, "pictures", "sim-large@simulated")
    rule.locator("[data-do=row-add]").click()
    page.wait_for_selector(".rule [data-show=when]:text-is('has_images')")
    add_rule(page, "everything else", "sim-small@simulated")
    rule = page.locator(".rule").last
    rule.locator("[data-add=deployments]").select_option("sim-medium@simulated")
    rule.locator("[data-field=strategy]").select_option("auto")
    rule = add_rule(page, "long prompts", "sim-medium@simulated")
    rule.locator("[data-mode=text]").click()
    page.keyboard.type("input_tok")
    page.keyboard.press("Enter")
    page.keyboard.type(" > > 4000")
    page.wait_for_selector(".column-mark:not([hidden])")
    assert "column 16" in page.inner_text(".column-mark:not([hidden])")
    for _ in "> 4000":
        page.keyboard.press("Backspace")
    page.keyboard.type("4000")
    page.locator(".column-mark:not([hidden])").wait_for(state="detached")
    assert page.locator(".problem:has-text('never reached')").count() == 1

    # Order by keyboard and by mouse, removal with undo.
    rule.locator(".rule-head [data-do=up]").press("Enter")
    assert names(page) == ["pictures", "long prompts", "everything else"]
    for toggle in page.locator("[data-do=toggle]").all():
        toggle.click()
    page.locator(".rule-grip").nth(1).drag_to(page.locator(".rule").nth(0), target_position={"x": 90, "y": 5})
    assert names(page) == ["long prompts", "pictures", "everything else"]
    page.locator(".rule-head [data-do=remove]").first.click()
    assert names(page) == ["pictures", "everything else"]
    page.click("#undo")
    assert names(page) == ["long prompts", "pictures", "everything else"]
    wait_until(page, "unsaved changes")

    # The test panel decides against what stands in the form.
    page.click("text=Decide against this draft")
    page.wait_for_selector(".try-rule:has-text('everything else') .badge:has-text('matched')")
    assert "sim-small@simulated" in page.inner_text("#try-result")
    save(page)

    page.click("#publish")
    page.fill("#note", "three rules for a start")
    if page.locator("[name=warnings_read]").count():
        page.check("[name=warnings_read]")
    page.click("button:has-text('Publish as version 1')")
    assert "v1 live" in page.inner_text("h1")
    assert "three rules for a start" in page.inner_text("main")

    # A colleague saves while the draft is open here: nothing is lost.
    page.click("text=Edit draft")
    page.wait_for_selector(".rule")
    colleague = page.context.new_page()
    colleague.goto(page.url)
    colleague.locator(".rule [data-do=toggle]").first.click()
    colleague.locator(".rule [data-field=timeout_s]").first.fill("30")
    save(colleague)
    colleague.close()
    page.locator(".rule-head [data-do=duplicate]").nth(1).click()
    page.keyboard.type("mine")
    page.click("#save")
    page.wait_for_selector("#conflict[open]")
    assert "30" in page.inner_text("#conflict [data-show=theirs]")
    page.click("text=Apply mine on top")
    wait_until(page, "unsaved, on top of theirs")
    assert names(page) == ["long prompts", "pictures", "mine", "everything else"]
    assert page.input_value(".rule [data-field=timeout_s] >> nth=0") == "30"
    save(page)

    page.click("#publish")
    if page.locator("[name=warnings_read]").count():
        page.check("[name=warnings_read]")
    page.click("button:has-text('Publish as version 2')")
    page.click("text=Roll back…")
    assert "mine" in page.inner_text("dialog[open]")
    page.click("dialog[open] button[type=submit]")
    assert "v3 live" in page.inner_text("h1")
    assert "mine" not in page.inner_text(".rule-line >> nth=1")


def test_rules_are_ordered_by_touch_too(browser: Any, page: Any, installation: Installation) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True,
        storage_state=page.context.storage_state(),
    )  # fmt: skip
    touched = context.new_page()
    touched.goto(f"{installation.url}/policies")
    touched.click("table >> text=pointsman/auto")
    touched.click("text=Edit draft")
    touched.wait_for_selector(".rule")
    before = names(touched)
    fingers = context.new_cdp_session(touched)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
        )

    def drag_second_above_first(end: str) -> None:
        grip = touched.locator(".rule-grip").nth(1).bounding_box()
        top = touched.locator(".rule").nth(0).bounding_box()["y"]
        x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
        touch("touchStart", (x, y))
        for step in range(1, 6):
            touch("touchMove", (x, y + (top + 5 - y) * step / 5))
        assert names(touched)[0] == before[1], "it is seen where it would be"
        touch(end)

    drag_second_above_first("touchCancel")
    assert names(touched) == before
    drag_second_above_first("touchEnd")
    assert names(touched) == [before[1], before[0], *before[2:]]
    touched.click("#undo")
    assert names(touched) == before
    context.close()


def test_the_editor_fits_a_telephone(page: Any, installation: Installation) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{installation.url}/policies")
    page.click("table >> text=pointsman/auto")
    page.click("text=Edit draft")
    page.locator(".rule [data-do=toggle]").first.click()
    page.locator(".rule [data-field=strategy]").first.select_option("weighted")
    page.wait_for_selector("#test-form")
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0
    page.click("#undo")
