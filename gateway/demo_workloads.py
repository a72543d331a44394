"""Which applications does the demo pretend to have, and what do they send?

Pure. Invented, like the answers to it. The texts make the hashes and labels that the texts of real requests make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_OFFICE = (0, 0, 0, 0, 0, 0, 1, 3, 7, 10, 11, 10, 6, 9, 10, 10, 8, 6, 3, 2, 1, 1, 0, 0)
_DAYLIGHT = (1, 1, 0, 0, 1, 1, 2, 4, 6, 7, 7, 7, 7, 6, 6, 6, 7, 7, 8, 8, 7, 5, 3, 2)
_NIGHT = (6, 18, 18, 12, 6, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 2, 4)
_ALWAYS = (1,) * 24


@dataclass(frozen=True, slots=True)
class Workload:
    """One application and what it sends. Sizes in tokens; `turns` are the fewest and the most of a conversation.

    `asks` are model names with weights. `step_s` lies between two turns. `hours` weighs the hours of a day.
    `rated_share` of its answers are rated by who got them. Before the last week it had `earlier_share` of its
    conversations, larger by as much, so that a day cost the same in fewer records; 0: it began in the last week.
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
    schema: tuple[str, ...] = ()
    has_images: bool = False
    task: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    rated_share: float = 0.0
    earlier_share: float = 1 / 6


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
        rated_share=0.12,
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
        earlier_share=1 / 2,
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
        asks=(("pointsman/auto", 20), ("pointsman/auto:quality", 20), ("gpt-4-turbo", 1)),
        rated_share=0.4,
        earlier_share=1 / 2,
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
            "Extract the fields of this invoice: 2201 Miller Ltd, 3 brake pads 41.70 EUR, payable in 14 days",
            "Extract the fields of this invoice: Order 9931, total 128.00 EUR, VAT 19 %",
        ),
        conversations_a_day=190,
        hours=_NIGHT,
        weekend_share=0.4,
        input_tokens=(700, 2_400),
        output_tokens=(90, 220),
        schema=("date", "number", "total"),
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
        earlier_share=1.0,
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
        asks=(("pointsman/auto", 3), ("auto:cost", 2)),
        rated_share=0.1,
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
        earlier_share=1 / 10,
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
        earlier_share=1 / 3,
    ),
    # What finance finds: since a week somebody compares whole contracts, and names the dearest model for it.
    Workload(
        "documents",
        "archive",
        "Contract comparison",
        "Compare the two contracts clause by clause. Quote what differs.",
        (
            "Compare the lease of 2024 with the one of this year: The parties agree",
            "Which clauses of the supplier's draft differ from ours?",
        ),
        conversations_a_day=18,
        hours=_OFFICE,
        weekend_share=0.1,
        input_tokens=(12_000, 44_000),
        output_tokens=(250, 700),
        asks=(("sim-large", 1),),
        tags=(("team", "legal"),),
        earlier_share=0.0,
    ),
)
