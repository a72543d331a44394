"""What would a small company have asked in the last seven days? The demo's invented traffic, request by request.

Pure. The same `now_unix_s` gives the same week for ever. No text of it is stored: the texts below only make the
hashes and labels that the texts of real requests make.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

SEED = 20_26
DAYS = 7

_OFFICE = (0, 0, 0, 0, 0, 0, 1, 3, 7, 10, 11, 10, 6, 9, 10, 10, 8, 6, 3, 2, 1, 1, 0, 0)
_DAYLIGHT = (1, 1, 0, 0, 1, 1, 2, 4, 6, 7, 7, 7, 7, 6, 6, 6, 7, 7, 8, 8, 7, 5, 3, 2)
_NIGHT = (6, 18, 18, 12, 6, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 2, 4)
_ALWAYS = (1,) * 24


@dataclass(frozen=True, slots=True)
class Workload:
    """One application and what it sends. Sizes in tokens; `turns` are the fewest and the most of a conversation.

    `asks` are model names with weights. `step_s` lies between two turns. `hours` weighs the hours of a day.
    """

    project: str
    key: str
    app: str
    system: str
    questions: tuple[str, ...]
    conversations_a_day: float
    hours: Sequence[int]
    weekend_share: float
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    turns: tuple[int, int] = (1, 1)
    step_s: tuple[float, float] = (20.0, 180.0)
    asks: tuple[tuple[str, int], ...] = (("pointsman/auto", 1),)
    endpoint: str = "chat"
    is_stream: bool = False
    is_pinned: bool = False
    tools: tuple[str, ...] = ()
    schema: str = ""
    has_images: bool = False
    task: str = ""
    tags: tuple[tuple[str, str], ...] = ()


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
    is_tool_result: bool
    leaves_early: bool

    def facts(self) -> dict[str, Any]:
        """What the wire format would have read from the body."""
        workload = self.workload
        if workload.endpoint == "embeddings":
            return {"input_tokens": self.input_tokens, "message_count": 1, "turn": 1}
        return {
            "input_tokens": self.input_tokens,
            "message_count": 2 * self.turn,
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
    """A model's deployments fail: which share of the calls, with which status, and when (UTC)."""

    model: str
    days_ago: int
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
_OTHER_MANNER = Manner(300.0, 100.0, 1.0)
INCIDENTS = (
    Incident("sim-small", days_ago=2, hour=13.6, minutes=35, status=503, share=0.97),
    Incident("sim-medium", days_ago=3, hour=9.25, minutes=50, status=500, share=0.9),
    Incident("sim-large", days_ago=1, hour=10.0, minutes=25, status=429, share=0.5),
    Incident("sim-code", days_ago=4, hour=15.0, minutes=20, status=429, share=0.4),
    # For eight minutes nobody answers.
    *(
        Incident(model, days_ago=1, hour=11.3, minutes=8, status=503, share=1.0)
        for model in ("sim-small", "sim-medium", "sim-code", "sim-large")
    ),
)

WORKLOADS = (
    Workload(
        "support",
        "helpdesk",
        "Helpdesk",
        "You answer customers of a shop for bicycles. Be friendly and short. Today's opening hours: 9 to 18.",
        (
            "Where is my order 48213?",
            "How do I change the chain of my bike?",
            "Can I return a helmet that I have worn once?",
            "What is the difference between your two child seats?",
            "My discount code does not work, please help.",
            "Hello, are you there?",
            "Which tyre pressure do you recommend for gravel?",
        ),
        conversations_a_day=105,
        hours=_DAYLIGHT,
        weekend_share=0.8,
        input_tokens=(260, 900),
        output_tokens=(60, 260),
        turns=(1, 6),
        is_stream=True,
        tags=(("team", "support"),),
        asks=(("pointsman/auto", 24), ("sim-large", 1)),
    ),
    Workload(
        "support",
        "helpdesk",
        "Damage photos",
        "You look at photos of damaged parts and say whether the warranty covers them.",
        ("Is this crack in the frame covered?", "The rim looks bent in the picture, what now?"),
        conversations_a_day=18,
        hours=_DAYLIGHT,
        weekend_share=0.7,
        input_tokens=(1_000, 2_600),
        output_tokens=(80, 200),
        has_images=True,
        tags=(("team", "support"),),
    ),
    Workload(
        "engineering",
        "review-bot",
        "Review bot",
        "You review pull requests. Name defects with file and line; say nothing about style.",
        (
            "Review this diff: def pay(order): total = sum(o.price for o in order.lines)",
            "Why does this test fail? assert total == 3",
            "Refactor this function so that it can be tested: class Cart: ...",
            "Find the race condition in this code: async def lease(): ...",
        ),
        conversations_a_day=120,
        hours=_OFFICE,
        weekend_share=0.05,
        input_tokens=(1_800, 14_000),
        output_tokens=(250, 1_100),
        tags=(("team", "platform"),),
        asks=(("pointsman/auto", 40), ("gpt-4-turbo", 1)),
    ),
    Workload(
        "engineering",
        "agent",
        "Ticket agent",
        "You solve tickets with the tools you have. Think before you call a tool, and stop when the ticket is solved.",
        (
            "Ticket 311: the export is empty since yesterday.",
            "Ticket 87: prices on the product page are outdated.",
            "Ticket 92: add the new warehouse to the shipping table.",
        ),
        conversations_a_day=42,
        hours=_OFFICE,
        weekend_share=0.2,
        input_tokens=(1_400, 3_200),
        output_tokens=(40, 190),
        turns=(3, 9),
        step_s=(4.0, 25.0),
        tools=("edit_file", "query_orders", "read_file", "search_tickets"),
        tags=(("team", "platform"),),
    ),
    Workload(
        "engineering",
        "nightly-evals",
        "Nightly evaluation",
        "Answer with one letter.",
        (
            "Which of these is a prime number? A) 51 B) 53 C) 57",
            "Which planet is the largest? A) Mars B) Jupiter C) Venus",
        ),
        conversations_a_day=40,
        hours=(0, 0, 0, 1) + (0,) * 20,
        weekend_share=1.0,
        input_tokens=(90, 160),
        output_tokens=(1, 4),
        is_pinned=True,
        asks=(("sim-large", 1), ("sim-small", 1)),
        tags=(("suite", "nightly"),),
    ),
    Workload(
        "documents",
        "invoices",
        "Invoice reader",
        "Extract the fields of the schema from the invoice. Leave out what is not there.",
        (
            "Invoice 2201 Miller Ltd: 3 brake pads 41.70 EUR, payable in 14 days",
            "Extract: Order 9931, total 128.00 EUR, VAT 19 %",
        ),
        conversations_a_day=190,
        hours=_NIGHT,
        weekend_share=0.4,
        input_tokens=(700, 2_400),
        output_tokens=(90, 220),
        schema='{"type":"object","properties":{"number":{"type":"string"},"total":{"type":"number"}}}',
        tags=(("team", "finance"), ("batch", "night")),
    ),
    Workload(
        "documents",
        "archive",
        "Contract summaries",
        "Summarise the contract in five sentences for the board.",
        (
            "Summarise this lease in five sentences: The parties agree",
            "Summarise the changes against last year's contract",
        ),
        conversations_a_day=22,
        hours=_OFFICE,
        weekend_share=0.1,
        input_tokens=(9_000, 42_000),
        output_tokens=(180, 420),
        asks=(("pointsman/auto", 12), ("sim-small", 1)),
        tags=(("team", "legal"),),
    ),
    Workload(
        "website",
        "translator",
        "Product texts",
        "Translate product texts from German to English and French. Keep the brand names.",
        (
            "Übersetze ins Englische: Ein leichter Rahmen für lange Touren",
            "Translate to French: A pump that fits into every pocket",
        ),
        conversations_a_day=150,
        hours=_OFFICE,
        weekend_share=0.15,
        input_tokens=(150, 700),
        output_tokens=(120, 600),
        task="translate",
        tags=(("team", "content"),),
    ),
    Workload(
        "website",
        "search",
        "Shop search",
        "",
        ("bicycle lamp", "child seat rear rack"),
        conversations_a_day=140,
        hours=_DAYLIGHT,
        weekend_share=0.9,
        input_tokens=(4, 24),
        output_tokens=(0, 0),
        endpoint="embeddings",
        asks=(("sim-embed", 1),),
    ),
    Workload(
        "playground",
        "demo",
        "",
        "",
        (
            "Write a short poem about points and trains.",
            "Explain entropy to a child.",
            "Prove that the square root of two is irrational, step by step.",
        ),
        conversations_a_day=9,
        hours=_ALWAYS,
        weekend_share=0.6,
        input_tokens=(12, 300),
        output_tokens=(80, 500),
        turns=(1, 3),
        is_stream=True,
    ),
)


def list_turns(now_unix_s: float, *, days: int = DAYS) -> list[Turn]:
    """All requests of the days before `now_unix_s`, oldest first."""
    draw = random.Random(SEED)  # noqa: S311  (an invented week, not a secret)
    end = datetime.fromtimestamp(now_unix_s, UTC)
    first_hour = end.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    turns: list[Turn] = []
    conversation = 0
    for hours in range(days * 24 + 1):
        hour = first_hour + timedelta(hours=hours)
        for workload in WORKLOADS:
            weight = workload.hours[hour.hour] / sum(workload.hours)
            share = workload.weekend_share if hour.isoweekday() > 5 else 1.0
            expected = workload.conversations_a_day * weight * share
            for _ in range(int(expected * draw.uniform(0.8, 1.2) + draw.random())):
                conversation += 1
                begin_unix_s = hour.timestamp() + draw.uniform(0, 3600)
                turns += _converse(workload, conversation, begin_unix_s, draw)
    begin_unix_s = now_unix_s - days * 86_400
    kept = sorted((t for t in turns if begin_unix_s <= t.at_unix_s < now_unix_s), key=lambda t: t.at_unix_s)
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
            is_tool_result=bool(workload.tools) and turn > 1,
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
    for incident in INCIDENTS:
        if model == incident.model and draw.random() < incident.share:
            day = datetime.fromtimestamp(now_unix_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            begin_unix_s = day.timestamp() - incident.days_ago * 86_400 + incident.hour * 3600
            if begin_unix_s <= at_unix_s < begin_unix_s + incident.minutes * 60:
                return Call(incident.status, first_byte_ms / 4, first_byte_ms / 4, 0)
    if draw.random() < 0.002:
        return Call(502, first_byte_ms, first_byte_ms, 0)
    tokens = round(turn.output_tokens * manner.wordiness * draw.uniform(0.85, 1.15))
    return Call(200, first_byte_ms, first_byte_ms + 1000 * tokens / manner.tokens_a_second, tokens)
