"""What needs a person now? Counts for the menu's badges and the home page.

Reads: the health board and the journal folder (files), deployments, journal cursors.
"""

from __future__ import annotations

from pathlib import Path

from billing.models import JournalCursor
from gateway.health_board import read_health
from policies.models import Deployment

DOWN = ("ejected", "credential_rejected")


def list_down_deployments(data_dir: Path) -> list[tuple[Deployment, dict[str, object]]]:
    """Deployments that are out at the moment, with their health. No query while all are well."""
    health = {key: state for key, state in read_health(data_dir).items() if state["state"] in DOWN}
    if not health:
        return []
    rows = Deployment.objects.select_related("provider", "model").filter(id__in=health)
    return [(row, health[row.pk]) for row in rows]


def count_down_providers(data_dir: Path) -> int:
    """Providers of which a deployment is out."""
    return len({deployment.provider_id for deployment, _ in list_down_deployments(data_dir)})


def count_journal_backlog_bytes(data_dir: Path) -> int:
    """Bytes that workers wrote to the journal and the ingester has not read."""
    sizes: dict[tuple[str, int], int] = {}
    for segment in (data_dir / "journal").glob("*/*.jsonl"):
        try:
            sizes[segment.parent.name, int(segment.stem)] = segment.stat().st_size
        except (OSError, ValueError):
            # Ingested and removed between the listing and the look, or no segment of ours.
            continue
    if not sizes:
        return 0
    cursors = JournalCursor.objects.filter(worker__in={worker for worker, _ in sizes})
    for cursor in cursors:
        if (key := (cursor.worker, cursor.segment)) in sizes:
            sizes[key] = max(0, sizes[key] - cursor.offset_bytes)
    return sum(sizes.values())
