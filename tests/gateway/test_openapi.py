"""Does gateway/openapi.yaml describe the management API as it is?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from tests.policies.api.test_access import OPERATIONS

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
            assert name == "IssuedKey"
        if "credential" in members:
            assert name.endswith("Request"), name


def test_everybody_may_read_it() -> None:
    response = Client().get("/api/v1/openapi.yaml")
    assert response["Content-Type"] == "application/yaml"
    assert response.content == PATH.read_bytes()
    assert Client().get("/api/v1/nothing").json()["status"] == 404
