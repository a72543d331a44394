"""How do providers, models and deployments come to be, change and go?

Writes: provider, model, deployment, change_event. The only writer of the first three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from django.db import transaction

from policies import changes
from policies.credentials import check_reference, encrypt_credential
from policies.errors import CredentialError, InUseError, InvalidValueError, NameTakenError
from policies.models import Deployment, Model, Policy, Provider
from policies.provider_addresses import (
    normalise_base_url,
    origin_of,
    problems_of_base_url,
    problems_of_headers,
)
from policies.row_changes import delete_row, held, save_checked, set_fields

CAPABILITIES = ("tools", "json_schema", "vision", "audio", "files", "logprobs")
ENDPOINTS = ("chat", "completions", "embeddings")
WIRE_FORMATS = ("openai_chat",)

PROVIDER_FIELDS = (
    "name", "wire_format", "base_url", "addressing", "auth_style", "api_version", "extra_headers",
    "credential_reference", "allow_private_network", "takes_stream_options", "is_enabled",
)  # fmt: skip
MODEL_FIELDS = (
    "name", "description", "context_tokens", "max_output_tokens", "capabilities", "endpoints",
    "output_limit_parameter", "rating", "rating_source", "rating_date", "is_enabled",
)  # fmt: skip
OTHER_HOST = (
    "the credential was given for another host: give it (or its reference) again together with this URL"
)
Row = TypeVar("Row", Provider, Model, Deployment)

DEPLOYMENT_FIELDS = ("name", "model", "provider", "upstream_model", "region", "retention", "is_enabled")

MoveCheck = Callable[[Deployment, Model], str]
_move_checks: list[MoveCheck] = []


def register_move_check(check: MoveCheck) -> None:
    """Let billing say why a deployment cannot serve another model ("" where it can). Called once, at the start."""
    _move_checks.append(check)


@transaction.atomic
def create_provider(*, name: str, actor: str, credential: str = "", **fields: Any) -> Provider:
    """Create a provider. `credential` is clear text and is encrypted at once; or give `credential_reference`.

    Raises ConfigurationError (InvalidValueError, NameTakenError, CredentialError).
    """
    return _write_provider(
        Provider(),
        actor=actor,
        action="create",
        credential=credential or None,
        fields={"name": name, **fields},
    )


@transaction.atomic
def change_provider(
    *, provider: Provider, actor: str, credential: str | None = None, **fields: Any
) -> Provider:
    """Change a provider. `credential` None keeps it, "" removes it, a text replaces it, also a reference.

    A base URL at another host needs the credential (or its reference) again: nobody who cannot name it may have it
    sent elsewhere. Raises ConfigurationError.
    """
    row = held(Provider.objects.all()).get(pk=provider.pk)
    return _write_provider(row, actor=actor, action="change", credential=credential, fields=fields)


@transaction.atomic
def retry_credential(*, provider: Provider, actor: str) -> Provider:
    """Have every worker try a credential again that the provider refused, as if it had been given anew.

    For what was mended at the provider's side (an invoice paid, a key unlocked). Still refused, it is out again after
    one call.
    """
    row = held(Provider.objects.all()).get(pk=provider.pk)
    row.credential_revision += 1
    row.save(update_fields=["credential_revision"])
    changes.record_row(
        "provider",
        row,
        actor=actor,
        action="retry_credential",
    )
    return row


@transaction.atomic
def delete_provider(*, provider: Provider, actor: str) -> None:
    """Delete a provider that no deployment uses. Raises InUseError."""
    _delete(Provider.objects.select_for_update().get(pk=provider.pk), actor=actor, object_type="provider")


@transaction.atomic
def create_model(*, name: str, actor: str, **fields: Any) -> Model:
    """Create a model: a name that clients can ask for. Raises ConfigurationError."""
    return _write_model(Model(), actor=actor, action="create", fields={"name": name, **fields})


@transaction.atomic
def change_model(*, model: Model, actor: str, **fields: Any) -> Model:
    """Change a model. Raises ConfigurationError."""
    row = held(Model.objects.all()).get(pk=model.pk)
    return _write_model(row, actor=actor, action="change", fields=fields)


@transaction.atomic
def delete_model(*, model: Model, actor: str) -> None:
    """Delete a model that no deployment serves and no policy has as its baseline. Raises InUseError."""
    row = Model.objects.select_for_update().get(pk=model.pk)
    for policy, document in _list_documents():
        if document.get("baseline") == row.name:
            raise InUseError(f"{row} cannot be deleted: it is the baseline of policy {policy}")
    _delete(row, actor=actor, object_type="model")


@transaction.atomic
def create_deployment(
    *, name: str, model: Model, provider: Provider, upstream_model: str, actor: str, **fields: Any
) -> Deployment:
    """Create a deployment: one upstream model at one provider. Raises ConfigurationError."""
    fields = {"name": name, "model": model, "provider": provider, "upstream_model": upstream_model, **fields}
    return _write_deployment(Deployment(), actor=actor, action="create", fields=fields)


@transaction.atomic
def change_deployment(*, deployment: Deployment, actor: str, **fields: Any) -> Deployment:
    """Change a deployment. Raises ConfigurationError; renaming one that a policy names is refused."""
    row = held(Deployment.objects.select_related("model", "provider")).get(pk=deployment.pk)
    if "name" in fields and fields["name"] != row.name:
        _refuse_when_named(row)
    if (model := fields.get("model", row.model)) != row.model:
        for check in _move_checks:
            if reason := check(row, model):
                raise InUseError(reason)
    return _write_deployment(row, actor=actor, action="change", fields=fields)


@transaction.atomic
def delete_deployment(*, deployment: Deployment, actor: str) -> None:
    """Delete a deployment without price, record or policy that names it. Raises InUseError."""
    row = Deployment.objects.select_for_update().get(pk=deployment.pk)
    _refuse_when_named(row)
    _delete(row, actor=actor, object_type="deployment")


def _write_provider(
    row: Provider, *, actor: str, action: str, credential: str | None, fields: Mapping[str, Any]
) -> Provider:
    values = dict(fields)
    if "base_url" in values:
        values["base_url"] = normalise_base_url(str(values["base_url"]))
    if credential and values.get("credential_reference"):
        raise CredentialError("give a credential or a reference to one, not both")
    old_base_url = row.base_url
    has_credential = bool(row.credential_ciphertext or row.credential_reference)
    before, after = set_fields(row, values, allowed=PROVIDER_FIELDS)
    problems = {
        "base_url": problems_of_base_url(row.base_url, allow_private_network=row.allow_private_network),
        "extra_headers": problems_of_headers(row.extra_headers),
    }
    if row.wire_format not in WIRE_FORMATS:
        problems["wire_format"] = [f"{row.wire_format!r} is not one of {', '.join(WIRE_FORMATS)}"]
    if any(problems.values()):
        raise InvalidValueError({name: texts for name, texts in problems.items() if texts})
    is_given = credential is not None or "credential_reference" in values
    if has_credential and not is_given and origin_of(row.base_url) != origin_of(old_base_url):
        raise InvalidValueError({"base_url": [OTHER_HOST]})
    if row.credential_reference:
        check_reference(row.credential_reference)
    if row.credential_reference and "credential_reference" in after and row.credential_ciphertext:
        row.credential_ciphertext = ""
    if credential is not None and (credential or row.credential_ciphertext or row.credential_reference):
        row.credential_ciphertext = encrypt_credential(credential) if credential else ""
        row.credential_reference = ""
        after["credential"] = "set" if credential else "removed"
    if "credential" in after or "credential_reference" in after:
        row.credential_revision += 1
    return _save(row, actor=actor, action=action, object_type="provider", before=before, after=after)


def _write_model(row: Model, *, actor: str, action: str, fields: Mapping[str, Any]) -> Model:
    values = dict(fields)
    problems: dict[str, list[str]] = {}
    for name, known in (("capabilities", CAPABILITIES), ("endpoints", ENDPOINTS)):
        if name in values:
            values[name], problems[name] = _known_names(values[name], known)
    if values.get("rating") is not None and not 0 <= values["rating"] <= 1:
        problems["rating"] = ["a rating is between 0 and 1"]
    if "name" in values:
        problems["name"] = problems_of_public_name(values["name"])
        if Policy.objects.filter(public_id=values["name"]).exists():
            raise NameTakenError(f"{values['name']} is already the public id of a policy")
    if any(problems.values()):
        raise InvalidValueError({name: texts for name, texts in problems.items() if texts})
    before, after = set_fields(row, values, allowed=MODEL_FIELDS)
    return _save(row, actor=actor, action=action, object_type="model", before=before, after=after)


def _write_deployment(row: Deployment, *, actor: str, action: str, fields: Mapping[str, Any]) -> Deployment:
    if "name" in fields and (texts := problems_of_public_name(fields["name"])):
        raise InvalidValueError({"name": texts})
    if action == "create":
        _, after = set_fields(
            row,
            {k: v for k, v in fields.items() if k not in ("model", "provider")},
            allowed=DEPLOYMENT_FIELDS,
        )
        row.model, row.provider = fields["model"], fields["provider"]
        after |= {"model": row.model.name, "provider": row.provider.name}
        before: dict[str, Any] = {}
    else:
        before, after = set_fields(row, fields, allowed=DEPLOYMENT_FIELDS)
    return _save(row, actor=actor, action=action, object_type="deployment", before=before, after=after)


def problems_of_public_name(name: object) -> list[str]:
    """Say what is wrong with a name that clients write into requests and headers carry back."""
    if not isinstance(name, str) or not name:
        return ["a name is needed"]
    if not name.isascii() or not name.isprintable() or any(c.isspace() or c in "\"'<>\\," for c in name):
        return ["a name holds printable ASCII characters without spaces, quotes, commas, < > or \\"]
    return []


def _known_names(given: object, known: Iterable[str]) -> tuple[list[str], list[str]]:
    if isinstance(given, str) or not isinstance(given, (list, tuple, set, frozenset)):
        return [], ["a list of names is needed"]
    unknown = sorted(str(name) for name in given if name not in known)
    problems = [f"{name!r} is not one of {', '.join(known)}" for name in unknown]
    return sorted({str(name) for name in given}), problems


def _save(
    row: Row, *, actor: str, action: str, object_type: str, before: dict[str, Any], after: dict[str, Any]
) -> Row:
    if action == "change" and not after:
        return row
    save_checked(row)
    changes.record_row(
        object_type,
        row,
        actor=actor,
        action=action,
        before=before if action == "change" else None,
        after=after,
    )
    return row


def _delete(row: Provider | Model | Deployment, *, actor: str, object_type: str) -> None:
    object_id, name = row.pk, row.name
    delete_row(row)
    changes.record_change(
        actor=actor, action="delete", object_type=object_type, object_id=object_id, object_name=name
    )


def _list_documents() -> Iterable[tuple[Policy, dict[str, Any]]]:
    """What serves, or is to serve: drafts, live versions, canaries."""
    for policy in Policy.objects.select_related("draft", "live_version", "canary_version"):
        if hasattr(policy, "draft"):
            yield policy, policy.draft.document
        for version in (policy.live_version, policy.canary_version):
            if version is not None:
                yield policy, version.document


def _refuse_when_named(deployment: Deployment) -> None:
    """Raise InUseError when a draft or a version in use names the deployment (by name, not by link)."""
    for policy, document in _list_documents():
        for rule in document.get("rules", []):
            named = [c["name"] if isinstance(c, dict) else c for c in rule.get("deployments", [])]
            if deployment.name in [*named, *rule.get("fallbacks", [])]:
                raise InUseError(
                    f"{deployment} is named by rule {rule.get('name', '')!r} of policy {policy}: "
                    "change that first"
                )
