"""How do people get into the console, change their role and leave?

Writes: auth_user, its groups, change_event. The only writer of people, apart from the first login.
"""

from __future__ import annotations

import secrets
from functools import partial

from django.contrib.auth.models import User
from django.db import transaction

from policies import changes
from policies.errors import ConfigurationError, NameTakenError
from policies.permissions import Role, role_of, set_role

_record = partial(changes.record_row, "person")

PASSWORD_BYTES = 12


@transaction.atomic
def add_person(*, username: str, role: Role, actor: str, email: str = "") -> tuple[User, str]:
    """Create a person and return a password that is shown once. Raises NameTakenError."""
    if User.objects.filter(username__iexact=username).exists():
        raise NameTakenError(f"there is already a person named {username}")
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    person = User.objects.create_user(username, email=email, password=password)
    _record(person, actor=actor, action="create", after={"email": email})
    set_role(person=person, role=role, actor=actor)
    return person, password


@transaction.atomic
def change_role(*, person: User, role: Role, actor: str) -> None:
    """Give another role. Refused for the last operator: nobody could undo it."""
    if role is not Role.OPERATOR:
        _refuse_for_last_operator(person)
    set_role(person=person, role=role, actor=actor)


@transaction.atomic
def disable_person(*, person: User, actor: str) -> None:
    """End a person's access at once: sessions of a disabled person are strangers'."""
    _refuse_for_last_operator(person)
    person.is_active = False
    person.save(update_fields=["is_active"])
    _record(person, actor=actor, action="disable")


@transaction.atomic
def enable_person(*, person: User, actor: str) -> None:
    """Let a disabled person in again, with the old password and role."""
    person.is_active = True
    person.save(update_fields=["is_active"])
    _record(person, actor=actor, action="enable")


@transaction.atomic
def reset_password(*, person: User, actor: str) -> str:
    """Replace the password and return it; open sessions end."""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    person.set_password(password)
    person.save(update_fields=["password"])
    _record(person, actor=actor, action="reset password")
    return password


def _refuse_for_last_operator(person: User) -> None:
    others = User.objects.select_for_update().filter(is_active=True).exclude(pk=person.pk)
    if role_of(person) is Role.OPERATOR and not any(role_of(other) is Role.OPERATOR for other in others):
        raise ConfigurationError(f"{person.username} is the last operator: make somebody else one first")
