"""By which labels can spend be grouped, and since when?

Reads: label_name, usage_by_label_day.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db.models import Count, Min

from billing.models import LabelKind, LabelName, UsageByLabelDay
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


def find_labels_since() -> dt.date | None:
    """The first day that has sums by label; None before there are any."""
    first: dt.date | None = UsageByLabelDay.objects.aggregate(first=Min("day"))["first"]
    return first
