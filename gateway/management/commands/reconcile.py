"""Does a provider's file agree with what was recorded? `reconcile FILE --format F --provider NAME`.

Reads: the file, attempts. Writes: the bill and its days, through billing.provider_bill_runs.
"""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Sum
from django.utils import timezone

from billing import provider_bill_runs
from billing.models import BilledDay, ProviderBill
from billing.money import NANOUSD_PER_USD, format_usd
from billing.provider_bill_forms import read_columns
from billing.provider_bills.files import MAX_FILE_BYTES
from billing.provider_bills.reading import TITLES
from billing.reconciling import Tolerance
from gateway.database_access import with_database
from policies.errors import ConfigurationError
from policies.models import Provider

ACTOR = "manage.py reconcile"


class Command(BaseCommand):
    help = "Compare a provider's usage or cost file with what was recorded, day by day and model by model."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--format", dest="file_format", required=True, choices=list(TITLES))
        parser.add_argument("--provider", required=True, help="as it is called here")
        parser.add_argument("--account", default="", help="only this project, workspace or key of the file")
        parser.add_argument(
            "--column",
            action="append",
            default=[],
            metavar="OURS=THEIRS",
            help="of --format csv: which column is which, for example cost=Amount; repeatable",
        )
        parser.add_argument(
            "--match",
            action="append",
            default=[],
            metavar="NAME=UPSTREAM_MODEL",
            help="what the bills of this provider mean by a name; kept; repeatable",
        )
        parser.add_argument("--tolerance-percent", default="0.5", help="differences that are let pass")
        parser.add_argument("--tolerance-usd", default="0.01", help="at least so much a model and day")

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        provider = Provider.objects.filter(name=options["provider"]).first()
        if provider is None:
            known = ", ".join(Provider.objects.values_list("name", flat=True)) or "none"
            raise CommandError(f"there is no provider {options['provider']!r}; there are: {known}")
        now = timezone.now()
        try:
            bill, is_new = provider_bill_runs.import_bill(
                _read(options["file"]),
                file_name=options["file"].name,
                file_format=options["file_format"],
                provider=provider,
                account=options["account"],
                columns=read_columns(options["column"]),
                tolerance=_tolerance(options),
                actor=ACTOR,
                now=now,
            )
            for pair in options["match"]:
                name, _, model = pair.rpartition("=")
                provider_bill_runs.match_name(bill, name=name, upstream_model=model, actor=ACTOR, now=now)
        except ValidationError as refusal:
            raise CommandError("; ".join(refusal.messages)) from None
        except ConfigurationError as refusal:
            raise CommandError(f"nothing is kept:\n{str(refusal).replace('; ', chr(10))}") from None
        self._say(bill, is_new=is_new)

    def _say(self, bill: ProviderBill, *, is_new: bool) -> None:
        if not is_new:
            self.stdout.write("This file was compared before: it is the same bill, compared anew.")
        for note in bill.notes:
            self.stdout.write(f"note: {note}")
        for row in bill.days.exclude(verdict=BilledDay.Verdict.MATCHED):
            name = row.upstream_model or row.billed_as or "all models"
            self.stdout.write(f"{row.day} {name}: {row.get_verdict_display()}: {row.reason}")
        sums = bill.days.aggregate(there=Sum("billed_nanousd"), here=Sum("recorded_nanousd"))
        there = "no money stated" if sums["there"] is None else format_usd(int(sums["there"]))
        matched = bill.days.filter(verdict=BilledDay.Verdict.MATCHED).count()
        self.stdout.write(
            f"{matched} of {bill.days.count()} days of a model match. Billed {there}, recorded"
            f" {format_usd(int(sums['here'] or 0))}. Bill {bill.pk}, at /reconciliation/{bill.pk}"
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise CommandError(f"{path} cannot be read: {failure.strerror}") from None


def _tolerance(options: dict[str, Any]) -> Tolerance:
    try:
        percent, usd = Decimal(options["tolerance_percent"]), Decimal(options["tolerance_usd"])
        return Tolerance(percent / 100, int(usd * NANOUSD_PER_USD))
    except (InvalidOperation, ValueError, OverflowError):
        raise CommandError("--tolerance-percent and --tolerance-usd are numbers, such as 0.5") from None
