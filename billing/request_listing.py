"""Which requests match, newest first, a page at a time?

Reads: request_record and the names of what it points to. Keyset paging: a page costs the same wherever it is.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q, QuerySet

from billing.models import Adjustment, RequestRecord
from billing.models.requests import RequestStatus
from billing.request_times import ForeignIdError, started_at_of
from billing.request_view import load_names
from policies.models import Deployment

MAX_PAGE = 500
NO_ID = 0
MAX_LABEL_ID = 2**31 - 1
# No status of a record: all of those that every sum counts as failed.
ANY_FAILURE = "any_failure"
FAILED = (RequestStatus.ERROR, RequestStatus.REFUSED, RequestStatus.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class RequestFilters:
    """What to look for; everything that is None is not asked. `until` is exclusive.

    `model` is a public name: what the client asked for, or the model of the deployment that served; `served_model_id`
    only the latter. `status` may be `ANY_FAILURE`. `label_ids`: the request has all of them. `NO_ID` asks for requests
    that had no deployment, provider, model or policy.
    """

    tenant_id: int | None = None
    project_id: int | None = None
    key_id: int | None = None
    model: str | None = None
    served_model_id: int | None = None
    deployment_id: int | None = None
    provider_id: int | None = None
    policy_id: int | None = None
    label_ids: tuple[int, ...] | None = None
    status: str | None = None
    error_code: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    is_unpriced: bool | None = None
    request_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Records with their names loaded. `next_after` asks for the following page; None: this is the last.

    `next_before` asks for the page of newer records; None: this is the first.
    """

    records: tuple[RequestRecord, ...]
    next_after: uuid.UUID | None
    next_before: uuid.UUID | None = None


def list_requests(
    *,
    filters: RequestFilters,
    after: uuid.UUID | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> Page:
    """List a page, newest first; a foreign id gives an empty page.

    `after` is the id of the last record of the page before this one, `before` that of the first of the page after it.
    """
    limit = max(1, min(limit, MAX_PAGE))
    try:
        rows = filter_requests(filters)
        if before is not None:
            return _page_before(rows, before, limit)
        if after is not None:
            # Ids begin with their millisecond, so the id alone names a place in the order.
            at = started_at_of(after)
            rows = rows.filter(started_at__lte=at).filter(Q(started_at__lt=at) | Q(id__lt=after))
    except ForeignIdError:
        return Page((), None)
    found = list(rows.order_by("-started_at", "-id")[: limit + 1])
    records = found[:limit]
    load_names(records)
    is_later_page = after is not None and bool(records)
    return Page(
        tuple(records),
        next_after=records[-1].id if len(found) > limit else None,
        next_before=records[0].id if is_later_page else None,
    )


def _page_before(rows: QuerySet[RequestRecord], before: uuid.UUID, limit: int) -> Page:
    at = started_at_of(before)
    newer = rows.filter(started_at__gte=at).filter(Q(started_at__gt=at) | Q(id__gt=before))
    found = list(newer.order_by("started_at", "id")[: limit + 1])
    records = found[:limit][::-1]
    load_names(records)
    return Page(
        tuple(records),
        next_after=records[-1].id if records else None,
        next_before=records[0].id if len(found) > limit else None,
    )


def filter_requests(filters: RequestFilters) -> QuerySet[RequestRecord]:
    """The matching records. Raises ForeignIdError when `request_id` is not an id of ours."""
    rows = RequestRecord.objects.all()
    exact = {
        "tenant_id": filters.tenant_id,
        "project_id": filters.project_id,
        "api_key_id": filters.key_id,
        "deployment_id": filters.deployment_id or None,
        "policy_id": filters.policy_id or None,
        "status": None if filters.status == ANY_FAILURE else filters.status,
        "error_code": filters.error_code,
        "is_unpriced": filters.is_unpriced,
        "started_at__gte": filters.since,
        "started_at__lt": filters.until,
    }
    rows = rows.filter(**{name: value for name, value in exact.items() if value is not None})
    if filters.status == ANY_FAILURE:
        rows = rows.filter(status__in=FAILED)
    if filters.is_unpriced:
        rows = rows.exclude(Exists(Adjustment.objects.filter(request_id=OuterRef("pk"))))  # priced afterwards
    if filters.label_ids:
        rows = rows.filter(
            label_ids__contains=[min(label_id, MAX_LABEL_ID) for label_id in filters.label_ids]
        )
    if filters.policy_id == NO_ID:
        rows = rows.filter(policy_id__isnull=True)
    if NO_ID in (filters.deployment_id, filters.provider_id, filters.served_model_id):
        rows = rows.filter(deployment_id__isnull=True)
    if filters.request_id is not None:
        rows = rows.filter(id=filters.request_id, started_at=started_at_of(filters.request_id))
    if filters.provider_id:
        ids = Deployment.objects.filter(provider_id=filters.provider_id).values_list("id", flat=True)
        rows = rows.filter(deployment_id__in=list(ids))
    if filters.served_model_id:
        ids = Deployment.objects.filter(model_id=filters.served_model_id).values_list("id", flat=True)
        rows = rows.filter(deployment_id__in=list(ids))
    if filters.model is not None:
        ids = Deployment.objects.filter(model__name=filters.model).values_list("id", flat=True)
        rows = rows.filter(Q(requested_model=filters.model) | Q(deployment_id__in=list(ids)))
    return rows
