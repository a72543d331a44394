"""What do all resources of the management API have in common? Lists, single rows, actions on a row.

Calls: the verbs that a resource names. Writes nothing itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Model as Table
from django.db.models import QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404
from rest_framework import serializers, status
from rest_framework.authentication import SessionAuthentication
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from policies.api.access import MeetsNeed, Operation
from policies.api.authentication import ManagementTokenAuthentication, actor_of_request
from policies.api.etags import etag_of_values, names_tag
from policies.api.paging import MAX_ID, PagesById
from policies.api.parsing import StrictJSONParser
from policies.api.problems import ApiRefusal, handle
from policies.api.schema import ManagementSchema
from policies.row_changes import held


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members it does not know: a mistyped setting must not look as if it were taken."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [name for name in data if name not in self.fields or self.fields[name].read_only]
            if unknown:
                raise serializers.ValidationError(
                    {
                        name: [
                            "This member is read-only." if name in self.fields else "There is no such member."
                        ]
                        for name in unknown
                    }
                )
        return super().to_internal_value(data)


class Filters(StrictSerializer):
    """The parameters that narrow a list; each is a look-up of the list's rows and may be left out."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        for field in fields.values():
            field.required = False
        return fields


class ZonedDateTimeField(serializers.DateTimeField):
    """A time that names its zone: without one, nobody knows when a key expires."""

    default_error_messages = {"naive": "A time needs its time zone, for example 2027-01-31T12:00:00Z."}

    def enforce_timezone(self, value: Any) -> Any:
        if value.tzinfo is None:
            self.fail("naive")
        return super().enforce_timezone(value)


def row_id(**options: Any) -> serializers.IntegerField:
    """A field that holds the id of a row."""
    return serializers.IntegerField(min_value=1, max_value=MAX_ID, **options)


def find_named(rows: QuerySet[Any], number: int, *, path: str) -> Any:
    """The row that a member of the body names by its id. Raises ApiRefusal naming the member."""
    row = rows.filter(pk=number).first()
    if row is None:
        raise invalid(path, f"There is no {rows.model._meta.verbose_name} with the id {number}.")
    return row


def invalid(path: str, message: str) -> ApiRefusal:
    """The refusal of one member or parameter."""
    error = {"path": path, "message": message, "severity": "error", "column": None}
    return ApiRefusal("invalid-value", message, members={"errors": [error]})


class ManagementView(GenericAPIView[Any]):
    """Who may come in, what is read and written, and what refusals look like."""

    authentication_classes = [ManagementTokenAuthentication, SessionAuthentication]
    permission_classes = [MeetsNeed]
    parser_classes = [StrictJSONParser]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = DefaultContentNegotiation
    pagination_class = PagesById
    filter_backends = []
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    schema = ManagementSchema()
    operations: ClassVar[Mapping[str, Operation]] = {}
    # What is changed only by who has read it as it is, where the caller says so (`GuardedView`).
    is_guarded: ClassVar[bool] = False
    # For the schema: the group in which the document lists it, and whether POST makes something new.
    tag: ClassVar[str] = ""
    is_list: ClassVar[bool] = False
    adds_a_row: ClassVar[bool] = False
    takes_no_body: ClassVar[bool] = False
    # For the schema: forms that are not the view's own, of what is sent and of what is answered, by method.
    sent: ClassVar[Mapping[str, type[serializers.Serializer[Any]]]] = {}
    answers: ClassVar[Mapping[str, type[serializers.Serializer[Any]]]] = {}

    def get_exception_handler(self) -> Any:
        return handle

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(request, response, *args, **kwargs)
        # Answers hold configuration, some a secret: no cache on the way keeps any.
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    @property
    def actor(self) -> str:
        return actor_of_request(self.request)

    def read_body(
        self, form: type[serializers.Serializer[Any]] | None = None, *, is_partial: bool = False
    ) -> Any:
        """Return the checked members of the body. Raises ValidationError, ParseError."""
        chosen = form or self.get_serializer_class()
        serializer = chosen(data=self.request.data, partial=is_partial, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data

    def show(self, row: Any, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """Answer with a row in the resource's form."""
        return Response(self.get_serializer(row).data, status=code, headers=dict(headers or {}))

    def find_row(self, *, of: QuerySet[Any] | None = None) -> Any:
        """The row that the address names, of the resource's own rows or of others. Raises Http404."""
        number = int(self.kwargs["pk"])
        if number > MAX_ID:
            raise Http404
        return get_object_or_404(self.get_queryset() if of is None else of, pk=number)

    def reread(self, row: Table) -> Any:
        """The row with everything that its form shows, after a change."""
        return self.get_queryset().get(pk=row.pk)


class GuardedView(ManagementView):
    """What has an ETag, and is changed or deleted only as it was read where the caller names that (`If-Match`).

    The tag is that of the members that can be set: traffic, and what others do beside them, is no conflict.
    """

    # Columns that count as read although no member shows them: a secret's revision.
    unshown_columns: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("put", "patch", "delete"):
            if name in vars(cls):
                cls.is_guarded = True
                setattr(cls, name, _guarded(vars(cls)[name]))

    def find_shown(self, *, is_locked: bool = False) -> Any:
        """The row that GET shows; locked, nobody changes it before the transaction ends. Raises Http404."""
        rows = self.get_queryset()
        return self.find_row(of=held(rows) if is_locked else rows)

    def show(self, row: Any, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        tag = {"ETag": self.etag_of_row(row)} if self.is_guarded else {}
        return super().show(row, code=code, headers={**tag, **(headers or {})})

    def etag_of_row(self, row: Any) -> str:
        """The tag of the row as it is now."""
        form: Any = self.get_serializer(row)
        settable = [n for n, field in form.fields.items() if not field.read_only and not field.write_only]
        values = {name: form.data[name] for name in settable}
        return etag_of_values(values | {name: getattr(row, name) for name in self.unshown_columns})

    def refuse_unread(self) -> None:
        """Raise ApiRefusal when the row is not as the caller has read it. Call inside a transaction."""
        row = self.find_shown(is_locked=True)
        etag = self.etag_of_row(row)
        if not names_tag(self.request, etag):
            raise ApiRefusal(
                "stale-row",
                "Somebody changed this since you read it; `current` is what it is now.",
                members={"current": self.get_serializer(row).data},
                headers={"ETag": etag},
            )


def _guarded(change: Callable[..., Response]) -> Callable[..., Response]:
    @functools.wraps(change)  # the schema reads its docstring
    def run(view: GuardedView, request: Request, **kwargs: Any) -> Response:
        if "If-Match" not in request.headers:
            return change(view, request, **kwargs)
        with transaction.atomic():
            view.refuse_unread()
            return change(view, request, **kwargs)

    return run


class RowView(GuardedView):
    """One row; the resource adds how it is changed and deleted."""

    def get(self, request: Request, **kwargs: Any) -> Response:
        return self.show(self.find_shown())


class CollectionView(ManagementView):
    """A list with filters; POST adds a row, where the resource has `create`."""

    is_list = True
    adds_a_row = True
    filters: ClassVar[type[Filters] | None] = None
    is_newest_first: ClassVar[bool] = False
    # Where the added row is: the prefix of its address.
    location: ClassVar[str] = ""

    def get(self, request: Request, **kwargs: Any) -> Response:
        return self.show_page(self.get_queryset())

    def show_page(self, rows: QuerySet[Any]) -> Response:
        """Answer with one page of the rows that the query's parameters ask for."""
        page = self.paginate_queryset(self.narrow(rows))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def narrow(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows that the query's parameters ask for. Unknown parameters are refused, never ignored."""
        known = self.filters().fields if self.filters else {}
        given = {n: v for n, v in self.request.query_params.items() if n not in ("limit", "after")}
        if unknown := sorted(set(given) - set(known)):
            raise invalid(unknown[0], "There is no such filter.")
        if self.filters is None or not given:
            return rows
        serializer = self.filters(data=given)
        serializer.is_valid(raise_exception=True)
        return rows.filter(**serializer.validated_data)

    def show_added(self, row: Any) -> Response:
        return self.show(row, code=status.HTTP_201_CREATED, headers={"Location": f"{self.location}/{row.pk}"})
