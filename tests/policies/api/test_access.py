"""Who may do what through the management API? Every route with no token, the wrong scope and the right one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from policies import issuing, management_tokens, publishing
from policies.api.access import Operation
from policies.management_tokens import Scope
from policies.models import ChangeEvent, ManagementToken, Tenant
from policies.permissions import ABILITIES, Role
from policies.sign_in_tries import MAX_TOKEN_TRIES
from tests.console_people import client_of, person
from tests.make_configuration import make_deployment, make_key, make_project
from tests.policies.api.callers import Caller, caller_with, make_token

pytestmark = pytest.mark.django_db


def list_views() -> list[tuple[str, Any]]:
    """(path with 1 for every number, view) of all routes of the API that need a caller."""
    found: list[tuple[str, Any]] = []

    def walk(patterns: list[Any], prefix: str) -> None:
        for pattern in patterns:
            place = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, place)
            elif isinstance(pattern, URLPattern) and place.startswith("api/v1/"):
                path = "/" + place.replace("<int:pk>", "1").replace("<int:number>", "1")
                if hasattr(view := getattr(pattern.callback, "cls", None), "operations"):
                    found.append((path, view))

    walk(get_resolver().url_patterns, "")
    return found


VIEWS = list_views()
OPERATIONS: list[tuple[str, str, Operation]] = [
    (method, path, operation) for path, view in VIEWS for method, operation in view.operations.items()
]


def test_every_operation_has_a_method_and_a_name_of_its_own() -> None:
    assert len(OPERATIONS) >= 35
    assert len({operation.name for _, _, operation in OPERATIONS}) == len(OPERATIONS)


def test_nobody_comes_in_without_a_token() -> None:
    for method, path, operation in OPERATIONS:
        response = Caller().send(method, path, {})
        assert response.status_code == 401, operation.name
        assert response["WWW-Authenticate"].startswith("Bearer")
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["type"] == "/api/v1/problems/unauthenticated"


def test_a_token_without_the_scope_is_told_which_one_is_needed() -> None:
    without = {scope: caller_with(*(other for other in Scope if other is not scope)) for scope in Scope}
    for method, path, operation in OPERATIONS:
        if operation.need is None or operation.need.is_for_people_only:
            continue
        response = without[operation.need.scope].send(method, path, {})
        assert response.status_code == 403, operation.name
        assert response.json()["scope"] == operation.need.scope
    assert Tenant.objects.count() == 0


def test_a_token_with_the_scope_alone_comes_in() -> None:
    having = {scope: caller_with(scope) for scope in Scope}
    for method, path, operation in OPERATIONS:
        if operation.need is not None and operation.need.is_for_people_only:
            assert caller_with().send(method, path, {}).status_code == 403
            continue
        caller = having[operation.need.scope if operation.need else Scope.READ]
        status = caller.send(method, path, {}, If_Match='"1"').status_code
        # No row has the id 1 or that tag, and {} lacks what is needed: past the door, and no further.
        assert status in (200, 404, 412, 422), (operation.name, status)


def test_people_are_let_in_by_their_role() -> None:
    # One operation for each need: that each route asks for its need is what the tokens above show.
    samples = {operation.need: (method, path) for method, path, operation in OPERATIONS}
    assert len(samples) >= 8
    for role in [*Role, None]:
        caller = Caller(client=client_of(role))
        for need, (method, path) in samples.items():
            may = need is None or (role is not None and need.ability in ABILITIES[role])
            status = caller.send(method, path, {}, If_Match='"1"').status_code
            assert (status != 403) == may, (role, method, path, status)
            assert status != 401


def test_a_person_needs_the_forms_token_against_other_sites() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person(Role.OPERATOR))
    assert Caller(client=client).get("tenants").status_code == 200
    refused = Caller(client=client).send("POST", "tenants", {"name": "acme"})
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    client.get("/tenants/new")
    token = client.cookies["csrftoken"].value
    accepted = Caller(client=client).send("POST", "tenants", {"name": "acme"}, X_CSRFToken=token)
    assert accepted.status_code == 201


def test_an_api_key_opens_nothing_here() -> None:
    _, secret = make_key()
    response = Caller(secret).get("tenants")
    assert response.status_code == 401
    assert "API keys open /v1" in response.json()["detail"]


def test_an_expired_and_a_revoked_token_are_refused_from_the_next_request_on() -> None:
    token, secret = make_token(["read"], name="ci", expires_at=timezone.now() + dt.timedelta(hours=1))
    assert Caller(secret).get("tenants").status_code == 200
    ManagementToken.objects.filter(pk=token.pk).update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert Caller(secret).get("tenants").json()["detail"] == "The token ci is expired."
    management_tokens.revoke_token(token=token, actor="olga")
    assert Caller(secret).get("tenants").json()["detail"] == "The token ci is revoked."


def test_too_many_wrong_tokens_have_to_wait_and_a_right_one_does_not() -> None:
    right = caller_with("read")
    for number in range(MAX_TOKEN_TRIES):
        cache.clear()  # another worker's memory
        assert Caller(f"pmt_{number:043d}").get("tenants").status_code == 401
    blocked = Caller("pmt_" + "x" * 43).get("tenants")
    assert blocked.status_code == 429
    with CaptureQueriesContext(connection) as queries:
        assert Caller("pmt_" + "y" * 43).get("tenants").status_code == 429
    assert len(queries) <= 2, "who is blocked costs one look at the token and one at the count"
    assert int(blocked["Retry-After"]) > 0
    assert right.get("tenants").status_code == 200


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer \xff", "Bearer " + "x" * 30_000, "Bearer a b"]
)
def test_what_is_no_token_is_refused_whatever_it_looks_like(header: str) -> None:
    assert Client().get("/api/v1/tenants", headers={"Authorization": header}).status_code == 401


def test_the_use_of_a_token_is_noted_once_an_hour() -> None:
    token, secret = make_token(["read"])
    Caller(secret).get("caller")
    with CaptureQueriesContext(connection) as queries:
        Caller(secret).get("caller")
    assert len(queries) == 1, queries.captured_queries
    token.refresh_from_db()
    assert token.last_used_at is not None
    long_ago = timezone.now() - dt.timedelta(hours=2)
    ManagementToken.objects.filter(pk=token.pk).update(last_used_at=long_ago)
    Caller(secret).get("caller")
    token.refresh_from_db()
    assert token.last_used_at > long_ago


def test_changes_stand_in_the_audit_log_under_the_tokens_name() -> None:
    Caller(make_token(["access"], name="terraform")[1]).send("POST", "tenants", {"name": "acme"})
    event = ChangeEvent.objects.get(object_type="tenant")
    assert (event.actor, event.action) == ("token:terraform", "create")
    # Who answers for a token, for rules that need two people.
    assert management_tokens.person_behind("token:terraform") == "a test"
    assert management_tokens.person_behind("olga") == "olga"


def test_the_caller_learns_who_it_is() -> None:
    caller = Caller(make_token(["read", "publish"], name="ci")[1]).read("caller")
    assert caller == {"actor": "token:ci", "scopes": ["read", "publish"], "role": None, "expires_at": None}
    assert Caller(client=client_of(Role.VIEWER)).read("caller")["role"] == "viewer"


def test_no_answer_and_no_list_holds_a_secret_that_is_not_new() -> None:
    _, key_secret = make_key(project=make_project())
    token, token_secret = make_token()
    deployment = make_deployment()
    caller = Caller(token_secret)
    secret = "sk-very-secret-1234567890"
    path = f"providers/{deployment.provider_id}"
    changed = caller.send("PATCH", path, {"credential": secret})
    assert changed.json()["credential_state"] == "set"
    policy = publishing.create_policy(public_id="acme/chat", actor="a test")
    shown = changed.content
    for _, path, _operation in [row for row in OPERATIONS if row[0] == "GET"]:
        shown += caller.get(path.replace("/1", f"/{policy.pk}") if "polic" in path else path).content
    for hidden in (secret, key_secret, token_secret, bytes(token.secret_hash).hex()):
        assert hidden.encode() not in shown
    provider = deployment.provider
    provider.refresh_from_db()
    assert provider.credential_ciphertext
    assert provider.credential_ciphertext.encode() not in shown
    assert not issuing.is_secret_of(make_key()[0], key_secret)
