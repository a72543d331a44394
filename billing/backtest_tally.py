"""What do judged requests add up to? Sums that can be added to each other, and the interval around the cost.

Pure. Money is integer nano-USD; floats are in latencies and in what is said about uncertainty.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from billing.backtest_expectations import Expected

SAMPLE_SIZE = 50
SMALL_SAMPLE_SIZE = 20
# Two-sided 95 % of a normal distribution.
SIGMAS = 1.96

Entry = dict[str, Any]


class Sample:
    """The `size` entries with the smallest numbers: the same whatever the order, and whoever saw which part."""

    __slots__ = ("_heap", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, str, Entry]] = []

    def wants(self, number: int) -> bool:
        """Say whether an entry with this number would be kept."""
        return len(self._heap) < self._size or -self._heap[0][0] > number

    def add(self, number: int, entry: Entry) -> None:
        """Keep the entry, and give up the one with the largest number when there are too many."""
        item = (-number, str(entry["id"]), entry)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def merge(self, other: Sample) -> None:
        """Take the other's entries."""
        for number, _, entry in other._heap:
            if self.wants(-number):
                self.add(-number, entry)

    def entries(self) -> list[Entry]:
        """By time, newest first: request ids begin with their time."""
        return [entry for _, _, entry in sorted(self._heap, key=lambda item: item[1], reverse=True)]


@dataclass(slots=True)
class TenantSums:
    """One tenant's part. Costs are of those requests that can be compared."""

    count: int = 0
    moved: int = 0
    compared: int = 0
    cost_then_nanousd: int = 0
    cost_now_nanousd: int = 0

    def merge(self, other: TenantSums) -> None:
        self.count += other.count
        self.moved += other.moved
        self.compared += other.compared
        self.cost_then_nanousd += other.cost_then_nanousd
        self.cost_now_nanousd += other.cost_now_nanousd


@dataclass(slots=True)
class Latency:
    """Sums over the requests for which both times are known; `unknown` go where nothing was measured."""

    count: int = 0
    unknown: int = 0
    then_ms: float = 0.0
    now_ms: float = 0.0

    def keep(self, ms: float | None) -> None:
        """Count a time that stays what it was."""
        if ms is not None:
            self.count += 1
            self.then_ms += ms
            self.now_ms += ms

    def merge(self, other: Latency) -> None:
        self.count += other.count
        self.unknown += other.unknown
        self.then_ms += other.then_ms
        self.now_ms += other.now_ms


@dataclass(slots=True)
class Tally:
    """Everything about a run. Each judged request is counted once in `count`."""

    count: int = 0
    moved: int = 0
    compared: int = 0
    no_candidate: int = 0
    no_candidate_then: int = 0
    lacking: int = 0
    checked: int = 0
    reproduced: int = 0
    tenants: dict[int, TenantSums] = field(default_factory=dict)
    then_by_deployment: Counter[str] = field(default_factory=Counter)
    now_by_deployment: Counter[str] = field(default_factory=Counter)
    then_by_rule: Counter[str] = field(default_factory=Counter)
    now_by_rule: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    not_compared: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    mismatches: Counter[str] = field(default_factory=Counter)
    first_token: Latency = field(default_factory=Latency)
    duration: Latency = field(default_factory=Latency)
    doubts: dict[tuple[str, int], list[float]] = field(
        default_factory=dict
    )  # key of a mean -> [rates, squares]
    means: dict[tuple[str, int], Expected] = field(default_factory=dict)
    moved_sample: Sample = field(default_factory=lambda: Sample(SAMPLE_SIZE))
    no_candidate_sample: Sample = field(default_factory=lambda: Sample(SMALL_SAMPLE_SIZE))
    mismatch_sample: Sample = field(default_factory=lambda: Sample(SMALL_SAMPLE_SIZE))

    def tenant(self, tenant_id: int) -> TenantSums:
        """One tenant's sums, made on first use."""
        found = self.tenants.get(tenant_id)
        if found is None:
            found = self.tenants[tenant_id] = TenantSums()
        return found

    def doubt(self, expected: Expected, rate: float) -> None:
        """Remember that a cost rests on this expectation; `rate` is nano-USD for each token of the answer."""
        self.levels[expected.level] += 1
        found = self.doubts.get(expected.key)
        if found is None:
            self.doubts[expected.key] = [rate, rate * rate]
            self.means[expected.key] = expected
        else:
            found[0] += rate
            found[1] += rate * rate

    def merge(self, other: Tally) -> None:
        """Add another part of the same run."""
        for name in ("count", "moved", "compared", "no_candidate", "no_candidate_then", "lacking", "checked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reproduced += other.reproduced
        for tenant_id, sums in other.tenants.items():
            self.tenant(tenant_id).merge(sums)
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name in ("first_token", "duration", "moved_sample", "no_candidate_sample", "mismatch_sample"):
            getattr(self, name).merge(getattr(other, name))
        for key, (rates, squares) in other.doubts.items():
            mine = self.doubts.setdefault(key, [0.0, 0.0])
            mine[0] += rates
            mine[1] += squares
        self.means.update(other.means)

    def cost_then_nanousd(self) -> int:
        """What the compared requests cost."""
        return sum(sums.cost_then_nanousd for sums in self.tenants.values())

    def cost_now_nanousd(self) -> int:
        """What they would about have cost."""
        return sum(sums.cost_now_nanousd for sums in self.tenants.values())

    def half_width_nanousd(self) -> int:
        """Half of the 95 % interval around the cost difference.

        Requests that stay where they were cost what they cost. Of those that move, the error of each mean counts for
        all its requests at once, the spread of single answers for each alone.
        """
        variance = sum(
            (rates * self.means[key].error) ** 2 + squares * self.means[key].spread ** 2
            for key, (rates, squares) in self.doubts.items()
        )
        return round(SIGMAS * math.sqrt(variance))


_COUNTERS = (
    "then_by_deployment",
    "now_by_deployment",
    "then_by_rule",
    "now_by_rule",
    "moves",
    "reasons",
    "not_compared",
    "levels",
    "mismatches",
)
