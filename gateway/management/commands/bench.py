"""How fast is the gateway here, and is each bar met? Measures, and prints one table.

Calls: the rig of gateway/bench/rig.py. Writes: a temporary data directory. Always exits 0 when it could measure:
timings belong to a machine and a moment, so whoever reads the table judges.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.bench.rig import Rig, RigError
from gateway.bench.scenarios import (
    MEMORY,
    MEMORY_NAME,
    NAMES,
    SCENARIOS,
    Result,
    Scenario,
    describe_result,
    format_table,
    list_errors,
    read_results,
)
from gateway.compiled import runs_compiled

# Round about: the settling of a Python process (caches, arenas) before its memory says something.
MIN_MEMORY_LOAD_S = 1.0


class Command(BaseCommand):
    help = "Measure the gateway on a built-in mock provider and print one table with its bars."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
        parser.add_argument(
            "--seconds", type=float, default=2.0, help="length of one measurement (default 2)"
        )
        parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind (default 3)")
        parser.add_argument(
            "--only", default="", help=f"some of, separated by commas: {', '.join(NAMES)} (default: all)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        only = [name for name in options["only"].split(",") if name]
        if unknown := sorted(set(only) - set(NAMES)):
            raise CommandError(f"no such scenario: {', '.join(unknown)}. There are: {', '.join(NAMES)}")
        if not 0 < options["seconds"] <= 120 or not 0 < options["rounds"] <= 20:
            raise CommandError("--seconds may be up to 120, --rounds from 1 to 20")
        # So that `kill` too ends the processes and removes the data directory.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            with Rig(self.say) as rig:
                report = self.measure(rig, only=only, seconds=options["seconds"], rounds=options["rounds"])
        except RigError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            results: list[Result] = report.pop("results")
            report["rows"] = [describe_result(result) for result in results]
            self.stdout.write(json.dumps(report, indent=2))
            return
        self.stdout.write(format_table(report["results"]))
        self.stdout.write(self.footnote(report))

    def measure(self, rig: Rig, *, only: list[str], seconds: float, rounds: int) -> dict[str, Any]:
        """Run the chosen scenarios, each round over all targets in turn."""
        results: list[Result] = []
        errors: list[str] = []
        detail: dict[str, list[dict[str, dict[str, Any]]]] = {}
        before_mib = rig.worker_resident_mib()
        for scenario in SCENARIOS:
            if only and scenario.name not in only:
                continue
            self.say(f"measuring {scenario.name} …")
            measured = [self.measure_round(rig, scenario, seconds) for _ in range(rounds)]
            detail[scenario.name] = measured
            results += read_results(scenario, measured)
            errors += list_errors(scenario, measured)
        if not only or MEMORY_NAME in only:
            if not detail:
                rig.measure(
                    rig.targets["gateway"], {**SCENARIOS[0].plan, "seconds": max(seconds, MIN_MEMORY_LOAD_S)}
                )
            results.append(Result(MEMORY_NAME, MEMORY, rig.worker_resident_mib()))
        return {
            "results": results,
            "errors": errors,
            "worker_mib_before": before_mib,
            "seconds": seconds,
            "rounds": rounds,
            "cores": os.cpu_count(),
            "worker_core": rig.worker_core,
            "python": platform.python_version(),
            "is_compiled": runs_compiled(),
            "detail": detail,
        }

    def measure_round(self, rig: Rig, scenario: Scenario, seconds: float) -> dict[str, dict[str, Any]]:
        """Measure every target once, right after one another."""
        plan = {**scenario.plan, "seconds": seconds}
        return {name: rig.measure(target, plan) for name, target in rig.targets.items()}

    def footnote(self, report: Mapping[str, Any]) -> str:
        """What one must know to read the table."""
        foreign = [
            figures["foreign_cores"]
            for measured in report["detail"].values()
            for one in measured
            for figures in one.values()
        ]
        lines = [
            "",
            f"Medians of {report['rounds']} x {report['seconds']:g} s. direct: the mock provider alone; its own CPU, "
            "and of added times the whole time.",
        ]
        if report["worker_core"] is None:
            lines.append("One core for everything: added times include waiting for the load generator.")
        if foreign:
            lines.append(
                f"Other programs used up to {max(foreign):.2f} of {report['cores']} cores meanwhile; times are "
                "worth little above 0.2."
            )
        form = "machine code (make compiled)" if report["is_compiled"] else "Python: nothing is compiled"
        lines.append(f"The hot path ran as {form}.")
        lines.append(f"Worker's memory before the load: {report['worker_mib_before']:.0f} MiB.")
        lines += [f"Failed: {error}" for error in report["errors"]]
        return "\n".join(lines)

    def say(self, line: str) -> None:
        self.stderr.write(line, style_func=str)
