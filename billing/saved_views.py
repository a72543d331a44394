"""How does a view of spend get a name, and who may see and change it?

Writes: saved_view, change_event; the only writer. A view is an address: what it shows is read anew each time, so that
one whose tenant or key is gone opens as that page does, with a number for the name.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import partial
from typing import Final
from urllib.parse import parse_qsl, urlencode

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from billing.models import SavedView
from billing.spend_questions import read_question
from billing.spend_tables import Answer, key_table, read_key_extras, spend_table
from policies import changes
from policies.errors import InvalidValueError, NameTakenError
from policies.permissions import Ability, may
from policies.row_changes import held, set_fields

_record = partial(changes.record_row, "saved_view")

# So long a deleted view can be brought back.
UNDO: Final = dt.timedelta(days=7)
MAX_NAME: Final = 100


def visible_to(person: User, among: QuerySet[SavedView] | None = None) -> QuerySet[SavedView]:
    """The person's own views and those that are shared, by name."""
    rows = (SavedView.objects.all() if among is None else among).filter(
        Q(owner=person) | Q(is_shared=True), deleted_at__isnull=True
    )
    return rows.select_related("owner")


def may_change(person: User, view: SavedView) -> bool:
    """Its owner may; of shared ones an operator too, for people leave."""
    return view.owner_id == person.pk or (view.is_shared and may(person, Ability.CONFIGURE))


def clean_query(page: str, query: str, *, today: dt.date) -> str:
    """The parameters that this page understands, and no others."""
    asked = dict(parse_qsl(query))
    if page == SavedView.Page.KEYS:
        question = read_question({**asked, "by": "key"}, today=today, by="key")
        return urlencode({**question.parameters(), **read_key_extras(asked)})
    return read_question(asked, today=today).link()


def table_of(view: SavedView, *, now: dt.datetime, sees_margin: bool) -> Answer:
    """What the view shows now, whole, to somebody who sees the margin or does not."""
    asked: Mapping[str, str] = dict(parse_qsl(view.query))
    read = key_table if view.page == SavedView.Page.KEYS else spend_table
    return read(asked, now=now, sees_margin=sees_margin)


@transaction.atomic
def save_view(
    *, owner: User, page: str, name: str, query: str, is_shared: bool, now: dt.datetime, actor: str = ""
) -> SavedView:
    """Give an address a name. `actor`: who does it for the owner. Raises InvalidValueError, NameTakenError."""
    if page not in SavedView.Page.values:
        raise InvalidValueError({"page": ["There is no such page."]})
    view = SavedView(
        owner=owner,
        page=page,
        name=_clean_name(name),
        query=clean_query(page, query, today=now.date()),
        is_shared=is_shared,
    )
    _save(view)
    _record(
        view,
        actor=actor or owner.get_username(),
        action="create",
        after={"name": view.name, "query": view.query},
    )
    return view


@transaction.atomic
def change_view(*, view: SavedView, actor: str, name: str, is_shared: bool) -> SavedView:
    """Rename it, share it or keep it for its owner. Raises InvalidValueError, NameTakenError."""
    row = held(SavedView.objects.select_related("owner")).get(pk=view.pk)
    before, after = set_fields(
        row, {"name": _clean_name(name), "is_shared": is_shared}, allowed=("name", "is_shared")
    )
    if after:
        _save(row)
        _record(row, actor=actor, action="change", before=before, after=after)
    return row


@transaction.atomic
def delete_view(*, view: SavedView, actor: str, now: dt.datetime) -> None:
    """Take it away, and its mails with it, for as long as nobody brings it back."""
    if SavedView.objects.filter(pk=view.pk, deleted_at__isnull=True).update(deleted_at=now):
        _record(view, actor=actor, action="delete")


@transaction.atomic
def restore_view(*, view: SavedView, actor: str) -> None:
    """Bring a deleted view back. Raises NameTakenError when its name was given to another one since."""
    if view.deleted_at is None:
        return
    view.deleted_at = None
    _save(view)
    _record(view, actor=actor, action="restore")


def forget_deleted(*, now: dt.datetime) -> int:
    """Delete for good what nobody brought back in time."""
    return SavedView.objects.filter(deleted_at__lt=now - UNDO).delete()[0]


def _clean_name(name: str) -> str:
    cleaned = " ".join(name.replace("\0", "").split())
    if not cleaned:
        raise InvalidValueError({"name": ["Give the view a name."]})
    if len(cleaned) > MAX_NAME:
        raise InvalidValueError({"name": [f"A name has at most {MAX_NAME} characters."]})
    return cleaned


def _save(view: SavedView) -> None:
    """Save it, unless its owner has another one of this name."""
    try:
        with transaction.atomic():
            view.save()
    except IntegrityError:
        raise NameTakenError(f"You have a view that is named {view.name} already.") from None
