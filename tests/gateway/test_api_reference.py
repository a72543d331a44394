"""Do the pages of the management API say what openapi.yaml says, to everybody who may sign in?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from gateway.api_reference import Member, Operation, read_reference
from tests.console_people import finance, operator, viewer


@pytest.fixture(scope="module")
def document() -> Any:
    text = (Path(settings.BASE_DIR) / "gateway" / "openapi.yaml").read_text()
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.fixture(scope="module")
def operations(document: Any) -> dict[str, Operation]:
    return {
        operation.name: operation
        for group in read_reference(document)
        for operation in group.operations
    }  # fmt: skip


def named(members: tuple[Member, ...]) -> dict[str, Member]:
    return {member.name: member for member in members}


def test_every_operation_is_there_with_what_it_is_sent_and_answers(
    document: Any, operations: dict[str, Operation]
) -> None:
    described = {
        one["operationId"]: (method.upper(), path, one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }
    assert set(operations) == set(described)
    for name, operation in operations.items():
        method, path, one = described[name]
        assert (operation.method, operation.path, operation.title) == (method, path, one["summary"])
        assert len(operation.parameters) == len(one.get("parameters", ()))
        assert bool(operation.sent) == ("requestBody" in one), name
        json_answer = one["responses"].get(operation.status, {}).get("content", {}).get("application/json")
        assert bool(operation.answered) == (json_answer is not None), name
        for member in (*operation.parameters, *operation.sent, *operation.answered):
            assert member.kind, (name, member)


def test_members_are_told_in_words(operations: dict[str, Operation]) -> None:
    sent = named(operations["create_provider"].sent)
    assert sent["auth_style"].choices == ("bearer", "api-key", "x-api-key", "none")
    assert (sent["name"].kind, sent["name"].is_required) == ("text, at most 100 characters", True)
    assert "credential_state" not in sent
    assert sent["extra_headers"].kind.startswith("object of text")
    answered = named(operations["list_tenants"].answered)
    assert (answered["items"].kind, answered["items[].id"].kind) == ("list of object", "id")
    assert answered["next"].kind == "text or null"
    assert "empty" in named(operations["create_tenant"].sent)["retention_limit"].choices
    assert named(operations["change_tenant"].parameters)["If-Match (header)"].kind == "text"


def test_what_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}
    described = {"operationId": "walk", "tags": ["nodes"], "responses": {"200": answer}}
    document = {"paths": {"/n": {"get": described}}, "components": {"schemas": {"Node": node}}}
    ((operation,),) = [group.operations for group in read_reference(document)]
    assert [member.name for member in operation.answered] == ["next", "next.next", "next.next.next"]


@pytest.mark.django_db
def test_the_pages_lead_from_the_list_to_an_operation() -> None:
    page = finance().get("/api/v1/docs").content.decode()
    for client in (operator(), finance(), viewer()):
        home = client.get("/").content.decode()
        assert 'href="/api/v1/docs"' in home, "whoever may read it finds it in the menu"
    assert 'href="/api/v1/docs/rate-limits#change_rate_limit"' in page
    assert "/management-tokens" not in page, "only who may issue tokens is led there"
    group = viewer().get("/api/v1/docs/rate-limits").content.decode()
    assert 'id="change_rate_limit"' in group
    assert "<code>stale-row</code>" in group
    assert viewer().get("/api/v1/docs/nothing").status_code == 404
