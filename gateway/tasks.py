"""What does the gateway do in the background? Celery tasks: hints only, the rows are the truth.

Calls: demo_traffic. Running one twice changes nothing.
"""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from gateway import demo_traffic

logger = logging.getLogger(__name__)


@shared_task(name="gateway.tasks.write_demo_week", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def write_demo_week() -> None:
    """Write the demo's week of traffic where the demo has just been set up; the ingester makes records of it."""
    if not (settings.POINTSMAN_DEMO and settings.POINTSMAN_DEMO_WEEK):
        return
    set_up_at = demo_traffic.find_due_moment(timezone.now())
    if set_up_at is not None:
        count = demo_traffic.write_demo_week(data_dir=settings.POINTSMAN_DATA_DIR, set_up_at=set_up_at)
        logger.info("The demo's week holds %d invented requests.", count)
