"""Do people read what happened to their job, and operators the technical line without secrets?"""

from __future__ import annotations

import errno

import psycopg
import pytest
from django.db import OperationalError

from billing.export_tables import ExportRefused
from billing.job_failures import MAX_DETAIL, explain_death, explain_failure


def database_error(cause: Exception) -> OperationalError:
    """As Django raises it."""
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", "Make room"),
        (PermissionError(errno.EACCES, "Permission denied"), "no_folder", "may not write"),
        (MemoryError(), "too_large", "Ask for fewer days"),
        (database_error(psycopg.errors.QueryCanceled("statement timeout")), "too_large", "fewer days"),
        (database_error(psycopg.errors.DiskFull("no space")), "database_full", "database is full"),
        (
            database_error(psycopg.OperationalError("connection refused")),
            "database_away",
            "when the database",
        ),
        (database_error(psycopg.errors.AdminShutdown("terminated")), "database_away", "when the database"),
        (database_error(psycopg.errors.DeadlockDetected("deadlock")), "unexpected", "Try again"),
        (KeyError("usage"), "unexpected", "Try again"),
    ],
)
def test_a_failure_is_told_in_words_with_what_to_do(error: Exception, kind: str, says: str) -> None:
    failure = explain_failure(error)
    assert (failure.kind, says in failure.text) == (kind, True)
    assert type(error).__name__ not in failure.text
    assert failure.detail.startswith(type(error).__name__)
    assert failure.is_passing == (kind == "database_away")


def test_a_refusal_speaks_for_itself() -> None:
    failure = explain_failure(ExportRefused("name a month from 2000 on"))
    assert (failure.text, failure.detail) == ("It was refused: name a month from 2000 on.", "")
    assert "three times" in explain_death(3).text


def test_the_technical_line_is_one_line_without_secrets() -> None:
    lines = (
        "could not open postgres://gateway:hunter2hunter2@db.internal/app\nDETAIL: row (1, alice@example.org)",
        "password=hunter2hunter2 is wrong",
        "Authorization: Bearer hunter2hunter2",
        "key sk-hunter2hunter2 and pm-hunter2hunter2 are refused",
    )
    for line in lines:
        detail = explain_failure(RuntimeError(line)).detail
        assert ("hunter2" in detail, "alice" in detail, "[hidden]" in detail) == (False, False, True), detail
    assert len(explain_failure(RuntimeError("x" * 2000)).detail) == MAX_DETAIL
