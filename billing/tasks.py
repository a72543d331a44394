"""What does billing do by the clock? Celery tasks: hints only, the rows are the truth.

Calls: verifying, partitions, retention, evaluations, evidence, learning. Running one twice or late loses nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import time

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from billing import (
    credits,
    evaluation_running,
    evaluation_runs,
    evidence_collecting,
    label_days,
    partitions,
    retention,
    router_learning,
    summing_meters,
    verifying,
    workload_usage,
)
from policies.errors import ConfigurationError

logger = logging.getLogger(__name__)

# Days whose meters are kept up to date between statements, and how long one run may take of a worker with one process.
METER_DAYS = 62
METER_SECONDS = 20.0
LABEL_DAY_SECONDS = 20.0


@shared_task(name="billing.tasks.verify_usage", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def verify_usage() -> None:
    """Verify costs and rollups; the outcome is in DATA_DIR/run/verify.json."""
    found = verifying.verify(now=timezone.now())
    verifying.write_result(found, settings.POINTSMAN_DATA_DIR)
    if not found.is_ok:
        logger.error("verify_usage found %d differences: run manage.py verify_usage", found.difference_count)


@shared_task(name="billing.tasks.verify_recent", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def verify_recent() -> None:
    """Verify the last month and this one; the outcome is in DATA_DIR/run/verify_recent.json."""
    now = timezone.now()
    found = verifying.verify(now=now, months=verifying.list_recent_months(now))
    verifying.write_result(found, settings.POINTSMAN_DATA_DIR, name="verify_recent")
    if not found.is_ok:
        logger.error("verify_usage found %d differences: run manage.py verify_usage", found.difference_count)


@shared_task(name="billing.tasks.sum_meters", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def sum_meters() -> None:
    """Bring the meters up to date that changed in the last days, newest first, as far as some seconds go."""
    began_s, today = time.monotonic(), timezone.now().astimezone(dt.UTC).date()
    for back in range(METER_DAYS):
        day = today - dt.timedelta(days=back)
        summing_meters.sum_meters(first_day=day, last_day=day)
        if time.monotonic() - began_s > METER_SECONDS:
            break


@shared_task(name="billing.tasks.sum_label_days", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def sum_label_days() -> None:
    """Sum the days that are over by one label each, newest first, as far as some seconds go."""
    began_s = time.monotonic()
    for day in label_days.list_due_days(today=timezone.now().astimezone(dt.UTC).date()):
        label_days.sum_day(day)
        if time.monotonic() - began_s > LABEL_DAY_SECONDS:
            break


@shared_task(name="billing.tasks.prepare_partitions", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def prepare_partitions() -> None:
    """Create the partitions of the coming months."""
    partitions.ensure_months_ahead(timezone.now())


@shared_task(name="billing.tasks.prune_records", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def prune_records() -> None:
    """Drop months of records that are older than POINTSMAN_KEEP_MONTHS says; 0: keep all of them."""
    keep_months = settings.POINTSMAN_KEEP_MONTHS
    if not keep_months:
        return
    try:
        for month in retention.drop_old_months(
            keep_months=keep_months, now=timezone.now(), actor="POINTSMAN_KEEP_MONTHS"
        ):
            logger.info("the records of %s are dropped", f"{month.first_day:%Y-%m}")
    except (retention.MonthBusyError, ConfigurationError) as refusal:
        logger.warning("old records stay for now: %s", refusal)


@shared_task(name="billing.tasks.collect_evidence", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def collect_evidence() -> None:
    """Sum the workloads of days with new records, and make evidence of feedback: of older feedback once an hour."""
    now = timezone.now()
    since = None if now.minute == 0 else now - dt.timedelta(minutes=15)
    workload_usage.collect_workloads(now=now, again_after=dt.timedelta(minutes=5))
    evidence_collecting.collect_feedback(now=now, since=since)


@shared_task(name="billing.tasks.expire_credit", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def expire_credit() -> None:
    """Book off what is left of credit whose time has passed."""
    if count := credits.expire_due(now=timezone.now()):
        logger.info("%d grants of credit expired.", count)


@shared_task(name="billing.tasks.learn_router", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def learn_router(actor: str = "learning") -> None:
    """Make a new version of the router's tables of what came since the last one."""
    now = timezone.now()
    evidence_collecting.forget_old(now=now)
    learnt = router_learning.learn_version(now=now, actor=actor)
    logger.info("router tables: %s", learnt.table or learnt.reason)


@shared_task(name="billing.tasks.run_evaluation", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_evaluation(run_id: int) -> None:
    """Work on a run of an evaluation set for some seconds, then hand it to the next task."""
    if evaluation_running.run_slice(run_id):
        run_evaluation.delay(run_id)


@shared_task(name="billing.tasks.resume_evaluations", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def resume_evaluations() -> None:
    """Go on with runs whose task was lost."""
    for run_id in evaluation_runs.list_forsaken_runs(timezone.now()):
        run_evaluation.delay(run_id)
