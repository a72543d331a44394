"""What does the automatic router do for each workload: which models, how sure, and what does it save?

Reads: workload_usage, evidence, the router tables in force, prices. A saving compares what was paid with what the
policy's baseline model would have cost for the same requests, at today's prices (`router_savings`), less what
evaluations and shadow requests cost (`learning_costs`). Lost caches are inside: what was paid includes them, and the
baseline is granted the best share of cached input that any model reached.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from django.db.models import Count, F, Max, Q, Sum

from billing.catalog_ratings import RouterNow
from billing.learning_costs import learning_nanousd
from billing.models import Evidence, WorkloadDay, WorkloadUsage
from billing.router_savings import ServedSum, baseline_nanousd
from policies.autorouter.estimating import estimate_qualities
from policies.models import ApiKey, Policy

WORKLOADS_SHOWN: Final = 50
_SUMS = (
    "request_count", "input_tokens", "cache_read_tokens", "output_tokens", "output_count", "cost_nanousd",
    "priced_count", "latency_count",
)  # fmt: skip


class ModelRow(NamedTuple):
    """One model on one workload. Quality and error in 0..1; means are None where nothing was served."""

    model: str
    request_count: int
    share: float
    quality: float
    error: float
    evidence_count: float
    is_guess: bool
    mean_output_tokens: float | None
    p50_ms: float | None
    mean_cost_nanousd: int | None
    is_pinned: bool
    is_baseline: bool

    @property
    def low(self) -> float:
        """Where the error bar begins, in per cent: 95 of 100 such bars hold the true quality."""
        return max(0.0, self.quality - 1.96 * self.error) * 100

    @property
    def high(self) -> float:
        return min(1.0, self.quality + 1.96 * self.error) * 100

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def place(self) -> float:
        return self.quality * 100

    @property
    def mark(self) -> float:
        """Where the mark begins that is 1.4 wide, inside the scale."""
        return min(98.6, max(0.0, self.place - 0.7))

    @property
    def error_points(self) -> float:
        return 196 * self.error


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """One workload over the days asked for. Costs are of priced requests; None: nothing to compare with."""

    workload: str
    title: str
    keys: tuple[str, ...]
    key_ids: tuple[int, ...]
    apps: tuple[str, ...]
    policies: tuple[str, ...]
    task_type: str
    request_count: int
    unpriced_count: int
    cost_nanousd: int
    baseline: str
    baseline_nanousd: int | None
    evaluation_nanousd: int
    evidence_count: int
    pin: str
    models: tuple[ModelRow, ...] = field(default=())

    @property
    def named_keys(self) -> list[tuple[str, int]]:
        return list(zip(self.keys, self.key_ids, strict=True))

    @property
    def saved_nanousd(self) -> int | None:
        """Net of what its evaluation and its shadows cost; negative when the router cost more than the baseline."""
        if self.baseline_nanousd is None:
            return None
        return self.baseline_nanousd - self.cost_nanousd - self.evaluation_nanousd

    @property
    def saved_ratio(self) -> float | None:
        saved = self.saved_nanousd
        return saved / self.baseline_nanousd if saved is not None and self.baseline_nanousd else None


@dataclass(frozen=True, slots=True)
class RouterReport:
    """All workloads, busiest first. `workload_count` counts also those that are not listed.

    `evaluation_nanousd` includes what was evaluated for no workload in particular, and all shadow requests, also those
    that told nothing; it is taken off the total once.
    """

    workloads: tuple[WorkloadRow, ...]
    workload_count: int
    collected_at: dt.datetime | None
    evaluation_nanousd: int

    @property
    def request_count(self) -> int:
        return sum(row.request_count for row in self.workloads)

    @property
    def evidence_count(self) -> int:
        return sum(row.evidence_count for row in self.workloads)

    @property
    def baseline_nanousd(self) -> int:
        return sum(row.baseline_nanousd or 0 for row in self.workloads)

    @property
    def saved_nanousd(self) -> int | None:
        known = [row for row in self.workloads if row.baseline_nanousd is not None]
        if not known:
            return None
        paid = sum(row.cost_nanousd for row in known)
        return self.baseline_nanousd - paid - self.evaluation_nanousd

    @property
    def saved_ratio(self) -> float | None:
        saved = self.saved_nanousd
        return saved / self.baseline_nanousd if saved is not None and self.baseline_nanousd else None


def read_report(
    router: RouterNow, *, since: dt.date, q: str = "", workload: str = "", limit: int = WORKLOADS_SHOWN
) -> RouterReport:
    """Read the busiest workloads since a day; `q` is part of a key's, an app's or a policy's name, or of the hash."""
    usage = WorkloadUsage.objects.filter(day__gte=since)
    if workload:
        usage = usage.filter(workload=workload)
    matching = usage
    if q:
        matching = usage.filter(
            Q(app__icontains=q)
            | Q(api_key__name__icontains=q)
            | Q(api_key__project__name__icontains=q)
            | Q(policy__public_id__icontains=q)
            | Q(task_type__icontains=q)
            | Q(workload__startswith=q.lower())
        )
    counts = matching.values("workload").annotate(n=Sum("request_count")).order_by("-n", "workload")
    listed = [row["workload"] for row in counts[: limit + 1]]
    count = len(listed) if len(listed) <= limit else counts.count()
    rows = list(
        usage.filter(workload__in=listed[:limit])
        .values("workload", "task_type", "app", "api_key_id", "policy_id", "deployment__model__name")
        .annotate(**{f"sum_{name}": Sum(name) for name in _SUMS}, p50=Sum(F("p50_ms") * F("latency_count")))
        .order_by()
    )
    evidence = {
        row["workload"]: (row["n"], int(row["cost"] or 0))
        for row in Evidence.objects.filter(workload__in=listed[:limit], at__date__gte=since)
        .values("workload")
        .annotate(n=Count("id"), cost=Sum("cost_nanousd"))
        .order_by()
    }
    names = _Names.of(rows)
    return RouterReport(
        workloads=tuple(
            _workload_row(name, [row for row in rows if row["workload"] == name], evidence, router, names)
            for name in listed[:limit]
        ),
        workload_count=count,
        collected_at=WorkloadDay.objects.aggregate(at=Max("collected_at"))["at"],
        evaluation_nanousd=learning_nanousd(since),
    )


class _Names(NamedTuple):
    """Names and baselines of the keys and policies in the rows."""

    keys: Mapping[int, str]
    policies: Mapping[int, tuple[str, str]]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> _Names:
        keys = ApiKey.objects.filter(pk__in={row["api_key_id"] for row in rows})
        policies = Policy.objects.filter(pk__in={row["policy_id"] for row in rows})
        return cls(
            {
                pk: f"{tenant}/{project}/{name}"
                for pk, tenant, project, name in keys.values_list(
                    "pk", "project__tenant__name", "project__name", "name"
                )
            },
            {
                row.pk: (
                    row.public_id,
                    (row.live_version.document.get("baseline") or "") if row.live_version else "",
                )
                for row in policies.select_related("live_version")
            },
        )


def _workload_row(
    workload: str,
    rows: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, tuple[int, int]],
    router: RouterNow,
    names: _Names,
) -> WorkloadRow:
    keys = _by_count(rows, "api_key_id")
    apps = tuple(app for app in _by_count(rows, "app") if app)
    policies = [names.policies[pk] for pk in _by_count(rows, "policy_id") if pk in names.policies]
    task_type = next(iter(_by_count(rows, "task_type")), "")
    key_names = tuple(names.keys.get(pk, f"key {pk}") for pk in keys)
    baseline, baseline_cost = _baseline(rows, router, names)
    judgements, evaluation_cost = evidence.get(workload, (0, 0))
    return WorkloadRow(
        workload=workload,
        title=apps[0] if apps else key_names[0].rpartition("/")[2],
        keys=key_names,
        key_ids=tuple(keys),
        apps=apps,
        policies=tuple(public_id for public_id, _ in policies),
        task_type=task_type,
        request_count=sum(row["sum_request_count"] for row in rows),
        unpriced_count=sum(row["sum_request_count"] - row["sum_priced_count"] for row in rows),
        cost_nanousd=int(sum(row["sum_cost_nanousd"] for row in rows)),
        baseline=baseline,
        baseline_nanousd=baseline_cost,
        evaluation_nanousd=evaluation_cost,
        evidence_count=judgements,
        pin=router.tables.pins.get(workload, ""),
        models=_model_rows(workload, task_type, rows, router, baseline),
    )


def _baseline(rows: Sequence[Mapping[str, Any]], router: RouterNow, names: _Names) -> tuple[str, int | None]:
    """The baseline of the workload's busiest policy, and the cost of it; each policy is compared with its own.

    Requests of a policy without a priced baseline are taken at what they cost: they saved nothing.
    """
    first = ""
    total, has_baseline = 0, False
    for policy_id in _by_count(rows, "policy_id"):
        sums = [_served_sum(row) for row in rows if row["policy_id"] == policy_id]
        baseline = names.policies.get(policy_id, ("", ""))[1]
        first = first or baseline
        price = router.price_of_model.get(baseline)
        if price is None:
            total += sum(one.cost_nanousd for one in sums)
        else:
            has_baseline = True
            total += baseline_nanousd(sums, baseline=baseline, price=price)
    return first, total if has_baseline else None


def _served_sum(row: Mapping[str, Any]) -> ServedSum:
    return ServedSum(
        row["deployment__model__name"],
        *(int(row[f"sum_{name}"]) for name in ServedSum._fields[1:]),
    )


def _model_rows(
    workload: str,
    task_type: str,
    rows: Sequence[Mapping[str, Any]],
    router: RouterNow,
    baseline: str,
) -> tuple[ModelRow, ...]:
    """Models that served the workload, that there is evidence of, that it is pinned to, and the baseline."""
    pin = router.tables.pins.get(workload, "")
    known = router.tables.workloads.get(workload)
    served = _by_count(rows, "deployment__model__name")
    models = list(dict.fromkeys([*served, *(known.models if known else ()), pin, baseline]))
    models = [model for model in models if model]
    estimates = estimate_qualities(
        models,
        [router.usd_per_mtok.get(model) for model in models],
        workload=workload,
        task_type=task_type,
        tables=router.tables,
    )
    total = sum(served.values())
    found = []
    for model, estimate in zip(models, estimates, strict=True):
        own = [row for row in rows if row["deployment__model__name"] == model]
        outputs = sum(row["sum_output_count"] for row in own)
        timed = sum(row["sum_latency_count"] for row in own)
        priced = sum(row["sum_priced_count"] for row in own)
        found.append(
            ModelRow(
                model=model,
                request_count=served.get(model, 0),
                share=served.get(model, 0) / total if total else 0.0,
                quality=estimate.mean,
                error=estimate.error,
                evidence_count=estimate.evidence_count,
                is_guess=estimate.is_guess and estimate.evidence_count < 1,
                mean_output_tokens=float(sum(r["sum_output_tokens"] for r in own)) / outputs
                if outputs
                else None,
                p50_ms=float(sum(row["p50"] or 0 for row in own)) / timed if timed else None,
                mean_cost_nanousd=round(sum(r["sum_cost_nanousd"] for r in own) / priced) if priced else None,
                is_pinned=model == pin,
                is_baseline=model == baseline,
            )
        )
    return tuple(found)


def _by_count(rows: Sequence[Mapping[str, Any]], name: str) -> dict[Any, int]:
    """Values of a column with their requests, most first."""
    counts: Counter[Any] = Counter()
    for row in rows:
        counts[row[name]] += row["sum_request_count"]
    return dict(counts.most_common())
