"""What has this worker done since it started? Plain counters, read by the metrics page.

Pure. A dictionary increment costs a tenth of a microsecond; a metrics library on the hot path costs ten of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

LATENCY_BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000)


class Histogram:
    """Counts by upper bound; the last one has none."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.sum = 0.0

    def observe(self, value_ms: float) -> None:
        self.counts[bisect_left(LATENCY_BUCKETS_MS, value_ms)] += 1
        self.sum += value_ms


class Stats:
    """Counters of one worker. Labels are few: endpoint, status, deployment, code; never a key or a tenant."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # endpoint, status
        self.refusals: Counter[str] = Counter()  # code
        self.attempts: Counter[tuple[str, str]] = Counter()  # deployment, outcome
        self.rule_failures: Counter[tuple[str, str]] = Counter()  # policy, rule
        self.shadows: Counter[str] = Counter()  # what became of a request that was drawn
        self.journal_errors = 0
        self.in_flight = 0
        self.held_bytes = 0  # of large bodies
        self.answer_bytes = 0  # of large answers that are not streams
        self.duration_ms = Histogram()
        self.first_token_ms = Histogram()

    def as_report(self) -> dict[str, Any]:
        """JSON form, for the run file."""
        return {
            "requests": [[*key, count] for key, count in self.requests.items()],
            "refusals": [[key, count] for key, count in self.refusals.items()],
            "attempts": [[*key, count] for key, count in self.attempts.items()],
            "rule_failures": [[*key, count] for key, count in self.rule_failures.items()],
            "shadows": [[key, count] for key, count in self.shadows.items()],
            "journal_errors": self.journal_errors,
            "in_flight": self.in_flight,
            "duration_ms": [list(self.duration_ms.counts), self.duration_ms.sum],
            "first_token_ms": [list(self.first_token_ms.counts), self.first_token_ms.sum],
        }
