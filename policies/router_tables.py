"""How do versions of the router's tables come to be, go into force and go back? Pins of workloads included.

Writes: router_table, router_setting, change_event. The only writer of the first two. A version is never changed: a
pin, or going back, puts an equal or a new version into force. Pins are the operator's and outlive every version: they
change only through `set_workload_pin`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from policies import changes
from policies.autorouter.tables import RouterTables, empty_tables
from policies.errors import InUseError, InvalidValueError, NotFoundError
from policies.models import Model, RouterSetting, RouterTable

_record = partial(changes.record_row, "router_table")

State = RouterTable.State
_WORKLOAD = re.compile(r"[0-9a-f]{16}")


def find_active() -> RouterTable | None:
    """The version in force; None: ratings alone decide."""
    return RouterTable.objects.filter(state=State.ACTIVE).first()


def read_tables(row: RouterTable | None) -> RouterTables:
    """Return what a version knows; without one, tables that know nothing. Raises ValueError for a foreign document."""
    if row is None:
        return empty_tables()
    return RouterTables.from_document({**row.document, "version": row.number})


def find_waiting_number() -> int | None:
    """The newest candidate that is newer than the version in force: it waits for an operator. None: nothing does."""
    newest = dict(
        RouterTable.objects.filter(state__in=(State.ACTIVE, State.CANDIDATE))
        .values_list("state")
        .annotate(newest=Max("number"))
        .order_by()
    )
    candidate = newest.get(State.CANDIDATE, 0)
    return candidate if candidate > newest.get(State.ACTIVE, 0) else None


class ActiveTables(NamedTuple):
    """The tables in force, without the catalog's ratings. `key` names the version, None where none is in force."""

    key: tuple[int, dt.datetime] | None
    tables: RouterTables


def read_active(known: ActiveTables | None) -> ActiveTables:
    """Read the version in force; `known` comes back where it still is, for a version never changes.

    Raises ValueError for a foreign document.
    """
    key = RouterTable.objects.filter(state=State.ACTIVE).values_list("pk", "made_at").first()
    if known is not None and known.key == key:
        return known
    return ActiveTables(key, read_tables(None if key is None else RouterTable.objects.get(pk=key[0])))


def find_tables(number: int) -> RouterTables | None:
    """Return the tables of version `number` (0: none), to make a recorded decision again; None when there is none."""
    if number == 0:
        return empty_tables()
    row = RouterTable.objects.filter(number=number).first()
    return None if row is None else read_tables(row)


@transaction.atomic
def create_table(
    *, document: Mapping[str, Any], actor: str, note: str = "", gate: Mapping[str, Any] | None = None
) -> RouterTable:
    """Store a new version: a candidate, or rejected when `gate` says that it did not pass.

    `gate`: {"passes": bool, "reasons": [...], "numbers": {...}}. The pins in force are kept. Raises InvalidValueError
    when the document is not one of router tables.
    """
    _lock()
    active = find_active()
    is_rejected = gate is not None and not gate.get("passes")
    row = _insert(
        {**document, "pins": _pins_of(active)},
        actor=actor,
        note=note,
        gate=gate,
        based_on=active,
        state=State.REJECTED if is_rejected else State.CANDIDATE,
    )
    _record(row, actor=actor, action="create", after={"state": row.state, "note": note})
    return row


@transaction.atomic
def activate(*, table: RouterTable, actor: str) -> RouterTable:
    """Put a version into force, with the pins of now, and return the one that is.

    Raises InUseError for a version that failed its evaluation. What is in force already stays.
    """
    _lock()
    row = RouterTable.objects.get(pk=table.pk)
    if row.state == State.REJECTED:
        raise InUseError(f"{row} failed its evaluation or was turned down, and cannot go into force")
    if row.state == State.ACTIVE:
        return row
    return _put_in_force(row, actor=actor, action="activate")


@transaction.atomic
def roll_back(*, actor: str) -> RouterTable:
    """Put the version into force that was before the present one and knew something else; pins stay.

    Before the first version that is: tables that know nothing. From here on a person decides about new versions, or the
    next one would undo it by itself. Raises NotFoundError when there is nothing to go back from, or to.
    """
    _lock()
    active = find_active()
    if active is None:
        raise NotFoundError("no version of the router's tables is in force")
    if not can_roll_back(active):
        raise NotFoundError("there is no earlier version to go back to")
    target = find_rollback_target(active)
    if target is None:
        target = _insert(
            {**empty_tables().to_document(), "pins": _pins_of(active)},
            actor=actor,
            note="ratings alone",
            based_on=active,
        )
    change_setting(activates_itself=False, actor=actor)
    return _put_in_force(target, actor=actor, action="roll_back")


def can_roll_back(active: RouterTable) -> bool:
    """Say whether `roll_back` would put something else into force."""
    return find_rollback_target(active) is not None or not _is_same_knowledge(
        active.document, empty_tables().to_document()
    )


def find_rollback_target(active: RouterTable) -> RouterTable | None:
    """The newest version that was in force before and holds other knowledge; None: there was none."""
    earlier = RouterTable.objects.filter(activated_at__isnull=False, activated_at__lt=active.activated_at)
    for row in earlier.order_by("-activated_at"):
        if not _is_same_knowledge(row.document, active.document):
            return row
    return None


@transaction.atomic
def reject(*, table: RouterTable, actor: str, reason: str = "") -> RouterTable:
    """Turn a candidate down. Raises InUseError for a version that is or was in force."""
    _lock()
    row = RouterTable.objects.get(pk=table.pk)
    if row.state == State.REJECTED:
        return row
    if row.state != State.CANDIDATE:
        raise InUseError(f"{row} is no candidate")
    row.state = State.REJECTED
    row.save(update_fields=["state"])
    _record(row, actor=actor, action="reject", after={"reason": reason})
    return row


@transaction.atomic
def set_workload_pin(*, workload: str, model: str | None, actor: str) -> RouterTable | None:
    """Serve a workload by this model whenever it can serve; None: let the router choose again.

    A pin is a new version, in force at once, so that recorded decisions name exactly what they were made with.
    Returns the version in force. Raises InvalidValueError, NotFoundError.
    """
    if not _WORKLOAD.fullmatch(workload):
        raise InvalidValueError({"workload": ["a workload is named by 16 hexadecimal digits"]})
    if model is not None and not Model.objects.filter(name=model).exists():
        raise NotFoundError(f"there is no model named {model}")
    _lock()
    active = find_active()
    pins = _pins_of(active)
    before = pins.get(workload)
    if before == model:
        return active
    if model is None:
        del pins[workload]
    else:
        pins[workload] = model
    document = active.document if active is not None else empty_tables().to_document()
    note = f"workload {workload}: " + ("not pinned any more" if model is None else f"pinned to {model}")
    # What it learnt is what the version in force learnt, so is how that was judged.
    gate = active.gate if active is not None else None
    row = _insert({**document, "pins": pins}, actor=actor, note=note, gate=gate, based_on=active)
    return _put_in_force(
        row,
        actor=actor,
        action="unpin" if model is None else "pin",
        before={"workload": workload, "model": before},
        after={"workload": workload, "model": model},
    )


def activates_itself() -> bool:
    """Say whether a version that passes its evaluation goes into force without an operator."""
    return RouterSetting.objects.filter(pk=1, activates_itself=True).exists()


@transaction.atomic
def change_setting(*, activates_itself: bool, actor: str) -> RouterSetting:
    """Choose whether versions that pass go into force by themselves."""
    row = _lock()
    if row.activates_itself != activates_itself:
        before = row.activates_itself
        row.activates_itself = activates_itself
        row.save(update_fields=["activates_itself"])
        changes.record_row(
            "router_setting",
            row,
            actor=actor,
            action="change",
            name="router settings",
            before={"activates_itself": before},
            after={"activates_itself": activates_itself},
        )
    return row


def _lock() -> RouterSetting:
    """One writer of versions at a time: numbers have no gaps and one version is in force."""
    RouterSetting.objects.get_or_create(pk=1)
    return RouterSetting.objects.select_for_update().get(pk=1)


def _insert(
    document: Mapping[str, Any],
    *,
    actor: str,
    note: str,
    based_on: RouterTable | None,
    gate: Mapping[str, Any] | None = None,
    state: RouterTable.State = State.CANDIDATE,
) -> RouterTable:
    number = (RouterTable.objects.aggregate(newest=Max("number"))["newest"] or 0) + 1
    try:
        sound = RouterTables.from_document({**document, "version": number}).to_document()
    except ValueError as error:
        raise InvalidValueError({"document": [str(error)]}) from None
    return RouterTable.objects.create(
        number=number,
        document=sound,
        state=state,
        gate=None if gate is None else dict(gate),
        based_on=based_on,
        note=note,
        made_by=actor,
    )


def _put_in_force(
    row: RouterTable,
    *,
    actor: str,
    action: Literal["activate", "roll_back", "pin", "unpin"],
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> RouterTable:
    active = find_active()
    if action in ("activate", "roll_back") and row.document.get("pins", {}) != (pins := _pins_of(active)):
        if row.state == State.CANDIDATE:
            row.state = State.RETIRED
            row.save(update_fields=["state"])
        row = _insert(
            {**row.document, "pins": pins},
            actor=actor,
            note=f"version {row.number} with the pins of now",
            gate=row.gate,
            based_on=row,
        )
    if active is not None:
        active.state = State.RETIRED
        active.save(update_fields=["state"])
    row.state, row.activated_by, row.activated_at = State.ACTIVE, actor, timezone.now()
    row.save(update_fields=["state", "activated_by", "activated_at"])
    _record(
        row,
        actor=actor,
        action=action,
        before={"version": None if active is None else active.number, **(before or {})},
        after={"version": row.number, **(after or {})},
    )
    return row


def _pins_of(row: RouterTable | None) -> dict[str, str]:
    return {} if row is None else dict(row.document.get("pins", {}))


def _is_same_knowledge(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare two documents but for their pins, their number and when they were learnt."""
    left_out = ("pins", "version", "learnt_at_unix_s")
    return {k: v for k, v in one.items() if k not in left_out} == {
        k: v for k, v in other.items() if k not in left_out
    }
