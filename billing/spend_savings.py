"""What did routing save, against the baseline model that each policy names?

Reads: workload_usage, usage_by_day, what learning cost, prices. `router_savings` does the arithmetic, the
page prints `ASSUMPTIONS`. A policy without a priced baseline has nothing to be compared with: it is listed, not summed.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from django.db.models import Sum

from billing import reports
from billing.catalog_ratings import RouterNow
from billing.learning_costs import learning_nanousd
from billing.models import WorkloadUsage
from billing.pricebook import PriceVersion
from billing.router_savings import ServedSum, baseline_nanousd
from billing.spend_questions import Question
from billing.workload_usage import KEEP_DAYS
from policies.models import Policy

ASSUMPTIONS: Final = (
    "Compared are answered requests of workloads that the router tells apart; the others are counted beside them.",
    "The baseline gets the same input, and answers as long as its own answers in that workload usually are; where it "
    "never answered there, answers as long as those that were given.",
    "The baseline is granted the best share of cached input that any model reached in the workload: a cache that was "
    "lost by changing models is not counted as saved.",
    "The baseline is rated at its price in force today, of its cheapest deployment; what was paid is what was paid.",
    "Requests without a price are left out on both sides. What evaluations and shadow requests cost is taken off the "
    "total.",
)
# Which filters can be asked of the sums by workload.
_COLUMNS: Final[Mapping[str, str]] = {
    "tenant": "tenant_id",
    "project": "api_key__project_id",
    "key": "api_key_id",
    "policy": "policy_id",
}


class PolicySavings(NamedTuple):
    """One policy. Costs are of its `compared_count` priced requests; baseline None: nothing to compare with."""

    policy_id: int
    public_id: str
    baseline: str
    request_count: int
    compared_count: int
    paid_nanousd: int
    baseline_nanousd: int | None

    @property
    def saved_nanousd(self) -> int | None:
        """Negative when routing cost more than the baseline would have."""
        return None if self.baseline_nanousd is None else self.baseline_nanousd - self.paid_nanousd

    @property
    def saved_ratio(self) -> float | None:
        saved = self.saved_nanousd
        return saved / self.baseline_nanousd if saved is not None and self.baseline_nanousd else None


class Savings(NamedTuple):
    """All policies, dearest first. `evaluation_nanousd` None: filters are in force, evaluations are of no tenant."""

    rows: tuple[PolicySavings, ...]
    evaluation_nanousd: int | None
    days_kept_since: dt.date

    @property
    def compared(self) -> tuple[PolicySavings, ...]:
        return tuple(row for row in self.rows if row.baseline_nanousd is not None)

    @property
    def paid_nanousd(self) -> int:
        return sum(row.paid_nanousd for row in self.compared)

    @property
    def baseline_nanousd(self) -> int:
        return sum(row.baseline_nanousd or 0 for row in self.compared)

    @property
    def compared_count(self) -> int:
        return sum(row.compared_count for row in self.compared)

    @property
    def saved_nanousd(self) -> int | None:
        """Net of evaluations; None when no policy can be compared."""
        if not self.compared:
            return None
        return self.baseline_nanousd - self.paid_nanousd - (self.evaluation_nanousd or 0)

    @property
    def saved_ratio(self) -> float | None:
        saved = self.saved_nanousd
        return saved / self.baseline_nanousd if saved is not None and self.baseline_nanousd else None


def can_compare(question: Question) -> bool:
    """Whether the filters in force are such as the sums by workload know."""
    return set(question.filters) <= set(_COLUMNS)


def read_savings(question: Question, router: RouterNow, *, today: dt.date) -> Savings:
    """Compare every policy that was asked for in the period; `can_compare` must be true."""
    period = question.period
    usage = WorkloadUsage.objects.filter(day__gte=period.first_day, day__lte=period.last_day)
    for name, wanted in question.filters.items():
        usage = usage.filter(**{_COLUMNS[name]: wanted} if wanted else {f"{_COLUMNS[name]}__isnull": True})
    sums: dict[int, dict[str, list[ServedSum]]] = defaultdict(lambda: defaultdict(list))
    names = ServedSum._fields[1:]
    rows = (
        usage.filter(policy_id__isnull=False)
        .values_list("policy_id", "workload", "deployment__model__name")
        .annotate(**{f"sum_{name}": Sum(name) for name in names})
        .order_by()
    )
    for policy_id, workload, model, *numbers in rows.iterator(chunk_size=2_000):
        sums[policy_id][workload].append(ServedSum(model, *(int(number) for number in numbers)))
    asked = reports.group_by(
        "policy", first_day=period.first_day, last_day=period.last_day, scope=question.scope
    )
    policies = {
        row.pk: row
        for row in Policy.objects.filter(pk__in=[group.id for group in asked if group.id]).select_related(
            "live_version"
        )
    }
    return Savings(
        rows=tuple(
            _compare(policies[group.id], group, sums.get(group.id, {}), router.price_of_model)
            for group in asked
            if group.id in policies
        ),
        evaluation_nanousd=None
        if question.filters
        else learning_nanousd(question.period.first_day, question.period.last_day),
        days_kept_since=today - dt.timedelta(days=KEEP_DAYS),
    )


def _compare(
    policy: Policy,
    group: reports.Group,
    workloads: Mapping[str, Iterable[ServedSum]],
    price_of_model: Mapping[str, PriceVersion],
) -> PolicySavings:
    document: Mapping[str, Any] = policy.live_version.document if policy.live_version else {}
    baseline = document.get("baseline") or ""
    price = price_of_model.get(baseline)
    served = [one for sums in workloads.values() for one in sums]
    compared = sum(one.priced_count for one in served)
    expected = None
    if price is not None and compared:
        expected = sum(baseline_nanousd(sums, baseline=baseline, price=price) for sums in workloads.values())
    return PolicySavings(
        policy_id=policy.pk,
        public_id=policy.public_id,
        baseline=baseline,
        request_count=group.totals.request_count,
        compared_count=compared,
        paid_nanousd=sum(one.cost_nanousd for one in served),
        baseline_nanousd=expected,
    )
