"""What can Prometheus scrape? `GET /metrics`, on a token of its own.

Reads: the workers' report files and the last verification; never request records. The workers count in plain
integers, this turns them into the exposition format, with a label for the worker so that restarts are resets.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from gateway.dataplane.stats import LATENCY_BUCKETS_MS
from gateway.health_board import SEVERITY, read_reports


class WorkerCollector(Collector):
    """All workers' counters of this machine as metric families."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def collect(self) -> Iterable[Metric]:
        reports = read_reports(self._data_dir)
        yield from _counters(reports)
        yield from _gauges(reports)
        yield _histogram("duration_ms", "pointsman_request_duration_seconds", "Whole request.", reports)
        yield _histogram("first_token_ms", "pointsman_first_token_seconds", "Until the first event.", reports)
        yield from _verification(self._data_dir / "run")
        yield GaugeMetricFamily(
            "pointsman_journal_bytes", "Journal not yet deleted.", value=_journal_bytes(self._data_dir)
        )


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with all metrics when the token is right."""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
    if not hmac.compare_digest(given, settings.POINTSMAN_METRICS_TOKEN.encode()):
        answer = HttpResponse("Send the metrics token as 'Authorization: Bearer …'.\n", status=401)
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector(settings.POINTSMAN_DATA_DIR))
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _counters(reports: list[dict[str, Any]]) -> Iterable[Metric]:
    forms = (
        ("requests", "pointsman_requests", "Requests by endpoint and outcome.", ["endpoint", "status"]),
        ("refusals", "pointsman_refusals", "Requests without a valid key, by code.", ["code"]),
        ("attempts", "pointsman_attempts", "Calls to deployments by outcome.", ["deployment", "outcome"]),
        (
            "rule_failures",
            "pointsman_rule_failures",
            "Conditions that failed at run time.",
            ["policy", "rule"],
        ),
        ("shadows", "pointsman_shadow_requests", "Requests drawn for shadow sampling.", ["outcome"]),
    )
    for key, name, text, labels in forms:
        family = CounterMetricFamily(name, text, labels=["worker", *labels])
        for report in reports:
            for *values, count in report["stats"].get(key, ()):
                family.add_metric([report["worker"], *map(str, values)], count)
        yield family
    lines = CounterMetricFamily("pointsman_journal_lines", "Journal lines written.", labels=["worker"])
    errors = CounterMetricFamily("pointsman_journal_errors", "Journal lines that failed.", labels=["worker"])
    for report in reports:
        lines.add_metric([report["worker"]], report["journal_lines"])
        errors.add_metric([report["worker"]], report["stats"]["journal_errors"])
    yield lines
    yield errors


def _gauges(reports: list[dict[str, Any]]) -> Iterable[Metric]:
    in_flight = GaugeMetricFamily("pointsman_requests_in_flight", "Requests being served.", labels=["worker"])
    revision = GaugeMetricFamily(
        "pointsman_configuration_revision", "Change feed id in force.", labels=["worker"]
    )
    state = GaugeMetricFamily(
        "pointsman_deployment_state",
        f"{', '.join(f'{n} {name}' for n, name in enumerate(SEVERITY))}.",
        labels=["worker", "deployment_id"],
    )
    for report in reports:
        in_flight.add_metric([report["worker"]], report["stats"]["in_flight"])
        revision.add_metric([report["worker"]], report["revision"])
        for deployment_id, health in report["health"].items():
            state.add_metric([report["worker"], str(deployment_id)], SEVERITY.index(health["state"]))
    yield in_flight
    yield revision
    yield state


def _histogram(key: str, name: str, text: str, reports: list[dict[str, Any]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["worker"])
    for report in reports:
        counts, total_ms = report["stats"][key]
        buckets: list[tuple[str, float]] = []
        running = 0
        for bound_ms, count in zip([*LATENCY_BUCKETS_MS, None], counts, strict=True):
            running += count
            buckets.append(("+Inf" if bound_ms is None else repr(bound_ms / 1000), running))
        family.add_metric([report["worker"]], buckets, sum_value=total_ms / 1000)
    return family


def _verification(folder: Path) -> Iterable[Metric]:
    """The last run over all months, and the last over the newest two."""
    labels = ["months"]
    is_ok = GaugeMetricFamily(
        "pointsman_verify_usage_ok", "1: records, sums, meters, statements and ledger tie.", labels=labels
    )
    at = GaugeMetricFamily(
        "pointsman_verify_usage_timestamp_seconds", "When verify_usage last ran.", labels=labels
    )
    differences = GaugeMetricFamily(
        "pointsman_usage_differences", "Differences found by verify_usage.", labels=labels
    )
    for months, name in (("all", "verify.json"), ("recent", "verify_recent.json")):
        try:
            result = json.loads((folder / name).read_text())
            ran_at = dt.datetime.fromisoformat(result["at"]).timestamp()
            found = int(result["difference_count"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        is_ok.add_metric([months], float(found == 0))
        at.add_metric([months], ran_at)
        differences.add_metric([months], found)
    yield is_ok
    yield at
    yield differences


def _journal_bytes(data_dir: Path) -> int:
    total = 0
    for path in (data_dir / "journal").glob("*/*.jsonl"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total
