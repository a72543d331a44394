"""Where do background tasks run? The Celery application; tasks are hints, database rows are the truth.

Reads: settings. Calls: the broker; the tasks themselves are in each app's `tasks`.
"""

import os
import warnings

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import beat_embedded_init, worker_ready

from gateway.child_processes import die_with_parent_now

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")

# Said to everybody who runs as root; what it warns of needs pickled messages, and ours are JSON.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("pointsman")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@beat_embedded_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def end_with_the_worker(**kwargs: object) -> None:
    """Beat runs in a child process of the worker: without this it outlives a worker that is killed."""
    die_with_parent_now()


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery has no types
def begin_with_the_demo(**kwargs: object) -> None:
    """After the first start there is a demo without traffic: the worker is the first to have time for it."""
    app.send_task("gateway.tasks.write_demo_week")
