"""Does the embedded PostgreSQL start and stop whatever was left behind, and tell clearly when it cannot?"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway import embedded
from gateway.embedded_programs import EmbeddedError

PROJECT = Path(__file__).resolve().parents[2]
START = (
    "import sys; from pathlib import Path; from gateway import embedded; embedded.start(Path(sys.argv[1]){})"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with a stopped cluster, copied by each test: initdb runs once."""
    data_dir = Path(tempfile.mkdtemp(prefix="pmtemplate-"))
    embedded.start(data_dir, is_for_tests=True)
    embedded.stop(data_dir)
    yield data_dir
    shutil.rmtree(data_dir)


@pytest.fixture
def data_dir(template: Path) -> Iterator[Path]:
    # As a private folder: nobody but its owner may pass.
    folder = Path(tempfile.mkdtemp(prefix="pmembedded-"))
    data_dir = folder / "data"
    subprocess.run(["cp", "-a", str(template), str(data_dir)], check=True)
    yield data_dir
    embedded.stop(data_dir)
    shutil.rmtree(folder)


def ask(data_dir: Path, question: str = "SELECT 1") -> object:
    host = str(embedded.socket_directory(data_dir))
    with psycopg.connect(host=host, port=embedded.PORT, user="postgres", dbname="pointsman") as connection:
        row = connection.execute(question).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]


def test_the_server_answers_on_its_socket_alone_and_is_gone_after_stop(data_dir: Path) -> None:
    embedded.start(data_dir)
    assert ask(data_dir) == 1
    assert ask(data_dir, "SHOW listen_addresses") == ""
    embedded.stop(data_dir)
    assert embedded.find_postmaster(data_dir) is None
    assert embedded._processes_in(data_dir / "postgresql") == []


def test_starting_twice_and_stopping_twice_change_nothing(data_dir: Path) -> None:
    embedded.start(data_dir)
    first = embedded.find_postmaster(data_dir)
    embedded.start(data_dir)
    assert embedded.find_postmaster(data_dir) == first
    embedded.stop(data_dir)
    embedded.stop(data_dir)


def test_a_long_data_directory_gets_a_short_private_socket_folder(data_dir: Path) -> None:
    long_dir = data_dir.parent / ("long " * 30) / 'it\'s "data"'
    long_dir.parent.mkdir(parents=True)
    data_dir.rename(long_dir)
    try:
        embedded.start(long_dir)
        folder = embedded.socket_directory(long_dir)
        assert len(str(folder)) < 60
        assert folder.stat().st_mode & 0o077 == 0
        assert ask(long_dir) == 1
    finally:
        embedded.stop(long_dir)
        long_dir.rename(data_dir)
    folder.rmdir()


def test_a_foreign_socket_folder_is_refused(data_dir: Path) -> None:
    long_dir = data_dir.parent / ("x" * 120)
    data_dir.rename(long_dir)
    folder = embedded.socket_directory(long_dir)
    folder.mkdir(mode=0o755)
    try:
        with pytest.raises(EmbeddedError, match="not a private folder"):
            embedded.start(long_dir)
    finally:
        folder.rmdir()
        long_dir.rename(data_dir)


def test_it_starts_after_kill_9_though_the_old_process_id_belongs_to_somebody_else(data_dir: Path) -> None:
    embedded.start(data_dir)
    pid = embedded.find_postmaster(data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    embedded._children[data_dir].wait()
    pid_file = data_dir / "postgresql" / "postmaster.pid"
    assert pid_file.exists()
    lines = pid_file.read_text().split("\n")
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert embedded.find_postmaster(data_dir) is None
    embedded.start(data_dir)
    assert ask(data_dir) == 1


def test_two_processes_that_start_at_once_share_one_server_which_the_last_one_stops(data_dir: Path) -> None:
    code = START.format("") + "; print('up', flush=True); sys.stdin.read(); embedded.stop(Path(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", code, str(data_dir)]
    both = [
        subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    both[0].communicate(timeout=20)
    assert ask(data_dir) == 1
    both[1].communicate(timeout=20)
    assert [process.returncode for process in both] == [0, 0]
    assert embedded.find_postmaster(data_dir) is None


def test_the_server_ends_with_a_supervisor_that_is_killed(data_dir: Path) -> None:
    code = START.format(", dies_with_us=True") + "; print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(data_dir)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert embedded.find_postmaster(data_dir) is not None
        process.kill()
    deadline = time.monotonic() + 10
    while embedded._processes_in(data_dir / "postgresql"):
        assert time.monotonic() < deadline, "PostgreSQL outlived its supervisor"
        time.sleep(0.05)


def test_a_broken_setting_is_reported_with_the_end_of_the_log(data_dir: Path) -> None:
    (data_dir / "postgresql" / "postgresql.auto.conf").write_text("shared_buffers = 'lots'\n")
    with pytest.raises(EmbeddedError, match="shared_buffers"):
        embedded.start(data_dir)


def test_a_cluster_of_another_major_version_is_refused(data_dir: Path) -> None:
    (data_dir / "postgresql" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedError, match=r"PostgreSQL 15, this release brings 18"):
        embedded.start(data_dir)


def test_a_folder_that_is_not_a_cluster_is_left_alone(data_dir: Path) -> None:
    cluster = data_dir / "postgresql"
    shutil.rmtree(cluster)
    cluster.mkdir()
    (cluster / "letters.txt").write_text("mine")
    with pytest.raises(EmbeddedError, match="move it away"):
        embedded.start(data_dir)
    assert (cluster / "letters.txt").read_text() == "mine"


def site_packages() -> str:
    return str(Path(psycopg.__file__).parents[1])


def find_python_for(user: str) -> str | None:
    """This interpreter may lie in a private home folder; the system's of the same version does as well."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            probe = subprocess.run(
                [python, "-c", "import psycopg"],
                env={"PYTHONPATH": site_packages()},
                user=user,
                group=65534,
                extra_groups=[],
                cwd="/",
                capture_output=True,
            )
            if probe.returncode == 0:
                return python
    return None


def test_an_ordinary_user_runs_it_in_a_private_folder() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; this run is an ordinary user's anyway")
    folder = Path(tempfile.mkdtemp(prefix="pmnobody-"))
    shutil.chown(folder, "nobody")
    code = START.format(", is_for_tests=True") + "; embedded.stop(Path(sys.argv[1]))"
    python = find_python_for("nobody")
    if python is None:
        pytest.skip("an ordinary user of this machine can reach no Python with our packages")
    try:
        finished = subprocess.run(
            [python, "-B", "-c", code, str(folder / "data")],
            cwd=PROJECT,
            env={"PYTHONPATH": site_packages()},
            user="nobody",
            group=65534,
            extra_groups=[],
            capture_output=True,
        )
        assert finished.returncode == 0, finished.stderr.decode()
        assert (folder / "data" / "postgresql").owner() == "nobody"
    finally:
        shutil.rmtree(folder)
