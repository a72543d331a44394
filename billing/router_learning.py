"""How does a new version of the router's tables come about? Evidence and running means -> a judged candidate.

Reads: evidence, workload_usage, the catalog. Writes: nothing itself, calls `evidence_collecting`, `workload_usage` and
`policies.router_tables`. A version is learnt from all evidence. What came since the version in force is cut into folds
besides; the same is learnt without each, and judged on it beside that version (`router_gate`), which has seen none of
it. The default of the slider is proven likewise, on all evidence (`policies.autorouter.cross_validation`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from billing.catalog_ratings import RouterNow, read_router_now
from billing.check_evidence import list_check_evidence
from billing.difficulty_examples import read_questions, teach_difficulty, tell_difficulties
from billing.evidence_collecting import collect_feedback
from billing.evidence_sizes import read_input_tokens, read_mean_input_tokens
from billing.models import Evidence as EvidenceRow
from billing.models import WorkloadUsage
from billing.router_gate import MIN_HELD_OUT, GateResult, Side, gate
from billing.workload_usage import Served, collect_workloads, read_served
from policies import router_tables
from policies.autorouter.answered import Judged, group_answers, route_answered
from policies.autorouter.cross_validation import MIN_REQUESTS, Held, find_default, walk_taus
from policies.autorouter.difficulty_learning import FOLDS, fold_of
from policies.autorouter.learning import Evidence, learn
from policies.autorouter.tables import ALL_WORKLOADS, Amount, Latency, RouterTables
from policies.models import RouterTable

# Learning from so many takes less than a second; from more, a task does it, away from a process that serves requests.
QUICK_EVIDENCE: Final = 5_000
# More tell the gate nothing new.
MAX_HELD_OUT: Final = 5_000
# Older evidence counts next to nothing (half after 90 days), and this many rows are read in a second.
MAX_EVIDENCE: Final = 200_000
MAX_OF_WORKLOAD: Final = 4_000
# Means over less time follow a changed prompt or a faster provider.
MEANS_DAYS: Final = 30
# Of fewer answers a mean says little; a mean that moved less than this is no news.
MIN_SERVED: Final = 20
NEWS_RATIO: Final = 0.2


class Learnt(NamedTuple):
    """The new version, or None and the reason why there is none."""

    table: RouterTable | None
    reason: str
    evidence_count: int


class _Row(NamedTuple):
    id: int
    evidence: Evidence
    fold_key: str
    request_id: uuid.UUID | None


def learn_version(*, now: dt.datetime, actor: str) -> Learnt:
    """Collect what came, learn a version of it, judge it, and put it into force where the setting says so."""
    collect_workloads(now=now)
    collect_feedback(now=now)
    router = read_router_now(now)
    since = now.date() - dt.timedelta(days=MEANS_DAYS)
    means = _read_means(since=since)
    chosen = _choose_evidence(router.row, has_news=_has_news(means.by_workload, router.tables))
    if chosen.reason:
        return Learnt(None, chosen.reason, len(chosen.rows))
    checks = list_check_evidence(now=now, router=router)
    labels = _labels()

    def learnt_from(rows: Iterable[_Row]) -> RouterTables:
        tables = learn(
            [*(row.evidence for row in rows), *checks],
            priors=router.tables,
            now_unix_s=now.timestamp(),
            labels=labels,
        )
        return means.put_into(tables)

    tables, judged = _learn_and_judge(chosen, router, learnt_from, since=since)
    table = router_tables.create_table(
        # Ratings are the catalog's: a version that kept them would outlive their being taken back.
        document=replace(tables, ratings={}).to_document(),
        actor=actor,
        note=_note(len(chosen.rows), chosen.fresh_count, len(means.by_workload)),
        gate={
            "passes": judged.passes,
            "is_thin": judged.is_thin,
            "reasons": list(judged.reasons),
            "numbers": dict(judged.numbers),
            "newest_evidence_id": max((row.id for row in chosen.rows), default=0),
        },
    )
    is_sure = table.state == RouterTable.State.CANDIDATE and not judged.is_thin
    if is_sure and router_tables.activates_itself():
        table = router_tables.activate(table=table, actor=actor)
    return Learnt(table, "", len(chosen.rows))


def _learn_and_judge(
    chosen: _Chosen,
    router: RouterNow,
    learnt_from: Callable[[Iterable[_Row]], RouterTables],
    *,
    since: dt.date,
) -> tuple[RouterTables, GateResult]:
    """Learn tables from all that was chosen, and say how the like of them does on what it was not learnt from."""
    questions = read_questions({row.evidence.pair_id for row in chosen.rows})
    deployments = router.as_deployments()
    tables = learnt_from(chosen.rows)
    taught = teach_difficulty(tables)
    tables = replace(tables, difficulty=taught.model, memo={})
    # Equal questions are in one fold, whichever run asked them.
    folds = {
        row.id: fold_of(
            questions[row.evidence.pair_id].text if row.evidence.pair_id in questions else row.fold_key
        )
        for row in chosen.rows
    }

    def learn_by_fold(held_out: Iterable[_Row]) -> list[RouterTables]:
        held_ids = {row.id for row in held_out}
        return [
            replace(
                learnt_from(row for row in chosen.rows if folds[row.id] != fold or row.id not in held_ids),
                difficulty=tables.difficulty,
                default=tables.default,
                memo={},
            )
            for fold in range(FOLDS)
        ]

    difficulties = tell_difficulties(questions, tables.difficulty, taught.unseen)
    judgements = _as_judged(chosen.rows, folds)
    mean_sizes = read_mean_input_tokens(since=since)
    groups = group_answers(judgements.values(), deployments, mean_sizes)
    if sum(len(group.requests) for group in groups) >= MIN_REQUESTS:
        by_fold = learn_by_fold(chosen.rows)
        held = [
            Held(route_answered(group, by_fold, difficulties).foreseen, group.scores, group.costs)
            for group in groups
        ]
        candidates = {deployment for group in groups for deployment in group.deployments}
        default = find_default(
            walk_taus(held), tuple(sorted(candidates, key=lambda deployment: deployment.id)), tables
        )
        tables = replace(tables, default=default, memo={})
    judged = gate(
        candidate=Side(learn_by_fold(chosen.held_out) if chosen.held_out else [], difficulties),
        current=Side(
            [router.tables] * FOLDS,
            tell_difficulties(questions, router.tables.difficulty, unseen={}),
            "the ratings alone" if router.row is None else "the version in force",
        ),
        held_out=[judgements[row.id] for row in chosen.held_out],
        deployments=deployments,
        mean_input_tokens=mean_sizes,
    )
    return tables, judged


def _as_judged(rows: Iterable[_Row], folds: Mapping[int, int]) -> dict[int, Judged]:
    """The judgements by row, those that are compared by cost with the length of their requests."""
    rows = list(rows)
    sizes = read_input_tokens(
        row.request_id for row in rows if row.request_id and row.evidence.source == "evaluation"
    )
    return {
        row.id: Judged(row.evidence, folds[row.id], sizes.get(row.request_id) if row.request_id else None)
        for row in rows
    }


class _Chosen(NamedTuple):
    """The evidence to learn from, what of it is held back to judge by, or why there is nothing to learn."""

    rows: list[_Row]
    held_out: list[_Row]
    fresh_count: int
    reason: str = ""


def _choose_evidence(active: RouterTable | None, *, has_news: bool) -> _Chosen:
    rows = _read_evidence()
    fresh = [row for row in rows if row.id > mark_of(active)]
    held_out = fresh[-MAX_HELD_OUT:]
    newest_mark = max((mark_of(row) for row in RouterTable.objects.defer("document")), default=0)
    has_new_evidence = bool(rows) and rows[-1].id > newest_mark
    if has_new_evidence and len(held_out) >= MIN_HELD_OUT:
        return _Chosen(rows, held_out, len(fresh))
    if has_news:
        # Too little to judge by is too little to learn from: the means are news, fresh judgements wait.
        return _Chosen([row for row in rows if row.id <= mark_of(active)], [], 0)
    if has_new_evidence:
        missing = MIN_HELD_OUT - len(fresh)
        return _Chosen(rows, [], len(fresh), f"{missing} more judgements are needed to judge a version by")
    return _Chosen(rows, [], len(fresh), "nothing has come since the newest version")


def is_quick() -> bool:
    """Say whether learning takes less than a second."""
    return EvidenceRow.objects.order_by()[: QUICK_EVIDENCE + 1].count() <= QUICK_EVIDENCE


def mark_of(row: RouterTable | None) -> int:
    """The newest evidence that a version was learnt from; 0: none."""
    return int((row.gate or {}).get("newest_evidence_id", 0)) if row is not None else 0


def count_new_evidence(active: RouterTable | None) -> int:
    """How many judgements the version in force has not been learnt from."""
    rows = EvidenceRow.objects.exclude(source=EvidenceRow.Source.CHECK)
    return rows.filter(id__gt=mark_of(active)).count()


def _read_evidence() -> list[_Row]:
    """The newest judgements, oldest first, without failed checks: `check_evidence` sets those in proportion.

    Of one workload the newest `MAX_OF_WORKLOAD`: its callers shall not outvote all others on a kind of task.
    """
    rows = (
        EvidenceRow.objects.exclude(source=EvidenceRow.Source.CHECK)
        .order_by("-id")
        .values_list(
            "id", "workload", "task_type", "model__name", "quality", "output_tokens", "latency_ms", "at",
            "pair_id", "source", "request_id",
        )[:MAX_EVIDENCE]
    )  # fmt: skip
    found: list[_Row] = []
    counts: Counter[str] = Counter()
    for pk, workload, task_type, model, quality, output_tokens, ms, at, pair_id, source, request_id in rows:
        counts[workload] += 1
        if workload and counts[workload] > MAX_OF_WORKLOAD:
            continue
        evidence = Evidence(
            workload,
            task_type,
            model,
            quality,
            output_tokens,
            ms,
            at.timestamp(),
            pair_id,
            source,  # type: ignore[arg-type]  # the column's choices
        )
        found.append(_Row(pk, evidence, pair_id or str(request_id or pk), request_id))
    found.reverse()
    return found


class _Means(NamedTuple):
    """What records say about output and latency, by (workload, model), (type, model) and (model,)."""

    by_workload: Mapping[tuple[str, ...], Served]
    by_type: Mapping[tuple[str, ...], Served]
    by_model: Mapping[tuple[str, ...], Served]

    def put_into(self, tables: RouterTables) -> RouterTables:
        """Return the tables with these means over those of the evidence: records are many, judgements few."""
        latencies = {
            **tables.latencies,
            **{
                (workload, model): _latency(one)
                for (workload, model), one in self.by_workload.items()
                if one.latency_count >= MIN_SERVED
            },
            **{
                (ALL_WORKLOADS, model): _latency(one)
                for (model,), one in self.by_model.items()
                if one.latency_count >= MIN_SERVED
            },
        }
        return replace(
            tables,
            workload_output_tokens={**tables.workload_output_tokens, **_amounts(self.by_workload)},
            type_output_tokens={**tables.type_output_tokens, **_amounts(self.by_type)},
            latencies=latencies,
            memo={},
        )


def _read_means(*, since: dt.date) -> _Means:
    return _Means(
        read_served(since=since),
        read_served(since=since, by=("task_type",)),
        read_served(since=since, by=()),
    )


def _amounts(served: Mapping[tuple[str, ...], Served]) -> dict[tuple[str, str], Amount]:
    return {
        (key[0], key[1]): Amount(one.output_tokens / one.output_count, float(one.output_count))
        for key, one in served.items()
        if one.output_count
    }


def _latency(one: Served) -> Latency:
    return Latency(one.p50_ms, one.p95_ms, float(one.latency_count))


def _has_news(served: Mapping[tuple[str, ...], Served], in_force: RouterTables) -> bool:
    """Say whether a workload's output is not known yet to the newest version, or is another than it thinks."""
    newest = RouterTable.objects.order_by("-number").first()
    known = (in_force if newest is None else router_tables.read_tables(newest)).workload_output_tokens
    for (workload, model), one in served.items():
        if one.output_count < MIN_SERVED:
            continue
        amount = known.get((workload, model))
        if amount is None:
            return True
        mean = one.output_tokens / one.output_count
        if abs(mean - amount.mean) > NEWS_RATIO * max(amount.mean, 1.0):
            return True
    return False


def _labels() -> dict[str, str]:
    """A name for each workload, for people who read the document: its app, else its key."""
    rows = (
        WorkloadUsage.objects.order_by("workload", "-request_count")
        .distinct("workload")
        .values_list("workload", "app", "api_key__project__name", "api_key__name")
    )
    return {workload: app or f"{project}/{key}" for workload, app, project, key in rows}


def _note(evidence_count: int, fresh_count: int, served_count: int) -> str:
    if not evidence_count:
        return f"output and latency of {served_count} pairs of workload and model"
    return f"learnt from {evidence_count:,} judgements, {fresh_count:,} of them new"
