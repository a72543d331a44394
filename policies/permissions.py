"""What may this person do in the console? Three roles, each a Django group.

Reads: the person's groups, once per request. Writes: group membership (`set_role`).
It lives here because the pages of all three apps ask it, and imports go gateway -> billing -> policies.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import quote, urlsplit

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url

from policies import changes

P = ParamSpec("P")
Person = AbstractBaseUser | AnonymousUser


class Role(StrEnum):
    """The first that a person has counts."""

    OPERATOR = "operator"
    FINANCE = "finance"
    VIEWER = "viewer"


class Ability(StrEnum):
    """What a page or a button needs."""

    READ = "see requests, catalog, keys, tenants and policies"
    SEE_AUDIT = "see who changed what"
    SET_PRICES = "add prices"
    SET_BUDGETS = "make and change budgets"
    SET_BILLING = "grant credit, set exchange rates and billing details"
    ISSUE_STATEMENTS = "close months, issue and correct statements"
    MAIL_REPORTS = "send reports by e-mail"
    ISSUE_KEYS = "issue, rotate and revoke API keys"
    CONFIGURE = "change the catalog, tenants and policies"
    MANAGE_PEOPLE = "manage people"
    ISSUE_TOKENS = "issue and revoke management tokens"
    SEE_MARGIN = "see what charges leave over costs"


ABILITIES: dict[Role, frozenset[Ability]] = {
    # What is earned is finance's business alone; superusers may do everything (`may`).
    Role.OPERATOR: frozenset(Ability) - {Ability.SEE_MARGIN},
    Role.FINANCE: frozenset(
        {
            Ability.READ,
            Ability.SEE_AUDIT,
            Ability.SET_PRICES,
            Ability.SET_BUDGETS,
            Ability.SET_BILLING,
            Ability.ISSUE_STATEMENTS,
            Ability.MAIL_REPORTS,
            Ability.SEE_MARGIN,
        }
    ),
    Role.VIEWER: frozenset({Ability.READ}),
}
ROLE_DESCRIPTIONS: dict[Role, str] = {
    Role.OPERATOR: "Catalog, policies, keys, prices, people: everything but the margin.",
    Role.FINANCE: "Reads everything, sees the audit log, adds prices, makes budgets, issues statements.",
    Role.VIEWER: "Reads requests, catalog and policies. Changes nothing.",
}


def role_of(person: Person) -> Role | None:
    """Return the person's role; None for strangers and people without one."""
    if not isinstance(person, User) or not person.is_active:
        return None
    if person.is_superuser:
        return Role.OPERATOR
    # A user object lives for one request: the page, the menu and every button ask again.
    if not hasattr(person, "_role"):
        groups = set(person.groups.values_list("name", flat=True))
        person._role = next((role for role in Role if role in groups), None)  # type: ignore[attr-defined]  # ours
    role: Role | None = person._role  # type: ignore[attr-defined]  # ours
    return role


def may(person: Person, ability: Ability) -> bool:
    """Say whether the person's role includes the ability. Superusers may do everything."""
    role = role_of(person)
    if role is not None and isinstance(person, User) and person.is_superuser:
        return True
    return role is not None and ability in ABILITIES[role]


def needs(
    ability: Ability,
) -> Callable[
    [Callable[Concatenate[HttpRequest, P], HttpResponse]], Callable[Concatenate[HttpRequest, P], HttpResponse]
]:
    """Guard a view: strangers go to the sign-in page, others without the ability get the 403 page."""

    def decorate(
        view: Callable[Concatenate[HttpRequest, P], HttpResponse],
    ) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        @wraps(view)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if not request.user.is_authenticated:
                return _send_to_sign_in(request)
            if not may(request.user, ability):
                raise PermissionDenied(str(ability))
            return view(request, *args, **kwargs)

        guarded.ability = ability  # type: ignore[attr-defined]  # tests walk all views and ask
        return guarded

    return decorate


def actor_name(request: HttpRequest) -> str:
    """The name under which this person's changes stand in the audit log."""
    return request.user.get_username()


def list_operators() -> list[str]:
    """Names of people who can help somebody who may not do something."""
    people = User.objects.filter(Q(is_superuser=True) | Q(groups__name=Role.OPERATOR), is_active=True)
    return sorted(set(people.values_list("username", flat=True)))[:5]


@transaction.atomic
def set_role(*, person: User, role: Role, actor: str) -> None:
    """Give a person exactly one role. Operators may also open the back office."""
    before = role_of(User.objects.get(pk=person.pk))
    person.groups.remove(*Group.objects.filter(name__in=list(Role)))
    person.groups.add(Group.objects.get_or_create(name=role.value)[0])
    person.is_superuser = False
    person.is_staff = role is Role.OPERATOR
    person.save(update_fields=["is_superuser", "is_staff"])
    if before is not role:
        changes.record_row(
            "person",
            person,
            actor=actor,
            action="change",
            before={"role": before.value if before else None},
            after={"role": role.value},
        )


def _send_to_sign_in(request: HttpRequest) -> HttpResponse:
    if request.headers.get("HX-Request"):
        # A fragment must not be replaced by a sign-in page: the browser goes there as a whole.
        response = HttpResponse(status=204)
        page = request.headers.get("HX-Current-URL", "")
        response["HX-Redirect"] = resolve_url("sign-in") + (f"?{REDIRECT_FIELD_NAME}={_path_of(page)}")
        return response
    return redirect_to_login(request.get_full_path())


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return quote(parts.path + (f"?{parts.query}" if parts.query else ""), safe="/")
