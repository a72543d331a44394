"""How does the hot path become machine code? mypyc compiles it into the virtual environment, once per version.

Writes: the build that `gateway.compiled` reads. `python -m gateway.compiling` builds unless the build there fits; a
machine without a C compiler or Python's headers is told so, and its workers run Python, as do all other processes.

mypyc belongs to mypy: it takes the types that `make check` proves and turns calls, attributes and loops into C. What
it compiles checks its types while it runs, too: a caller's wrong type is an error here, not a surprise later.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gateway.child_processes import die_with_parent
from gateway.compiled import BUILD_DIR, MANIFEST, ROOT, SWITCH, has_build, hash_of, interpreter
from gateway.supervisor import describe_end

OPTIMISATION = "2"
# The argument with which this module calls itself in a process of its own.
INTO = "--into"
PACKAGES = frozenset({"gateway", "policies", "billing"})
# What runs for every request, as measured. What inherits from a compiled class must be here too.
HOT_MODULES = (
    "billing.rating",
    "gateway.conversation_board",
    "gateway.dataplane.addressing",
    "gateway.dataplane.answer_checks",
    "gateway.dataplane.answer_headers",
    "gateway.dataplane.app",
    "gateway.dataplane.asking",
    "gateway.dataplane.attempts",
    "gateway.dataplane.auth",
    "gateway.dataplane.client_ids",
    "gateway.dataplane.exchange",
    "gateway.dataplane.hangups",
    "gateway.dataplane.health",
    "gateway.dataplane.inference",
    "gateway.dataplane.limits",
    "gateway.dataplane.recording",
    "gateway.dataplane.request_ids",
    "gateway.dataplane.stats",
    "gateway.dataplane.streaming",
    "gateway.dataplane.upstream",
    "gateway.dataplane.upstream_connection",
    "gateway.dataplane.upstream_heads",
    "gateway.journal",
    "gateway.wire.json_splice",
    "gateway.wire.openai_answer",
    "gateway.wire.openai_errors",
    "gateway.wire.openai_request",
    "gateway.wire.openai_stream",
    "gateway.wire.openai_text",
    "gateway.wire.openai_usage",
    "gateway.wire.openai_wishes",
    "policies.autorouter.estimating",
    "policies.autorouter.fingerprint",
    "policies.autorouter.languages",
    "policies.autorouter.ranking",
    "policies.autorouter.request_facts",
    "policies.autorouter.request_types",
    "policies.autorouter.words",
    "policies.breaker",
    "policies.collecting",
    "policies.decision",
    "policies.explaining",
    "policies.filters",
    "policies.naming",
    "policies.retention",
    "policies.rule_matching",
    "policies.score_columns",
    "policies.stickiness",
    "policies.strategies",
)


def why_not() -> str | None:
    """What this machine lacks for compiling, None when it lacks nothing."""
    if importlib.util.find_spec("mypyc") is None or importlib.util.find_spec("setuptools") is None:
        return "mypy or setuptools is not installed"
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(os.environ.get("CC", compiler).split()[0]) is None:
        return "there is no C compiler (on Debian and Ubuntu: apt-get install gcc libc6-dev)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's headers are missing (on Debian and Ubuntu: apt-get install python3-dev)"
    if not os.access(BUILD_DIR.parent, os.W_OK):
        return f"{BUILD_DIR.parent} cannot be written to"
    return None


def sources_of(modules: Iterable[str]) -> list[Path]:
    """The files of modules and of all that they import of this project, directly or not. Pure but for reading.

    Compiled code has the types and constants of what it imports built in, so all of it decides whether a build fits.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting.extend(_imports_of(path))
        waiting.extend(name.rpartition(".")[:1])
    return sorted(found.values())


def _file_of(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


def build() -> None:
    """Compile and put the build in its place. Raises RuntimeError when it fails, KeyboardInterrupt at once.

    In a process of its own: mypy, which is machine code itself, hears nothing of a Ctrl-C for minutes.
    """
    with tempfile.TemporaryDirectory(prefix="pointsman-compiling-") as folder:
        # Ctrl-C reaches the compilers by the terminal, as it reaches us; a kill of this process ends them too.
        status = subprocess.run(  # noqa: S603  (the command is ours)
            [sys.executable, "-m", "gateway.compiling", INTO, folder],
            cwd=ROOT,
            preexec_fn=die_with_parent(signal.SIGKILL),
            check=False,
        ).returncode
        if status:
            raise RuntimeError(f"{describe_end(status)}; the lines above say why")
        _put_in_place(Path(folder) / "lib")


def build_into(work: Path) -> None:
    """Compile and leave the build in `work/lib`. Raises SystemExit or setuptools' errors when it fails."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    sources = {str(path.relative_to(ROOT)): hash_of(path) for path in sources_of(HOT_MODULES)}
    files = [name.replace(".", "/") + ".py" for name in HOT_MODULES]
    # Two libraries of about one size, so that two cores compile at once.
    groups: list[tuple[list[str], str | None]] = [
        ([file for file in files if file.startswith("gateway/")], "pointsman_gateway"),
        ([file for file in files if not file.startswith("gateway/")], "pointsman_policies"),
    ]
    config = work / "mypy.ini"
    # Strictness is `make check`'s. Imports are followed for their types and not reported on.
    config.write_text(
        f"[mypy]\nignore_missing_imports = True\nfollow_imports = silent\ncache_dir = {work / 'cache'}\n"
    )
    extensions = mypycify(
        ["--config-file", str(config), *files],
        opt_level=OPTIMISATION,
        debug_level="0",
        separate=groups,
        target_dir=str(work / "c"),
    )
    command = build_ext(Distribution({"name": "pointsman", "ext_modules": extensions}))
    command.build_lib = str(work / "lib")
    command.build_temp = str(work / "temp")
    command.parallel = os.cpu_count() or 1
    command.ensure_finalized()
    command.run()
    library = work / "lib"
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    modules = {name: name.replace(".", "/") + suffix for name in HOT_MODULES}
    if lost := [file for file in modules.values() if not (library / file).is_file()]:
        # Something cleared the scratch folder meanwhile. A worker must not find half a build.
        raise RuntimeError(f"not everything was built: {', '.join(lost)}")
    manifest = {
        "interpreter": interpreter(),
        "sources": sources,
        "modules": modules,
        "libraries": [path.name.removesuffix(suffix) for path in sorted(library.glob(f"*{suffix}"))],
    }
    (library / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _put_in_place(library: Path) -> None:
    """Replace the build by a new one. Workers that run the old one keep its files until they end."""
    fresh = BUILD_DIR.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(library, fresh)
    shutil.rmtree(BUILD_DIR, ignore_errors=True)
    fresh.rename(BUILD_DIR)


def main(arguments: Sequence[str]) -> int:
    """Build if need be; say what is done, or why nothing is. 1 with `--strict` where there is no build in the end."""
    if arguments[:1] == [INTO]:
        # Only the default of the signal ends code that returns to the interpreter once a minute.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        build_into(Path(arguments[1]))
        return 0
    is_strict = "--strict" in arguments
    if has_build() or (os.environ.get(SWITCH) == "0" and not is_strict):
        return 0
    reason = why_not()
    if reason is None:
        try:
            with _alone():
                reason = None if has_build() else _try_to_build()
        except KeyboardInterrupt:
            _say(f"\ncompiling was stopped, and nothing is started. Without compiling: make run {SWITCH}=0")
            return 130
    if reason is not None:
        _say(f"workers run the hot path as Python and take about a quarter more CPU: {reason}")
    return 1 if reason is not None and is_strict else 0


def _try_to_build() -> str | None:
    """Why it failed, None when it did not."""
    _say("compiling the hot path, once for this version: about a minute (Ctrl-C stops it) …")
    begun_s = time.monotonic()
    try:
        build()
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever went wrong, there is always Python)
        return f"compiling failed ({error})"
    _say(f"compiled in {time.monotonic() - begun_s:.0f} s")
    return None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One build of an environment at a time: a second `make run` waits for the first one's."""
    descriptor = os.open(BUILD_DIR.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process compiles the hot path; waiting for it …")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
