"""Are keys issued, rotated and revoked so that a secret is shown once and kept nowhere?"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from policies import keys
from policies.errors import ConfigurationError, InUseError, InvalidValueError, NameTakenError
from policies.issuing import change_key, is_secret_of, issue_key, revoke_key, rotate_key
from policies.models import ApiKey, ChangeEvent
from tests.make_configuration import make_key, make_model, make_project

pytestmark = pytest.mark.django_db


def text_of_all_rows() -> str:
    """Everything that the tables of keys and changes hold, as text."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT k::text FROM policies_apikey k UNION ALL SELECT e::text FROM policies_changeevent e"
        )
        return "\n".join(row[0] for row in cursor.fetchall())


def test_an_issued_secret_opens_its_key_and_is_stored_nowhere() -> None:
    key, secret = make_key()
    assert bytes(key.secret_hash) == keys.hash_secret(secret, pepper=settings.POINTSMAN_KEY_PEPPER)
    assert is_secret_of(key, secret)
    assert not is_secret_of(key, secret + "x")
    assert secret not in text_of_all_rows()
    assert key.secret_hint in text_of_all_rows()


def test_a_given_secret_is_taken_when_it_is_long_enough() -> None:
    project = make_project()
    _, secret = issue_key(project=project, name="dev", actor="a", secret="sixteen-letters!")
    assert secret == "sixteen-letters!"
    with pytest.raises(InvalidValueError, match="16 to 500") as refusal:
        issue_key(project=project, name="other", actor="a", secret="fifteen-letters")
    assert "fifteen" not in str(refusal.value)


@pytest.mark.parametrize(
    "secret", ["with a space in it", "nul\0character-here", "ümläute-sind-keine", "line\nbreaks-inside"]
)
def test_a_secret_that_no_header_can_carry_is_refused(secret: str) -> None:
    with pytest.raises(InvalidValueError, match="printable ASCII"):
        make_key(secret=secret)


def test_the_same_secret_is_refused_twice_without_being_repeated() -> None:
    make_key(secret="a-secret-of-somebody")
    with pytest.raises(ConfigurationError) as refusal:
        make_key(secret="a-secret-of-somebody")
    assert "somebody" not in str(refusal.value)


def test_a_name_is_unique_among_the_current_keys_of_a_project_and_free_again_after_revocation() -> None:
    key, _ = make_key(name="dev")
    with pytest.raises(NameTakenError, match="dev"):
        make_key(project=key.project, name="dev")
    revoke_key(key=key, actor="a")
    again, _ = make_key(project=key.project, name="dev")
    assert again.pk != key.pk


def test_rotation_with_overlap_lets_the_old_secret_expire_and_links_both_keys() -> None:
    make_model(name="m1")
    old, _ = make_key(name="dev", owner="ann", is_pinned=True, allowed_models=["m1"])
    new, secret = rotate_key(key=old, overlap=dt.timedelta(hours=1), actor="a")
    old.refresh_from_db()
    assert old.replaced_by_id == new.pk
    assert old.revoked_at is None
    assert old.expires_at is not None
    assert dt.timedelta(minutes=59) < old.expires_at - timezone.now() <= dt.timedelta(hours=1)
    assert (new.name, new.owner, new.is_pinned, new.allowed_models) == ("dev", "ann", True, ["m1"])
    assert is_secret_of(new, secret)
    with pytest.raises(InUseError, match="already replaced"):
        rotate_key(key=old, overlap=dt.timedelta(0), actor="a")


def test_rotation_without_overlap_revokes_the_old_key_at_once() -> None:
    old, _ = make_key()
    rotate_key(key=old, overlap=dt.timedelta(0), actor="a")
    old.refresh_from_db()
    assert old.revoked_at is not None


def test_overlap_never_lengthens_a_keys_life() -> None:
    ends = timezone.now() + dt.timedelta(minutes=5)
    old, _ = make_key(expires_at=ends)
    rotate_key(key=old, overlap=dt.timedelta(days=1), actor="a")
    old.refresh_from_db()
    assert old.expires_at == ends


def test_the_foreign_key_to_the_successor_holds_at_commit(transactional_db: None) -> None:
    old, _ = make_key()
    new, _ = rotate_key(key=old, overlap=dt.timedelta(hours=1), actor="a")
    assert ApiKey.objects.get(pk=old.pk).replaced_by == new


def test_revoking_is_final_and_doing_it_twice_changes_nothing() -> None:
    key, _ = make_key()
    first = revoke_key(key=key, actor="a").revoked_at
    assert revoke_key(key=key, actor="b").revoked_at == first
    assert ChangeEvent.objects.filter(action="revoke").count() == 1
    with pytest.raises(InUseError, match="revoked"):
        rotate_key(key=key, overlap=dt.timedelta(0), actor="a")
    with pytest.raises(InUseError, match="revoked"):
        change_key(key=key, actor="a", owner="bob")


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"allowed_models": ["no-such-model"]}, "no such model or policy: no-such-model"),
        ({"allowed_models": "gpt"}, "a list of names"),
        ({"expires_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "has passed"),
        ({"expires_at": dt.datetime(2099, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"owner": "nul\0"}, "NUL"),
    ],
)
def test_wrong_settings_are_refused_by_name(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidValueError, match=what):
        make_key(**fields)


def test_a_change_is_logged_with_before_and_after() -> None:
    key, _ = make_key()
    change_key(key=key, actor="ann", owner="bob")
    event = ChangeEvent.objects.get(action="change", object_type="api_key")
    assert (event.actor, event.before, event.after) == ("ann", {"owner": ""}, {"owner": "bob"})
    change_key(key=key, actor="ann", owner="bob")
    assert ChangeEvent.objects.filter(action="change").count() == 1
    assert json.dumps(event.after)
