"""Are providers, models and deployments written by one verb each, checked, logged, and protected by history?"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from policies import cataloguing
from policies.credentials import decrypt_credential
from policies.errors import ConfigurationError, CredentialError, InUseError, InvalidValueError, NameTakenError
from policies.models import ChangeEvent, Deployment, Model, Policy, PolicyDraft, Provider
from tests.make_configuration import ACTOR, make_deployment, make_model, make_price, make_provider

pytestmark = pytest.mark.django_db


def last_event() -> ChangeEvent:
    event = ChangeEvent.objects.order_by("-id").first()
    assert event is not None
    return event


def test_a_credential_is_encrypted_at_once_and_appears_in_no_table() -> None:
    provider = make_provider(credential="sk-very-secret")
    assert decrypt_credential(provider.credential_ciphertext) == "sk-very-secret"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT p::text FROM policies_provider p UNION ALL SELECT e::text FROM policies_changeevent e"
        )
        assert "sk-very-secret" not in "\n".join(row[0] for row in cursor.fetchall())
    assert last_event().after is not None
    assert last_event().after["credential"] == "set"  # type: ignore[index]


def test_the_revision_grows_only_when_the_credential_changes() -> None:
    provider = make_provider(credential="sk-1")
    assert provider.credential_revision == 1
    provider = cataloguing.change_provider(provider=provider, actor=ACTOR, api_version="2024-10-21")
    assert provider.credential_revision == 1
    provider = cataloguing.change_provider(provider=provider, actor=ACTOR, credential="sk-2")
    assert provider.credential_revision == 2
    provider = cataloguing.change_provider(
        provider=provider, actor=ACTOR, credential_reference="env:SOME_KEY"
    )
    assert (provider.credential_revision, provider.credential_ciphertext) == (3, "")
    provider = cataloguing.change_provider(provider=provider, actor=ACTOR, credential="sk-3")
    assert (provider.credential_revision, provider.credential_reference) == (4, "")
    provider = cataloguing.change_provider(provider=provider, actor=ACTOR, credential="")
    assert (provider.credential_revision, provider.credential_ciphertext) == (5, "")
    assert cataloguing.change_provider(provider=provider, actor=ACTOR, credential="").credential_revision == 5


def test_a_change_is_logged_with_what_differs_and_no_change_is_not_logged() -> None:
    provider = make_provider(base_url="https://a.example.com/v1/")
    assert provider.base_url == "https://a.example.com/v1"
    cataloguing.change_provider(
        provider=provider, actor="ann", base_url="https://b.example.com", api_version=""
    )
    event = last_event()
    assert (event.actor, event.action, event.object_type) == ("ann", "change", "provider")
    assert event.before == {"base_url": "https://a.example.com/v1"}
    assert event.after == {"base_url": "https://b.example.com"}
    cataloguing.change_provider(provider=provider, actor="bob", base_url="https://b.example.com/")
    assert last_event() == event


@pytest.mark.parametrize("given", [{"credential": "sk-1"}, {"credential_reference": "env:SOME_KEY"}])
def test_a_credential_does_not_follow_a_base_url_to_another_host(given: dict[str, str]) -> None:
    provider = make_provider(base_url="https://a.example.com/v1", **given)
    for elsewhere in ("https://b.example.com/v1", "http://a.example.com/v1", "https://a.example.com:8443/v1"):
        with pytest.raises(InvalidValueError, match="another host"):
            cataloguing.change_provider(provider=provider, actor=ACTOR, base_url=elsewhere)
        provider.refresh_from_db()
        assert provider.base_url == "https://a.example.com/v1"
    same_host = "https://A.example.com:443/v2"
    cataloguing.change_provider(provider=provider, actor=ACTOR, base_url=same_host)
    cataloguing.change_provider(provider=provider, actor=ACTOR, base_url="https://b.example.com", **given)
    provider = cataloguing.change_provider(
        provider=provider, actor=ACTOR, base_url="https://c.example.com", credential=""
    )
    assert (provider.base_url, provider.credential_ciphertext) == ("https://c.example.com", "")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "http://127.0.0.1:8080/v1"}, "base_url"),
        ({"wire_format": "smoke_signals"}, "wire_format"),
        ({"addressing": "pigeon"}, "addressing"),
        ({"auth_style": "handshake"}, "auth_style"),
        ({"extra_headers": {"Host": "x"}}, "extra_headers"),
        ({"name": "no spaces please"}, "name"),
        ({"colour": "red"}, "colour"),
        ({"credential_ciphertext": "x"}, "credential_ciphertext"),
        ({"api_version": "nul\0"}, "api_version"),
    ],
)
def test_a_wrong_provider_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        make_provider(**fields)
    assert field in refusal.value.problems
    assert not Provider.objects.exists()


def test_a_credential_and_a_reference_together_are_refused() -> None:
    with pytest.raises(CredentialError):
        make_provider(credential="sk", credential_reference="env:KEY")


def test_a_taken_name_is_refused_for_each_kind() -> None:
    deployment = make_deployment(name="m@p", model=make_model(name="m"), provider=make_provider(name="p"))
    for make, name in ((make_provider, "p"), (make_model, "m")):
        with pytest.raises(NameTakenError, match=name):
            make(name=name)
    with pytest.raises(NameTakenError, match="m@p"):
        make_deployment(name="m@p", model=deployment.model, provider=deployment.provider)


def test_a_model_may_not_take_a_policys_public_id() -> None:
    Policy.objects.create(public_id="acme/support")
    with pytest.raises(NameTakenError, match="policy"):
        make_model(name="acme/support")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"capabilities": ["telepathy"]}, "capabilities"),
        ({"capabilities": "tools"}, "capabilities"),
        ({"endpoints": ["fax"]}, "endpoints"),
        ({"context_tokens": 0}, ""),
        ({"context_tokens": "many"}, "context_tokens"),
        ({"output_limit_parameter": "stop_it"}, "output_limit_parameter"),
        ({"name": "two words"}, "name"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_model_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        make_model(**fields)
    assert field in refusal.value.problems
    assert not Model.objects.exists()


def test_capabilities_are_kept_sorted_and_once() -> None:
    assert make_model(capabilities=["vision", "tools", "tools"]).capabilities == ["tools", "vision"]


def test_what_others_need_cannot_be_deleted_and_what_nobody_needs_can() -> None:
    deployment = make_deployment()
    with pytest.raises(InUseError, match="1 deployments need it"):
        cataloguing.delete_provider(provider=deployment.provider, actor=ACTOR)
    with pytest.raises(InUseError, match="disable it instead"):
        cataloguing.delete_model(model=deployment.model, actor=ACTOR)
    cataloguing.delete_deployment(deployment=deployment, actor="ann")
    assert (last_event().actor, last_event().action, last_event().object_id) == (
        "ann",
        "delete",
        deployment.pk,
    )
    cataloguing.delete_provider(provider=deployment.provider, actor=ACTOR)
    cataloguing.delete_model(model=deployment.model, actor=ACTOR)
    assert not (Provider.objects.exists() or Model.objects.exists() or Deployment.objects.exists())


def test_a_deployment_with_a_price_cannot_be_deleted() -> None:
    with pytest.raises(InUseError, match="prices"):
        cataloguing.delete_deployment(deployment=make_price().deployment, actor=ACTOR)


def test_a_deployment_that_a_policy_names_can_be_neither_deleted_nor_renamed() -> None:
    deployment = make_deployment()
    rules = [{"name": "r1", "deployments": [{"name": "other"}], "fallbacks": [deployment.name]}]
    PolicyDraft.objects.create(policy=Policy.objects.create(public_id="a/b"), document={"rules": rules})
    with pytest.raises(InUseError, match=r"rule 'r1' of policy a/b"):
        cataloguing.delete_deployment(deployment=deployment, actor=ACTOR)
    with pytest.raises(InUseError):
        cataloguing.change_deployment(deployment=deployment, actor=ACTOR, name="renamed")
    cataloguing.change_deployment(deployment=deployment, actor=ACTOR, region="eu")


def test_moving_a_deployment_is_logged_by_names() -> None:
    deployment, provider = make_deployment(), make_provider(name="elsewhere")
    cataloguing.change_deployment(deployment=deployment, actor=ACTOR, provider=provider)
    assert last_event().after == {"provider": "elsewhere"}
    assert last_event().before == {"provider": deployment.provider.name}


def test_every_refusal_is_a_configuration_error() -> None:
    for refusal in (
        InvalidValueError({"a": ["b"]}),
        NameTakenError("x"),
        InUseError("x"),
        CredentialError("x"),
    ):
        assert isinstance(refusal, ConfigurationError)
