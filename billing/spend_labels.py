"""By which labels can spend be grouped, and since when?

Reads: label_name, the rollups by label.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db.models import Count, Min

from billing import reports
from billing.models import LabelKind, LabelName
from billing.spend_questions import Question

# Of many tenants' tags those that most of them have; each tenant's own page offers all of its own.
TAGS_OFFERED: Final = 10


def list_groupings(question: Question) -> list[tuple[str, str, str]]:
    """Grouping, title and query string of what can be asked next. One query."""
    rows = LabelName.objects.order_by()
    if tenant_id := question.filters.get("tenant"):
        rows = rows.filter(tenant=tenant_id)
    counted = rows.values_list("kind", "name").annotate(tenant_count=Count("pk"))
    found = sorted(counted, key=lambda row: (-row[2], row[1]))
    tags = [name for kind, name, _ in found if kind == LabelKind.TAG][:TAGS_OFFERED]
    group = question.label_group
    if group is not None and group.kind == LabelKind.TAG and group.name not in tags:
        tags.append(group.name)
    return question.groupings(tags, {kind for kind, _, _ in found})


def find_labels_since(question: Question) -> dt.date | None:
    """The first day that has the sums by label that it asks for; None before there are any, or where it asks for none.

    Sums by one label and tenant may begin earlier than those with more: those were first summed of the records that
    were still there.
    """
    is_grouped = question.label_group is not None
    if not is_grouped and not question.label_ids:
        return None
    period, by = question.period, reports.LABELS if is_grouped else "day"
    table = reports.days_of(period.first_day, period.last_day, question.scope, by=by).model
    first: dt.date | None = table._default_manager.aggregate(first=Min("day"))["first"]
    return first
