"""How long does a decision of the automatic router take here? Reading the words, and ranking thirty models.

Pure, but for the clock that it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from policies.autorouter.ranking import DEFAULT_SLIDER, rank
from policies.autorouter.request_facts import RequestText, read_text_facts
from policies.autorouter.tables import RouterTables
from policies.features import Features
from policies.snapshot import DeploymentSnapshot, ModelSnapshot, ProviderSnapshot

MODEL_COUNT: Final = 30
WORD_COUNTS: Final = (200, 2000)
DEFAULT_ROUND_COUNT: Final = 300
# What else the machine does only ever adds time: of some batches the quickest is nearest to what the code takes.
BATCH_COUNT: Final = 5
_SENTENCE: Final = (
    "please the customer wrote that her order of two lamps has not come and asks whether it was sent to the old "
    "address which she had changed in March 2024 so look at the parcel number 118-442 and write a short answer"
)


def time_decisions(
    tables: RouterTables,
    *,
    clock_ns: Callable[[], int],
    deployments: Sequence[DeploymentSnapshot] = (),
    round_count: int = DEFAULT_ROUND_COUNT,
) -> dict[str, float]:
    """Return the median and the 99th percentile in microseconds, for prompts of 200 and of 2,000 words.

    Each of the quickest of some batches. Every round has another prompt and conversation; `deployments` are made up
    to thirty.
    """
    candidates = make_candidates(deployments)
    labels = [entry.label for entry in tables.workloads.values()][:20] or [""]
    figures = {}
    for word_count in WORD_COUNTS:
        batches = [
            _time_batch(
                tables,
                candidates,
                [
                    _make_text(word_count, number, labels[number % len(labels)])
                    for number in range(batch * round_count, (batch + 1) * round_count)
                ],
                clock_ns,
            )
            for batch in range(BATCH_COUNT)
        ]
        figures[f"decision_p50_us_{word_count}_words"] = min(batch[len(batch) // 2] for batch in batches)
        figures[f"decision_p99_us_{word_count}_words"] = min(
            batch[int(len(batch) * 0.99)] for batch in batches
        )
    return figures


def _time_batch(
    tables: RouterTables,
    candidates: Sequence[DeploymentSnapshot],
    texts: Sequence[RequestText],
    clock_ns: Callable[[], int],
) -> list[float]:
    """Return how long each text took, in microseconds, the quickest first."""
    taken_us = []
    for text in texts:
        started = clock_ns()
        facts = read_text_facts(text, tables=tables)
        features = Features(
            input_tokens=text.input_tokens,
            workload=facts.workload,
            task_type=facts.task_type,
            difficulty=facts.difficulty,
        )
        rank(
            candidates,
            features,
            tables=tables,
            slider=DEFAULT_SLIDER,
            quality_floor=None,
            latency_ms=_latency,
        )
        taken_us.append((clock_ns() - started) / 1000)
    # The first ones fill the memos: a worker does that once.
    return sorted(taken_us[len(taken_us) // 10 :])


def make_candidates(deployments: Sequence[DeploymentSnapshot]) -> list[DeploymentSnapshot]:
    """Return thirty candidates: those given, then made-up ones."""
    provider = ProviderSnapshot(1, "timing", "openai_chat", "")
    made = [
        DeploymentSnapshot(
            id=1000 + number,
            name=f"made-{number}",
            model=ModelSnapshot(id=1000 + number, name=f"made-{number}"),
            provider=provider,
            upstream_model=f"made-{number}",
            input_nanousd_per_mtok=(number + 1) * 100_000_000,
            output_nanousd_per_mtok=(number + 1) * 300_000_000,
        )
        for number in range(MODEL_COUNT)
    ]
    return [*deployments, *made][:MODEL_COUNT]


def _make_text(word_count: int, number: int, label: str) -> RequestText:
    known = _SENTENCE.split()
    # Every second word is a rarer one, as in any text that people write.
    words = [
        known[(at * 7 + number) % len(known)]
        if at % 2
        else known[at % len(known)] + known[(at * number + at // 40) % len(known)]
        for at in range(word_count)
    ]
    words[0] = f"Case {number}:"
    prompt = " ".join(words)
    return RequestText(
        system="You are a careful assistant of a shop. Today is 2025-01-01. Answer in the language of the customer.",
        first_user=prompt,
        last_user=prompt,
        app=label,
        key_id=7,
        message_count=2,
        input_tokens=word_count * 4 // 3,
    )


def _latency(deployment_id: int) -> float | None:
    return 300.0 + deployment_id % 7
