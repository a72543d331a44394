"""What does the gateway do in the background? Celery tasks: hints only, the rows are the truth.

Calls: demo_traffic, demo_books, billing.backtesting, billing.alerting, billing.alert_deliveries, and others of billing.
Running one twice changes nothing.
"""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from billing import alert_deliveries, alerting, backtesting, closing, export_jobs, saved_views, scheduled_mail
from gateway import demo_books, demo_traffic
from gateway.snapshots import load_snapshot

logger = logging.getLogger(__name__)

# The ingester needs seconds for the demo's traffic.
DEMO_LOOK_S = 1.5


@shared_task(name="gateway.tasks.write_demo_week", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def write_demo_week() -> None:
    """Write the demo's traffic where the demo has just been set up; the ingester makes records of it."""
    if not (settings.POINTSMAN_DEMO and settings.POINTSMAN_DEMO_WEEK):
        return
    set_up_at = demo_traffic.find_due_moment(timezone.now())
    if set_up_at is not None:
        data_dir = settings.POINTSMAN_DATA_DIR
        count = demo_traffic.write_demo_week(data_dir=data_dir, set_up_at=set_up_at)
        count += demo_traffic.write_earlier_months(data_dir=data_dir, set_up_at=set_up_at)
        logger.info("The demo holds %d invented requests.", count)
    complete_demo.delay()


@shared_task(name="gateway.tasks.complete_demo", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def complete_demo() -> None:
    """Set budgets and close a month of the demo, once all of its traffic is recorded."""
    set_up_at = demo_traffic.find_set_up_moment(timezone.now())
    if set_up_at is None:
        return
    if demo_traffic.has_arrived(set_up_at):
        demo_books.complete(set_up_at=set_up_at, now=timezone.now())
    else:
        complete_demo.apply_async(countdown=DEMO_LOOK_S)


@shared_task(name="gateway.tasks.run_backtest", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_backtest(run_id: int) -> None:
    """Make one backtest, if it is still there to be made."""
    backtesting.run_backtest(run_id, load_snapshot=load_snapshot)


@shared_task(name="gateway.tasks.run_unfinished_backtests", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_unfinished_backtests() -> None:
    """Make backtests whose task was lost or whose process died."""
    for run_id in backtesting.find_unfinished(now=timezone.now()):
        backtesting.run_backtest(run_id, load_snapshot=load_snapshot)


@shared_task(name="gateway.tasks.run_closing", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_closing(closing_id: int) -> None:
    """Close one month, if that is still asked for."""
    closing.run_closing(closing_id, now=timezone.now())


@shared_task(name="gateway.tasks.run_unfinished_closings", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_unfinished_closings() -> None:
    """Close months whose task was lost or whose process died."""
    for closing_id in closing.list_unfinished(now=timezone.now()):
        closing.run_closing(closing_id, now=timezone.now())


@shared_task(name="gateway.tasks.notice_budgets", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def notice_budgets() -> None:
    """Note which budgets have passed a threshold, and send what there is to tell."""
    alerting.notice(now=timezone.now())
    alert_deliveries.deliver_due(now=timezone.now())


@shared_task(name="gateway.tasks.deliver_alerts", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def deliver_alerts() -> None:
    """Send what waits: somebody asked for a test."""
    alert_deliveries.deliver_due(now=timezone.now())


@shared_task(name="gateway.tasks.forget_deliveries", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def forget_deliveries() -> None:
    """Delete messages that arrived, or were given up, long ago."""
    alert_deliveries.forget_old(now=timezone.now())


@shared_task(name="gateway.tasks.run_export", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_export(job_id: int) -> None:
    """Write the file of one export, if it is still there to be written."""
    export_jobs.run_export(job_id)


@shared_task(name="gateway.tasks.run_unfinished_exports", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_unfinished_exports() -> None:
    """Write files whose task was lost or whose process died."""
    for job_id in export_jobs.find_unfinished(now=timezone.now()):
        export_jobs.run_export(job_id)


@shared_task(name="gateway.tasks.delete_expired_exports", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def delete_expired_exports() -> None:
    """Delete files whose time is over, and views that nobody brought back."""
    export_jobs.delete_expired(now=timezone.now())
    saved_views.forget_deleted(now=timezone.now())


@shared_task(name="gateway.tasks.send_due_mails", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def send_due_mails() -> None:
    """Send the views that are due by mail."""
    scheduled_mail.send_due()
