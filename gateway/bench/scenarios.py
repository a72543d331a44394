"""What is measured, which bar must it pass, and did it?

Pure. The bars are for one worker with everything switched on: keys, a policy of ten rules, journal, health, metrics.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CHUNKS, FIRST_CHUNK = "stream-200x5", "stream-50x20"
STREAM_SHAPES = (CHUNKS, FIRST_CHUNK)
# Before the name of the policy whose last rule is the automatic router's.
AUTO_PREFIX = "auto-"

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure of a scenario and its bar. `is_added`: less what the provider itself takes."""

    title: str
    figure: str
    unit: str
    bar: float
    is_added: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load, and what is read from it."""

    name: str
    plan: Mapping[str, Any]
    rows: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table, measured. `None` where nothing was measured."""

    scenario: str
    row: Row
    gateway: float | None
    others: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        return None if self.gateway is None else self.gateway <= self.row.bar


def _cpu(title: str, bar: float) -> tuple[Row, ...]:
    return (Row(title, "cpu_us_per_request", "µs CPU/request", bar),)


SCENARIOS = (
    Scenario("small", {"model": CHUNKS}, _cpu("small body", 200)),
    Scenario(
        "auto",
        {"model": CHUNKS, "policy_prefix": AUTO_PREFIX},
        _cpu("small body, automatic router", 350),
    ),
    Scenario("100kB", {"model": CHUNKS, "body_bytes": 100_000}, _cpu("100 kB body", 450)),
    Scenario("1MB", {"model": CHUNKS, "body_bytes": 1_000_000, "connections": 8}, _cpu("1 MB body", 2_500)),
    Scenario(
        "chunks",
        {"model": CHUNKS, "is_stream": True, "connections": 100},
        (Row("streamed chunk, 100 streams", "cpu_us_per_chunk", "µs CPU/chunk", 30),),
    ),
    Scenario(
        "latency",
        {"model": CHUNKS, "rate_per_s": 300.0},
        (
            Row("added at 300 requests/s, p50", "p50_ms", "ms", 0.7, is_added=True),
            Row("added at 300 requests/s, p99", "p99_ms", "ms", 4.0, is_added=True),
        ),
    ),
    Scenario(
        "first-chunk",
        {"model": FIRST_CHUNK, "is_stream": True, "connections": 100},
        (Row("added to first chunk, 100 streams, p50", "first_chunk_p50_ms", "ms", 2.0, is_added=True),),
    ),
)
MEMORY = Row("worker's memory after the load", "resident_mib", "MiB", 150)
MEMORY_NAME = "memory"
NAMES = (*(scenario.name for scenario in SCENARIOS), MEMORY_NAME)


def read_results(scenario: Scenario, rounds: Sequence[Mapping[str, Figures]]) -> list[Result]:
    """The table's lines of one scenario: medians over rounds, each of which measured every target."""
    results = []
    for row in scenario.rows:
        names = [name for name in rounds[0] if name != "gateway"]
        others = {name: _median(row, name, rounds) for name in names}
        results.append(Result(scenario.name, row, _median(row, "gateway", rounds), others))
    return results


def _median(row: Row, target: str, rounds: Sequence[Mapping[str, Figures]]) -> float | None:
    """Added figures are taken within a round: what the machine did to one target it did to the other."""
    values = []
    for measured in rounds:
        value = measured[target].get(row.figure)
        if value is None:
            continue
        if row.is_added and target != "direct":
            direct = measured["direct"].get(row.figure)
            if direct is None:
                continue
            value -= direct
        values.append(float(value))
    return round(statistics.median(values), 3) if values else None


def list_errors(scenario: Scenario, rounds: Sequence[Mapping[str, Figures]]) -> list[str]:
    """What went wrong during a scenario, in words. A figure of a run with errors means little."""
    return [
        f"{scenario.name}, {target}: {count} x {error}"
        for measured in rounds
        for target, figures in measured.items()
        for error, count in figures["errors"].items()
    ]


def format_table(results: Sequence[Result]) -> str:
    """The one table. `direct` is the mock provider without anything before it; of added times it is the base."""
    others = list(dict.fromkeys(name for result in results for name in result.others))
    head = ["", "unit", "bar", "gateway", "met", *others]
    lines = [head, *(_cells(result, others) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cells(result: Result, others: Sequence[str]) -> list[str]:
    met = {True: "yes", False: "NO", None: "?"}[result.is_met]
    cells = [result.row.title, result.row.unit, f"{result.row.bar:g}", _number(result.gateway), met]
    return cells + [_number(result.others.get(name)) for name in others]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def describe_result(result: Result) -> dict[str, Any]:
    """One line of the table for `--json`."""
    return {
        "scenario": result.scenario,
        "title": result.row.title,
        "unit": result.row.unit,
        "bar": result.row.bar,
        "is_added": result.row.is_added,
        "gateway": result.gateway,
        "is_met": result.is_met,
        **result.others,
    }
