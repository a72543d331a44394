"""What does every test run on? A data directory of its own and the embedded PostgreSQL in it.

A pytest plugin (`-p tests.environment` in pyproject.toml) and not a conftest.py, because pytest-django reads
the settings before any conftest is loaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

# Nothing of a developer's own installation may be touched by a test. With pytest-xdist each worker process
# passes here and has a data directory and server of its own.
DATA_DIR = Path(tempfile.mkdtemp(prefix="pmtest-"))
DATA_DIR.chmod(0o755)
for _name in [n for n in os.environ if n.startswith("POINTSMAN_")] + ["DATABASE_URL", "CELERY_BROKER_URL"]:
    os.environ.pop(_name, None)
os.environ["POINTSMAN_DATA_DIR"] = str(DATA_DIR)
# Before NumPy is loaded: its threads spin for cores that other test processes and browsers need, and end up slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from gateway.compiled import use_compiled  # noqa: E402  (before the project is imported)

# `make test-compiled`: what workers run as machine code, in the tests' own process.
if os.environ.get("TESTS_COMPILED") and not use_compiled():
    raise RuntimeError("no compiled hot path fits these sources: make test-compiled")

import hypothesis  # noqa: E402
from django.conf import settings  # noqa: E402  (reads the environment made above)

from gateway import embedded  # noqa: E402

# Folders and files of tests that run processes and wait for them, longest first.
LONGEST = ("tests/journeys/", "tests/browser/", "test_ingest_killed", "test_bench", "test_evaluate_router")


def pytest_configure(config: object) -> None:
    # Half a second a password is for guessers. Tests that start processes of their own get the real hasher.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A busy machine is no finding: how long an example takes, or the first one of a fresh clone, says nothing.
    # Hypothesis sets that by itself where CI=true, with the same examples every time; that stays.
    present = hypothesis.settings.get_profile(hypothesis.settings.get_current_profile_name())
    patience = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
    hypothesis.settings.register_profile("patient", present, **patience)
    hypothesis.settings.load_profile("patient")
    # The kernel ends the server when this process is killed: no PostgreSQL is left behind.
    # TESTS_WITH_FSYNC=1: with the settings of a real installation, for measurements.
    embedded.start(DATA_DIR, is_for_tests=not os.environ.get("TESTS_WITH_FSYNC"), dies_with_us=True)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Put the files that take longest first: begun last, each would keep one process busy while the others idle."""
    items.sort(
        key=lambda item: next((n for n, part in enumerate(LONGEST) if part in item.nodeid), len(LONGEST))
    )


def pytest_unconfigure(config: object) -> None:
    embedded.stop(DATA_DIR)
    shutil.rmtree(DATA_DIR, ignore_errors=True)
