"""Which intent and which outcome are one request? Journal lines -> pairs, and what waits for its other half.

Reads and writes: open lines (through `storing`); `match_lines` is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from billing import storing
from billing.journal_evidence import Feedback, Shadow, read_feedback, read_shadow
from billing.journal_files import SourceLine
from billing.journal_lines import Intent, Outcome, read_intent, read_outcome
from billing.journal_values import LineError, read_line
from billing.request_times import started_at_of
from billing.storing import OpenLine, Pair, Refused


class Alone(NamedTuple):
    """A line whose other half is not in the batch."""

    checked: Intent | Outcome
    open_line: OpenLine


class Matched(NamedTuple):
    """What a batch of lines holds."""

    pairs: list[Pair]
    alone: list[Alone]
    refused: list[Refused]
    feedback: list[Feedback]
    shadows: list[Shadow]


def match_lines(lines: Iterable[SourceLine]) -> Matched:
    """Check lines and put the two of each request together. Pure."""
    intents: dict[UUID, tuple[Intent, SourceLine, dict[str, Any]]] = {}
    outcomes: dict[UUID, tuple[Outcome, SourceLine, dict[str, Any]]] = {}
    refused: list[Refused] = []
    feedback: list[Feedback] = []
    shadows: list[Shadow] = []
    for source in lines:
        if not source.raw:
            continue
        try:
            line = read_line(source.raw)
            kind = line.get("k")
            if kind == "intent":
                intent = read_intent(line)
                intents.setdefault(intent.id, (intent, source, line))
            elif kind == "outcome":
                outcome = read_outcome(line)
                outcomes.setdefault(outcome.id, (outcome, source, line))
            elif kind == "feedback":
                feedback.append(read_feedback(line))
            elif kind == "shadow":
                shadows.append(read_shadow(line))
            else:
                raise LineError("k: neither intent, outcome, feedback nor shadow")
        except LineError as refusal:
            refused.append(Refused(source, str(refusal)))
    pairs: list[Pair] = []
    alone: list[Alone] = []
    for request_id, (outcome, source, line) in outcomes.items():
        found = intents.pop(request_id, None)
        if found is not None:
            pairs.append(Pair(found[0], outcome, (found[1], source)))
        else:
            alone.append(Alone(outcome, OpenLine(request_id, started_at_of(request_id), source, line)))
    for request_id, (intent, source, line) in intents.items():
        alone.append(Alone(intent, OpenLine(request_id, intent.started_at, source, line)))
    return Matched(pairs, alone, refused, feedback, shadows)


def join_with_open(alone: Sequence[Alone]) -> tuple[list[Pair], list[UUID], list[Refused]]:
    """Find the other halves of lines among those that wait; keep the rest waiting.

    Returns the pairs, the ids that wait no more, and the lines that cannot be kept. A line whose request has
    its record already, or that waits already, is a repetition and changes nothing.
    """
    if not alone:
        return [], [], []
    waiting = storing.find_open_lines(one.open_line.id for one in alone)
    pairs: list[Pair] = []
    closed: list[UUID] = []
    new: list[OpenLine] = []
    for checked, open_line in alone:
        other = waiting.get(open_line.id)
        if other is None:
            new.append(open_line)
            continue
        worker, line = other
        sources = (SourceLine(worker, 0, orjson.dumps(line)), open_line.source)
        if isinstance(checked, Outcome) and line.get("k") == "intent":
            pairs.append(Pair(read_intent(line), checked, sources))
            closed.append(open_line.id)
        elif isinstance(checked, Intent) and line.get("k") == "outcome":
            pairs.append(Pair(checked, read_outcome(line), sources))
            closed.append(open_line.id)
    if not new:
        return pairs, closed, []
    recorded = storing.find_recorded(new)
    return pairs, closed, storing.keep_open([line for line in new if line.id not in recorded])
