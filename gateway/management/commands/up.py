"""How is everything started with one command? PostgreSQL, migrations, first login, then the processes.

Writes: what `migrate` and `gateway.bootstrap` write. Calls: PostgreSQL, the children, /readyz.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import socket
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from gateway import embedded
from gateway.embedded_programs import EmbeddedError
from gateway.supervisor import ChildSpec, Supervisor

DRAIN_S = 125.0
READY_TIMEOUT_S = 60.0
POSTGRESQL_CHECK_S = 2.0
POSTGRESQL_RETRY_S = 5.0
MIGRATION_LOCK = 0x7570


class Command(BaseCommand):
    help = "Start Pointsman: database, gateway, ingester and background worker, until Ctrl-C."
    requires_system_checks: list[str] = []  # They run once, below, with the database there.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.POINTSMAN_PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        begun_s = time.monotonic()
        # The children read the port from the environment, as every other command does.
        port: int = options["port"]
        os.environ["POINTSMAN_PORT"] = str(port)
        os.environ["POINTSMAN_DATA_DIR"] = str(settings.POINTSMAN_DATA_DIR)
        data_dir = Path(settings.POINTSMAN_DATA_DIR)
        lock = take_data_directory(data_dir)
        check_port_is_free(settings.POINTSMAN_HOST, port)
        supervisor = Supervisor(list_children(data_dir), say=self.say)
        supervisor.listen_to_signals()
        is_embedded = not os.environ.get("DATABASE_URL")
        try:
            if is_embedded:
                if not (data_dir / "postgresql").exists():
                    self.say("creating the embedded PostgreSQL …")
                embedded.start(data_dir, dies_with_us=True)
            news = prepare_database(self.say)
            self.print_news(news)
            self.run_children(supervisor, port=port, news=news, begun_s=begun_s, is_embedded=is_embedded)
        except EmbeddedError as failure:
            raise CommandError(str(failure)) from None
        finally:
            supervisor.stop()
            if is_embedded:
                self.say("stopping PostgreSQL …")
                from django.db import connections

                connections.close_all()
                embedded.stop(data_dir)
            os.close(lock)
        self.say("stopped.")

    def run_children(
        self, supervisor: Supervisor, *, port: int, news: dict[str, str], begun_s: float, is_embedded: bool
    ) -> None:
        """Run until a signal asks to stop; print how to use the gateway once it is ready."""
        data_dir = Path(settings.POINTSMAN_DATA_DIR)
        is_told, check_at_s = False, 0.0
        # The tables may have taken a slow machine minutes; patience with the gateway begins now.
        ready_until_s = time.monotonic() + READY_TIMEOUT_S
        while not supervisor.is_stopping:
            supervisor.step(0.5 if is_told else 0.05)
            now_s = time.monotonic()
            if not is_told:
                if is_ready(settings.POINTSMAN_HOST, port):
                    is_told = True
                    supervisor.start_now("celery")
                    self.print_welcome(port=port, news=news, seconds=now_s - begun_s)
                elif supervisor.failures_of("gateway") >= 3 or now_s > ready_until_s:
                    raise CommandError("the gateway does not become ready; its own lines above say why")
            if is_embedded and now_s > check_at_s and not supervisor.is_stopping:
                is_there = self.keep_postgresql(data_dir)
                check_at_s = time.monotonic() + (POSTGRESQL_CHECK_S if is_there else POSTGRESQL_RETRY_S)

    def keep_postgresql(self, data_dir: Path) -> bool:
        """Start PostgreSQL again when it has ended; say whether it is there.

        A failure must not end the gateways: they serve the keys they know without a database.
        """
        if embedded.find_postmaster(data_dir) is not None:
            return True
        self.say("PostgreSQL ended; starting it again")
        try:
            embedded.start(data_dir, dies_with_us=True)
        except (EmbeddedError, OSError, psycopg.Error) as failure:
            self.say(f"{failure}\nNext try in {POSTGRESQL_RETRY_S:.0f} s; requests of known keys go on.")
            return False
        return True

    def print_news(self, news: dict[str, str]) -> None:
        """Say at once what is kept nowhere: whatever fails later, it has been seen."""
        if "password" in news:
            self.say(f"  Sign in:   operator / {news['password']}   (shown once: keep it)")
        if "api_key" in news:
            self.say(f"  API key:   {news['api_key']}   (shown once: keep it)")

    def print_welcome(self, *, port: int, news: dict[str, str], seconds: float) -> None:
        url = settings.POINTSMAN_PUBLIC_URL
        if port != settings.POINTSMAN_PORT:
            url = f"http://{url_host(settings.POINTSMAN_HOST)}:{port}"
        lines = ["", f"Pointsman is ready after {seconds:.1f} s."]
        lines += [f"  Console:   {url}/", f"  Endpoint:  {url}/v1"]
        if news["name_to_try"]:
            key = news.get("api_key", "$POINTSMAN_KEY")
            lines += [f"  Try it:    {curl_line(url, key, news['name_to_try'])}"]
            if "api_key" not in news:
                lines += [
                    "             (a key: console > API keys, or manage.py issue_key --tenant T --project P --name N)"
                ]
        else:
            lines += [
                "  Next:      add a provider, a model, a tenant and a key: console, or manage.py apply -f FILE"
            ]
        lines += ["  Stop it:   Ctrl-C", ""]
        for line in lines:
            self.say(line)

    def say(self, line: str) -> None:
        try:
            self.stdout.write(line)
            self.stdout.flush()
        except OSError:
            # Whoever read our output is gone; the gateway is not.
            pass


def curl_line(url: str, key: str, name: str) -> str:
    """Return a first request to paste into a shell, which also expands $POINTSMAN_KEY."""
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}]})
    return (
        f"curl -s {url}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-H \"Authorization: Bearer {key}\" -d '{body}'"
    )


def list_children(data_dir: Path) -> list[ChildSpec]:
    """Which processes make an installation. Gateways drain first, then the ingester empties the journal."""
    manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
    celery_dir = data_dir / "celery"
    (data_dir / "static").mkdir(
        exist_ok=True
    )  # Where `collectstatic` would write; WhiteNoise looks there too.
    for name in ("queue", "control"):
        (celery_dir / name).mkdir(parents=True, exist_ok=True)
    gateways = [
        ChildSpec(f"gateway-{index}", [*manage, "serve", "--worker-index", str(index)], 1, DRAIN_S)
        for index in range(max(1, settings.POINTSMAN_WORKERS))
    ]
    # -P solo: tasks are few and short. Its start waits for the gateway, or 10 s.
    options = ["-P", "solo", "-s", str(celery_dir / "beat-schedule"), "--loglevel", "WARNING"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    celery = [sys.executable, "-m", "celery", "-A", "gateway", "--quiet", "worker", "--beat", *options]
    return [
        *gateways,
        ChildSpec("ingester", [*manage, "ingest"], 2, 60.0),
        ChildSpec("celery", celery, 1, 15.0, start_delay_s=10.0),
    ]


def prepare_database(say: Callable[[str], None]) -> dict[str, str]:
    """Bring tables up to date, make login and demo, apply POINTSMAN_CONFIG; return what is new.

    And `name_to_try`, for the first request that is shown.
    """
    from django.core.checks import Tags, run_checks
    from django.db import OperationalError, connection
    from django.db.migrations.executor import MigrationExecutor

    from gateway import bootstrap

    if problems := [problem for problem in run_checks(tags=[Tags.compatibility]) if problem.is_serious()]:
        raise CommandError("\n".join(str(problem) for problem in problems))
    try:
        with connection.cursor() as cursor:
            # Several machines may start on one database at once.
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
    except OperationalError as failure:
        raise CommandError(f"the database cannot be reached: {failure}") from None
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            say("bringing the database up to date …")
            call_command("migrate", verbosity=0, interactive=False)
        news = bootstrap.bootstrap(
            environment=os.environ,
            with_demo=settings.POINTSMAN_DEMO,
            with_books=settings.POINTSMAN_DEMO_WEEK,
        )
        if settings.POINTSMAN_CONFIG:
            call_command("apply", file=settings.POINTSMAN_CONFIG)
        news["name_to_try"] = bootstrap.find_name_to_try()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
        connection.close()
    return news


def take_data_directory(data_dir: Path) -> int:
    """Return a lock on the data directory. Raises CommandError when another process has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "up.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise CommandError(f"{path}: {failure.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CommandError(
            f"Pointsman already runs on {data_dir} (process {holder}). Stop it, or set POINTSMAN_DATA_DIR."
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def check_port_is_free(host: str, port: int) -> None:
    """Raise CommandError when another program listens there: SO_REUSEPORT would quietly share it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as failure:
        raise CommandError(
            f"cannot listen on {host} port {port}: {failure.strerror}. "
            "Set POINTSMAN_PORT (or POINTSMAN_HOST)."
        ) from None


def url_host(host: str) -> str:
    """Return the name under which this machine reaches a listening address."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        return "127.0.0.1" if host != "::" else "[::1]"
    return f"[{host}]" if ":" in host else host


def is_ready(host: str, port: int) -> bool:
    """Ask /readyz once."""
    connection = http.client.HTTPConnection(url_host(host).strip("[]"), port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
