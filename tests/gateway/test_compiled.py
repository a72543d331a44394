"""Does a build of the hot path count for exactly what it was made from, and does a worker do without one?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway import compiled, compiling

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three modules, and a place for its build."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "__init__.py").touch()
    (tmp_path / "policies" / "hot.py").write_text("from policies import warm\nimport os\n")
    (tmp_path / "policies" / "warm.py").write_text("from policies.cold import LIMIT\n")
    (tmp_path / "policies" / "cold.py").write_text("LIMIT = 1\n")
    (tmp_path / "policies" / "apart.py").write_text("")
    for module in (compiled, compiling):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "BUILD_DIR", tmp_path / "build")
    return tmp_path


def note_build(tree: Path, **changes: object) -> None:
    sources = {
        str(path.relative_to(tree)): compiled.hash_of(path) for path in compiling.sources_of(["policies.hot"])
    }
    manifest = {"interpreter": compiled.interpreter(), "sources": sources, "modules": {}, "libraries": []}
    (tree / "build").mkdir(exist_ok=True)
    (tree / "build" / compiled.MANIFEST).write_text(json.dumps(manifest | changes))


def test_a_build_depends_on_all_that_its_modules_import_of_the_project(tree: Path) -> None:
    found = {path.stem for path in compiling.sources_of(["policies.hot"])}
    assert found == {"__init__", "hot", "warm", "cold"}


@pytest.mark.parametrize("edited", ["hot", "warm", "cold", "__init__"])
def test_an_edit_of_any_of_them_makes_it_void(tree: Path, edited: str) -> None:
    note_build(tree)
    assert compiled.has_build()
    path = tree / "policies" / f"{edited}.py"
    path.write_text(path.read_text() + "# edited\n")
    assert not compiled.has_build()


def test_what_it_does_not_import_may_change(tree: Path) -> None:
    note_build(tree)
    (tree / "policies" / "apart.py").write_text("# edited\n")
    assert compiled.has_build()


def test_a_build_of_another_interpreter_or_of_a_lost_file_does_not_fit(tree: Path) -> None:
    note_build(tree, interpreter="cpython-27")
    assert not compiled.has_build()
    note_build(tree)
    (tree / "policies" / "cold.py").unlink()
    assert not compiled.has_build()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_manifest_that_cannot_be_read_is_none(tree: Path, text: str) -> None:
    note_build(tree)
    (tree / "build" / compiled.MANIFEST).write_text(text)
    assert not compiled.has_build()


def test_a_library_that_does_not_load_leaves_python(tree: Path) -> None:
    note_build(tree, libraries=["pointsman_of_no_machine"])
    assert compiled.has_build()
    path, finders = list(sys.path), list(sys.meta_path)
    assert not compiled.use_compiled()
    assert (sys.path, sys.meta_path) == (path, finders)


def test_workers_run_python_when_told_to(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_build(tree)
    assert compiled.runs_compiled()
    monkeypatch.setenv(compiled.SWITCH, "0")
    assert not compiled.runs_compiled()


def test_a_machine_without_compiler_is_told_what_to_install(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert (compiling.main([]), compiling.main(["--strict"])) == (0, 1)
    assert "apt-get install gcc" in capsys.readouterr().out


def test_a_compilation_that_fails_leaves_python(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise SystemExit(2)

    monkeypatch.setattr(compiling, "why_not", lambda: None)
    monkeypatch.setattr(compiling, "build", fail)
    assert (compiling.main([]), compiling.main(["--strict"])) == (0, 1)
    assert "compiling failed (2)" in capsys.readouterr().out


def test_ctrl_c_ends_the_compilation_and_what_it_has_begun(tree: Path) -> None:
    """mypy is machine code itself and would go on for minutes: it runs in a process that the signal ends."""
    script = """
import signal, sys
from gateway import compiling
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit that it is ignored
compiling.BUILD_DIR = compiling.Path(sys.argv[1]) / "build"
compiling.has_build, compiling.why_not = lambda: False, lambda: None
sys.exit(compiling.main([]))
"""
    scratch = tree / "scratch"
    scratch.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-c", script, str(tree)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline_s = time.monotonic() + 20
    while not list(scratch.glob("*/mypy.ini")):  # its child is at work
        assert running.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    said, _ = running.communicate(timeout=10)
    assert running.returncode == 130
    assert said.endswith("nothing is started. Without compiling: make run POINTSMAN_COMPILED=0\n")
    assert not list(scratch.iterdir())


def test_a_second_process_waits_for_the_first_one_and_takes_its_build(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "why_not", lambda: None)
    monkeypatch.setattr(compiling, "build", lambda: pytest.fail("it was built twice"))
    with compiling._alone():
        second = threading.Thread(target=compiling.main, args=([],))
        second.start()
        second.join(timeout=0.1)
        assert second.is_alive()
        note_build(tree)
    second.join(timeout=5)
    assert not second.is_alive()
    assert capsys.readouterr().out == "another process compiles the hot path; waiting for it …\n"


def test_nothing_is_compiled_for_workers_that_are_to_run_python(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "build", lambda: pytest.fail("it was built"))
    monkeypatch.setenv(compiled.SWITCH, "0")
    assert compiling.main([]) == 0


def test_every_hot_module_is_one_of_ours_and_none_reaches_django() -> None:
    paths = {str(path.relative_to(ROOT)) for path in compiling.sources_of(compiling.HOT_MODULES)}
    assert paths >= {name.replace(".", "/") + ".py" for name in compiling.HOT_MODULES}
    assert not [path for path in paths if "/models/" in path or "/migrations/" in path]


@pytest.mark.slow
def test_a_real_module_is_compiled_and_found(tmp_path: Path) -> None:
    if (reason := compiling.why_not()) is not None:
        pytest.skip(reason)
    script = """
import sys
from pathlib import Path
from gateway import compiled, compiling
compiled.BUILD_DIR = compiling.BUILD_DIR = Path(sys.argv[1])
if sys.argv[2] == "build":
    compiling.HOT_MODULES = ("gateway.wire.json_splice", "policies.score_columns")
    compiling.build_into(Path(sys.argv[3]))
    compiling._put_in_place(Path(sys.argv[3]) / "lib")
else:
    assert compiled.use_compiled() and compiled.is_in_use()
    from gateway.wire import json_splice
    print(json_splice.__file__, json_splice.replace_members(b'{"model":"a"}', {"model": b'"b"'}, present={"model"}))
"""
    for step in ("build", "use"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "build"), step, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    file, _, answer = done.stdout.partition(" ")
    assert file.startswith(str(tmp_path))
    assert "model" in answer
    assert '"b"' in answer
