"""What would a policy document have done to the requests of the last days? Start, cancel, run, take up again.

Writes: backtest. Reads: request_record, catalog, prices, keys. The row is the truth: whoever claims it works on it, and
a process that loses its claim drops what it did. No prompt is read, for none is kept.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import F, Max, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError

from billing.backtest_expectations import Expectations
from billing.backtest_judging import TIME_FEATURE_NAMES, Setup, text_features_of
from billing.backtest_processes import judge_slices
from billing.backtest_reading import (
    Period,
    list_key_ids,
    list_slices,
    load_grants,
    read_seen,
)
from billing.backtest_results import build_result
from billing.backtest_tally import Tally
from billing.backtest_traffic import choose_source
from billing.job_failures import explain_death, explain_failure, let_go_of_a_broken_connection
from billing.models import Backtest, BacktestState
from billing.stored_prices import load_cost_prices
from policies.autorouter.tables import RouterTables, empty_tables
from policies.document_checks import has_errors
from policies.documents import build_policy, normalise_document
from policies.errors import ConfigurationError
from policies.model_ratings import RatedModel, cheapest_usd_per_mtok, with_catalog_ratings
from policies.models import ChangeEvent, Deployment, Model, Policy, PolicyVersion, RouterTable, Tenant
from policies.publishing import PolicyError, list_problems
from policies.router_tables import read_tables
from policies.snapshot import RoutingSnapshot

logger = logging.getLogger(__name__)

# The task is the gateway's: it alone knows how rows become a snapshot.
RUN_TASK: Final = "gateway.tasks.run_backtest"
MAX_DAYS: Final = 92
# A process that said nothing for so long has died: a slice takes a second, the means of a long period half a minute.
STALE_S: Final = 120.0
MAX_CLAIMS: Final = 3
MAX_TABLES: Final = 20
PROGRESS_EVERY_S: Final = 0.5
# What changes how a request is decided, beside the policy itself.
ROUTING_OBJECTS: Final = ("provider", "model", "deployment", "price", "tenant", "project", "api_key")

SnapshotLoader = Callable[[], RoutingSnapshot]


class BacktestRefused(ConfigurationError):
    """A run that cannot be started; the text says why."""


class _Superseded(Exception):
    """Somebody else has claimed the run, or it was ended."""


def start_backtest(
    *,
    policy: Policy,
    document: Mapping[str, Any],
    days: int,
    actor: str,
    label: str = "",
    traffic: Policy | None = None,
    now: dt.datetime | None = None,
) -> Backtest:
    """Write down a run over the last `days` days, and ask a worker to make it.

    `traffic`: the policy whose requests it runs over; None: as `backtest_traffic` chooses.

    Raises BacktestRefused when one is under way already, PolicyError when the document has errors.
    """
    if not 1 <= days <= MAX_DAYS:
        raise BacktestRefused(f"a backtest runs over 1 to {MAX_DAYS} days")
    problems = list_problems(document)
    if has_errors(problems):
        raise PolicyError(problems)
    sound = normalise_document(document)
    version = PolicyVersion.objects.filter(policy=policy, document=sound).order_by("-number").first()
    until = now or timezone.now()
    since = until - dt.timedelta(days=days)
    source = traffic or choose_source(policy, since=since)
    try:
        with transaction.atomic():
            run = Backtest.objects.create(
                policy=policy,
                version=version,
                traffic=source,
                document=sound,
                label=label or _label_of(policy, version),
                days=days,
                since=since,
                until=until,
                started_by=actor,
            )
    except IntegrityError:
        raise BacktestRefused(f"a backtest of {policy} is under way: wait for it, or cancel it") from None
    transaction.on_commit(lambda: _ask_a_worker(run.pk))
    return run


def cancel_backtest(*, run: Backtest, actor: str) -> bool:
    """End a run that waits, and tell one that runs to stop; False: it was over already."""
    note = f"cancelled by {actor}"[:200]
    now = timezone.now()
    waiting = Q(state=BacktestState.WAITING) | _stale(now)
    if Backtest.objects.filter(waiting, pk=run.pk).update(
        state=BacktestState.CANCELLED, error=note, finished_at=now
    ):
        return True
    return bool(
        Backtest.objects.filter(pk=run.pk, state=BacktestState.RUNNING).update(
            is_cancel_wanted=True, error=note
        )
    )


def find_active(policy: Policy) -> Backtest | None:
    """The run of this policy that waits or runs; there is at most one."""
    return Backtest.objects.filter(
        policy=policy, state__in=[BacktestState.WAITING, BacktestState.RUNNING]
    ).first()


def find_unfinished(*, now: dt.datetime) -> list[int]:
    """Runs that nobody works on: their task was lost, or their process died. Those that died too often fail."""
    death = explain_death(MAX_CLAIMS)
    Backtest.objects.filter(_stale(now), claim_count__gte=MAX_CLAIMS).update(
        state=BacktestState.FAILED, error=death.text, error_detail=death.detail, finished_at=now
    )
    waiting = Q(state=BacktestState.WAITING)
    return list(Backtest.objects.filter(waiting | _stale(now)).order_by("pk").values_list("pk", flat=True))


def run_backtest(run_id: int, *, load_snapshot: SnapshotLoader) -> None:
    """Make a run, if it is there to be made. Called twice or late, it changes nothing."""
    run = _claim(run_id)
    if run is None:
        return
    try:
        _make(run, load_snapshot)
    except _Superseded:
        logger.info("backtest %s was taken over or ended elsewhere", run_id)
    except Exception as error:
        logger.exception("backtest %s failed", run_id)
        let_go_of_a_broken_connection()
        failure = explain_failure(error)
        # What may pass by itself is left to whoever looks for unfinished runs, while there are tries.
        if not (failure.is_passing and run.claim_count < MAX_CLAIMS):
            _mine(run).update(
                state=BacktestState.FAILED,
                error=failure.text,
                error_detail=failure.detail,
                finished_at=timezone.now(),
            )


def _ask_a_worker(run_id: int) -> None:
    try:
        current_app.send_task(RUN_TASK, args=[run_id], retry=False)
    except (OperationalError, OSError) as error:
        # Only a hint: whoever looks for unfinished runs finds this one.
        logger.warning("backtest %s waits, the broker cannot be reached: %s", run_id, error)


def _label_of(policy: Policy, version: PolicyVersion | None) -> str:
    if version is None:
        return "draft"
    is_live = policy.live_version_id == version.pk
    return f"version {version.number}{' (live)' if is_live else ''}"


def _stale(now: dt.datetime) -> Q:
    return Q(state=BacktestState.RUNNING, heartbeat_at__lt=now - dt.timedelta(seconds=STALE_S))


def _claim(run_id: int) -> Backtest | None:
    now = timezone.now()
    free = Q(state=BacktestState.WAITING) | _stale(now)
    claimed = Backtest.objects.filter(free, pk=run_id, claim_count__lt=MAX_CLAIMS).update(
        state=BacktestState.RUNNING, claim_count=F("claim_count") + 1, heartbeat_at=now, done_count=0
    )
    return Backtest.objects.select_related("policy", "version", "traffic").get(pk=run_id) if claimed else None


def _mine(run: Backtest) -> QuerySet[Backtest]:
    """The row, as long as nobody took it over."""
    return Backtest.objects.filter(pk=run.pk, state=BacktestState.RUNNING, claim_count=run.claim_count)


def _make(run: Backtest, load_snapshot: SnapshotLoader) -> None:
    began_s = time.perf_counter()
    slices = list_slices(_period_of(run))
    if not _mine(run).update(
        total_count=sum(part.record_count for part in slices), heartbeat_at=timezone.now()
    ):
        raise _Superseded
    setup = _build_setup(run, load_snapshot())
    tally = Tally()
    told_s = time.perf_counter()
    with closing(judge_slices(setup, slices)) as tallies:
        for part in tallies:
            tally.merge(part)
            if time.perf_counter() - told_s > PROGRESS_EVERY_S:
                told_s = time.perf_counter()
                if not _tell_progress(run, tally.count):
                    return
    if not _tell_progress(run, tally.count):
        return
    result = build_result(
        tally,
        model_of=dict(Deployment.objects.values_list("name", "model__name")),
        tenant_names=dict(Tenant.objects.filter(pk__in=tally.tenants).values_list("pk", "name")),
        text_features=setup.text_features,
        is_checked=bool(setup.versions),
        took_s=time.perf_counter() - began_s,
    )
    _mine(run).update(state=BacktestState.DONE, result=result, finished_at=timezone.now())


def _tell_progress(run: Backtest, done_count: int) -> bool:
    """Renew the claim; False when somebody wants the run to stop."""
    if not _mine(run).update(done_count=done_count, heartbeat_at=timezone.now()):
        raise _Superseded
    stopped = _mine(run).filter(is_cancel_wanted=True)
    return not stopped.update(state=BacktestState.CANCELLED, finished_at=timezone.now())


def _period_of(run: Backtest) -> Period:
    return Period(run.source.pk, run.since, run.until)


def _build_setup(run: Backtest, snapshot: RoutingSnapshot) -> Setup:
    """Everything that is the same for all requests."""
    period = _period_of(run)
    public_id = run.policy.public_id
    policy = build_policy(
        run.document,
        snapshot.deployments,
        policy_id=run.policy_id,
        public_id=public_id,
        version_id=run.version_id or 0,
        version_number=run.version.number if run.version is not None else 0,
    )
    versions = PolicyVersion.objects.filter(policy=run.policy_id, document=run.document)
    prices = load_cost_prices()
    text_features = text_features_of(policy)
    newest = ChangeEvent.objects.filter(object_type__in=ROUTING_OBJECTS).aggregate(newest=Max("id"))["newest"]
    changed_at_s = [
        price.effective_from_unix_s
        for listed in prices.values()
        for price in listed
        if price.effective_from_unix_s <= run.until.timestamp()
    ]
    return Setup(
        snapshot=replace(snapshot, policies={**snapshot.policies, public_id: policy}),
        policy=policy,
        grants=load_grants(list_key_ids(period), public_id=public_id),
        names={deployment.id: name for name, deployment in snapshot.deployments.items()},
        prices=prices,
        expectations=Expectations(read_seen(period), dict(Deployment.objects.values_list("id", "model_id"))),
        # Another policy's decisions were made by its own rules: none of them has to come out again.
        versions=frozenset(versions.values_list("number", flat=True) if run.is_on_own_traffic else ()),
        last_change=newest or 0,
        last_price_unix_ms=int(max(changed_at_s, default=0.0) * 1000),
        tables=_load_tables(snapshot) if policy.has_auto else {},
        reads_time=not TIME_FEATURE_NAMES.isdisjoint(policy.feature_names),
        is_sticky=policy.has_auto or policy.session_stickiness,
        text_features=text_features,
        asked_for="" if run.is_on_own_traffic else run.source.public_id,
    )


def _load_tables(snapshot: RoutingSnapshot) -> dict[int, RouterTables]:
    """The newest versions of the router's tables, and none; decisions say by which of them they were made.

    The catalog's ratings stand over theirs, as they do in workers, and are those of now.
    """
    rated = [
        RatedModel(
            model.name,
            model.rating,
            model.rating_source,
            model.rating_date,
            cheapest_usd_per_mtok(
                (deployment.input_nanousd_per_mtok, deployment.output_nanousd_per_mtok)
                for deployment in snapshot.deployments_by_model.get(model.name, ())
            ),
        )
        for model in Model.objects.filter(is_enabled=True)
    ]
    tables = {0: with_catalog_ratings(empty_tables(), rated)}
    for row in RouterTable.objects.order_by("-number")[:MAX_TABLES]:
        try:
            tables[row.number] = with_catalog_ratings(read_tables(row), rated)
        except ValueError as error:
            logger.error("%s cannot be used: %s", row, error)
    return tables
