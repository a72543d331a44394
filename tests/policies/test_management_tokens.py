"""How does a management token come into being and end, in the browser and by its verbs?"""

from __future__ import annotations

import datetime as dt
import io
import re

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from policies import keys, management_tokens
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ChangeEvent, ManagementToken
from tests.console_people import operator

pytestmark = pytest.mark.django_db


def test_a_token_is_issued_shown_once_listed_and_revoked_in_the_browser() -> None:
    client = operator()
    form = {"name": "terraform", "scopes": ["catalog", "read"], "expires_at": "2099-01-31T12:00"}
    page = client.post("/management-tokens/new", form)
    found = re.search(r"pmt_[\w-]{43}", page.content.decode())
    assert found is not None
    secret = found.group()
    assert page["Cache-Control"].startswith("max-age=0, no-cache, no-store")
    token = ManagementToken.objects.get()
    assert token.scopes == ["read", "catalog"]
    assert token.expires_at == dt.datetime(2099, 1, 31, 12, tzinfo=dt.UTC)
    assert management_tokens.find_token(secret) == token
    listed = client.get("/management-tokens").content.decode()
    assert keys.hint_of(secret) in listed
    assert secret not in listed
    client.post(f"/management-tokens/{token.pk}/revoke", {"confirm_name": "something else"})
    token.refresh_from_db()
    assert token.revoked_at is None
    client.post(f"/management-tokens/{token.pk}/revoke", {"confirm_name": "terraform"})
    token.refresh_from_db()
    assert token.revoked_at is not None
    actions = ChangeEvent.objects.filter(object_type="management_token").order_by("id")
    assert [event.action for event in actions] == ["issue", "revoke"]
    assert secret not in str(list(actions.values()))


def test_the_form_says_what_is_wrong() -> None:
    client = operator()
    empty = client.post("/management-tokens/new", {})
    assert empty.status_code == 422
    management_tokens.issue_token(name="ci", scopes=["read"], actor="a test")
    taken = client.post("/management-tokens/new", {"name": "ci", "scopes": ["read"]})
    assert taken.status_code == 422
    assert "already a management token named ci" in taken.content.decode()
    past = {"name": "x", "scopes": ["read"], "expires_at": "2001-01-01T00:00"}
    assert "This time has passed." in client.post("/management-tokens/new", past).content.decode()


def test_a_name_is_never_given_twice_also_not_after_a_revocation() -> None:
    token, _ = management_tokens.issue_token(name="ci", scopes=["read"], actor="olga")
    management_tokens.revoke_token(token=token, actor="olga")
    with pytest.raises(NameTakenError):
        management_tokens.issue_token(name="ci", scopes=["read"], actor="olga")


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "root"]])
def test_a_token_has_scopes_that_there_are(scopes: list[str]) -> None:
    with pytest.raises(InvalidValueError):
        management_tokens.issue_token(name="ci", scopes=scopes, actor="olga")


def test_the_database_refuses_a_token_that_may_nothing() -> None:
    token, _ = management_tokens.issue_token(name="ci", scopes=["read"], actor="olga")
    with pytest.raises(IntegrityError), transaction.atomic():
        ManagementToken.objects.filter(pk=token.pk).update(scopes=[])


def test_a_naive_expiry_is_refused_and_a_state_follows_the_clock() -> None:
    naive = dt.datetime(2099, 1, 1)  # noqa: DTZ001  (that is the point)
    with pytest.raises(InvalidValueError):
        management_tokens.issue_token(name="ci", scopes=["read"], actor="olga", expires_at=naive)
    at = timezone.now() + dt.timedelta(days=1)
    token, _ = management_tokens.issue_token(name="ci", scopes=["read"], actor="olga", expires_at=at)
    assert management_tokens.state_of(token, now=at - dt.timedelta(seconds=1)) == "active"
    assert management_tokens.state_of(token, now=at) == "expired"


def test_a_script_gets_a_token_without_a_browser() -> None:
    out = io.StringIO()
    call_command("issue_token", "--name", "ci", "--scope", "read", "--scope", "publish", stdout=out)
    token = management_tokens.find_token(out.getvalue().strip())
    assert token is not None
    assert (token.name, token.scopes, token.created_by) == (
        "ci",
        ["read", "publish"],
        "manage.py issue_token",
    )
    with pytest.raises(CommandError, match="already a management token named ci"):
        call_command("issue_token", "--name", "ci", "--scope", "read")


def test_the_back_office_shows_tokens_and_changes_none() -> None:
    management_tokens.issue_token(name="ci", scopes=["read"], actor="olga")
    page = operator().get("/admin/policies/managementtoken/")
    assert page.status_code == 200
    assert ">ci<" in page.content.decode()
    assert operator().get("/admin/policies/managementtoken/add/").status_code == 403
