"""Which requests are running right now?

Reads: open_intent and the names of what its lines point to. A request is there from the moment its intent is ingested
until its outcome is: a second or so behind the traffic, and short requests never.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from billing.models import OpenIntent, RequestRecord
from billing.request_listing import RequestFilters
from billing.request_view import IN_FLIGHT, load_names, record_of_intent

MAX_SHOWN = 25
# What is known of a request before its outcome. Whoever asks for anything else asks for requests that are over.
_KNOWN = frozenset({"tenant_id", "project_id", "key_id", "policy_id", "model", "status", "since", "until"})
_LINE_MEMBERS = {"tenant_id": "tenant", "project_id": "project", "key_id": "key", "model": "model"}


@dataclass(frozen=True, slots=True)
class InFlight:
    """Running requests as records that are not saved, newest first, names loaded."""

    records: tuple[RequestRecord, ...] = ()
    has_more: bool = False


def list_in_flight(filters: RequestFilters) -> InFlight:
    """The newest running requests that the filters do not exclude.

    Ask before the records are listed: a request that ends in between is then in both lists, else it were in neither.
    """
    asked = {field.name for field in fields(filters) if getattr(filters, field.name) is not None}
    if not asked <= _KNOWN or filters.status not in (None, IN_FLIGHT):
        return InFlight()
    members = {
        f"line__{member}": getattr(filters, name) for name, member in _LINE_MEMBERS.items() if name in asked
    }
    if "policy_id" in asked:
        members["line__policy"] = filters.policy_id or None  # 0 asks for requests without a policy
    # Ids begin with their millisecond: by id is by time. An outcome without its intent waits in the same table.
    rows = OpenIntent.objects.filter(line__k="intent", **members).order_by("-id")
    found = [record_of_intent(line) for line in rows.values_list("line", flat=True)[: MAX_SHOWN + 1]]
    records = [
        record
        for record in found[:MAX_SHOWN]
        if record is not None
        and (filters.since is None or record.started_at >= filters.since)
        and (filters.until is None or record.started_at < filters.until)
    ]
    load_names(records)
    return InFlight(tuple(records), has_more=len(found) > MAX_SHOWN)
