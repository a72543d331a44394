"""How is a configuration file put into force? Prints the plan; `--plan` only prints it.

Writes: through gateway/configuration_file. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from gateway.configuration_file.applying import apply_configuration
from gateway.configuration_file.format import read_configuration
from gateway.configuration_file.outcome import Outcome
from gateway.configuration_file.pruning import owner_of, prune
from gateway.configuration_file.values import FileError
from gateway.database_access import with_database


class Command(BaseCommand):
    help = "Make providers, models, deployments, prices, policies, tenants and keys agree with a YAML file."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-f", "--file", required=True, help="the file, or - for standard input")
        parser.add_argument("--plan", action="store_true", help="print what would be done and do nothing")
        parser.add_argument(
            "--prune", action="store_true", help="remove what this file created and no longer names"
        )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        is_plan: bool = options["plan"]
        path = Path.cwd() / "stdin" if options["file"] == "-" else Path(options["file"])
        try:
            text = sys.stdin.read() if options["file"] == "-" else path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise CommandError(
                f"{path}: {getattr(failure, 'strerror', None) or 'not a UTF-8 text'}"
            ) from None
        try:
            file = read_configuration(text, folder=path.resolve().parent)
            with transaction.atomic():
                outcome = apply_configuration(file, owner=owner_of(path))
                if options["prune"]:
                    prune(file, owner=owner_of(path), outcome=outcome)
                transaction.set_rollback(is_plan)
        except FileError as refusal:
            raise CommandError(
                f"{path}: nothing was changed\n" + "\n".join(f"  {p}" for p in refusal.problems)
            ) from None
        self.report(outcome, is_plan=is_plan)

    def report(self, outcome: Outcome, *, is_plan: bool) -> None:
        for step in outcome.steps:
            self.stdout.write(str(step))
        changes = sum(step.action != "nothing" for step in outcome.steps)
        self.stdout.write(
            f"{changes} {'change' if changes == 1 else 'changes'} {'planned' if is_plan else 'made'}"
        )
        if not is_plan:
            for name, secret in outcome.secrets.items():
                self.stdout.write(f"secret of {name} (shown once): {secret}")
        for warning in outcome.warnings:
            self.stderr.write(f"remark: {warning}")
