"""How is a long list read? By pages that begin behind a row, so that they neither skip nor repeat when rows are added.

Reads: the list's rows, one more than are shown. There is no count: `next` says whether there is more.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from policies.api.problems import ApiRefusal

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_ID = 2**63 - 1


class PagesById(BasePagination):
    """`?limit=` rows behind the row with the id `?after=`; newest first where the view says so."""

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        limit = _number(request, "limit", DEFAULT_LIMIT, maximum=MAX_LIMIT)
        after = _number(request, "after", 0, maximum=MAX_ID)
        is_newest_first: bool = getattr(view, "is_newest_first", False)
        rows: QuerySet[Any] = queryset.order_by("-pk" if is_newest_first else "pk")
        if after:
            rows = rows.filter(pk__lt=after) if is_newest_first else rows.filter(pk__gt=after)
        found = list(rows[: limit + 1])
        self._next: str | None = None
        if len(found) > limit:
            found.pop()
            # A path, not an address: behind a proxy we do not know the name we are called by.
            self._next = replace_query_param(request.get_full_path(), "after", found[-1].pk)
        return found

    def get_paginated_response(self, data: Any) -> Response:
        response = Response({"items": data, "next": self._next})
        if self._next:
            response["Link"] = f'<{self._next}>; rel="next"'
        return response

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": schema,
                "next": {
                    "type": "string",
                    "nullable": True,
                    "description": "Path of the next page, null on the last one.",
                    "example": "/api/v1/tenants?after=50",
                },
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
        after = {"type": "integer", "minimum": 1}
        return [
            {"name": "limit", "in": "query", "description": "Most rows of a page.", "schema": limit},
            {
                "name": "after",
                "in": "query",
                "description": "Id of the last row already read.",
                "schema": after,
            },
        ]


def _number(request: Request, name: str, default: int, *, maximum: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= maximum):
        message = f"A number from 1 to {maximum}."
        error = {"path": name, "message": message, "severity": "error", "column": None}
        raise ApiRefusal("invalid-value", f"{name} is out of range.", members={"errors": [error]})
    return int(text)
