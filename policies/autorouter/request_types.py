"""What kind of work does a request ask for? By its structure first, then by the words of the last user message.

Pure. One of TYPES, or one that the site added with words of its own. Rough on purpose: the type moves an estimate a
little, where nothing better is known of the workload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from policies.autorouter.words import Words, read_words

TYPES: Final = (
    "rewrite",
    "extract",
    "summarise",
    "translate",
    "code",
    "reasoning",
    "question",
    "writing",
    "chat",
    "vision",
    "agent",
    "long_context",
)
LONG_CONTEXT_TOKENS: Final = 32_000
# The instruction stands at one end of a message: before or after the text it is about.
HEAD_WORDS: Final = 50
TAIL_WORDS: Final = 25
# Shorter than this, and without any word that we know: somebody is talking.
CHAT_WORDS: Final = 12

_SPELT: Final[dict[str, str]] = {
    "rewrite": "rewrite:3 rephrase:3 paraphrase:3 proofread:3 polish:2 grammar:2 spelling:2 punctuation:1 "
    "reword:3 shorten:2 capitalize:2 capitalise:2 formalise:2 formalize:2 tone:1 sentence:1 wording:2 correct:1 "
    "rewording:2 clearer:1 concise:1",
    "extract": "extract:3 classify:3 categorize:3 categorise:3 label:2 identify:1 category:2 categories:2 "
    "sentiment:3 entities:3 entity:2 parse:2 fields:2 genre:1 genres:1 attributes:2 predict:2 decide:2 whether:1 "
    "detect:2 belongs:2 json:1 tag:1 rating:1",
    "summarise": "summarize:4 summarise:4 summary:3 tldr:4 tl;dr:4 abridge:3 condense:3 abstract:1 recap:3 "
    "takeaways:2 gist:3",
    "translate": "translate:4 translation:3 translating:3 localise:2 localize:2 french:1 german:1 spanish:1 "
    "english:1 italian:1 chinese:1 japanese:1 portuguese:1 übersetze:4 traduis:4 traduce:4",
    "code": "code:2 python:3 javascript:3 typescript:3 java:2 rust:2 sql:3 html:3 css:3 bash:3 regex:3 function:2 "
    "bug:2 bugs:2 debug:3 compile:2 def:2 class:1 return:1 import:1 assert:3 algorithm:2 implement:2 snippet:3 "
    "programming:2 script:2 api:1 latex:3 markdown:2 formula:1 repository:1 syntax:2 command:1 array:2 string:1 "
    "stackoverflow:3 print:1 loop:2 unit:0.5",
    "reasoning": "solve:3 calculate:3 compute:3 prove:3 equation:3 probability:2 puzzle:3 sudoku:3 percent:1 "
    "total:1 average:1 many:1.5 much:1 dollars:1 cents:1 per:0.5 twice:1 half:1 clue(s):3 clues:3 houses:1 "
    "derive:2 integral:3 theorem:2 remainder:2 sum:1.5 sequence:1 schedule:2 cost:0.5 each:1 riddle:3 logic:2 "
    "matrix:2 polynomial:3 velocity:2 mass:1 determine:1",
    "question": "what:1 which:1.5 who:2 whom:2 when:1 where:1.5 why:1.5 how:1 is:0.2 are:0.2 does:1 explain:2 "
    "define:2 meaning:1 describe:1.5 list:1.5 suggest:1.5 recommend:2 compare:2 examples:1.5 find:1 following:1 "
    "answer:1 true:0.5 synonyms:2 antonyms:2 places:1.5 top:1 best:1 pros:2 cons:2 provide:1 give:1",
    "writing": "write:2 draft:3 compose:3 essay:3 story:3 poem:3 letter:2 blog:3 slogan:3 tagline:3 headline:3 "
    "title:1.5 post:2 tweet:2 email:1.5 advertisement:3 ad:2 bio:2 script:0.5 motto:3 caption:3 review:1.5 "
    "create:1.5 creative:2 design:1.5 funny:1.5 persuasive:2 user:0.5 ticket:2 resume:2 compliment:2 names:1 "
    "template:2 speech:3 lyrics:3 song:1 invitation:2 craft:2",
    "chat": "hi:2 hello:2 hey:2 thanks:2 thank:2 bye:2 lol:2 feeling:1 talk:1",
}
_WORDS: Final[dict[bytes, tuple[tuple[str, float], ...]]] = {}
# The first word of an instruction weighs more than the same word inside the text it is about.
VERB_FACTOR: Final = 2.0
CODE_MARK_POINTS: Final = 3.0


def _fill() -> None:
    for name, spelt in _SPELT.items():
        for item in spelt.split():
            spelt_word, _, weight = item.rpartition(":")
            word = spelt_word.encode()
            _WORDS[word] = (*_WORDS.get(word, ()), (name, float(weight)))


_fill()
_KNOWN: Final = frozenset(_WORDS)


def find_type(
    text: str,
    *,
    has_images: bool = False,
    has_tools: bool = False,
    is_tool_result: bool = False,
    message_count: int = 1,
    input_tokens: int = 0,
    extra_types: Mapping[str, tuple[str, ...]] | None = None,
) -> str:
    """Return the type of a request whose last user message is `text`. A site's own types come before ours."""
    return find_type_of_words(
        read_words(text),
        has_images=has_images,
        has_tools=has_tools,
        is_tool_result=is_tool_result,
        message_count=message_count,
        input_tokens=input_tokens,
        extra_types=extra_types,
    )


def find_type_of_words(
    read: Words,
    *,
    has_images: bool = False,
    has_tools: bool = False,
    is_tool_result: bool = False,
    message_count: int = 1,
    input_tokens: int = 0,
    extra_types: Mapping[str, tuple[str, ...]] | None = None,
) -> str:
    """Return the same for a message that was read already."""
    listed = read.listed
    words = listed if len(listed) <= HEAD_WORDS + TAIL_WORDS else listed[:HEAD_WORDS] + listed[-TAIL_WORDS:]
    if extra_types:
        found = _find_extra(words, extra_types)
        if found:
            return found
    if has_images:
        return "vision"
    if has_tools or is_tool_result:
        return "agent"
    if input_tokens >= LONG_CONTEXT_TOKENS:
        return "long_context"
    return _by_words(read, words, message_count)


def _by_words(read: Words, words: Sequence[bytes], message_count: int) -> str:
    points: dict[str, float] = {}
    known = _KNOWN.intersection(words)
    for word in known:
        for name, weight in _WORDS[word]:
            points[name] = points.get(name, 0.0) + weight
    for word in words[:2]:
        if word in known:
            for name, weight in _WORDS[word]:
                points[name] = points.get(name, 0.0) + weight * (VERB_FACTOR - 1)
    if _looks_like_code(read.raw):
        points["code"] = points.get("code", 0.0) + CODE_MARK_POINTS
    if not points:
        return "chat" if len(words) < CHAT_WORDS or message_count > 1 else "question"
    most = max(points.values())
    best = [name for name, found in points.items() if found == most]
    return best[0] if len(best) == 1 else min(best, key=TYPES.index)


def _looks_like_code(raw: bytes) -> bool:
    return (
        b"```" in raw
        or b"();" in raw
        or b"\ndef " in raw
        or b"\n    return" in raw
        or b"#include" in raw
        or b"</" in raw
        or (b"select " in raw and b" from " in raw and b"where " in raw)
    )


def _find_extra(words: Sequence[bytes], extra_types: Mapping[str, tuple[str, ...]]) -> str:
    """Return the type that the site added whose words occur most, or ""."""
    best, most = "", 0
    for name, its_words in _encoded(tuple(extra_types.items())):
        count = len(its_words.intersection(words))
        if count > most:
            best, most = name, count
    return best


@lru_cache(maxsize=16)
def _encoded(
    extra_types: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[tuple[str, frozenset[bytes]], ...]:
    return tuple((name, frozenset(word.lower().encode() for word in words)) for name, words in extra_types)
