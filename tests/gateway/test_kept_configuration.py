"""Does a worker that starts without the database serve what was in force, and does a copy give nothing away?"""

from __future__ import annotations

import os
import pickle
import stat
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import OperationalError

from gateway import kept_configuration, snapshots, worker_configuration
from gateway.kept_configuration import MAX_AGE_S, WRITE_EVERY_S, KeptConfiguration, release_fingerprint
from gateway.snapshots import Loaded, load_everything
from gateway.worker_configuration import WorkerConfiguration
from policies import issuing, publishing, tenancy_changes
from policies.asks import Ask
from policies.autorouter.difficulty import FORM_NAMES, DifficultyModel
from policies.autorouter.tables import Amount, Estimate, Latency, Workload
from policies.conditions import compile_condition
from policies.decision import decide
from policies.features import Features
from policies.keys import hash_secret
from policies.snapshot import BudgetTerms
from tests.gateway.test_snapshots import LIVE_WITHIN_S, within_s
from tests.make_configuration import (
    ACTOR,
    make_deployment,
    make_key,
    make_price,
    make_project,
    make_provider,
    make_tenant,
)
from tests.make_routing import FakeHealth

CREDENTIAL = "sk-credential-of-a-test"
KEY = Fernet.generate_key().decode()


def a_policy() -> None:
    policy = publishing.create_policy(public_id="acme/auto", actor=ACTOR)
    rules = [
        {"name": "long", "when": "input_tokens > 100", "strategy": "fixed", "deployments": ["big"]},
        {"name": "rest", "strategy": "auto", "deployments": ["small", "big"], "slider": 3},
    ]
    publishing.publish(policy=policy, actor=ACTOR, document={"rules": rules})


def a_world() -> str:
    """Two deployments behind a policy; returns the secret of a key that may use it."""
    provider = make_provider(credential=CREDENTIAL)
    for name in ("big", "small"):
        make_price(deployment=make_deployment(name=name, provider=provider))
    tenant = make_tenant()
    a_policy()
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["acme/auto"], actor=ACTOR)
    project = make_project(tenant=tenant)
    return make_key(project=project)[1]


def keeper(data_dir: Path, *, is_writer: bool = True, key: str = KEY) -> KeptConfiguration:
    return KeptConfiguration(data_dir, credential_keys=[key], is_writer=is_writer)


def copies(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "run").glob("*.kept"))


@pytest.fixture
def world(db: None) -> tuple[str, Loaded]:
    secret = a_world()
    return secret, load_everything()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """A switch: {"is_away": True} takes the database away from the followers of the change feed."""
    state, real = {"is_away": False}, snapshots.read_revision

    def flaky() -> int:
        if state["is_away"]:
            raise OperationalError("the database is away")
        return real()

    monkeypatch.setattr(worker_configuration, "read_revision", flaky)
    yield state


def test_what_comes_back_decides_as_what_was_kept(world: tuple[str, Loaded], tmp_path: Path) -> None:
    _, loaded = world
    keeper(tmp_path).keep(loaded, now_s=0.0)
    back = keeper(tmp_path).read(now_s=time.time())
    assert back is not None
    assert back.routing.revision == loaded.routing.revision
    assert back.prices == loaded.prices
    assert back.grants == loaded.grants
    assert back.routing.deployments["big"].provider.secret == CREDENTIAL
    for input_tokens, first in ((101, "big"), (7, None)):
        features = Features(input_tokens=input_tokens)
        old, new = (
            decide(
                Ask("acme/auto"),
                features,
                one.routing,
                next(iter(one.grants.values())),
                FakeHealth(),
                draw=0.5,
            )
            for one in (loaded, back)
        )
        assert [d.name for d in new.candidates] == [d.name for d in old.candidates]
        assert old.candidates
        assert first is None or new.candidates[0].name == first


def test_everything_that_a_configuration_can_hold_comes_back(
    world: tuple[str, Loaded], tmp_path: Path
) -> None:
    _, loaded = world
    terms = BudgetTerms(1, "acme", "month", "UTC", 10**12, 0)
    for grant_hash, grant in loaded.grants.items():
        loaded.grants[grant_hash] = replace(grant, budgets=(terms,), allowed_models=frozenset({"acme/auto"}))
    tables = replace(
        loaded.routing.router,
        difficulty=DifficultyModel((0.5,) * (2 + len(FORM_NAMES)), 0.25, {"m": -0.5}),
        types={"code": Workload(3.0, 0.8, {"m": Estimate(2.0, 0.1, 0.05)})},
        type_output_tokens={("code", "m"): Amount(100.0, 3.0)},
        latencies={("all", "m"): Latency(1.0, 2.0, 3.0)},
    )
    tables.remember("key", compile_condition)  # a function has no place in a copy, and no use
    policies = {
        name: replace(policy, canary=policy, canary_percent=5.0)
        for name, policy in loaded.routing.policies.items()
    }
    loaded.routing = replace(loaded.routing, router=tables, policies=policies)
    keeper(tmp_path).keep(loaded, now_s=0.0)
    back = keeper(tmp_path).read(now_s=time.time())
    assert back is not None
    assert back.grants == loaded.grants
    assert back.routing.router.to_document() == tables.to_document()
    assert back.routing.router.memo == {}
    canary = back.routing.policies["acme/auto"].canary
    assert canary is not None
    assert canary.rules[0].condition is not None


def test_a_copy_shows_nothing_to_who_has_no_key(
    world: tuple[str, Loaded], tmp_path: Path, settings: Any
) -> None:
    secret, loaded = world
    keeper(tmp_path).keep(loaded, now_s=0.0)
    (path,) = copies(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    key_hash = hash_secret(secret, pepper=settings.POINTSMAN_KEY_PEPPER)
    assert key_hash in loaded.grants
    for clear in (CREDENTIAL.encode(), key_hash, key_hash.hex().encode(), b"acme/auto", b"small"):
        assert clear not in content
    assert list((tmp_path / "run").iterdir()) == [path]


def test_a_worker_that_starts_without_the_database_serves_and_catches_up(
    transactional_db: None, tmp_path: Path, database: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    secret = a_world()
    first = WorkerConfiguration(kept=keeper(tmp_path), poll_interval_s=0.05)
    assert within_s(LIVE_WITHIN_S, lambda: copies(tmp_path))
    first.close()
    database["is_away"] = True
    second = WorkerConfiguration(kept=keeper(tmp_path), poll_interval_s=0.05)
    try:
        assert second.is_ready
        assert second.find_key(secret) is not None
        assert second.snapshot.deployments["big"].provider.secret == CREDENTIAL
        assert second.find_price(second.snapshot.deployments["big"].id, time.time()) is not None
        assert second.checked_at_unix_s == 0.0
        assert "is in force until it is back" in caplog.text
        database["is_away"] = False
        later = make_key()[1]
        assert within_s(LIVE_WITHIN_S, lambda: second.find_key(later))
        assert second.find_key(secret) is not None
    finally:
        second.close()


def test_what_was_revoked_is_in_no_copy_from_then_on(transactional_db: None, tmp_path: Path) -> None:
    key, _ = make_key()
    writer, other = keeper(tmp_path), keeper(tmp_path, is_writer=False)
    before = load_everything()
    writer.keep(before, now_s=100.0)
    other.keep(before, now_s=100.0)
    assert len(copies(tmp_path)) == 1
    issuing.revoke_key(key=key, actor=ACTOR)
    after = load_everything()
    other.keep(after, now_s=100.5)  # whichever worker hears of it first
    assert copies(tmp_path) == []
    writer.keep(after, now_s=100.6)
    assert copies(tmp_path) == []  # too soon to write again
    writer.keep(after, now_s=100.0 + WRITE_EVERY_S)
    back = keeper(tmp_path).read(now_s=time.time())
    assert back is not None
    assert (len(before.grants), len(back.grants)) == (1, 0)
    assert back.routing.revision == after.routing.revision


def test_a_copy_that_is_confirmed_stays_young(world: tuple[str, Loaded], tmp_path: Path) -> None:
    _, loaded = world
    writer = keeper(tmp_path)
    writer.keep(loaded, now_s=0.0)
    (path,) = copies(tmp_path)
    os.utime(path, (1.0, 1.0))
    writer.keep(loaded, now_s=WRITE_EVERY_S - 1)
    assert path.stat().st_mtime == 1.0
    assert writer.read(now_s=2.0 + MAX_AGE_S) is None
    writer.keep(loaded, now_s=WRITE_EVERY_S)
    assert writer.read(now_s=time.time()) is not None
    path.unlink()
    for now_s in (1000.0, 2000.0):
        writer.keep(loaded, now_s=now_s)
    assert copies(tmp_path) == [path]


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_a_copy_that_is_not_ours_is_not_used(
    world: tuple[str, Loaded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, loaded = world
    kept = keeper(tmp_path)
    kept.keep(loaded, now_s=0.0)
    (path,) = copies(tmp_path)
    assert keeper(tmp_path, key=Fernet.generate_key().decode()).read(now_s=0.0) is None
    assert "no key of ours fits" in caplog.text
    assert kept.read(now_s=time.time()) is not None
    with monkeypatch.context() as patched:
        patched.setattr(kept_configuration, "release_fingerprint", lambda: b"x" * 32)
        assert kept.read(now_s=time.time()) is None
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    content = release_fingerprint() + pickle.dumps(Hostile())
    path.write_bytes(Fernet(KEY.encode()).encrypt(zlib.compress(content)))
    assert kept.read(now_s=time.time()) is None
    assert "has no place in a configuration" in caplog.text
    assert ran == []
    path.write_bytes(b"garbage")
    assert kept.read(now_s=time.time()) is None


def test_a_folder_that_cannot_be_written_stops_nobody(world: tuple[str, Loaded], tmp_path: Path) -> None:
    _, loaded = world
    (tmp_path / "run").write_text("a file where a folder is wanted")
    keeper(tmp_path).keep(loaded, now_s=0.0)
    keeper(tmp_path, key="no key").keep(loaded, now_s=0.0)
    assert keeper(tmp_path).read(now_s=0.0) is None
