"""What does billing do by the clock? Celery tasks: hints only, the rows are the truth.

Calls: verifying, partitions. Running one twice, late or never loses nothing.
"""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from billing import partitions, verifying

logger = logging.getLogger(__name__)


@shared_task(name="billing.tasks.verify_usage", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def verify_usage() -> None:
    """Verify costs and rollups; the outcome is in DATA_DIR/run/verify.json."""
    found = verifying.verify(now=timezone.now())
    verifying.write_result(found, settings.POINTSMAN_DATA_DIR)
    if not found.is_ok:
        logger.error("verify_usage found %d differences: run manage.py verify_usage", found.difference_count)


@shared_task(name="billing.tasks.prepare_partitions", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def prepare_partitions() -> None:
    """Create the partitions of the coming months."""
    partitions.ensure_months_ahead(timezone.now())
