"""How are statements listed, drafted and written to files without the console? `manage.py statements list|draft|write`.

Reads: invoices. Writes: drafts, through `billing.invoicing`; files. Issuing is left to `manage.py close_period`, the
console and the management API. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import invoicing, statement_listing
from billing.drafting import last_day_of, list_billed_tenants
from billing.issued_pdfs import find_pdf
from billing.minor_units import minor_for_people
from billing.models import Invoice
from billing.statement_document import from_json
from billing.statement_files import file_name, write_csv, write_json
from billing.statement_pdf import write_pdf
from billing.summing_meters import sum_meters
from gateway.database_access import with_database
from policies.errors import ConfigurationError
from policies.models import Tenant

WRITERS = {"pdf": write_pdf, "csv": write_csv, "json": write_json}


class Command(BaseCommand):
    help = "List statements, bring the drafts of a month up to date, or write statements to files."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        listing = commands.add_parser("list", help="one line a statement, the newest month first")
        listing.add_argument("--month", type=read_month, help="like 2025-10")
        drafting = commands.add_parser("draft", help="draft a month of all tenants that have charges")
        drafting.add_argument("month", type=read_month, help="like 2025-10")
        writing = commands.add_parser("write", help="write the issued statements of a month to files")
        writing.add_argument("month", type=read_month, help="like 2025-10")
        writing.add_argument("--format", choices=sorted(WRITERS), default="pdf")
        writing.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="left out: this one")

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        if options["command"] == "list":
            self._list(options["month"])
        elif options["command"] == "draft":
            self._draft(options["month"])
        else:
            self._write(options["month"], options["format"], options["to"])

    def _list(self, month: dt.date | None) -> None:
        rows = Invoice.objects.select_related("tenant").order_by("-month", "tenant__name", "kind", "number")
        for row in rows if month is None else rows.filter(month=month):
            amount = minor_for_people(row.total_minor, row.currency, row.minor_digits)
            number = row.number_text or "-"
            self.stdout.write(f"{row.month:%Y-%m}  {number}  {row.tenant}  {row.state}  {amount}")

    def _draft(self, month: dt.date) -> None:
        sum_meters(first_day=month, last_day=last_day_of(month))
        refused = 0
        for tenant in Tenant.objects.filter(pk__in=list_billed_tenants(month)).order_by("name"):
            try:
                row = invoicing.draft(
                    tenant=tenant, month=month, actor="manage.py statements", now=timezone.now()
                )
            except ConfigurationError as refusal:
                refused += 1
                self.stderr.write(f"{tenant}: {refusal}")
                continue
            if row is not None:
                amount = minor_for_people(row.total_minor, row.currency, row.minor_digits)
                self.stdout.write(f"{tenant}  {row.state}  {amount}")
        if refused:
            raise CommandError(f"{refused} statements were not drafted, see above")

    def _write(self, month: dt.date, file_format: str, folder: Path) -> None:
        rows = Invoice.objects.filter(month=month, number__isnull=False).order_by("kind", "number")
        for row in rows:
            # As it was issued, whatever became of it since: the PDF's bytes are those of then.
            document = from_json(row.document)
            kept = find_pdf(row) if file_format == "pdf" else None
            content = WRITERS[file_format](document) if kept is None else kept
            if file_format == "pdf" and hashlib.sha256(content).hexdigest() != row.pdf_sha256:
                self.stderr.write(f"{row}: this version writes another PDF than the one that was issued")
            path = folder / file_name(document, file_format)
            try:
                path.write_bytes(content)
            except OSError as failure:
                raise CommandError(f"{path} cannot be written: {failure.strerror}") from None
            self.stdout.write(str(path))


def read_month(text: str) -> dt.date:
    """The first day of a month that is written as 2025-10."""
    month = statement_listing.read_month(text)
    if month is None:
        raise ArgumentTypeError(f"{text!r}: write the month like 2025-10")
    return month
