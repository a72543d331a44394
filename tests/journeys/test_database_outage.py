"""The database goes away and comes back; an operator revokes and publishes under load: clients see the least of it."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway import embedded
from tests.fake_provider import FakeProvider, fake_provider
from tests.running_gateway import AUTHORIZATION, RunningGateway, free_port, simple_config

pytestmark = pytest.mark.slow

SPARE_KEY = "pm-test-key-that-will-be-revoked-0000001"
LIVE_WITHIN_S = 2.0
POLICY = {
    "id": "acme/auto",
    "baseline": "m",
    "rules": [{"name": "all", "strategy": "priority", "deployments": ["m@upstream"]}],
}
PUBLISHED_COUNT = 50
PUBLISH = f"""
import time
from policies.models import Policy
from policies.publishing import publish
policy = Policy.objects.get(public_id="acme/auto")
document = policy.live_version.document
for number in range({PUBLISHED_COUNT}):
    rule = document["rules"][0] | {{"timeout_s": 100 + number}}
    version = publish(policy=policy, actor="a test", document=document | {{"rules": [rule]}})
    print(version.number, time.time(), flush=True)
    time.sleep(0.03)
"""
REVOKE = """
import time
from policies.issuing import revoke_key
from policies.models import ApiKey
revoke_key(key=ApiKey.objects.get(name="spare"), actor="a test")
print(time.time())
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as running:
        yield running


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Path]:
    """A PostgreSQL of this module's own, that it may stop."""
    data_dir = Path(tempfile.mkdtemp(prefix="pmoutage-"))
    embedded.start(data_dir, is_for_tests=True, dies_with_us=True)
    yield data_dir
    embedded.stop(data_dir)
    shutil.rmtree(data_dir)


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider, postgresql: Path) -> Iterator[RunningGateway]:
    folder = Path(tempfile.mkdtemp(prefix="pmrun-"))
    gateway = RunningGateway(folder, "pointsman", free_port(), workers=2)
    gateway.database_host = str(embedded.socket_directory(postgresql))
    gateway.environment["DATABASE_URL"] = f"postgres://postgres@/{gateway.database_host}/pointsman"
    config = simple_config(provider.url, ["m"])
    config["policies"] = [POLICY]
    config["tenants"][0]["policies"] = ["acme/auto"]
    config["tenants"][0]["projects"][0]["keys"].append({"name": "spare", "secret": "env:SPARE_KEY"})
    try:
        gateway.manage("migrate", "-v0")
        gateway.apply(config, SPARE_KEY=SPARE_KEY)
        gateway.start_all()
        yield gateway
    finally:
        gateway.stop()
        shutil.rmtree(folder)


def ask(gateway: RunningGateway, *, key: str | None = None, is_stream: bool = False) -> httpx.Response:
    """One request over a connection of its own, so that both workers get their share."""
    return httpx.post(
        f"{gateway.url}/chat/completions",
        json={"model": "acme/auto", "stream": is_stream, "messages": [{"role": "user", "content": "hi"}]},
        headers=AUTHORIZATION if key is None else {"authorization": f"Bearer {key}"},
        timeout=10,
    )


class Load:
    """Sends requests from one thread; `answers` are (started at, status, policy version)."""

    def __init__(self, gateway: RunningGateway, key: str | None = None, *, is_stream: bool = False) -> None:
        self.answers: list[tuple[float, int, int]] = []
        self._gateway = gateway
        self._key = key
        self._is_stream = is_stream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            started_at = time.time()
            answer = ask(self._gateway, key=self._key, is_stream=self._is_stream)
            version = int(answer.headers.get("x-pointsman-policy-version", "0"))
            self.answers.append((started_at, answer.status_code, version))
            time.sleep(0.01)


def answered_by_worker(gateway: RunningGateway) -> list[int]:
    """Requests that each worker has answered."""
    reports = [json.loads(path.read_text()) for path in (gateway.data_dir / "run").glob("*.json")]
    return [
        sum(count for *_, count in report["stats"]["requests"]) for report in reports if "stats" in report
    ]


def test_without_a_database_requests_go_on_and_every_record_arrives_afterwards(gateway, postgresql):
    ids = [ask(gateway).headers["x-request-id"] for _ in range(10)]
    embedded.stop(postgresql)
    try:
        for number in range(60):
            answer = ask(gateway, is_stream=number % 2 == 0)
            assert answer.status_code == 200, answer.text
            ids.append(answer.headers["x-request-id"])
            time.sleep(0.05)
        lookup = httpx.get(f"{gateway.url}/requests/{ids[0]}", headers=AUTHORIZATION, timeout=10)
        assert (lookup.status_code, lookup.json()["error"]["code"]) == (503, "records_unavailable")
        assert httpx.get(f"{gateway.url}/models", headers=AUTHORIZATION).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{gateway.port}/readyz").status_code == 200
        assert all(process.poll() is None for process in gateway.processes.values())
    finally:
        embedded.start(postgresql, is_for_tests=True, dies_with_us=True)
    deadline = time.monotonic() + 30
    recorded: set[str] = set()
    while not set(ids) <= recorded and time.monotonic() < deadline:
        time.sleep(0.3)
        recorded = {str(row[0]) for row in gateway.query("SELECT id FROM billing_requestrecord")}
    assert set(ids) <= recorded, gateway.logs()
    assert len(set(ids)) == len(ids)
    gateway.manage("verify_usage")


def test_fifty_published_versions_are_live_within_two_seconds_and_no_request_fails(gateway):
    with Load(gateway) as load, Load(gateway, is_stream=True) as streams:
        time.sleep(0.3)
        lines = gateway.manage("shell", "-v0", "-c", PUBLISH).split("\n")
        time.sleep(LIVE_WITHIN_S + 0.5)
    published = [(int(number), float(at)) for number, at in (line.split() for line in lines if line)]
    first = published[0][0]
    assert [number for number, _ in published] == list(range(first, first + PUBLISHED_COUNT))
    answers = load.answers + streams.answers
    assert {status for _, status, _ in answers} == {200}
    for number, at in published:
        late = [version for started_at, _, version in answers if started_at > at + LIVE_WITHIN_S]
        assert late and min(late) >= number
    # Versions were seen as they came, and not only the last of them at the end.
    assert len({version for _, _, version in answers} - {first - 1}) > 5
    time.sleep(1.2)  # reports are written once a second
    assert len(answered_by_worker(gateway)) == 2
    assert min(answered_by_worker(gateway)) > 10


def test_a_revoked_key_stops_working_within_two_seconds(gateway):
    with Load(gateway, SPARE_KEY) as load:
        time.sleep(0.3)
        revoked_at = float(gateway.manage("shell", "-v0", "-c", REVOKE))
        time.sleep(LIVE_WITHIN_S + 0.5)
    assert load.answers[0][1] == 200
    assert {s for started_at, s, _ in load.answers if started_at > revoked_at + LIVE_WITHIN_S} == {401}
    assert ask(gateway).status_code == 200
