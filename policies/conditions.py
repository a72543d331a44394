"""Does a rule's condition hold for a request? CEL text -> a program over features.

Pure. A program runs over a context that `prepare` makes once per request, in 1 to 10 µs; running it takes about 0.2 µs.
"""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import cel

from policies.features import FEATURE_NAMES, Features

MAX_CHARACTERS = 2000
# Nested macros over lists multiply: three levels are more than any rule needs, and so many steps take about 5 ms.
MAX_MACROS = 3
MAX_STEPS = 20_000
MAX_SAMPLE_MS = 5.0
MAX_KEPT_POLICIES = 256
MAX_KEPT_CONTEXTS = 256
MAX_KEPT_CONDITIONS = 1024

# What a CEL program can raise while it runs. A key that a map lacks is a KeyError.
RUN_TIME_ERRORS = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError)

_FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches"}
    | {"int", "uint", "double", "string", "bytes", "timestamp", "duration", "type", "dyn"}
    | {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
# Loosely, also where a comment stands in between: for counting only.
_MACRO_CALL = re.compile(r"\b(?:all|exists|exists_one|existsOne|map|filter)(?=\s*(?:\(|//))")
_QUOTED = re.compile(r"""\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'""")
# A pattern from a tag would be the caller's to choose, and CEL compiles it for every request.
_FREE_PATTERN = re.compile(r"\bmatches\b(?!\s*\(\s*[rR]?'_*'\s*\))")
_WHERE = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")
_TAG = re.compile(r"""tags\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(["'])(.*?)\2\s*\])""")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ConditionError(ValueError):
    """A condition that cannot be used. `column` is 1-based, None where the place is not known."""

    def __init__(self, message: str, *, column: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.column = column


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition. `program(context)` is True or False, or raises one of RUN_TIME_ERRORS."""

    text: str
    program: Callable[[Any], Any]
    feature_names: frozenset[str]


def check_readable(text: str) -> None:
    """Raise ConditionError for characters that make a condition look other than it is, to whoever approves it.

    Marks that turn the direction of writing, and characters that are drawn as nothing (Boucher and Anderson, Trojan
    Source, 2021). Asked where conditions come in, not of what was published.
    """
    # What is longer is refused for that.
    for place, character in enumerate(text[:MAX_CHARACTERS]):
        if character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
            code = ord(character)
            escape = f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
            message = f"a condition holds no invisible character: write {escape} inside quotes instead"
            raise ConditionError(message, column=place + 1)


@lru_cache(maxsize=MAX_KEPT_CONDITIONS)
def compile_condition(text: str) -> Condition:
    """Compile a condition and try it on two sample requests. Raises ConditionError.

    What was compiled is kept: a draft of many rules is checked at every pause of its editor.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConditionError(f"a condition has at most {MAX_CHARACTERS} characters")
    if "\0" in text or _SURROGATE.search(text):
        raise ConditionError("a condition holds no NUL character and no lone surrogate")
    if not text.strip():
        raise ConditionError("the condition is empty")
    bound = _MACRO.findall(text)
    macro_count = len(_MACRO_CALL.findall(text))
    if macro_count > MAX_MACROS:
        raise ConditionError(f"a condition uses at most {MAX_MACROS} of all, exists, exists_one, map, filter")
    # A list is at most as long as its commas, or a sum of such lists, or the tags.
    longest = text.count(",") + text.count("+") + 16
    if macro_count > 1 and longest**macro_count > MAX_STEPS:
        raise ConditionError("the lists are too long for nested all, exists, exists_one, map or filter")
    if free := _FREE_PATTERN.search(_QUOTED.sub(lambda found: f"'{'_' * (len(found[0]) - 2)}'", text)):
        message = "matches needs its pattern as a text in quotes: task.matches('^a+$')"
        raise ConditionError(message, column=free.start() + 1)
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise _syntax_error(text, str(error)) from None
    names = frozenset(program.variables()) - set(bound)
    for name in sorted(names - FEATURE_NAMES):
        raise ConditionError(f"there is no feature named {name!r}", column=_column_of(text, name))
    for name in program.functions():
        if name.isidentifier() and not name.startswith("_") and name not in _FUNCTIONS:
            raise ConditionError(f"there is no function named {name!r}", column=_column_of(text, name))
    condition = Condition(text, program.execute, names & FEATURE_NAMES)
    _try_on_samples(condition)
    return condition


def prepare(features: Features, names: frozenset[str]) -> Any:
    """Return the context of one request, holding only the features `names`.

    It is good until the next call in the same thread. Converting a number costs 0.15 µs, a text 1.5, tags 4, and
    requests of one kind share their texts and tags: contexts are kept by those, and only numbers are replaced.
    """
    try:
        kept = _kept.by_names.get(names)
    except AttributeError:
        _kept.by_names = {}
        kept = None
    if kept is None:
        if len(_kept.by_names) >= MAX_KEPT_POLICIES:
            _kept.by_names.clear()
        kept = _kept.by_names[names] = _Prepared(names)
    return kept.context_for(features)


class _Prepared:
    """Contexts over one set of features, by the values of those that are dear to convert."""

    __slots__ = ("_contexts", "_has_tags", "_names", "_number_names", "_read_numbers", "_read_texts")

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._has_tags = "tags" in names
        texts = [name for name in names if isinstance(_DEFAULTS[name], str)]
        self._number_names = tuple(name for name in names if isinstance(_DEFAULTS[name], (int, float)))
        # A getter of one name returns a bare value: a second name makes it a tuple whatever the rules name.
        self._read_texts = attrgetter(*texts, "endpoint", "endpoint")
        self._read_numbers = attrgetter(*self._number_names, "endpoint", "endpoint")
        self._contexts: dict[Any, list[Any]] = {}  # texts and tags -> [context, the numbers that are in it]

    def context_for(self, features: Features) -> Any:
        key = self._read_texts(features)
        if self._has_tags:
            key = (key, *features.tags.items())
        found = self._contexts.get(key)
        numbers = self._read_numbers(features)
        if found is None:
            if len(self._contexts) >= MAX_KEPT_CONTEXTS:
                self._contexts.clear()
            context = self._make(features)
            self._contexts[key] = [context, numbers]
            return context
        context, old = found
        if numbers != old:
            for name, value, before in zip(self._number_names, numbers, old, strict=False):
                if value != before:
                    context.add_variable(name, value)
            found[1] = numbers
        return context

    def _make(self, features: Features) -> Any:
        values = features.context(self._names)
        try:
            return cel.Context(values)
        except ValueError:
            # A lone surrogate in what a caller sent.
            return cel.Context({name: _storable(value) for name, value in values.items()})


class _Kept(threading.local):
    by_names: dict[frozenset[str], _Prepared]


_kept = _Kept()
_DEFAULTS = Features()._asdict()


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if hasattr(value, "items"):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _syntax_error(text: str, raised: str) -> ConditionError:
    found = _WHERE.search(raised, raised.find("': ERROR: ") if "': ERROR: " in raised else 0)
    if "Recursion limit" in raised:
        return ConditionError("the condition is nested too deeply")
    if found is None:
        return ConditionError("the condition is not CEL")
    line, column, said = int(found[1]), int(found[2]), found[3]
    if "<EOF>' expecting {" in said:
        said = "the condition ends too early"
    elif " expecting {" in said:
        said = said.partition(" expecting {")[0]
    # Count columns over the whole text, so that an editor of one field can point at the place.
    start = sum(len(part) for part in text.splitlines(keepends=True)[: line - 1])
    return ConditionError(said, column=start + column)


def _column_of(text: str, name: str) -> int | None:
    found = re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) or re.search(re.escape(name), text)
    return found.start() + 1 if found else None


def _try_on_samples(condition: Condition) -> None:
    """Raise ConditionError when a sample gives something else than true or false, or when none gives a result.

    One sample has every feature empty, the other has every feature set, with each tag that the text names.
    """
    tags = {plain or quoted: "1" for plain, _, quoted in _TAG.findall(condition.text)}
    failure: Exception | None = None
    is_tried = False
    for sample in (Features(), Features(**_set_values(tags))):
        try:
            outcome = _run_in_time(condition, sample)
        except LookupError:
            is_tried = True  # a tag that this sample lacks
        except TypeError as error:
            # Features have fixed types, so what does not fit together here never will.
            raise ConditionError(first_line(error)) from None
        except RUN_TIME_ERRORS as error:
            if "Undefined variable" in str(error):
                raise ConditionError(first_line(error)) from None
            failure = error
        else:
            is_tried = True
            if not isinstance(outcome, bool):
                raise ConditionError(f"the condition gives {_kind_of(outcome)}, not true or false")
    if not is_tried:
        raise ConditionError(first_line(failure))


def _run_in_time(condition: Condition, sample: Features) -> Any:
    """Run a program. Raises ConditionError when it keeps the processor so long that other requests would wait."""
    taken_ms = MAX_SAMPLE_MS
    for _ in range(3):  # a first run may pay for what later ones find ready
        context = prepare(sample, condition.feature_names)
        begun_s = time.thread_time()
        outcome = condition.program(context)
        taken_ms = (time.thread_time() - begun_s) * 1000
        if taken_ms <= MAX_SAMPLE_MS:
            return outcome
    raise ConditionError(
        f"the condition takes {taken_ms:.0f} ms of every request: shorten its pattern or its lists"
    )


def _set_values(tags: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, default in Features()._asdict().items():
        if name == "tags":
            values["tags"] = tags
        elif isinstance(default, str):
            values[name] = "1"
        elif isinstance(default, bool):
            values[name] = True
        else:
            values[name] = 0.5 if isinstance(default, float) else 7
    return values


def _kind_of(value: object) -> str:
    names = {int: "a number", float: "a number", str: "a text", list: "a list", dict: "a map"}
    return names.get(type(value), type(value).__name__)


def first_line(error: BaseException | None) -> str:
    """What a CEL program said when it failed, in one short line."""
    text = str(error).partition("\n")[0].partition(". Check ")[0].partition(". CEL does not")[0]
    return text[:200]
