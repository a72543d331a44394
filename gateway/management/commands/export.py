"""How is the configuration written down as a file that `apply` takes?

Reads: everything that is configured. Never a secret.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from gateway.configuration_file.exporting import export_text
from gateway.database_access import with_database


class Command(BaseCommand):
    help = "Write the configuration to standard output, in the form that `apply` reads."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(export_text(), ending="")
