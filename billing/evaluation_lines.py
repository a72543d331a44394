"""What does an uploaded evaluation set say, and on which line is it wrong? JSONL text -> cases.

Pure. One JSON object a line:

    {"prompt": "...", "system": "...", "expected": "...", "checker": "exact"}
    {"messages": [{"role": "user", "content": "..."}], "expected": ["a", "b"], "checker": "contains"}
    {"prompt": "...", "schema": {...}, "checker": "schema", "workload": "16 hex digits", "task_type": "extract"}
    {"prompt": "...", "expected": "what a good answer does", "checker": "judge", "tags": ["x"]}

`checker` may be left out where a schema or a default says it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from billing.evaluation_checks import find_schema_problem
from policies.autorouter.request_types import TYPES

CHECKERS: Final = ("exact", "contains", "schema", "judge")
ROLES: Final = ("system", "developer", "user", "assistant")
MAX_FILE_BYTES: Final = 2_000_000
MAX_CASES: Final = 2_000
MAX_LINE_CHARACTERS: Final = 100_000
MAX_MESSAGES: Final = 50
MAX_EXPECTED: Final = 20
MAX_TAGS: Final = 10
MAX_PROBLEMS: Final = 20
_MEMBERS: Final = frozenset(
    {"prompt", "system", "messages", "expected", "schema", "checker", "workload", "task_type", "tags"}
)
_WORKLOAD = re.compile(r"[0-9a-f]{16}\Z")


class Case(NamedTuple):
    """One case, checked. `expected`: a text or texts, for the checker `schema` the schema."""

    messages: list[dict[str, str]]
    expected: Any
    checker: str
    workload: str = ""
    task_type: str = ""
    tags: tuple[str, ...] = ()


class LineProblem(NamedTuple):
    """What is wrong with a line of the file (counted from 1; 0: the file as a whole)."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.text}" if self.line else self.text


def read_cases(text: str) -> tuple[list[Case], list[LineProblem]]:
    """Read a whole file. Empty lines are skipped. With any problem the file is not to be used."""
    cases: list[Case] = []
    problems: list[LineProblem] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        found = read_case(line)
        if isinstance(found, str):
            problems.append(LineProblem(number, found))
            if len(problems) >= MAX_PROBLEMS:
                problems.append(LineProblem(0, "There may be more: reading stopped here."))
                return [], problems
        else:
            cases.append(found)
    if not cases and not problems:
        problems.append(LineProblem(0, "The file holds no case."))
    if len(cases) > MAX_CASES:
        problems.append(
            LineProblem(0, f"A set holds at most {MAX_CASES:,} cases; this file has {len(cases):,}.")
        )
    return ([] if problems else cases), problems


def read_case(line: str) -> Case | str:
    """Read one line; a text says what is wrong with it."""
    if len(line) > MAX_LINE_CHARACTERS:
        return f"longer than {MAX_LINE_CHARACTERS:,} characters"
    try:
        raw = json.loads(line)
    except ValueError as error:
        column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return f"not JSON{column}"
    except RecursionError:
        return "nested too deep"
    if not isinstance(raw, dict):
        return "not a JSON object"
    if unknown := sorted(set(raw) - _MEMBERS):
        return f"there is no member {unknown[0][:40]!r}; known are {', '.join(sorted(_MEMBERS))}"
    if "\\u0000" in line or _has_lone_surrogate(line):
        return "holds a character that cannot be stored"
    messages = _read_messages(raw)
    if isinstance(messages, str):
        return messages
    checker = raw.get("checker", "schema" if "schema" in raw else "exact")
    if checker not in CHECKERS:
        return f"checker: one of {', '.join(CHECKERS)}"
    expected, problem = _read_expected(raw, checker)
    if problem:
        return problem
    workload, task_type, tags = raw.get("workload", ""), raw.get("task_type", ""), raw.get("tags", [])
    if not isinstance(workload, str) or (workload and not _WORKLOAD.match(workload)):
        return "workload: 16 hexadecimal digits, as the page of the automatic router shows them"
    if task_type and task_type not in TYPES:
        return f"task_type: one of {', '.join(TYPES)}"
    if not _are_texts(tags, at_most=MAX_TAGS, longest=60):
        return f"tags: a list of at most {MAX_TAGS} short texts"
    return Case(messages, expected, checker, workload, task_type or "", tuple(tags))


def _read_messages(raw: Mapping[str, Any]) -> list[dict[str, str]] | str:
    if ("prompt" in raw) == ("messages" in raw):
        return "give either a prompt or messages"
    if "prompt" in raw:
        prompt, system = raw["prompt"], raw.get("system", "")
        if not isinstance(prompt, str) or not prompt.strip():
            return "prompt: a text is needed"
        if not isinstance(system, str):
            return "system: a text is needed"
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": prompt}]
    if "system" in raw:
        return "system: stands among the messages"
    messages = raw["messages"]
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        return f"messages: a list of 1 to {MAX_MESSAGES} messages"
    made = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return f"messages[{index}]: an object with role and content"
        if message["role"] not in ROLES:
            return f"messages[{index}].role: one of {', '.join(ROLES)}"
        if not isinstance(message["content"], str):
            return f"messages[{index}].content: a text is needed"
        made.append({"role": message["role"], "content": message["content"]})
    if made[-1]["role"] != "user":
        return "messages: the last one is the user's"
    return made


def _read_expected(raw: Mapping[str, Any], checker: str) -> tuple[Any, str]:
    """What is expected, and what is wrong with it ("": nothing)."""
    if checker == "schema":
        schema = raw.get("schema", raw.get("expected"))
        if schema is None:
            return None, "schema: is missing"
        return schema, f"schema: {problem}" if (problem := find_schema_problem(schema)) else ""
    if "schema" in raw:
        return None, f"schema: the checker {checker} uses none"
    expected = raw.get("expected")
    if checker == "judge":
        is_text = isinstance(expected, str) and expected.strip()
        return expected, "" if is_text else "expected: say in a text what a good answer does"
    if isinstance(expected, str) and expected.strip():
        return expected, ""
    if isinstance(expected, list) and expected and _are_texts(expected, at_most=MAX_EXPECTED):
        return expected, ""
    return None, f"expected: a text, or a list of at most {MAX_EXPECTED} texts"


def _are_texts(value: object, *, at_most: int, longest: int = MAX_LINE_CHARACTERS) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= at_most
        and all(isinstance(item, str) and item.strip() and len(item) <= longest for item in value)
    )


def _has_lone_surrogate(line: str) -> bool:
    """JSON may spell half a character (“\\ud800”), which no database keeps."""
    if "\\u" not in line:
        return False
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
