"""Who opens the console in a test? Clients signed in as each role."""

from __future__ import annotations

import itertools

from django.contrib.auth.models import User
from django.test import Client

from policies.permissions import Role, set_role

_numbers = itertools.count(1)


def person(role: Role | None) -> User:
    """Make a person with this role, or with none."""
    # Hashing a password takes 0.1 s and more; tests that type one set it themselves.
    user = User(username=f"{role or 'nobody'}-{next(_numbers)}", is_staff=role is Role.OPERATOR)
    user.set_unusable_password()
    user.save()
    if role is not None:
        set_role(person=user, role=role, actor="test")
    return user


def client_of(role: Role | None) -> Client:
    """A browser in which a person of this role is signed in."""
    client = Client()
    client.force_login(person(role))
    return client


def operator() -> Client:
    return client_of(Role.OPERATOR)


def finance() -> Client:
    return client_of(Role.FINANCE)


def viewer() -> Client:
    return client_of(Role.VIEWER)
