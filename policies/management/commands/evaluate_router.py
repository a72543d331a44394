"""Would the automatic router have routed these scored requests well? Prints one table, or JSON.

Reads: the files named, and the router tables in force when a database answers. Writes nothing. Every answer was scored
beforehand, so any routing can be replayed exactly.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from policies.autorouter.cross_validation import Calibrated, calibrate
from policies.autorouter.difficulty_learning import learn_difficulty
from policies.autorouter.evaluation import DEFAULT_BOOTSTRAP_COUNT, evaluate, list_mix
from policies.autorouter.learning import learn
from policies.autorouter.offline_rows import (
    FileError,
    Matrix,
    Prices,
    Row,
    build_matrix,
    list_evidence,
    list_examples,
    rate_models,
    read_prices,
    read_profiles,
    read_rows,
)
from policies.autorouter.tables import RouterTables
from policies.autorouter.timing import time_decisions
from policies.router_tables import find_active, read_tables

PRICES_NAME: Final = "prices.json"
PROFILES_NAME: Final = "public_profiles.json"
NAMES: Final = ("random", "cheapest", "best_single", "mix", "length", "current", "candidate", "oracle")
TITLES: Final = {
    "random": "random",
    "cheapest": "cheapest model",
    "best_single": "best single model",
    "mix": "single-model mix",
    "length": "prompt length",
    "current": "current tables",
    "candidate": "candidate tables",
    "oracle": "oracle",
}
DESCRIPTION: Final = """\
Replay scored requests under the automatic router and print how good every routing would have been.

FILE holds one JSON object a line: id, source, task, prompt, score {model: 0..1}, split, and where known out_chars
{model: characters}. The task is what a company would call a workload. Candidate tables are learnt from --train, else
from the train rows of FILE itself; a task that the training rows lack counts as unseen.

Keys of --fail-under (figures of the candidate tables, from the JSON; savings are shares of the best single model's
cost, at 95, 98 and 100 % of its quality):
  aiq  gain  best_quality  savings_at_95  savings_at_98  savings_at_100  apgr  cpt50  cpt80
  aiq_over_mix  best_quality_over_mix   lead over the best mix of single models (chosen on the training rows)
  default_quality_ratio  default_saving the slider's default, against the best single model
  default_quality  best_single_quality  row_count  model_count  unseen_row_share
  decision_p50_us_200_words  decision_p99_us_200_words  (and _2000_words; processor time)
and any figure of another row by its path, for example rows.mix.aiq. A VALUE may be a percentage, savings_at_95=85%,
and is read as one when it is more than 1.5 where the figure is a share.

How the slider's default was found: cross_validation (in the JSON) lists what each tau came to on training rows that
were held out, as shares of the best single model's quality and cost; proven_default is what was chosen there.
"""


class Command(BaseCommand):
    help = "Replay scored requests under the automatic router, beside simple baselines."
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """Keep the line breaks of the description."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.description = DESCRIPTION
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.jsonl.gz")
        parser.add_argument("--train", type=Path, metavar="FILE.jsonl.gz", help="rows to learn from")
        parser.add_argument(
            "--split", help='rows of FILE to judge on; "all" for every row (default test, else all but train)'
        )
        parser.add_argument("--prices", type=Path, metavar="FILE", help=f"default: {PRICES_NAME} beside FILE")
        parser.add_argument(
            "--profiles", type=Path, metavar="FILE", help=f"default: {PROFILES_NAME} beside FILE, if there"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
        parser.add_argument(
            "--fail-under",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="exit with 1 when a figure is less; may be given several times",
        )
        parser.add_argument(
            "--bootstrap",
            type=int,
            default=DEFAULT_BOOTSTRAP_COUNT,
            metavar="COUNT",
            help=f"resamples for the intervals (default {DEFAULT_BOOTSTRAP_COUNT}, 0 for none)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        limits = [_read_limit(text) for text in options["fail_under"]]
        if options["bootstrap"] < 0:
            raise CommandError("--bootstrap is a number of resamples")
        try:
            result = run(
                options["file"],
                train_path=options["train"],
                split=options["split"],
                prices_path=options["prices"],
                profiles_path=options["profiles"],
                bootstrap_count=options["bootstrap"],
            )
        except FileError as error:
            raise CommandError(str(error)) from error
        missed = [_describe_miss(result, key, least) for key, least in limits]
        result["missed"] = [text for text in missed if text]
        self.stdout.write(json.dumps(result, indent=2) if options["json"] else format_table(result))
        if result["missed"]:
            raise CommandError("; ".join(result["missed"]))


def run(
    path: Path,
    *,
    train_path: Path | None = None,
    split: str | None = None,
    prices_path: Path | None = None,
    profiles_path: Path | None = None,
    bootstrap_count: int = DEFAULT_BOOTSTRAP_COUNT,
) -> dict[str, Any]:
    """Learn, replay, and return the figures as JSON. Raises FileError."""
    prices = read_prices(prices_path or path.parent / PRICES_NAME)
    profiles = _read_profiles(profiles_path, path.parent)
    split, tested = _read_tested(path, split)
    matrix = build_matrix(tested, prices)
    training = read_rows(path, "train") if train_path is None else _read_training(train_path)
    priors = RouterTables(ratings=rate_models(matrix.deployments, profiles))
    compared = _lay_out(training, matrix, prices)
    candidate, steps = learn_tables(training, priors, compared)
    current, origin = _find_current(priors)
    # Chosen in hindsight where the training rows know too few of the candidates.
    mix = list_mix(compared or matrix)
    result = evaluate(matrix, mix=mix, current=current, candidate=candidate, bootstrap_count=bootstrap_count)
    result |= time_decisions(candidate, clock_ns=time.thread_time_ns, deployments=matrix.deployments)
    return {
        "file": path.name,
        "train": (train_path or path).name,
        "split": split,
        "training_row_count": len(training),
        **_rounded(result),
        "mix_models": list(mix),
        "is_mix_chosen_in_hindsight": compared is None,
        "proven_default": None if candidate.default is None else candidate.default._asdict(),
        "cross_validation": [_rounded(step._asdict()) for step in steps],
        "current_tables": origin,
        "has_difficulty": candidate.difficulty is not None,
        "left_out_models": list(matrix.left_out_models),
        "left_out_row_count": matrix.left_out_row_count,
    }


def learn_tables(training: Sequence[Row], priors: RouterTables, compared: Matrix | None) -> Calibrated:
    """Learn from every score of the rows, then from their words, then how far the default may go.

    `compared`: those of the rows that every candidate answered; None: there are none.
    """
    labels = {row.workload: row.task for row in training}
    tables = learn(list_evidence(training), priors=priors, now_unix_s=0.0, labels=labels)
    lesson = learn_difficulty(list_examples(training), tables=tables)
    unseen: dict[str, float] = {}
    if lesson is not None:
        tables = replace(tables, difficulty=lesson.model, memo={})
        unseen = dict(zip((row.prompt for row in training), lesson.unseen, strict=True))
    return Calibrated(tables, ()) if compared is None else calibrate(training, compared, tables, unseen)


def _read_tested(path: Path, split: str | None) -> tuple[str, list[Row]]:
    if split is not None:
        return split, read_rows(path, split)
    rows = read_rows(path)
    for name, chosen in (
        ("test", [row for row in rows if row.split == "test"]),
        ("all but train", [row for row in rows if row.split != "train"]),
    ):
        if chosen:
            return name, chosen
    raise FileError(f"{path}: no rows but train rows to judge on; see --split")


def _read_training(path: Path) -> list[Row]:
    """The train rows of a training file; all rows where none is marked so."""
    rows = read_rows(path)
    return [row for row in rows if row.split == "train"] or rows


def _read_profiles(path: Path | None, folder: Path) -> Mapping[str, Mapping[str, float]]:
    if path is not None:
        return read_profiles(path)
    beside = folder / PROFILES_NAME
    return read_profiles(beside) if beside.exists() else {}


def _lay_out(training: Sequence[Row], matrix: Matrix, prices: Prices) -> Matrix | None:
    """The training rows that the candidates answered; None where they know too few of the candidates."""
    try:
        return build_matrix(training, prices, matrix.models)
    except FileError:
        return None


def _find_current(priors: RouterTables) -> tuple[RouterTables, str]:
    """The tables in force with the candidates' ratings added; the ratings alone where there is no installation."""
    try:
        row = find_active()
    except DatabaseError:
        row = None
    if row is None:
        return priors, "shipped priors"
    tables = read_tables(row)
    # What is rated in force stands; the other candidates have their public ratings.
    return replace(tables, ratings={**priors.ratings, **tables.ratings}, memo={}), f"version {tables.version}"


def _read_limit(text: str) -> tuple[str, float]:
    key, mark, value = text.partition("=")
    try:
        least = float(value.strip().removesuffix("%")) / (100 if value.strip().endswith("%") else 1)
    except ValueError as error:
        raise CommandError(f"--fail-under takes KEY=VALUE, not '{text}'") from error
    if not mark or not key:
        raise CommandError(f"--fail-under takes KEY=VALUE, not '{text}'")
    return key.strip(), least


def _describe_miss(result: Mapping[str, Any], key: str, least: float) -> str:
    """Say what is missed, or nothing. A figure that this file does not have is missed too."""
    found: Any = result
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return f"{key}: this evaluation has no such figure"
    if least > 1.5 and not key.startswith("decision_") and not key.endswith("_count"):
        least /= 100
    return f"{key} is {found:.5g}, less than {least:.5g}" if not found >= least else ""


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 9 if abs(value) < 0.01 else 5)
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    return value


def format_table(result: Mapping[str, Any]) -> str:
    """Return the figures for people."""
    lines = [
        f"{result['file']}, split {result['split']}: {result['row_count']:,} requests, {result['model_count']} models;"
        f" learnt from {result['training_row_count']:,} rows of {result['train']}",
        "",
        f"{'':<20}{'quality':>9}{'AIQ':>9}{'gain':>9}{'saved at 95':>13}{'98':>9}{'100 %':>9}"
        f"{'APGR':>8}{'CPT50':>8}{'CPT80':>8}",
    ]
    for name in NAMES:
        row = result["rows"][name]
        quality = row.get("quality", row.get("best_quality"))
        cells = [
            _cell(quality, 9, "{:.4f}"),
            _cell(row.get("aiq"), 9, "{:.4f}"),
            _cell(row.get("gain"), 9, "{:+.1%}"),
            _cell(row.get("savings_at_95"), 13, "{:.1%}"),
            _cell(row.get("savings_at_98"), 9, "{:.1%}"),
            _cell(row.get("savings_at_100"), 9, "{:.1%}"),
            _cell(row.get("apgr"), 8, "{:.3f}"),
            _cell(row.get("cpt50"), 8, "{:.1%}"),
            _cell(row.get("cpt80"), 8, "{:.1%}"),
        ]
        lines.append(f"{TITLES[name]:<20}{''.join(cells)}  {row.get('model', '')}".rstrip())
    low, high = result["intervals"].get("aiq", (None, None))
    if low is not None:
        lead_low, lead_high = result["intervals"]["aiq_over_mix"]
        lines += [
            "",
            f"95 % intervals: AIQ {low:.4f} to {high:.4f}, lead over the mix {lead_low:+.4f} to {lead_high:+.4f}",
        ]
    lines += [
        "",
        f"slider at its default: {result['default_quality_ratio']:.1%} of the best single model's quality,"
        f" {result['default_saving']:.1%} of its cost saved",
        _proof_line(result),
        f"requests of unseen workloads: {result['unseen_row_share']:.0%}; current tables: {result['current_tables']};"
        f" mix of {', '.join(result['mix_models'])}",
        "one decision among 30 models (processor time): "
        + "; ".join(
            f"{words} words p50 {result[f'decision_p50_us_{words}_words']:.0f} us,"
            f" p99 {result[f'decision_p99_us_{words}_words']:.0f} us"
            for words in (200, 2000)
        ),
    ]
    if result["left_out_models"] or result["left_out_row_count"]:
        lines.append(
            f"left out: {result['left_out_row_count']} rows without all scores; models without a price or with too few"
            f" scores: {', '.join(result['left_out_models']) or 'none'}"
        )
    lines += [f"MISSED: {text}" for text in result["missed"]]
    return "\n".join(lines)


def _proof_line(result: Mapping[str, Any]) -> str:
    """Say how the default was found."""
    proven = result["proven_default"]
    if proven is None:
        return "the default was not cross-validated: too few training rows that all candidates answered"
    step = next(step for step in result["cross_validation"] if step["tau"] == proven["tau"])
    return (
        f"cross-validated on the training rows: tau {step['tau']:.3f}, where quality was {-step['loss']:+.1%}"
        f" ± {step['error']:.1%} and {step['saving']:.1%} was saved"
    )


def _cell(value: float | None, width: int, form: str) -> str:
    return ("-" if value is None else form.format(value)).rjust(width)
