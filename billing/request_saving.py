"""What would this one request have cost with its policy's baseline model?

Reads: policy_version, deployment, price. An estimate: the same tokens at the price that was in force when the request
began, of the baseline's cheapest deployment; another model would have written another number of tokens.
"""

from __future__ import annotations

from typing import NamedTuple

from billing.models import RequestRecord
from billing.rating import total_nanousd
from billing.stored_prices import cost_prices_at
from billing.usage import Usage
from policies.models import PolicyVersion


class Saving(NamedTuple):
    """`saved_nanousd` is negative when the request cost more than the baseline would have."""

    baseline_model: str
    baseline_nanousd: int
    saved_nanousd: int


def estimate_saving(record: RequestRecord, usage: Usage) -> Saving | None:
    """Compare a request with its policy's baseline; None without one, or where a cost is not known."""
    if record.policy_version_id is None or record.cost_nanousd is None or usage.kind == "unknown":
        return None
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    version = PolicyVersion.objects.filter(pk=record.policy_version_id).only("document").first()
    baseline = version.document.get("baseline") if version is not None else ""
    if not baseline:
        return None
    begun_at = record.started_at
    prices = cost_prices_at(begun_at, model=baseline).values()
    costs = [total_nanousd(usage, price.at(begun_at.timestamp())) for price in prices]
    if not costs:
        return None
    return Saving(baseline, min(costs), min(costs) - record.cost_nanousd)
