"""What does a measurement run on? PostgreSQL, one gateway worker, a mock provider, and nginx where there is one.

Writes: a temporary data directory, removed at the end. Calls: processes of its own on free loopback ports, which
end with this one. With two cores or more the worker has one to itself; provider and load generator have another.
"""

# ruff: noqa: S603  (every command here is a fixed program with arguments of ours, without a shell)
from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from gateway import embedded
from gateway.bench.load_generator import ANSWER_TIMEOUT_S, Plan
from gateway.bench.nginx import build_nginx_config
from gateway.bench.processes import resident_mib
from gateway.bench.scenarios import AUTO_PREFIX, CHUNKS, STREAM_SHAPES
from gateway.child_processes import die_with_parent
from gateway.embedded_programs import EmbeddedError

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
KEY_VARIABLE = "BENCH_KEY"

AUTO_CANDIDATES = 8
# Nine rules that a bench request does not match, naming the fields that policies name, and one that it does.
CONDITIONS = (
    'task == "translation"',
    "has_images",
    "has_audio || has_files",
    "input_tokens > 2000000",
    "has_tools && turn > 1000",
    'has_schema && quality == "high"',
    'priority == "high"',
    "max_latency_ms > 0 && max_latency_ms < 500",
    'app == "nightly" && (hour < 6 || weekday > 5)',
    "",
)


class RigError(Exception):
    """The rig cannot be set up; the text says which part and why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chat completions: the gateway, the provider itself, nginx before it."""

    name: str
    port: int
    pid: int
    model_prefix: str = ""


def build_configuration(provider_port: int) -> dict[str, Any]:
    """The configuration file of the gateway under test. Pure."""
    provider = {
        "name": "bench",
        "base_url": f"http://127.0.0.1:{provider_port}/v1",
        "auth_style": "none",
        "allow_private_network": True,
    }
    price = {"input_usd_per_mtok": "0.5", "cache_read_usd_per_mtok": "0.05", "output_usd_per_mtok": "1.5"}
    deployments = [
        {
            "name": f"{shape}@bench",
            "model": shape,
            "provider": "bench",
            "upstream_model": shape,
            "price": price,
        }
        for shape in STREAM_SHAPES
    ]
    policies = [
        {
            "id": f"bench/{shape}",
            "rules": [
                {
                    "name": f"rule {number}",
                    "when": when,
                    "strategy": "priority",
                    "deployments": [f"{shape}@bench"],
                }
                for number, when in enumerate(CONDITIONS, 1)
            ],
        }
        for shape in STREAM_SHAPES
    ]
    # The same rules with the automatic router last: what is added is its work.
    names = [f"candidate-{number}@bench" for number in range(AUTO_CANDIDATES)]
    deployments += [
        {
            "name": name,
            "model": name,
            "provider": "bench",
            "upstream_model": CHUNKS,
            "price": {"input_usd_per_mtok": str(number + 1), "output_usd_per_mtok": str(4 * number + 4)},
        }
        for number, name in enumerate(names)
    ]
    rules = [
        {"name": f"rule {number}", "when": when, "strategy": "priority", "deployments": names[:1]}
        for number, when in enumerate(CONDITIONS[:-1], 1)
    ]
    auto = {"name": "auto", "strategy": "auto", "deployments": names}
    policies.append({"id": f"bench/{AUTO_PREFIX}{CHUNKS}", "rules": [*rules, auto]})
    key = {"name": "bench", "secret": f"env:{KEY_VARIABLE}"}
    tenant = {"name": "bench", "policies": [policy["id"] for policy in policies]}
    return {
        "providers": [provider],
        "models": [{"name": name} for name in (*STREAM_SHAPES, *names)],
        "deployments": deployments,
        "policies": policies,
        "tenants": [{**tenant, "projects": [{"name": "bench", "keys": [key]}]}],
    }


class Rig:
    """Everything that a measurement needs, for the length of a `with` block. Raises RigError."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._data_dir = Path(tempfile.mkdtemp(prefix="pmbench-"))
        self._data_dir.chmod(0o755)  # PostgreSQL runs as another user where we are root.
        self._key = f"pm-{secrets.token_urlsafe(24)}"
        self._processes: list[subprocess.Popen[bytes]] = []
        cores = sorted(os.sched_getaffinity(0))
        # Without a second core there is nothing to pin.
        self.worker_core: int | None = cores[-1] if len(cores) > 1 else None
        self.other_core: int | None = cores[0] if len(cores) > 1 else None
        port = _free_port()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")},
            "POINTSMAN_DATA_DIR": str(self._data_dir),
            "POINTSMAN_HOST": "127.0.0.1",
            "POINTSMAN_PORT": str(port),
            "POINTSMAN_DEMO": "0",
            KEY_VARIABLE: self._key,
        }
        self._environment.pop("DATABASE_URL", None)
        self._gateway_port = port
        self.targets: dict[str, Target] = {}

    def __enter__(self) -> Rig:
        try:
            self._set_up()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tear_down()

    def measure(self, target: Target, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Run the load generator, in a process of its own, against one target. Raises RigError."""
        # The provider is asked for what it can answer; the gateway, for the policy that leads there.
        figures = dict(figures)
        policy_prefix = figures.pop("policy_prefix", "")
        model = figures["model"]
        if target.model_prefix:
            model = target.model_prefix + policy_prefix + model
        plan = Plan(
            **{
                **figures,
                "model": model,
                "port": target.port,
                "key": self._key,
                "pids": [target.pid],
                "our_pids": [process.pid for process in self._processes],
            }
        )
        process = self._launch(
            "load generator",
            [sys.executable, "-m", "gateway.bench.load_generator", json.dumps(asdict(plan))],
            core=self.other_core,
            is_kept=False,
        )
        try:
            output, _ = process.communicate(timeout=plan.seconds + plan.warm_s + 3 * ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RigError("the load generator does not end") from None
        if process.returncode:
            raise RigError(f"the load generator failed:\n{self._log_tail('load generator')}")
        result: dict[str, Any] = json.loads(output)
        return result

    def worker_resident_mib(self) -> float:
        """Resident memory of the gateway's worker now."""
        return round(resident_mib([self.targets["gateway"].pid]), 1)

    def _set_up(self) -> None:
        self._say("starting PostgreSQL …")
        try:
            embedded.start(self._data_dir, dies_with_us=True)
        except EmbeddedError as error:
            raise RigError(str(error)) from None
        provider = self._launch(
            "provider", [sys.executable, "-m", "gateway.bench.mock_provider"], core=self.other_core
        )
        assert provider.stdout is not None
        line = provider.stdout.readline()
        if not line:
            raise RigError(f"the mock provider does not start:\n{self._log_tail('provider')}")
        provider_port = int(line)
        self.targets["direct"] = Target("direct", provider_port, provider.pid)
        self._say("migrating, applying the configuration …")
        path = self._data_dir / "bench.yaml"
        path.write_text(yaml.safe_dump(build_configuration(provider_port)))
        self._manage("migrate", "--verbosity", "0", "--skip-checks")
        self._manage("apply", "-f", str(path))
        self._say("starting one gateway worker …")
        worker = self._launch(
            "gateway", [sys.executable, "manage.py", "serve", "--worker-index", "0"], core=self.worker_core
        )
        self.targets["gateway"] = Target("gateway", self._gateway_port, worker.pid, model_prefix="bench/")
        self._wait_until_ready(worker)
        if shutil.which("nginx"):
            self._start_nginx(provider_port)

    def _start_nginx(self, provider_port: int) -> None:
        port = _free_port()
        path = self._data_dir / "nginx.conf"
        path.write_text(build_nginx_config(port=port, provider_port=provider_port, is_root=os.geteuid() == 0))
        process = self._launch(
            "nginx",
            [str(shutil.which("nginx")), "-p", str(self._data_dir), "-c", str(path), "-g", "daemon off;"],
            core=self.worker_core,
        )
        try:
            _wait_for_port(port, process)
        except RigError as error:
            self._say(f"nginx is left out: {error}\n{self._log_tail('nginx')}")
            return
        self.targets["nginx"] = Target("nginx", port, process.pid)

    def _manage(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RigError(f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}".rstrip())

    def _launch(
        self, name: str, command: Sequence[str], *, core: int | None, is_kept: bool = True
    ) -> subprocess.Popen[bytes]:
        end_with_us = die_with_parent(signal.SIGTERM)

        def before_exec() -> None:
            end_with_us()
            if core is not None:
                os.sched_setaffinity(0, {core})

        with self._log_path(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log if name in ("gateway", "nginx") else subprocess.PIPE,
                stderr=log,
                preexec_fn=before_exec,
            )
        if is_kept:
            self._processes.append(process)
        return process

    def _wait_until_ready(self, worker: subprocess.Popen[bytes]) -> None:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while worker.poll() is None and time.monotonic() < give_up_s:
            connection = http.client.HTTPConnection("127.0.0.1", self._gateway_port, timeout=2.0)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            connection.close()
            time.sleep(0.1)
        raise RigError(f"the gateway does not become ready:\n{self._log_tail('gateway')}")

    def _log_path(self, name: str) -> Path:
        return self._data_dir / f"bench-{name.replace(' ', '-')}.log"

    def _log_tail(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return self._log_path(name).read_text(errors="replace")[-2000:].replace(self._key, "[key]")
        return ""

    def _tear_down(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        give_up_s = time.monotonic() + 10.0
        for process in reversed(self._processes):
            try:
                process.wait(timeout=max(0.1, give_up_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        with contextlib.suppress(EmbeddedError):
            embedded.stop(self._data_dir)
        shutil.rmtree(self._data_dir, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise RigError(f"it ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise RigError("it does not listen")
