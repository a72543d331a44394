"""How does a script get an API key? The secret alone goes to standard output, once.

Writes: api_key, through policies.issuing. Creates no tenant and no project.
"""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway.database_access import with_database
from policies.errors import ConfigurationError
from policies.issuing import issue_key
from policies.models import Project, Tenant


class Command(BaseCommand):
    help = "Issue an API key and print its secret, which is shown only this once."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", required=True)
        parser.add_argument("--project", required=True)
        parser.add_argument("--name", required=True, help="unique among the project's current keys")
        parser.add_argument("--owner", default="", help="person or team to ask")
        parser.add_argument(
            "--pinned", action="store_true", help="no fallback, no substitution (evals, audits)"
        )
        parser.add_argument(
            "--model", action="append", default=[], help="allow only this model or policy; repeatable"
        )
        parser.add_argument(
            "--expires-at", type=dt.datetime.fromisoformat, help="like 2026-12-31T00:00:00+00:00"
        )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant.objects.filter(name=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"no such tenant: {options['tenant']}")
        project = Project.objects.filter(tenant=tenant, name=options["project"]).first()
        if project is None:
            raise CommandError(f"tenant {tenant} has no project {options['project']}")
        try:
            _, secret = issue_key(
                project=project,
                name=options["name"],
                actor="manage.py issue_key",
                owner=options["owner"],
                is_pinned=options["pinned"],
                allowed_models=options["model"],
                expires_at=options["expires_at"],
            )
        except ConfigurationError as refusal:
            raise CommandError(str(refusal)) from None
        self.stdout.write(secret)
