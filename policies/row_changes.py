"""What did a verb change in one row, and is the row still valid?

Writes: the row it is given. The verb modules use it so that every audit entry has the same form.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from policies.errors import InUseError, InvalidValueError, NameTakenError

Row = TypeVar("Row", bound=models.Model)


def held(rows: models.QuerySet[Row]) -> models.QuerySet[Row]:
    """The same rows, each read as it is now and changed by nobody else before the transaction ends.

    Whoever compares a row with what its editor saw reads it here, and has the verb save in the same transaction: of two
    who save at once the second compares with what the first one saved. Rows that refer to it can still be added.
    """
    return rows.select_for_update(of=("self",), no_key=True)


def json_value(value: Any) -> Any:
    """Return a field's value as the audit log keeps it: rows by name, times as ISO text, exact numbers as text."""
    if isinstance(value, models.Model):
        return str(value)
    if isinstance(value, dt.date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    return value


def set_fields(
    row: models.Model, fields: Mapping[str, Any], *, allowed: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set `fields` on `row` without saving; return (before, after) of those that differ.

    Raises InvalidValueError when a field is not among `allowed`.
    """
    unknown = sorted(set(fields) - set(allowed))
    if unknown:
        raise InvalidValueError({name: ["no such field, or not one that can be changed"] for name in unknown})
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, value in fields.items():
        old = getattr(row, name)
        if old == value and type(old) is type(value):
            continue
        setattr(row, name, value)
        before[name], after[name] = json_value(old), json_value(value)
    return before, after


def save_checked(row: models.Model) -> None:
    """Validate the whole row and save it.

    Raises NameTakenError when its natural key is taken, InvalidValueError for anything else.
    """
    refuse_unstorable_text(row)
    taken = f"there is already a {row._meta.verbose_name} named {row}"
    try:
        row.full_clean()
    except ValidationError as refusal:
        codes = {error.code for errors in refusal.error_dict.values() for error in errors}
        if codes <= {"unique", "unique_together"}:
            raise NameTakenError(taken) from None
        raise InvalidValueError(
            {
                "" if field == NON_FIELD_ERRORS else field: [
                    text for error in errors for text in error.messages
                ]
                for field, errors in refusal.error_dict.items()
            }
        ) from None
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        # Somebody else wrote the same natural key between the check and the save.
        raise NameTakenError(taken) from None


def refuse_unstorable_text(row: models.Model) -> None:
    """Raise InvalidValueError for NUL characters and lone surrogates: PostgreSQL cannot store them."""
    for field in row._meta.concrete_fields:
        value = getattr(row, field.attname, None)
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
            raise InvalidValueError({field.name: ["a NUL character or a lone surrogate cannot be stored"]})


def delete_row(row: models.Model) -> None:
    """Delete a row that nothing needs. Raises InUseError naming what needs it."""
    name = str(row)
    try:
        row.delete()
    except models.ProtectedError as refusal:
        needed_by: dict[str, int] = {}
        for other in refusal.protected_objects:
            label = str(other._meta.verbose_name_plural)
            needed_by[label] = needed_by.get(label, 0) + 1
        listed = ", ".join(f"{count} {label}" for label, count in sorted(needed_by.items()))
        raise InUseError(f"{name} cannot be deleted: {listed} need it; disable it instead") from None
