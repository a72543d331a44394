"""Are names in all scripts set in the order and the forms in which they are read?"""

from __future__ import annotations

import pytest
from reportlab.lib.styles import ParagraphStyle

from billing.statement_text import (
    BOLD,
    EAST_ASIAN,
    LINE_WIDTH,
    MAX_TEXT,
    PLAIN,
    WIDE,
    WIDE_BOLD,
    Printer,
    base_of,
    break_lines,
    list_runs,
    seen,
    width_of,
)

ABC = "אבג"
CBA = ABC[::-1]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Example Ltd (x)", "Example Ltd (x)"),
        (f"{ABC} 15, {ABC} 3", f"3 {CBA} ,15 {CBA}"),
        (f"{ABC} (Example Ltd) 2026", f"2026 (Example Ltd) {CBA}"),
        (f"{ABC} (א (ב) [ג]) «ד»", f"«ד» ([ג] (ב) א) {CBA}"),
        (f"{ABC} <a (b) c>", f"<a (b) c> {CBA}"),
        (f"Ltd (x) {ABC} (y)", f"Ltd (x) {CBA} (y)"),
        (f"Subtotal {ABC} 7", f"Subtotal 7 {CBA}"),
        ("סלאם (", ") םאלס"),
    ],
)
def test_hebrew_is_set_from_right_to_left_with_its_brackets_turned(written: str, shown: str) -> None:
    expected = (
        shown if ")" not in shown or "(" in shown else shown.replace(")", "(")
    )  # one alone stays as it is
    assert seen(written, base_of(written)) == expected


def test_a_line_runs_as_its_paragraph_does() -> None:
    assert seen("(Example) 2026", "R") == "2026 (Example)"
    assert seen("(Example) 2026", "L") == "(Example) 2026"


def test_arabic_letters_are_joined() -> None:
    # As Unicode names them: heh final, lam-alef isolated; a letter that joins to both sides has its middle form.
    assert seen("لا", "R") == "\ufefb"
    assert seen("بيت", "R") == "\ufe96\ufef4\ufe91"
    assert [name for name, _ in list_runs(seen("شركة گچ 12", "R"), PLAIN)] == [PLAIN, WIDE, PLAIN, WIDE]


def test_each_character_is_set_in_the_first_font_that_knows_it() -> None:
    runs = [(PLAIN, "Käufer Łód"), (WIDE, "ź"), (PLAIN, " "), (EAST_ASIAN, "東京")]
    assert list(list_runs("Käufer Łódź 東京", PLAIN)) == runs
    assert [name for name, _ in list_runs("źx東", BOLD)] == [WIDE_BOLD, BOLD, EAST_ASIAN]


@pytest.mark.parametrize(
    "text", ["株式会社" * 60, f"{ABC} " * 90, ABC * 60, f"Ltd {ABC * 9} 東京" * 8, "", "ab"]
)
def test_lines_fit_their_column_and_lose_nothing(text: str) -> None:
    lines = break_lines(text, PLAIN, 8.5)
    assert all(width_of(line, PLAIN, 8.5) <= LINE_WIDTH for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert "" not in lines[1:]


def test_what_no_font_knows_and_vowel_points_are_told() -> None:
    for raw, printed in (("สวัสดี", "??????"), ("שָׁלוֹם", "שלום"), ("🙂", "?"), ("a\u202eb", "a?b")):
        printer = Printer()
        assert (printer.text(raw), printer.has_replaced) == (printed, True)
    printer = Printer()
    assert printer.text("Łódź שלום 東京 سلام") == "Łódź שלום 東京 سلام"
    assert (printer.has_replaced, len(printer.text("東" * 900))) == (False, MAX_TEXT // 2 + 1)


def test_a_name_is_never_markup_in_any_font() -> None:
    cell = Printer().cell("<b>東京</b> & <para>שלום", ParagraphStyle("x", fontName=PLAIN, fontSize=8.5))
    cell.wrap(500, 500)
    assert "<b>東京</b> &" in cell.getPlainText()
