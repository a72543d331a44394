"""How does a script get a management token without a browser? The secret alone goes to standard output, once.

Writes: management_token, through policies.management_tokens.
"""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.database_access import with_database
from policies.errors import ConfigurationError
from policies.management_tokens import Scope, issue_token


class Command(BaseCommand):
    help = "Issue a management token for /api/v1 and print its secret, which is shown only this once."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="stands in the audit log; never given twice")
        parser.add_argument(
            "--scope",
            action="append",
            required=True,
            choices=[scope.value for scope in Scope],
            help="what it may do; repeatable",
        )
        parser.add_argument(
            "--expires-at", type=dt.datetime.fromisoformat, help="like 2026-12-31T00:00:00+00:00"
        )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _, secret = issue_token(
                name=options["name"],
                scopes=options["scope"],
                actor="manage.py issue_token",
                expires_at=options["expires_at"],
            )
        except ConfigurationError as refusal:
            raise CommandError(str(refusal)) from None
        self.stdout.write(secret)
