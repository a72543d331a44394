"""Which requests does an address ask for? Its parameters -> filters, for the page, its files and its exports alike.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from django.utils.dateparse import parse_datetime

from billing.request_listing import RequestFilters

# Each of these labels.
LABEL_FILTERS: Final = ("label", "label2", "label3")
# Parameters that hold the number of a row; 0 asks for requests that have none.
ROWS: Final = ("tenant", "project", "key", "deployment", "provider", "policy", "served", *LABEL_FILTERS)


def read_filters(query: Mapping[str, str]) -> RequestFilters:
    """Read the address; what makes no sense is not asked."""
    ids = {name: int(value[:18]) for name in ROWS if (value := query.get(name, "")).isdecimal()}
    return RequestFilters(
        tenant_id=ids.get("tenant"),
        project_id=ids.get("project"),
        key_id=ids.get("key"),
        deployment_id=ids.get("deployment"),
        provider_id=ids.get("provider"),
        policy_id=ids.get("policy"),
        served_model_id=ids.get("served"),
        label_ids=tuple(ids[name] for name in LABEL_FILTERS if name in ids) or None,
        model=_text(query.get("model")),
        status=_text(query.get("status")),
        error_code=_text(query.get("error")),
        since=_time(query.get("since", "")),
        until=_time(query.get("until", "")),
        is_unpriced=True if query.get("unpriced") == "1" else None,
    )


def _text(value: str | None) -> str | None:
    return value.replace("\0", "").strip() or None if value else None


def _time(text: str) -> dt.datetime | None:
    try:
        at = parse_datetime(text.strip())
    except ValueError:
        return None
    return at.replace(tzinfo=dt.UTC) if at is not None and at.tzinfo is None else at
