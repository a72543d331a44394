"""How does a command reach the database, whether or not `manage.py up` runs?

Calls: the embedded PostgreSQL, for the length of the command when it does not run and DATABASE_URL is unset.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import OperationalError, ProgrammingError, connection, connections

from gateway import embedded
from gateway.embedded_programs import EmbeddedError


def with_database(handle: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command's `handle`: errors of the database become one clear line and exit status 1."""

    @functools.wraps(handle)
    def wrapped(*args: Any, **options: Any) -> None:
        data_dir = Path(settings.POINTSMAN_DATA_DIR)
        # A caller inside a transaction (a test, `up`) has its database already.
        is_ours = not os.environ.get("DATABASE_URL") and connection.connection is None
        try:
            if is_ours:
                embedded.start(data_dir)
            handle(*args, **options)
        except EmbeddedError as failure:
            raise CommandError(str(failure)) from None
        except ProgrammingError as failure:
            if "does not exist" in str(failure):
                raise CommandError(
                    "the tables are missing or older than this program: start manage.py up once, which makes them "
                    "(with DATABASE_URL, manage.py migrate does too)"
                ) from None
            raise
        except OperationalError as failure:
            raise CommandError(f"the database cannot be reached: {failure}") from None
        finally:
            if is_ours:
                connections.close_all()
                embedded.stop(data_dir)

    return wrapped
