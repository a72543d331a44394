"""Which words does a text begin and end with? Read once for type, language and difficulty.

Pure. Words are lower-case bytes without punctuation. A text is looked at where people put what they want: at its
beginning and at its end; so a long text takes no longer than a page.
"""

from __future__ import annotations

from typing import Final, NamedTuple

HEAD_CHARS: Final = 600
TAIL_CHARS: Final = 200

# Letters, digits and the bytes of other scripts stay; everything else separates words.
_SEPARATED: Final = bytes([code if code >= 128 or chr(code).isalnum() else ord(" ") for code in range(256)])


class Words(NamedTuple):
    """`raw` is the part that was looked at, in lower case; `length` is that of the whole text, in characters."""

    raw: bytes
    listed: list[bytes]
    length: int


def read_words(text: str) -> Words:
    """Read a text's words, in order."""
    length = len(text)
    looked_at = text if length <= HEAD_CHARS + TAIL_CHARS else f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"
    raw = looked_at.lower().encode("utf-8", "replace")
    return Words(raw, raw.translate(_SEPARATED).split(), length)
