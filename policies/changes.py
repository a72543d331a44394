"""Who changed what, and how do workers hear of it?

Writes: change_event. Every verb module calls `record_change` inside its transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connection
from django.db.models import Model

from policies.models import ChangeEvent

# One lock for all writers of the feed: ids are then handed out in commit order, so that a reader that has
# seen id N has seen everything below N. Configuration changes are rare, the wait is not.
FEED_LOCK = 0x706F696E74


def record_change(
    *,
    actor: str,
    action: str,
    object_type: str,
    object_id: int,
    object_name: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> ChangeEvent:
    """Append one event to the audit log and change feed. Call inside `transaction.atomic`.

    `before`/`after` hold changed fields as JSON values, never a secret.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [FEED_LOCK])
    event = ChangeEvent.objects.create(
        actor=actor,
        action=action,
        object_type=object_type,
        object_id=object_id,
        object_name=object_name,
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('pointsman_changes', %s)", [str(event.id)])
    return event


def record_row(
    object_type: str,
    row: Model,
    *,
    actor: str,
    action: str,
    name: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> ChangeEvent:
    """`record_change` for a row, by its own name unless another is given."""
    return record_change(
        actor=actor,
        action=action,
        object_type=object_type,
        object_id=row.pk,
        object_name=name or str(row),
        before=before,
        after=after,
    )
