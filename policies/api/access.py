"""May this caller do this? A token by its scopes, a person by the role in the console.

Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from policies.api.problems import ApiRefusal
from policies.management_tokens import Scope
from policies.models import ManagementToken
from policies.permissions import Ability, may


class Need(NamedTuple):
    """What a method of a resource asks for: a scope of tokens, an ability of people.

    `is_for_people_only`: a token cannot do it, whatever its scopes.
    """

    scope: Scope
    ability: Ability
    is_for_people_only: bool = False


READ = Need(Scope.READ, Ability.READ)
CHANGE_CATALOG = Need(Scope.CATALOG, Ability.CONFIGURE)
ISSUE_STATEMENTS = Need(Scope.STATEMENTS, Ability.ISSUE_STATEMENTS)
SET_BILLING = Need(Scope.BILLING, Ability.SET_BILLING)
ADD_PRICES = Need(Scope.PRICES, Ability.SET_PRICES)
SET_BUDGETS = Need(Scope.BUDGETS, Ability.SET_BUDGETS)
CHANGE_TENANTS = Need(Scope.ACCESS, Ability.CONFIGURE)
ISSUE_KEYS = Need(Scope.ACCESS, Ability.ISSUE_KEYS)
EDIT_POLICIES = Need(Scope.POLICIES, Ability.CONFIGURE)
PUBLISH = Need(Scope.PUBLISH, Ability.CONFIGURE)
APPROVE = Need(Scope.PUBLISH, Ability.CONFIGURE, is_for_people_only=True)


class Operation(NamedTuple):
    """What one method of one address does: its name in clients made from the schema, a title, who may.

    `need` None: every caller who is known.
    """

    name: str
    summary: str
    need: Need | None


class MeetsNeed(BasePermission):
    """Ask the view what its method needs (`view.operations`), and the caller whether it has that."""

    def has_permission(self, request: Request, view: Any) -> bool:
        operation: Operation | None = view.operations.get(
            "GET" if request.method == "HEAD" else request.method
        )
        if operation is None or operation.need is None:
            # A method that the view does not have gets its 405 once the caller is known.
            return is_known(request)
        return is_known(request) and meets(request, operation.need)


def meets(request: Request, need: Need) -> bool:
    """True for a known caller who has what is needed. Raises ApiRefusal that says what is missing."""
    if isinstance(request.auth, ManagementToken):
        if need.is_for_people_only:
            raise ApiRefusal("forbidden", "A person has to do this, in the console or with its session.")
        if need.scope not in request.auth.scopes:
            raise ApiRefusal(
                "forbidden",
                f"This needs a token with the scope {need.scope}.",
                members={"scope": need.scope},
            )
    elif not may(request.user, need.ability):
        raise ApiRefusal("forbidden", f"Your role does not let you {need.ability}.")
    return True


def is_known(request: Request) -> bool:
    """Say whether anybody is signed in, or any token was presented."""
    return isinstance(request.auth, ManagementToken) or bool(request.user and request.user.is_authenticated)
