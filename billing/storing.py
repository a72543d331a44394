"""How does a batch of requests become rows? Records, attempts, rollups, feedback and open lines, once each.

Writes: request_record, attempt_record and their sums (`rollups`), open_intent, feedback, evidence of failed checks,
labels (`labelling`), and what budgets have spent (`budget_settling`). Call inside a transaction.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import DatabaseError, connection, transaction

from billing.budget_settling import begin_settling, list_counted, settle_records
from billing.copy_rows import ATTEMPT_COLUMNS, REQUEST_COLUMNS, dump_json, write_rows
from billing.journal_evidence import Feedback
from billing.journal_files import SourceLine
from billing.journal_lines import Intent, Outcome
from billing.journal_values import LineError
from billing.labelling import label_records
from billing.periods import hold_open_period
from billing.record_charges import begin_charging
from billing.rollups import CREATE_TEMPORARY, EMPTY_TEMPORARY, insert_new

ROWS_PER_WRITE = 256
# What is wrong with the data, as opposed to with the server: out of range, constraint, too large.
POISON_CLASSES = frozenset({"22", "23", "54"})


class Pair(NamedTuple):
    """A request whose intent and outcome are both known. `sources` are its lines, should it be refused."""

    intent: Intent
    outcome: Outcome
    sources: tuple[SourceLine, ...]


class OpenLine(NamedTuple):
    """One of a request's two lines, kept until the other comes. `line` is its JSON, cleaned."""

    id: UUID
    started_at: dt.datetime
    source: SourceLine
    line: dict[str, Any]


class Refused(NamedTuple):
    """A line that cannot be stored, and why."""

    source: SourceLine
    reason: str


REFERENCED = {
    "tenant": "policies_tenant",
    "project": "policies_project",
    "key": "policies_apikey",
    "policy": "policies_policy",
    "policy version": "policies_policyversion",
    "deployment": "policies_deployment",
    "price": "billing_price",
}


class KnownIds:
    """Which ids exist, remembered: a line that names a row that is gone must not stop the others."""

    def __init__(self) -> None:
        self._known: dict[str, set[int]] = {name: set() for name in REFERENCED}

    def forget(self) -> None:
        """Look again at everything: a row may have been deleted since."""
        for ids in self._known.values():
            ids.clear()

    def split(self, pairs: Sequence[Pair]) -> tuple[list[Pair], list[tuple[Pair, str]]]:
        """Divide into pairs whose ids all exist, and the others with the reason."""
        missing = self._look_up(pairs)
        if not any(missing.values()):
            return list(pairs), []
        usable: list[Pair] = []
        others: list[tuple[Pair, str]] = []
        for pair in pairs:
            gone = [f"{name} {row_id}" for name, row_id in _references(pair) if row_id in missing[name]]
            if gone:
                others.append((pair, f"there is no {gone[0]}"))
            else:
                usable.append(pair)
        return usable, others

    def _look_up(self, pairs: Sequence[Pair]) -> dict[str, set[int]]:
        wanted: dict[str, set[int | None]] = {
            "tenant": {pair.intent.tenant_id for pair in pairs},
            "project": {pair.intent.project_id for pair in pairs},
            "key": {pair.intent.api_key_id for pair in pairs},
            "policy": {pair.intent.policy_id for pair in pairs},
            "policy version": {pair.intent.policy_version_id for pair in pairs},
            "deployment": {pair.outcome.deployment_id for pair in pairs},
            "price": {pair.outcome.price_id for pair in pairs},
        }
        wanted["deployment"].update(one.deployment_id for pair in pairs for one in pair.outcome.attempts)
        wanted["price"].update(one.price_id for pair in pairs for one in pair.outcome.attempts)
        missing: dict[str, set[int]] = {}
        for name, ids in wanted.items():
            unseen = {row_id for row_id in ids if row_id is not None} - self._known[name]
            if unseen:
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SELECT id FROM {REFERENCED[name]} WHERE id = ANY(%s)",  # noqa: S608  (a constant)
                        [sorted(unseen)],
                    )
                    self._known[name].update(row[0] for row in cursor.fetchall())
            missing[name] = unseen - self._known[name]
        return missing


def _references(pair: Pair) -> list[tuple[str, int | None]]:
    intent, outcome, _ = pair
    return [
        ("tenant", intent.tenant_id),
        ("project", intent.project_id),
        ("key", intent.api_key_id),
        ("policy", intent.policy_id),
        ("policy version", intent.policy_version_id),
        ("deployment", outcome.deployment_id),
        ("price", outcome.price_id),
        *(("deployment", attempt.deployment_id) for attempt in outcome.attempts),
        *(("price", attempt.price_id) for attempt in outcome.attempts),
    ]


def store_pairs(
    pairs: Sequence[Pair], *, meanwhile: Callable[[], None] | None = None
) -> tuple[int, list[Refused]]:
    """Insert what is new with its rollups; return how many requests were new, and what was refused.

    `meanwhile` is called when PostgreSQL has all rows and begins to work on them: Python has nothing to do then.
    A row that the database refuses costs only itself: the batch is halved until it stands alone. Errors of the
    server (not of the data) are raised.
    """
    if not pairs:
        return 0, []
    try:
        with transaction.atomic():
            return _copy_and_insert(pairs, meanwhile)
    except DatabaseError as error:
        if not is_poison(error):
            raise
        if len(pairs) == 1:
            reason = f"the database refuses it: {str(error).splitlines()[0]}"
            return 0, [Refused(source, reason) for source in pairs[0].sources]
    middle = len(pairs) // 2
    first_count, first_refused = store_pairs(pairs[:middle], meanwhile=meanwhile)
    second_count, second_refused = store_pairs(pairs[middle:], meanwhile=meanwhile)
    return first_count + second_count, first_refused + second_refused


def is_poison(error: DatabaseError) -> bool:
    """Is it the data that is wrong, and not the server?"""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return state[:2] in POISON_CLASSES


def _copy_and_insert(
    pairs: Sequence[Pair], meanwhile: Callable[[], None] | None
) -> tuple[int, list[Refused]]:
    refused: list[Refused] = []
    attempts: list[str] = []
    charges = begin_charging([pair[:2] for pair in pairs])
    labels = label_records([pair.intent for pair in pairs])
    with connection.cursor() as cursor:
        cursor.execute(CREATE_TEMPORARY)
        cursor.execute(EMPTY_TEMPORARY)
        # Rollups have foreign keys, deferred by Django: a violation has to show here, not at the commit.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with (
            connection.wrap_database_errors,
            cursor.copy(f"COPY new_request ({REQUEST_COLUMNS}) FROM STDIN") as copy,
        ):
            # PostgreSQL reads while the next rows are written out: two processors work.
            for start in range(0, len(pairs), ROWS_PER_WRITE):
                rows: list[str] = []
                end = start + ROWS_PER_WRITE
                for pair, own_labels in zip(pairs[start:end], labels[start:end], strict=True):
                    try:
                        row, own = write_rows(*pair[:2], charges.find(*pair[:2]), own_labels)
                    except LineError as refusal:
                        refused += [Refused(source, str(refusal)) for source in pair.sources]
                        continue
                    rows.append(row)
                    attempts.append(own)
                copy.write("".join(rows))
        with (
            connection.wrap_database_errors,
            cursor.copy(f"COPY new_attempt ({ATTEMPT_COLUMNS}) FROM STDIN") as copy,
        ):
            copy.write("".join(attempts))
        hold_open_period()
        scopes = begin_settling()
        of_deployments = list_counted([pair[:2] for pair in pairs], scopes)
        if meanwhile is not None:
            meanwhile()
        inserted, budgeted = insert_new(tenant_ids=scopes.tenant_ids, request_ids=of_deployments)
    if budgeted:
        settle_records([pair[:2] for pair in pairs], set(budgeted), scopes)
    return inserted, refused


def store_feedback(lines: Sequence[Feedback]) -> None:
    """Insert what callers said; what is there already stays."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_feedback (id, at, request_id, api_key_id, quality)"
            " SELECT * FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[], %s::bigint[], %s::float8[])"
            " ON CONFLICT DO NOTHING",
            [list(column) for column in zip(*lines, strict=True)],
        )


def store_failed_checks(pairs: Iterable[Pair]) -> None:
    """Insert evidence, quality 0, for every answer that failed a free check: once a request and model.

    Here and not from the records later: they are few, and the records do not keep what was checked.
    """
    failed = [
        (intent, attempt)
        for intent, outcome, _ in pairs
        for attempt in outcome.attempts
        if attempt.failed_check
    ]
    if not failed:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_evidence (source, at, request_id, pair_id, workload, task_type, model_id, quality,"
            " detail, output_tokens, latency_ms)"
            " SELECT 'check', f.at, f.request_id, '', f.workload, f.task_type, d.model_id, 0, f.detail,"
            " f.output_tokens, f.latency_ms"
            " FROM unnest(%s::uuid[], %s::timestamptz[], %s::text[], %s::text[], %s::bigint[], %s::text[],"
            " %s::bigint[], %s::float8[])"
            " AS f (request_id, at, workload, task_type, deployment_id, detail, output_tokens, latency_ms)"
            " JOIN policies_deployment d ON d.id = f.deployment_id ON CONFLICT DO NOTHING",
            [
                [intent.id for intent, _ in failed],
                [intent.started_at for intent, _ in failed],
                [_feature(intent, "workload", 16) for intent, _ in failed],
                [_feature(intent, "task_type", 40) for intent, _ in failed],
                [attempt.deployment_id for _, attempt in failed],
                [attempt.failed_check for _, attempt in failed],
                [attempt.usage.get("output_tokens") for _, attempt in failed],
                [attempt.duration_ms for _, attempt in failed],
            ],
        )


def _feature(intent: Intent, name: str, limit: int) -> str:
    value = intent.features.get(name)
    return value[:limit] if isinstance(value, str) else ""


def find_open_lines(ids: Iterable[UUID]) -> dict[UUID, tuple[str, dict[str, Any]]]:
    """The lines that wait for their other half: {id: (worker, line)}."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, worker, line::text FROM billing_openintent WHERE id = ANY(%s)", [list(ids)]
        )
        return {row[0]: (row[1], orjson.loads(row[2])) for row in cursor.fetchall()}


def find_recorded(lines: Sequence[OpenLine]) -> set[UUID]:
    """Which of these requests have their record already."""
    times = [line.started_at for line in lines]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM billing_requestrecord"
            " WHERE id = ANY(%s) AND started_at >= %s AND started_at <= %s",
            [[line.id for line in lines], min(times), max(times)],
        )
        return {row[0] for row in cursor.fetchall()}


def keep_open(lines: Sequence[OpenLine]) -> list[Refused]:
    """Keep lines whose other half has not come; return those that cannot be kept."""
    rows: list[tuple[OpenLine, str]] = []
    refused: list[Refused] = []
    for line in lines:
        try:
            rows.append((line, dump_json(line.line)))
        except LineError as refusal:
            refused.append(Refused(line.source, str(refusal)))
    return refused + _insert_open(rows)


def _insert_open(rows: Sequence[tuple[OpenLine, str]]) -> list[Refused]:
    """Insert in one statement; when the data is refused, in halves."""
    if not rows:
        return []
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO billing_openintent (id, worker, line)"
                " SELECT * FROM unnest(%s::uuid[], %s::text[], %s::jsonb[]) ON CONFLICT DO NOTHING",
                [
                    [line.id for line, _ in rows],
                    [line.source.worker for line, _ in rows],
                    [t for _, t in rows],
                ],
            )
        return []
    except DatabaseError as error:
        if not is_poison(error):
            raise
        if len(rows) == 1:
            return [Refused(rows[0][0].source, f"the database refuses it: {str(error).splitlines()[0]}")]
    middle = len(rows) // 2
    return _insert_open(rows[:middle]) + _insert_open(rows[middle:])


def forget_open(ids: Iterable[UUID]) -> None:
    """Delete the lines whose request has its record."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM billing_openintent WHERE id = ANY(%s)", [list(ids)])
