"""What would a small company have asked in the last seven days, and before? The demo's invented traffic, each request.

Pure. The same `now_unix_s` gives the same requests for ever. No text of it is stored: the texts below only make the
hashes and labels that the texts of real requests make.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.demo_workloads import WORKLOADS, Workload

SEED = 20_26
DAYS = 7
# Conversations of the time before the week have numbers of their own: theirs are other conversations.
EARLIER_CONVERSATIONS = 100_000


class Turn(NamedTuple):
    """One request. `tokens_kept` of its input were the input of the turn before (a provider may have them cached)."""

    number: int
    at_unix_s: float
    workload: Workload
    conversation: int
    turn: int
    asks: str
    first_user: str
    last_user: str
    input_tokens: int
    tokens_kept: int
    output_tokens: int
    leaves_early: bool

    def body(self) -> dict[str, Any]:
        """The request's body, with texts that are shorter than what they stand for: sizes are in `facts`."""
        workload = self.workload
        if workload.endpoint == "embeddings":
            return {"model": self.asks, "input": self.first_user}
        messages = [{"role": "system", "content": workload.system}] if workload.system else []
        messages.append({"role": "user", "content": self.first_user})
        for _ in range(self.turn - 1):
            messages.append({"role": "assistant", "content": "…"})
            messages.append({"role": "tool" if workload.tools else "user", "content": self.last_user})
        body: dict[str, Any] = {"model": self.asks, "messages": messages}
        if workload.tools:
            body["tools"] = [{"type": "function", "function": {"name": name}} for name in workload.tools]
        if workload.schema:
            schema = {"type": "object", "properties": {name: {} for name in workload.schema}}
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
        return body

    def facts(self) -> dict[str, Any]:
        """What the wire format would have read from the body at its full size."""
        workload = self.workload
        if workload.endpoint == "embeddings":
            return {"input_tokens": self.input_tokens, "message_count": 1, "turn": 1}
        return {
            "input_tokens": self.input_tokens,
            "message_count": bool(workload.system) + 2 * self.turn - 1,
            "turn": 1 if workload.tools else self.turn,
            "choice_count": 1,
            "has_images": workload.has_images,
            "has_tools": bool(workload.tools),
            "has_schema": bool(workload.schema),
        }


class Call(NamedTuple):
    """What a provider does with one call: the answer's HTTP status, times from the call, tokens."""

    status: int
    first_byte_ms: float
    total_ms: float
    output_tokens: int


class Manner(NamedTuple):
    """How a simulated model behaves: time to the first token, tokens a second, how many words it makes."""

    first_token_ms: float
    tokens_a_second: float
    wordiness: float


class Incident(NamedTuple):
    """A model's deployments fail: which share of the calls, with which status, and when (UTC, counted in workdays)."""

    model: str
    workdays_ago: int
    hour: float
    minutes: float
    status: int
    share: float


MANNERS = {
    "sim-small": Manner(140.0, 210.0, 0.8),
    "sim-medium": Manner(260.0, 130.0, 1.0),
    "sim-code": Manner(300.0, 140.0, 1.1),
    "sim-large": Manner(520.0, 70.0, 1.3),
    "sim-embed": Manner(25.0, 1e6, 0.0),
}
# How often people find an answer good: by application and model, and for the others by model.
GOOD_SHARES = {
    ("Helpdesk", "sim-small"): 0.83,
    ("Helpdesk", "sim-medium"): 0.86,
    ("Review bot", "sim-small"): 0.41,
    ("Review bot", "sim-medium"): 0.58,
    ("Review bot", "sim-code"): 0.81,
    ("Review bot", "sim-large"): 0.84,
    ("", "sim-small"): 0.72,
    ("", "sim-medium"): 0.82,
    ("", "sim-code"): 0.76,
    ("", "sim-large"): 0.87,
}
_OTHER_MANNER = Manner(300.0, 100.0, 1.0)
INCIDENTS = (
    Incident("sim-small", workdays_ago=2, hour=13.6, minutes=35, status=503, share=0.97),
    Incident("sim-medium", workdays_ago=3, hour=9.25, minutes=50, status=500, share=0.9),
    Incident("sim-large", workdays_ago=1, hour=10.0, minutes=25, status=429, share=0.5),
    Incident("sim-code", workdays_ago=4, hour=15.0, minutes=20, status=429, share=0.4),
    # For eight minutes nobody answers.
    *(
        Incident(model, workdays_ago=1, hour=11.3, minutes=8, status=503, share=1.0)
        for model in ("sim-small", "sim-medium", "sim-code", "sim-large")
    ),
)


def list_turns(now_unix_s: float, *, days: int = DAYS) -> list[Turn]:
    """All requests of the days before `now_unix_s`, oldest first."""
    draw = random.Random(SEED)  # noqa: S311  (an invented week, not a secret)
    return _list_between(now_unix_s - days * 86_400, now_unix_s, WORKLOADS, draw, last_conversation=0)


def list_earlier_turns(now_unix_s: float) -> list[Turn]:
    """All requests before the week, oldest first: fewer and larger ones (`Workload.earlier_share`)."""
    draw = random.Random(SEED + 1)  # noqa: S311
    workloads = [_of_before(workload) for workload in WORKLOADS if workload.earlier_share]
    begin_unix_s, end_unix_s = find_begin(now_unix_s).timestamp(), now_unix_s - DAYS * 86_400
    return _list_between(begin_unix_s, end_unix_s, workloads, draw, last_conversation=EARLIER_CONVERSATIONS)


def find_begin(now_unix_s: float) -> datetime:
    """When the demo's traffic begins: the month before last, so that last month has one to be compared with."""
    month = datetime.fromtimestamp(now_unix_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(2):
        month = (month - timedelta(days=1)).replace(day=1)
    return month


def _of_before(workload: Workload) -> Workload:
    """The same workload before the last week."""
    times = 1 / workload.earlier_share
    return replace(
        workload,
        conversations_a_day=workload.conversations_a_day / times,
        input_tokens=_larger(workload.input_tokens, times),
        output_tokens=_larger(workload.output_tokens, times),
    )


def _larger(limits: tuple[int, int], times: float) -> tuple[int, int]:
    return round(limits[0] * times), round(limits[1] * times)


def _list_between(
    begin_unix_s: float,
    end_unix_s: float,
    workloads: Iterable[Workload],
    draw: random.Random,
    *,
    last_conversation: int,
) -> list[Turn]:
    """What these workloads ask in this time, hour by hour; numbered from 0."""
    hour = datetime.fromtimestamp(begin_unix_s, UTC).replace(minute=0, second=0, microsecond=0)
    turns: list[Turn] = []
    conversation = last_conversation
    while hour.timestamp() < end_unix_s:
        for workload in workloads:
            weight = workload.hours[hour.hour] / sum(workload.hours)
            share = workload.weekend_share if hour.isoweekday() > 5 else 1.0
            expected = workload.conversations_a_day * weight * share
            for _ in range(int(expected * draw.uniform(0.8, 1.2) + draw.random())):
                conversation += 1
                at_unix_s = hour.timestamp() + draw.uniform(0, 3600)
                turns += _converse(workload, conversation, at_unix_s, draw)
        hour += timedelta(hours=1)
    kept = sorted((t for t in turns if begin_unix_s <= t.at_unix_s < end_unix_s), key=lambda t: t.at_unix_s)
    return [turn._replace(number=number) for number, turn in enumerate(kept)]


def _converse(workload: Workload, conversation: int, at_unix_s: float, draw: random.Random) -> Iterator[Turn]:
    """The turns of one conversation; an agent's later turns bring the results of its tools."""
    asks = draw.choices([name for name, _ in workload.asks], [weight for _, weight in workload.asks])[0]
    first_user = f"{draw.choice(workload.questions)} ({conversation})"
    low, high = workload.input_tokens
    input_tokens = int(low * (high / low) ** draw.random())
    kept = 0
    # Most conversations are short.
    fewest, most = workload.turns
    count = fewest + int((most - fewest + 1) * draw.random() ** 2)
    for turn in range(1, count + 1):
        output_tokens = round(_between(workload.output_tokens, draw))
        is_last = turn == count
        yield Turn(
            number=0,
            at_unix_s=at_unix_s,
            workload=workload,
            conversation=conversation,
            turn=turn,
            asks=asks,
            first_user=first_user,
            last_user=first_user if turn == 1 or workload.tools else f"And then? ({turn})",
            input_tokens=input_tokens,
            tokens_kept=kept,
            output_tokens=output_tokens,
            leaves_early=workload.is_stream and is_last and draw.random() < 0.03,
        )
        kept = input_tokens
        input_tokens += output_tokens + draw.randint(15, 400 if workload.tools else 60)
        at_unix_s += _between(workload.step_s, draw)


def _between(limits: tuple[float, float], draw: random.Random) -> float:
    return draw.uniform(*limits)


def answer_call(turn: Turn, model: str, at_unix_s: float, *, now_unix_s: float, attempt: int) -> Call:
    """How the model answers this turn when it is called at that time: times, tokens, or the status of a failure."""
    draw = random.Random(f"{SEED}/{turn.number}/{model}/{attempt}")  # noqa: S311
    manner = MANNERS.get(model, _OTHER_MANNER)
    first_byte_ms = manner.first_token_ms * draw.lognormvariate(0, 0.3) + turn.input_tokens * 0.02
    for incident, begin_unix_s in _begins(now_unix_s):
        is_now = begin_unix_s <= at_unix_s < begin_unix_s + incident.minutes * 60
        if is_now and model == incident.model and draw.random() < incident.share:
            return Call(incident.status, first_byte_ms / 4, first_byte_ms / 4, 0)
    if draw.random() < 0.002:
        return Call(502, first_byte_ms, first_byte_ms, 0)
    tokens = round(turn.output_tokens * manner.wordiness * draw.uniform(0.85, 1.15))
    return Call(200, first_byte_ms, first_byte_ms + 1000 * tokens / manner.tokens_a_second, tokens)


@lru_cache(maxsize=4)
def _begins(now_unix_s: float) -> list[tuple[Incident, float]]:
    """When each incident begins: on workdays, when somebody is there to notice."""
    today = datetime.fromtimestamp(now_unix_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    workdays = [day for ago in range(1, 15) if (day := today - timedelta(days=ago)).isoweekday() <= 5]
    return [
        (incident, workdays[incident.workdays_ago - 1].timestamp() + incident.hour * 3600)
        for incident in INCIDENTS
    ]


def rate_answer(turn: Turn, model: str) -> float | None:
    """How good the person who got the answer says it is: 0 or 1; None: nothing, as most do."""
    draw = random.Random(f"{SEED}/{turn.number}/rating")  # noqa: S311
    if draw.random() >= turn.workload.rated_share:
        return None
    share = GOOD_SHARES.get((turn.workload.app, model), GOOD_SHARES.get(("", model), 0.5))
    return float(draw.random() < share)
