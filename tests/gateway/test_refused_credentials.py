"""Can an operator have a credential tried again that the provider refused, in every worker and on the record?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import health_board
from gateway.dataplane.health import Health
from gateway.worker_configuration import WorkerConfiguration
from policies.models import ChangeEvent
from tests.console_people import operator, viewer
from tests.gateway.test_snapshots import LIVE_WITHIN_S, within_s
from tests.make_configuration import make_deployment, make_provider
from tests.policies.api.callers import caller_with

BUTTON = "Try it again"


@pytest.fixture
def workers(transactional_db: None) -> Iterator[list[WorkerConfiguration]]:
    configurations = [WorkerConfiguration(), WorkerConfiguration()]
    yield configurations
    for configuration in configurations:
        configuration.close()


def test_one_press_puts_it_back_in_every_worker(workers: list[WorkerConfiguration]) -> None:
    provider = make_provider(credential="sk-secret-of-a-test")
    name = make_deployment(provider=provider).name
    healths = [Health() for _ in workers]
    pairs = list(zip(workers, healths, strict=True))

    def problems() -> list[str | None]:
        return [health.problem(worker.snapshot.deployments[name]) for worker, health in pairs]

    assert within_s(LIVE_WITHIN_S, lambda: all(name in worker.snapshot.deployments for worker in workers))
    old = [worker.snapshot.deployments[name] for worker in workers]
    for health, deployment in zip(healths, old, strict=True):
        health.on_credential_rejected(deployment)
    assert problems() == ["credential_rejected"] * 2

    response = operator().post(f"/providers/{provider.pk}/credential/retry", follow=True)

    assert "tries the credential" in response.content.decode()
    assert within_s(LIVE_WITHIN_S, lambda: problems() == [None, None])
    healths[0].on_credential_rejected(
        old[0]
    )  # a call that began before the press says nothing about the new try
    assert problems() == [None, None]
    healths[0].on_credential_rejected(workers[0].snapshot.deployments[name])
    assert problems() == ["credential_rejected", None]
    event = ChangeEvent.objects.get(action="retry_credential")
    assert (event.object_type, event.object_id, event.after) == ("provider", provider.pk, None)
    assert event.actor.startswith("operator")


@pytest.mark.django_db
def test_a_program_can_do_it_too() -> None:
    provider = make_provider()
    path = f"providers/{provider.pk}/retry-credential"
    assert caller_with("read").send("POST", path).status_code == 403
    assert caller_with("catalog").send("POST", path).json()["id"] == provider.pk
    provider.refresh_from_db()
    assert provider.credential_revision == 1
    assert ChangeEvent.objects.get(action="retry_credential").actor.startswith("token:")


@pytest.mark.django_db
def test_only_a_refused_credential_has_the_button_and_only_for_operators(
    tmp_path: Path, settings: Any
) -> None:
    settings.POINTSMAN_DATA_DIR = tmp_path
    provider = make_provider()
    deployment = make_deployment(provider=provider)
    page = f"/providers/{provider.pk}"
    assert BUTTON not in operator().get(page).content.decode()
    state = {"state": "credential_rejected", "until": None, "requests": 1, "failures": 0, "reason": "refused"}
    health = {str(deployment.pk): {**state, "first_token_ms": None}}
    health_board.write_report(tmp_path, "worker-1", {"health": health})
    assert BUTTON in operator().get(page).content.decode()
    shown = viewer().get(page).content.decode()
    assert BUTTON not in shown
    assert "or tried again." in shown
    assert viewer().post(f"{page}/credential/retry").status_code == 403
    assert operator().get(f"{page}/credential/retry").status_code == 405
    provider.refresh_from_db()
    assert provider.credential_revision == 0


@pytest.mark.django_db
def test_a_reference_that_leads_nowhere_is_told_on_the_providers_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = make_provider(credential_reference="env:KEY_OF_NO_SHELL")
    monkeypatch.delenv("KEY_OF_NO_SHELL", raising=False)
    told = "The gateway cannot read it: env:KEY_OF_NO_SHELL: the environment variable KEY_OF_NO_SHELL is not set."
    assert told in viewer().get(f"/providers/{provider.pk}").content.decode()
    monkeypatch.setenv("KEY_OF_NO_SHELL", "sk-set")
    assert "cannot read it" not in viewer().get(f"/providers/{provider.pk}").content.decode()
