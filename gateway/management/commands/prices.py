"""How does an operator bring list prices in, compare lists, and price old requests? `prices sync|compare|rerate`.

Reads: a file or the package genai-prices, unpriced records. Writes: a proposal, through billing.price_proposals, never
a price; adjustments, through billing.rerating.
"""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import price_proposals, rerating
from billing.comparing_prices import compare_sources
from billing.models import PriceProposal
from billing.money import format_usd
from billing.price_sources import csv_file, genai, litellm
from billing.price_sources.listing import Source, SourceError
from billing.rate_changes import list_changes
from billing.rerating import Question
from gateway.database_access import with_database
from policies.errors import InvalidValueError
from policies.models import Deployment

NEEDS_FILE = (litellm.KIND, csv_file.KIND)


class Command(BaseCommand):
    help = (
        "Propose prices from a list (sync), or show where lists and the prices in force disagree (compare)."
    )
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        sync = commands.add_parser("sync", help="make a proposal; nothing takes effect until it is approved")
        sync.add_argument("--from", dest="kind", required=True, choices=[genai.KIND, *NEEDS_FILE])
        sync.add_argument("file", nargs="?", type=Path, help="for litellm-json and csv")
        compare = commands.add_parser(
            "compare", help="one line for each rate that two of them state differently"
        )
        compare.add_argument("--litellm-json", type=Path, help="compare with this file too")
        compare.add_argument("--csv", type=Path, help="compare with this file too")
        rerate = commands.add_parser(
            "rerate", help="price requests that had no price; shows what it would do"
        )
        rerate.add_argument(
            "--from-day", required=True, type=dt.date.fromisoformat, help="UTC, like 2026-01-31"
        )
        rerate.add_argument("--to-day", type=dt.date.fromisoformat, help="with this day; left out: today")
        rerate.add_argument(
            "--take-later-price",
            action="store_true",
            help="requests from before their deployment's first price are charged at that one",
        )
        rerate.add_argument("--apply", action="store_true", help="do it")
        rerate.add_argument("--reason", default="", help="stands with every adjustment; needed with --apply")
        for command in (sync, compare):
            command.add_argument(
                "--match",
                action="append",
                default=[],
                metavar="DEPLOYMENT=PROVIDER/MODEL",
                help="which entry of genai-prices is meant, where it cannot be told; repeatable",
            )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["command"] == "rerate":
                self._rerate(options)
            elif options["command"] == "sync":
                self._sync(_read_source(options["kind"], options["file"], options["match"]))
            else:
                files = {litellm.KIND: options["litellm_json"], csv_file.KIND: options["csv"]}
                sources = [_read_source(genai.KIND, None, options["match"])]
                sources += [_read_source(kind, path, []) for kind, path in files.items() if path is not None]
                self._compare(sources)
        except SourceError as refusal:
            raise CommandError(f"nothing is proposed:\n{refusal}") from None

    def _sync(self, source: Source) -> None:
        proposal = price_proposals.make_proposal(source, actor="manage.py prices sync", now=timezone.now())
        rows = list(proposal.rows.select_related("deployment", "compared_price"))
        for row in rows:
            begins = f", from {row.effective_from:%Y-%m-%d %H:%M} UTC" if row.effective_from else ""
            self.stdout.write(f"{row.deployment} as {row.listed_as}{begins}")
            for change in list_changes(row.compared_price.rates if row.compared_price else None, row.rates):
                if not change.is_same:
                    doubt = (
                        "  (a slip? more than tenfold, or dearer than any list price)"
                        if change.is_doubtful
                        else ""
                    )
                    before, after = (
                        "not stated" if rate is None else rate for rate in (change.before, change.after)
                    )
                    self.stdout.write(f"    {change.name}: {before} -> {after}{doubt}")
            for note in row.notes:
                self.stdout.write(f"    note: {note}")
        self._say_findings(proposal)
        if rows:
            self.stdout.write(
                f"Proposal {proposal.pk}, {len(rows)} of {len(rows) + len(proposal.findings)} deployments. Nothing has"
                f" changed: approve it at /prices/proposals/{proposal.pk}"
            )
        else:
            self.stdout.write("Nothing to approve.")

    def _rerate(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        last_day = options["to_day"] or now.date()
        if last_day < options["from_day"]:
            raise CommandError("--to-day is before --from-day")
        question = Question(options["from_day"], last_day, options["take_later_price"])
        if options["apply"]:
            try:
                run = rerating.rerate(
                    question, actor="manage.py prices rerate", reason=options["reason"], now=now
                )
            except InvalidValueError as refusal:
                raise CommandError(str(refusal)) from None
            self.stdout.write(
                f"Run {run.pk} priced {run.request_count:,} requests, {format_usd(run.cost_nanousd)};"
                f" {run.left_count:,} still have no price."
            )
            return
        outcome = rerating.preview(question)
        names = dict(Deployment.objects.values_list("pk", "name"))
        for pk, sums in outcome.by_deployment.items():
            said = f"{sums.request_count:,} requests, {format_usd(sums.cost_nanousd)}"
            self.stdout.write(f"{names.get(pk or 0, pk)}: {said}")
        if outcome.all.later_count:
            self.stdout.write(f"{outcome.all.later_count:,} of them at a price that began after them")
        self.stdout.write(
            f"{outcome.all.request_count:,} requests would cost {format_usd(outcome.all.cost_nanousd)};"
            f" {outcome.left_count:,} would stay without a price. Nothing has changed: add --apply --reason TEXT."
        )

    def _say_findings(self, proposal: PriceProposal) -> None:
        for finding in proposal.findings:
            self.stdout.write(f"{finding['deployment']}: {finding['finding']}: {finding['text']}")

    def _compare(self, sources: list[Source]) -> None:
        compared = compare_sources(sources, now=timezone.now())
        differing = 0
        for row in compared:
            for name, said in row.disagreements.items():
                values = ", ".join(f"{source} {rate or 'does not state it'}" for source, rate in said.items())
                self.stdout.write(f"{row.deployment}: {name}: {values}")
            for source, text in row.silent.items():
                self.stdout.write(f"{row.deployment}: {source}: {text}")
            differing += bool(row.disagreements)
        stated = sum(len(row.rates) > 1 for row in compared)
        self.stdout.write(
            f"{differing} of {stated} deployments that two or more of these price are priced differently:"
            f" in force, {', '.join(source.title for source in sources)}."
        )


def _read_source(kind: str, path: Path | None, matches: list[str]) -> Source:
    if kind == genai.KIND:
        if path is not None:
            raise CommandError("genai-prices is a package: it takes no file")
        chosen = {}
        for match in matches:
            deployment, _, entry = match.partition("=")
            if not entry or not Deployment.objects.filter(name=deployment).exists():
                raise CommandError(
                    f"--match {match}: write DEPLOYMENT=PROVIDER/MODEL, with a deployment that exists"
                )
            chosen[deployment] = entry
        return genai.GenaiPrices(chosen)
    if path is None:
        raise CommandError(f"--from {kind} needs a file")
    if matches:
        raise CommandError("--match is for genai-prices")
    try:
        raw = path.read_bytes()
    except OSError as failure:
        raise CommandError(f"{path} cannot be read: {failure.strerror}") from None
    if kind == litellm.KIND:
        return litellm.read_file(raw, name=path.name)
    names = set(Deployment.objects.values_list("name", flat=True))
    return csv_file.read_file(raw, name=path.name, deployments=names)
