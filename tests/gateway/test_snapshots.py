"""Snapshots from rows, and a worker's configuration that follows the change feed over a connection of its own."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from gateway import snapshots, worker_configuration
from gateway.snapshots import load_snapshot
from gateway.worker_configuration import WorkerConfiguration
from policies import cataloguing, issuing, publishing, tenancy_changes
from policies.asks import Ask
from policies.decision import decide
from policies.features import Features
from policies.models import Policy
from tests.make_configuration import (
    ACTOR,
    make_deployment,
    make_key,
    make_model,
    make_price,
    make_project,
    make_provider,
    make_tenant,
)
from tests.make_routing import FakeHealth

LIVE_WITHIN_S = 2.0


def published(public_id: str, *names: str) -> Policy:
    policy = publishing.create_policy(public_id=public_id, actor=ACTOR)
    document = {"rules": [{"name": "rest", "when": "turn >= 0", "deployments": list(names)}]}
    publishing.publish(policy=policy, actor=ACTOR, document=document)
    return policy


def within_s(seconds: float, is_so: Callable[[], object]) -> bool:
    """Wait until it is so. Sleeps, so that the thread that is watched gets the processor."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if is_so():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def worker(transactional_db: None) -> Iterator[WorkerConfiguration]:
    configuration = WorkerConfiguration()
    yield configuration
    configuration.close()


@pytest.mark.django_db
def test_a_snapshot_holds_what_is_enabled() -> None:
    small = make_model(name="small", context_tokens=1000, capabilities=["tools"], endpoints=["chat"])
    local = make_provider(name="local", credential="sk-very-secret", extra_headers={"x-a": "1"})
    make_deployment(name="small@b", model=small, provider=local, region="eu")
    make_deployment(name="small@a", model=small, provider=local)
    make_deployment(name="off", model=small, provider=local, is_enabled=False)
    make_deployment(name="model-off", model=make_model(is_enabled=False))
    make_deployment(name="provider-off", provider=make_provider(is_enabled=False))
    published("acme/auto", "small@b", "off")
    publishing.create_policy(public_id="acme/draft", actor=ACTOR)
    off = published("acme/off", "small@a")
    publishing.change_policy(policy=off, is_enabled=False, actor=ACTOR)

    snapshot = load_snapshot()

    assert sorted(snapshot.deployments) == ["small@a", "small@b"]
    assert [d.name for d in snapshot.deployments_by_model["small"]] == ["small@a", "small@b"]
    assert sorted(snapshot.policies) == ["acme/auto"]
    policy = snapshot.policies["acme/auto"]
    assert (policy.version_number, policy.feature_names) == (1, {"turn"})
    assert policy.rules[0].missing == ("off",)
    deployment = snapshot.deployments["small@b"]
    assert (deployment.region, deployment.model.context_tokens) == ("eu", 1000)
    assert deployment.model.endpoints == {"chat"}
    assert deployment.provider.secret == "sk-very-secret"
    assert deployment.provider.extra_headers == (("x-a", "1"),)
    assert "sk-very-secret" not in repr(snapshot)
    assert snapshot.revision == snapshots.read_revision() > 0


@pytest.mark.django_db
def test_loading_takes_a_handful_of_queries(django_assert_num_queries: Any) -> None:
    for number in range(5):
        make_price(deployment=make_deployment(name=f"d{number}"))
        published(f"acme/{number}", f"d{number}")
    with django_assert_num_queries(9):
        load_snapshot()


@pytest.mark.django_db
def test_bookkeeping_is_no_work_for_workers(django_assert_num_queries: Any) -> None:
    make_price()
    loaded = snapshots.load_everything()
    with django_assert_num_queries(0):
        after = snapshots.load_changes(
            loaded, newest := loaded.routing.revision + 1, [(name, 1) for name in snapshots.BOOKKEEPING]
        )
    assert after.routing.revision == newest
    assert (after.prices, after.grants) == (loaded.prices, loaded.grants)


@pytest.mark.django_db
def test_rates_for_comparing_come_from_the_price_in_force() -> None:
    deployment = make_deployment(name="d")
    make_price(deployment=deployment, rates={"input_usd_per_mtok": "0.05", "output_usd_per_mtok": "0.2"})
    make_price(
        deployment=deployment,
        rates={"input_usd_per_mtok": "9"},
        effective_from=timezone.now() + dt.timedelta(days=1),
    )
    make_price(deployment=make_deployment(name="embed"), rates={"input_usd_per_mtok": "1"})
    make_deployment(name="unpriced")
    found = load_snapshot().deployments
    assert (found["d"].input_nanousd_per_mtok, found["d"].output_nanousd_per_mtok) == (
        50_000_000,
        200_000_000,
    )
    assert found["embed"].output_nanousd_per_mtok == 0
    assert found["unpriced"].input_nanousd_per_mtok is None


@pytest.mark.django_db
def test_a_credential_that_cannot_be_read_takes_nothing_else_down(caplog: Any) -> None:
    make_deployment(name="a", provider=make_provider(credential_reference="env:POINTSMAN_TEST_NOT_SET"))
    make_deployment(name="b")
    found = load_snapshot().deployments
    assert found["a"].provider.secret is None
    assert "b" in found
    assert "POINTSMAN_TEST_NOT_SET" in caplog.text


def test_a_worker_is_ready_at_once_and_finds_keys_and_prices(worker: WorkerConfiguration) -> None:
    assert worker.is_ready
    key, secret = make_key(is_pinned=True)
    price = make_price()
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))
    grant = worker.find_key(secret)
    assert grant is not None
    assert (grant.key_id, grant.key_name, grant.is_pinned) == (key.pk, key.name, True)
    assert grant.project_name == key.project.name
    assert grant.tenant.name == key.project.tenant.name
    assert worker.find_key("pm-nothing") is None
    assert worker.find_key("\ud800") is None
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_price(price.deployment_id, time.time()))
    assert worker.find_price(price.deployment_id, 0.0) is None
    assert worker.find_price(-1, time.time()) is None


def test_a_published_policy_is_live_within_two_seconds(worker: WorkerConfiguration) -> None:
    tenant = make_tenant()
    make_deployment(name="a")
    make_deployment(name="b")
    policy = published("acme/auto", "a")
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["acme/auto"], actor=ACTOR)
    _, secret = make_key(project=make_project(tenant=tenant))
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))

    def served_by() -> list[str]:
        grant = worker.find_key(secret)
        assert grant is not None
        found = decide(Ask("acme/auto"), Features(), worker.snapshot, grant, FakeHealth(), draw=0.5)
        return [deployment.name for deployment in found.candidates]

    assert served_by() == ["a"]
    document = {"rules": [{"name": "rest", "deployments": ["b"]}]}
    publishing.publish(policy=policy, actor=ACTOR, document=document)
    assert within_s(LIVE_WITHIN_S, lambda: served_by() == ["b"])
    publishing.roll_back(policy=policy, number=1, actor=ACTOR)
    assert within_s(LIVE_WITHIN_S, lambda: served_by() == ["a"])
    assert worker.snapshot.policies["acme/auto"].version_number == 3


def test_a_revoked_key_is_gone_within_two_seconds_and_others_stay(worker: WorkerConfiguration) -> None:
    key, secret = make_key()
    _, other = make_key(project=key.project)
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret) and worker.find_key(other))
    before = worker.find_key(other)
    issuing.revoke_key(key=key, actor=ACTOR)
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret) is None)
    assert worker.find_key(other) == before


@pytest.mark.parametrize("what", ["tenant", "project"])
def test_keys_of_a_disabled_tenant_or_project_are_gone_and_come_back(
    worker: WorkerConfiguration, what: str
) -> None:
    key, secret = make_key()
    tenant = key.project.tenant
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))

    def switch(is_enabled: bool) -> None:
        if what == "tenant":
            tenancy_changes.change_tenant(tenant=tenant, actor=ACTOR, is_enabled=is_enabled)
        else:
            tenancy_changes.change_project(project=key.project, actor=ACTOR, is_enabled=is_enabled)

    switch(False)
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret) is None)
    switch(True)
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))


def test_a_rotated_key_has_an_end_and_its_successor_none(worker: WorkerConfiguration) -> None:
    key, secret = make_key()
    _, new_secret = issuing.rotate_key(key=key, overlap=dt.timedelta(hours=1), actor=ACTOR)
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(new_secret))
    old, new = worker.find_key(secret), worker.find_key(new_secret)
    assert old is not None and new is not None
    assert old.expires_unix_s == pytest.approx(time.time() + 3600, abs=60)
    assert new.expires_unix_s is None


def test_a_disabled_deployment_leaves_the_routes(worker: WorkerConfiguration) -> None:
    deployment = make_deployment(name="a")
    assert within_s(LIVE_WITHIN_S, lambda: "a" in worker.snapshot.deployments)
    cataloguing.change_deployment(deployment=deployment, actor=ACTOR, is_enabled=False)
    assert within_s(LIVE_WITHIN_S, lambda: "a" not in worker.snapshot.deployments)


def test_a_price_that_begins_later_is_compared_from_then_on(worker: WorkerConfiguration) -> None:
    deployment = make_deployment(name="a")
    soon = timezone.now() + dt.timedelta(seconds=1.5)
    make_price(deployment=deployment, rates={"input_usd_per_mtok": "1"})
    make_price(deployment=deployment, rates={"input_usd_per_mtok": "7"}, effective_from=soon)

    def rate() -> int | None:
        found = worker.snapshot.deployments.get("a")
        return found and found.input_nanousd_per_mtok

    assert within_s(LIVE_WITHIN_S, lambda: rate() == 1_000_000_000)
    assert within_s(3.5, lambda: rate() == 7_000_000_000)


def test_without_notices_the_feed_is_polled(transactional_db: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        WorkerConfiguration, "_wait_for_notice", lambda self: self._is_closing.wait(self._poll_interval_s)
    )
    worker = WorkerConfiguration()
    try:
        _, secret = make_key()
        assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))
    finally:
        worker.close()


def test_a_policy_that_no_longer_builds_keeps_its_last_good_form(
    worker: WorkerConfiguration, monkeypatch: Any
) -> None:
    make_deployment(name="a")
    published("acme/auto", "a")
    assert within_s(LIVE_WITHIN_S, lambda: worker.snapshot.revision == snapshots.read_revision())
    good = worker.snapshot.policies["acme/auto"]

    def broken(*_: object, **__: object) -> None:
        raise ValueError("cannot be built")

    monkeypatch.setattr(snapshots, "build_policy", broken)
    make_deployment(name="b")
    assert within_s(LIVE_WITHIN_S, lambda: "b" in worker.snapshot.deployments)
    assert worker.snapshot.policies["acme/auto"] is good


def test_while_the_database_is_away_the_last_configuration_stays_and_then_catches_up(
    worker: WorkerConfiguration, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = make_key()
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))
    real, is_away = snapshots.read_revision, threading.Event()

    def flaky() -> int:
        if is_away.is_set():
            raise OperationalError("the database is away")
        return real()

    monkeypatch.setattr(worker_configuration, "read_revision", flaky)
    is_away.set()
    _, later = make_key()
    time.sleep(0.8)
    assert worker.is_ready
    assert worker.find_key(secret) is not None
    assert worker.find_key(later) is None
    is_away.clear()
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(later))
    # Said once, however long it lasted.
    assert [record.levelname for record in caplog.records if "cannot be read" in record.message] == [
        "WARNING"
    ]


def test_a_connection_that_the_server_ends_is_opened_anew(
    worker: WorkerConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert cursor.fetchone()[0] >= 1
    _, secret = make_key()
    assert within_s(LIVE_WITHIN_S, lambda: worker.find_key(secret))
    # An outage like any other, not a configuration that cannot be built.
    assert "cannot be built" not in caplog.text


def test_a_worker_that_starts_without_a_database_becomes_ready_when_it_is_there(
    transactional_db: None, monkeypatch: Any
) -> None:
    _, secret = make_key()
    real, is_away = snapshots.read_revision, threading.Event()
    is_away.set()

    def flaky() -> int:
        if is_away.is_set():
            raise OperationalError("the database is away")
        return real()

    monkeypatch.setattr(worker_configuration, "read_revision", flaky)
    worker = WorkerConfiguration(start_wait_s=0.2)
    try:
        assert not worker.is_ready
        assert worker.find_key(secret) is None
        assert worker.snapshot.revision == 0
        is_away.clear()
        assert within_s(LIVE_WITHIN_S, lambda: worker.is_ready)
        assert worker.find_key(secret) is not None
    finally:
        worker.close()


def test_a_burst_of_changes_is_one_rebuild(worker: WorkerConfiguration, monkeypatch: Any) -> None:
    built = []
    real = snapshots.load_changes

    def counted(*args: Any) -> Any:
        built.append(args[1])
        return real(*args)

    monkeypatch.setattr(worker_configuration, "load_changes", counted)
    project = make_project()
    with transaction.atomic():
        secrets = [make_key(project=project)[1] for _ in range(20)]
    assert within_s(LIVE_WITHIN_S, lambda: all(worker.find_key(secret) for secret in secrets))
    assert len(built) <= 3


def test_closing_ends_the_thread(transactional_db: None) -> None:
    worker = WorkerConfiguration()
    worker.close()
    assert "configuration" not in {thread.name for thread in threading.enumerate()}
