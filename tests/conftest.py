"""What every test runs on: a data directory of its own and the embedded PostgreSQL in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# Before Django reads its settings: nothing of a developer's own installation may be touched by a test.
# With pytest-xdist each worker process passes here and has a data directory and server of its own.
_DATA_DIR = Path(tempfile.mkdtemp(prefix="pmtest-"))
_DATA_DIR.chmod(0o755)
for _name in [n for n in os.environ if n.startswith("POINTSMAN_")] + ["DATABASE_URL", "CELERY_BROKER_URL"]:
    os.environ.pop(_name, None)
os.environ["POINTSMAN_DATA_DIR"] = str(_DATA_DIR)

from gateway import embedded  # noqa: E402


def pytest_configure(config: object) -> None:
    embedded.start(_DATA_DIR, is_for_tests=True)


def pytest_unconfigure(config: object) -> None:
    embedded.stop(_DATA_DIR)
    shutil.rmtree(_DATA_DIR, ignore_errors=True)
