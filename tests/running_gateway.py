"""A real gateway for tests: `manage.py serve` and `manage.py ingest` as processes of their own, on loopback.

Each has a data directory and a database of its own (copied from one that is migrated once per test process), so that
processes can be killed without harm to any other test.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from django.db import connection as test_connection

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 40.0
KEY = "pm-test-key-of-the-running-gateway-000001"


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningGateway:
    """One gateway under test. `url` ends in /v1."""

    def __init__(self, data_dir: Path, database: str, port: int, workers: int) -> None:
        self.data_dir = data_dir
        self.database = database
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.workers = workers
        self.database_host = host = test_connection.settings_dict["HOST"]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")},
            "POINTSMAN_DATA_DIR": str(data_dir),
            "POINTSMAN_PORT": str(port),
            "POINTSMAN_HOST": "127.0.0.1",
            "DATABASE_URL": f"postgres://postgres@/{host}/{database}",
            "PYTHONWARNINGS": "default",
        }

    def manage(self, *arguments: str, **extra_environment: str) -> str:
        """Run a management command to its end; its stdout. Raises with its stderr when it fails."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**self.environment, **extra_environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{arguments[0]} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def apply(self, config: dict[str, Any], **extra_environment: str) -> None:
        """Apply a configuration; secrets come from the environment by reference."""
        path = self.data_dir / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        self.manage("apply", "-f", str(path), TEST_KEY=KEY, **extra_environment)

    def start(self, name: str) -> None:
        """Start `ingest` or `serve-N`."""
        command, _, index = name.partition("-")
        arguments = [command, "--worker-index", index] if index else [command]
        log = (self.data_dir / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()

    def start_all(self) -> None:
        for index in range(self.workers):
            self.start(f"serve-{index}")
        self.start("ingest")
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the gateway can serve."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if any(process.poll() is not None for name, process in self.processes.items() if "serve" in name):
                break
            time.sleep(0.05)
        raise AssertionError("the gateway did not become ready:\n" + self.logs())

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(timeout=130)

    def stop(self) -> None:
        """Stop everything: gateways first, the ingester last."""
        for name in sorted(self.processes, key=lambda name: name == "ingest"):
            process = self.processes[name]
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-4000:]}" for path in self.data_dir.glob("*.log")
        )

    def query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of the gateway's own database."""
        with psycopg.connect(dbname=self.database, host=self.database_host, user="postgres") as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]

    def wait_for_record(self, request_id: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """The caller's view of a finished request, once it is ingested."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = httpx.get(f"{self.url}/requests/{request_id}", headers=AUTHORIZATION, timeout=5)
            if answer.status_code == 200 and answer.json()["status"] != "in_flight":
                record: dict[str, Any] = answer.json()
                return record
            time.sleep(0.1)
        raise AssertionError(f"request {request_id} never arrived: {answer.text}\n{self.logs()}")


@lru_cache(maxsize=1)
def _migrated_template(host: str) -> str:
    """A migrated, empty database to copy. Apart from pytest-django's, which tests may be using just now."""
    name = "journey_template"
    with psycopg.connect(dbname="postgres", host=host, user="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
    environment = {**os.environ, "DATABASE_URL": f"postgres://postgres@/{host}/{name}"}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True, timeout=120
    )
    return name


AUTHORIZATION = {"authorization": f"Bearer {KEY}"}


@contextmanager
def running_gateway(
    config: dict[str, Any] | None, *, workers: int = 1, **environment: str
) -> Iterator[RunningGateway]:
    """Start a gateway with `config` applied and stop it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pmrun-"))
    database = "journey_" + folder.name.replace("-", "_").lower()
    host = test_connection.settings_dict["HOST"]
    template = _migrated_template(host)
    with psycopg.connect(dbname="postgres", host=host, user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')  # type: ignore[arg-type]
    gateway = RunningGateway(folder, database, free_port(), workers)
    gateway.environment.update(environment)
    try:
        if config is not None:
            gateway.apply(config)
        gateway.start_all()
        yield gateway
    finally:
        gateway.stop()
        with psycopg.connect(dbname="postgres", host=host, user="postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')  # type: ignore[arg-type]


def simple_config(base_url: str, models: list[str], **provider: Any) -> dict[str, Any]:
    """One provider, its models (all capabilities unknown), one price, one tenant with one key."""
    price = {"input_usd_per_mtok": "1", "cache_read_usd_per_mtok": "0.1", "output_usd_per_mtok": "2"}
    return {
        "providers": [
            {
                "name": "upstream",
                "wire_format": "openai_chat",
                "base_url": base_url,
                "allow_private_network": True,
                **({"auth_style": "none"} if "credential" not in provider else {}),
                **provider,
            }
        ],
        "models": [{"name": model, "endpoints": ["chat", "completions", "embeddings"]} for model in models],
        "deployments": [
            {
                "name": f"{model}@upstream",
                "model": model,
                "provider": "upstream",
                "upstream_model": model,
                "price": price,
            }
            for model in models
        ],
        "tenants": [
            {
                "name": "acme",
                "time_zone": "Europe/Berlin",
                "projects": [{"name": "web", "keys": [{"name": "dev", "secret": "env:TEST_KEY"}]}],
            }
        ],
    }
