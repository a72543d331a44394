"""What do failed free checks say about models? Failures in proportion to all answers that were checked.

Reads: evidence (source check), workload_usage. A failed check is an answer of quality 0. One that passed may still be
wrong, so it says nothing about how good answers are, only that this one did not fail: it counts as an answer of the
workload's usual quality. Both count as answers of a group of their own, so that checks compare models with each other
and are never mixed with what people and evaluation sets say (`learning.SOURCE_WEIGHTS` makes them light as well).
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db.models import Avg, Count

from billing.catalog_ratings import RouterNow
from billing.models import Evidence as EvidenceRow
from billing.workload_usage import read_served
from policies.autorouter.learning import Evidence

DAYS: Final = 30
# However many answers were checked: no more weight than these.
MAX_TRIALS: Final = 200


def list_check_evidence(*, now: dt.datetime, router: RouterNow) -> list[Evidence]:
    """Return evidence for each workload of which an answer failed a check in the last `DAYS` days."""
    since = now - dt.timedelta(days=DAYS)
    failed = {
        (row["workload"], row["model__name"]): row["n"]
        for row in EvidenceRow.objects.filter(source=EvidenceRow.Source.CHECK, at__gte=since)
        .exclude(workload="")
        .values("workload", "model__name")
        .annotate(n=Count("id"))
        .order_by()
    }
    workloads = {workload for workload, _ in failed}
    if not workloads:
        return []
    judged = dict(
        EvidenceRow.objects.filter(workload__in=workloads)
        .exclude(source=EvidenceRow.Source.CHECK)
        .values_list("workload")
        .annotate(mean=Avg("quality"))
        .order_by()
    )
    passed: dict[tuple[str, str], tuple[int, str]] = {}
    for (workload, task_type, model), one in read_served(
        since=since.date(), by=("workload", "task_type")
    ).items():
        if workload in workloads:
            count = passed.get((workload, model), (0, ""))[0]
            passed[workload, model] = (count + one.checkable_count, task_type)
    found: list[Evidence] = []
    for workload, model in sorted({*failed, *passed}):
        failures = failed.get((workload, model), 0)
        checked, task_type = passed.get((workload, model), (0, ""))
        # An answer that failed and was not tried elsewhere is among the served ones as well: counted twice, which
        # makes the ratio a little smaller than it is.
        trials = checked + failures
        if not trials:
            continue
        usual = judged.get(workload) or router.rating_of(model).quality
        found += [
            Evidence(
                workload=workload,
                task_type=task_type,
                model=model,
                quality=usual * (1 - failures / trials),
                at_unix_s=now.timestamp(),
                pair_id=f"checks of {workload}",
                source="check",
            )
        ] * min(trials, MAX_TRIALS)
    return found
