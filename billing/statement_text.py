"""How is a text in any script set in lines that the PDF's fonts can print?

Pure, over the font files that stand beside it (`fonts/README.md`) and in ReportLab: no system font. Vera first, so that
what it knows is set as ever; DejaVu (its larger sister) for what it does not; WenQuanYi Micro Hei for Chinese,
Japanese and Korean. Hebrew and Arabic are put into the order and the forms in which they are seen, line by line,
without their vowel points. What no font knows loses its accent or becomes "?", and `has_replaced` says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from arabic_reshaper import ArabicReshaper
from bidi import get_base_level, get_display
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph

PLAIN, BOLD = "Pointsman-Vera", "Pointsman-Vera-Bold"
WIDE, WIDE_BOLD = "Pointsman-DejaVu", "Pointsman-DejaVu-Bold"
EAST_ASIAN = "Pointsman-MicroHei"
FOLDER: Final = Path(__file__).parent / "fonts"
FILES: Final = {
    PLAIN: "Vera.ttf",
    BOLD: "VeraBd.ttf",
    WIDE: str(FOLDER / "DejaVuSans.ttf"),
    WIDE_BOLD: str(FOLDER / "DejaVuSans-Bold.ttf"),
    EAST_ASIAN: str(FOLDER / "wqy-microhei.ttc"),
}
# In which fonts a character is looked for, by the font of the style. Micro Hei has one weight.
FALLBACKS: Final = {PLAIN: (PLAIN, WIDE, EAST_ASIAN), BOLD: (BOLD, WIDE_BOLD, EAST_ASIAN)}
REPLACED: Final = "?"
# A cell must fit on a page: nobody's name is longer than this on paper. Of characters twice as wide, half as many.
MAX_TEXT: Final = 600
RIGHT_TO_LEFT: Final = ("R", "AL")
# Lines of these scripts are broken here, not by ReportLab, which knows no order but from left to right and breaks at
# spaces alone: as wide as the narrowest column of names.
LINE_WIDTH: Final = 165.0
CLOSING: Final = {"(": ")", "[": "]", "{": "}", "<": ">", "«": "»"}
# What stands for a pair that is seen the other way round, until its line is ordered: characters of the same kind.
TURNED: Final = {"(": ("⟦", "⟧"), "[": ("⟬", "⟭"), "{": ("⟪", "⟫"), "<": ("⋖", "⋗"), "«": ("⋘", "⋙")}
_TURN_BACK: Final = str.maketrans(
    {
        marker: turned
        for one, two in TURNED.items()
        for marker, turned in zip(two, (CLOSING[one], one), strict=True)
    }
)
# Of the ligatures only lam with alef, which every Arabic text has: DejaVu has no others.
_RESHAPER: Final = ArabicReshaper(
    {
        "delete_harakat": False,
        "ARABIC LIGATURE ALLAH": False,
        "ARABIC LIGATURE LAM WITH ALEF": True,
        "ARABIC LIGATURE LAM WITH ALEF WITH HAMZA ABOVE": True,
        "ARABIC LIGATURE LAM WITH ALEF WITH HAMZA BELOW": True,
        "ARABIC LIGATURE LAM WITH ALEF WITH MADDA ABOVE": True,
    }
)


@dataclass(slots=True)
class Printer:
    """Turns texts into what the fonts can print, and remembers whether it had to replace anything."""

    has_replaced: bool = field(default=False)

    def text(self, raw: str) -> str:
        """Printable, of a length that fits a page, unescaped, in the order in which it is read."""
        is_mixed = has_right_to_left(raw)
        written = "".join(self._character(one, is_mixed) for one in unicodedata.normalize("NFC", raw))
        most = MAX_TEXT // 2 if any(_is_east_asian(one) for one in written) else MAX_TEXT
        return written if len(written) <= most else f"{written[:most]}…"

    def cell(self, raw: str, style: ParagraphStyle) -> Paragraph:
        """A paragraph of this text and nothing else."""
        text = self.text(raw)
        if has_right_to_left(text) or any(_is_east_asian(one) for one in text):
            base = base_of(text)
            lines = [seen(line, base) for line in break_lines(text, style.fontName, style.fontSize)]
        else:
            lines = [text]
        return Paragraph("<br/>".join(_markup(line, style.fontName) for line in lines), style)

    def _character(self, character: str, is_mixed: bool) -> str:
        if character in "\n\t":
            return " "
        category = unicodedata.category(character)
        if is_mixed and category == "Mn":
            # Vowel points: without a shaping engine they would stand beside their letters.
            self.has_replaced = True
            return ""
        if category[0] != "C" and _font_of(character, PLAIN):
            return character
        self.has_replaced = True
        plain = unicodedata.normalize("NFKD", character)
        base = plain[0]
        is_accented = base.isalnum() and all(unicodedata.combining(one) for one in plain[1:])
        return base if is_accented and _font_of(base, PLAIN) else REPLACED


def has_right_to_left(text: str) -> bool:
    """Whether any of it is written from right to left."""
    return any(unicodedata.bidirectional(one) in RIGHT_TO_LEFT for one in text)


def base_of(text: str) -> str:
    """In which direction a paragraph runs: "R" or "L", that of its first letter."""
    return "R" if get_base_level(text) else "L"


def seen(line: str, base: str) -> str:
    """A line in the order and the forms in which it is seen, in a paragraph that runs as `base` says."""
    if not has_right_to_left(line):
        return line if base == "L" else _ordered(line, base)
    return _ordered(_RESHAPER.reshape(line), base)


def _ordered(line: str, base: str) -> str:
    """By the Unicode bidirectional algorithm; the library moves brackets and does not turn them round (its rule L4)."""
    marked = list(line)
    if not any(marker in line for markers in TURNED.values() for marker in markers):
        for first, last in _list_pairs(line):
            opening, closing = TURNED[line[first]]
            tried = [*line]
            tried[first], tried[last] = opening, closing
            shown = get_display("".join(tried), base_dir=base)
            if shown.index(closing) < shown.index(opening):
                marked[first], marked[last] = opening, closing
    return str(get_display("".join(marked), base_dir=base)).translate(_TURN_BACK)


def _list_pairs(line: str) -> list[tuple[int, int]]:
    """Where brackets and quotation marks open and close."""
    pairs, opened = [], list[tuple[int, str]]()
    for place, character in enumerate(line):
        if character in CLOSING:
            opened.append((place, CLOSING[character]))
        elif opened and opened[-1][1] == character:
            pairs.append((opened.pop()[0], place))
    return pairs


def list_runs(text: str, font: str) -> Iterator[tuple[str, str]]:
    """Parts of a printable text, each with the font that knows it. `font`: the one of the style."""
    for name, characters in groupby(text, key=lambda one: _font_of(one, font) or font):
        yield name, "".join(characters)


def width_of(text: str, font: str, size: float) -> float:
    """How wide a printable text is, in points."""
    return float(sum(pdfmetrics.stringWidth(part, name, size) for name, part in list_runs(text, font)))


def break_lines(text: str, font: str, size: float) -> list[str]:
    """Lines that are no wider than a column, in the order in which they are read: broken at spaces, and between
    Chinese, Japanese and Korean characters; a longer word wherever the line is full."""
    lines = [""]
    for word in _split(text):
        for piece in [word] if width_of(word, font, size) <= LINE_WIDTH else word:
            if lines[-1] and width_of(lines[-1] + piece.rstrip(), font, size) > LINE_WIDTH:
                lines.append("")
            lines[-1] += piece if lines[-1] else piece.lstrip()
    return [line.rstrip() for line in lines]


@cache
def use_font(name: str) -> frozenset[str]:
    """The characters that a font knows; it is read from its file when it is first needed, once in a process."""
    font = TTFont(name, FILES[name])
    pdfmetrics.registerFont(font)
    return frozenset(chr(code) for code in font.face.charToGlyph)


def _split(text: str) -> Iterator[str]:
    """Pieces between which a line may end, each with the space after it."""
    word = ""
    for character in text:
        if word and (word[-1] == " " != character or _is_east_asian(character) or _is_east_asian(word[-1])):
            yield word
            word = ""
        word += character
    if word:
        yield word


def _is_east_asian(character: str) -> bool:
    return unicodedata.east_asian_width(character) in ("W", "F")


def _font_of(character: str, font: str) -> str | None:
    return next((name for name in FALLBACKS[font] if character in use_font(name)), None)


def _markup(line: str, font: str) -> str:
    return "".join(
        escape(part) if name == font else f'<font name="{name}">{escape(part)}</font>'
        for name, part in list_runs(line, font)
    )
