"""Who calls the management API in a test? Clients with a token of chosen scopes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from typing import Any

from django.test import Client

from policies.management_tokens import Scope, issue_token
from policies.models import ManagementToken

_numbers = itertools.count(1)


def make_token(scopes: Collection[str] = tuple(Scope), **fields: Any) -> tuple[ManagementToken, str]:
    fields.setdefault("name", f"token-{next(_numbers)}")
    return issue_token(scopes=scopes, actor="a test", **fields)


class Caller:
    """A program that speaks JSON. `secret` "" sends no token."""

    def __init__(self, secret: str = "", client: Client | None = None) -> None:
        self.client = client or Client()
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request; header names are written with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.generic(
            method,
            path if path.startswith("/") else f"/api/v1/{path}",
            b"" if body is None else json.dumps(body),
            content_type="application/json",
            headers={**self.headers, **named},
        )

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def read(self, path: str) -> Any:
        """The members of what must be there."""
        response = self.get(path)
        assert response.status_code == 200, response.content
        return response.json()


def caller_with(*scopes: str) -> Caller:
    """A caller whose token has these scopes; without any, all of them."""
    return Caller(make_token(scopes or tuple(Scope))[1])
