"""How do the workers of this machine feel? One small file per worker, written every second, read by the console.

Writes and reads: DATA_DIR/run/*.worker.json. No Django: the worker's loop writes, the console and metrics read.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

STALE_S = 15.0
SEVERITY = ("ok", "half_open", "cooling", "ejected", "credential_rejected")


def write_report(data_dir: Path, worker: str, report: dict[str, Any]) -> None:
    """Replace this worker's report. Costs about 0.1 ms; raises OSError when the disk is full."""
    folder = data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{worker}.tmp"
    temporary.write_bytes(
        orjson.dumps({**report, "worker": worker, "at": time.time()}, option=orjson.OPT_NON_STR_KEYS)
    )
    temporary.replace(folder / f"{worker}.worker.json")


def remove_report(data_dir: Path, worker: str) -> None:
    """Forget a worker that ends."""
    (data_dir / "run" / f"{worker}.worker.json").unlink(missing_ok=True)


def read_reports(data_dir: Path, *, now_unix_s: float | None = None) -> list[dict[str, Any]]:
    """The reports of living workers, newest first; files of dead ones are removed."""
    now = time.time() if now_unix_s is None else now_unix_s
    reports: list[dict[str, Any]] = []
    for path in (data_dir / "run").glob("*.worker.json"):
        try:
            report = orjson.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if now - report["at"] > STALE_S:
            path.unlink(missing_ok=True)
            continue
        reports.append(report)
    return sorted(reports, key=lambda report: -report["at"])


def read_health(data_dir: Path, *, now_unix_s: float | None = None) -> dict[int, dict[str, Any]]:
    """Deployment id -> {"state", "until", "requests", "failures", "first_token_ms", "reason"} over all workers.

    The worst state of any worker is shown; counts are added; the latency is the mean of those that have one.
    """
    merged: dict[int, dict[str, Any]] = {}
    latencies: dict[int, list[float]] = {}
    for report in read_reports(data_dir, now_unix_s=now_unix_s):
        for key, health in report.get("health", {}).items():
            deployment_id = int(key)
            if health.get("first_token_ms") is not None:
                latencies.setdefault(deployment_id, []).append(health["first_token_ms"])
            seen = merged.get(deployment_id)
            if seen is None:
                merged[deployment_id] = dict(health)
                continue
            requests = seen["requests"] + health["requests"]
            failures = seen["failures"] + health["failures"]
            worst = max(seen, health, key=lambda h: SEVERITY.index(h["state"]))
            merged[deployment_id] = {**worst, "requests": requests, "failures": failures}
    for deployment_id, values in latencies.items():
        merged[deployment_id]["first_token_ms"] = sum(values) / len(values)
    return merged
