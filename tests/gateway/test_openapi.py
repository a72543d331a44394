"""Does gateway/openapi.yaml describe the management API as it is?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from billing.alert_recipients import add_recipient
from billing.budgets import create_budget
from billing.credits import grant_credit
from billing.exchange_rates import add_rate
from billing.models import ExportJob, Price
from policies import publishing
from policies.rate_limits import set_rate_limit
from tests.make_configuration import make_deployment, make_key, make_price
from tests.policies.api.callers import caller_with
from tests.policies.api.test_access import OPERATIONS
from tests.policies.api.test_resources import sound_document

PATH = Path(settings.BASE_DIR) / "gateway" / "openapi.yaml"


@pytest.fixture(scope="module")
def document() -> Any:
    return yaml.safe_load(PATH.read_text())


def test_the_committed_document_is_what_the_code_says_and_is_valid(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", file=str(made), validate=True, fail_on_warn=True)
    assert made.read_text() == PATH.read_text(), (
        "run: python manage.py spectacular --file gateway/openapi.yaml"
    )


def test_it_names_every_operation_with_its_scope_and_its_refusals(document: Any) -> None:
    described = {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert set(described) == {operation.name for _, _, operation in OPERATIONS}
    for _, _, operation in OPERATIONS:
        found = described[operation.name]
        assert found["summary"] == operation.summary
        assert "application/problem+json" in found["responses"]["default"]["content"]
        if operation.need is not None and not operation.need.is_for_people_only:
            assert f"`{operation.need.scope}`" in found["description"]


def test_secrets_are_written_only_or_stand_in_the_answer_that_makes_them(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        members = schema.get("properties", {})
        if "secret" in members:
            assert name in ("IssuedKey", "AddedRecipient") or members["secret"].get("writeOnly"), name
        if "credential" in members:
            assert name.endswith("Request"), name


# Nothing is made for these: there is nothing to read.
WITHOUT_A_ROW = {
    f"/{name}/{{id}}"
    for name in ("backtests", "publication-requests", "statements", "closings", "sale-terms")
}


def as_json_schema(schema: Any) -> Any:
    """OpenAPI 3.0 says `nullable` where JSON Schema names the type null."""
    if isinstance(schema, list):
        return [as_json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: as_json_schema(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


def list_strangers(answer: Any, schema: Any, components: Any, place: str = "") -> list[str]:
    """Members of an answer that its schema does not name."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    if isinstance(answer, list):
        return [s for row in answer for s in list_strangers(row, schema.get("items", {}), components, place)]
    members = schema.get("properties")
    if not isinstance(answer, dict) or members is None:
        return []
    found = [f"{place}.{name}" for name in answer if name not in members]
    for name in set(answer) & set(members):
        found += list_strangers(answer[name], members[name], components, f"{place}.{name}")
    return found


@pytest.mark.django_db
def test_answers_have_the_form_that_it_describes(document: Any) -> None:
    deployment = make_deployment(name="smol@local")
    make_price(deployment=deployment)
    key, _ = make_key()
    policy = publishing.create_policy(public_id="acme/chat", actor="a test")
    publishing.publish(policy=policy, actor="a test", document=sound_document("smol@local"))
    caller = caller_with()
    credit = grant_credit(
        tenant=key.project.tenant, kind="paid", amount_nano=10**9, currency="EUR", actor="a test"
    )
    rate = add_rate(
        currency="EUR", rate="0.9", first_day=dt.date(2026, 1, 1), source="a test", actor="a test"
    )
    budget = create_budget(tenant=key.project.tenant, window="month", limit_nanousd=10**9, actor="a test")
    recipient, _ = add_recipient(
        tenant=key.project.tenant, channel="email", address="fin@example.com", actor="a test"
    )
    limit = set_rate_limit(owner=key, requests_per_minute=60, actor="a test")
    assert limit is not None
    pks = {
        "/exports/{id}": ExportJob.objects.create(kind="requests", file_format="csv").pk,
        "/rate-limits/{id}": limit.pk,
        "/alert-recipients/{id}": recipient.pk,
        "/tenants/{id}": key.project.tenant_id,
        "/tenants/{id}/billing": key.project.tenant_id,
        "/credits/{id}": credit.pk,
        "/exchange-rates/{id}": rate.pk,
        "/projects/{id}": key.project_id,
        "/keys/{id}": key.pk,
        "/providers/{id}": deployment.provider_id,
        "/models/{id}": deployment.model_id,
        "/deployments/{id}": deployment.pk,
        "/prices/{id}": Price.objects.get().pk,
        **{f"/budgets/{{id}}{rest}": budget.pk for rest in ("", "/windows", "/leases")},
    }
    components = document["components"]["schemas"]
    checked = 0
    for path, methods in document["paths"].items():
        if "get" not in methods or path.endswith("/file"):
            continue  # a file has no members
        pk = pks.get(path.removeprefix("/api/v1"), policy.pk)
        response = caller.get(path.replace("{id}", str(pk)).replace("{number}", "1"))
        if response.status_code == 404:
            assert path.removeprefix("/api/v1") in WITHOUT_A_ROW, path
            continue
        assert response.status_code == 200, path
        schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = as_json_schema({**schema, "components": {"schemas": components}})
        jsonschema.Draft202012Validator(whole).validate(response.json())
        assert list_strangers(response.json(), schema, components) == [], path
        checked += 1
    assert checked >= 20


def test_everybody_may_read_it() -> None:
    response = Client().get("/api/v1/openapi.yaml")
    assert response["Content-Type"] == "application/yaml"
    assert response.content == PATH.read_bytes()
    assert Client().get("/api/v1/nothing").json()["status"] == 404
