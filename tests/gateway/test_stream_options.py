"""Does a provider that refuses `stream_options` work, however it was set up?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.configuration_file.applying import apply_configuration
from gateway.configuration_file.exporting import export_text
from gateway.configuration_file.format import read_configuration
from gateway.snapshots import load_snapshot
from policies.models import Provider
from tests.console_people import operator
from tests.gateway.dataplane.in_process import CHUNK, DONE, LAST_CHUNK, Plane, stream
from tests.make_configuration import make_deployment, make_provider
from tests.policies.api.callers import caller_with

FILE = "providers: [{name: old, base_url: 'https://old.example.com/v1', takes_stream_options: false}]"


@pytest.mark.django_db
def test_the_file_says_it_and_the_snapshot_and_the_export_repeat_it() -> None:
    apply_configuration(read_configuration(FILE, folder=Path("/etc")), owner="apply:/etc/x.yaml")
    provider = Provider.objects.get()
    deployment = make_deployment(provider=provider)
    assert not load_snapshot().deployments[deployment.name].provider.takes_stream_options
    assert "takes_stream_options: false" in export_text()


@pytest.mark.django_db
def test_the_console_and_the_management_api_switch_it() -> None:
    provider = make_provider()
    page = f"/providers/{provider.pk}"
    client = operator()
    assert "stream_options" not in client.get(page).content.decode()
    shown = client.get(f"{page}/edit").context["form"]
    form = {name: value for name, value in shown.initial.items() if value not in (None, False, {})}
    del form["takes_stream_options"]
    client.post(f"{page}/edit", {**form, "extra_headers": "{}"})
    provider.refresh_from_db()
    assert not provider.takes_stream_options
    assert "stream_options is not sent" in client.get(page).content.decode()
    changed = caller_with().send("PATCH", f"providers/{provider.pk}", {"takes_stream_options": True})
    assert changed.json()["takes_stream_options"] is True
    provider.refresh_from_db()
    assert provider.takes_stream_options


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}])
async def test_it_never_gets_them_and_its_usage_is_estimated(asked: dict[str, Any]) -> None:
    plane = Plane("a")
    known = plane.deployments["a"]
    old = replace(known, provider=replace(known.provider, takes_stream_options=False))
    plane.gateway.configuration.snapshot = replace(
        plane.gateway.configuration.snapshot,
        deployments={"a": old},
        deployments_by_model={old.model.name: (old,)},
    )
    plane.upstream.answers["a"] = [stream(CHUNK, LAST_CHUNK, DONE)]
    client = await plane.ask("a", is_stream=True, **asked)
    assert client.body == CHUNK + LAST_CHUNK + DONE
    assert "stream_options" not in orjson.loads(plane.upstream.bodies[0])
    outcome = plane.lines("outcome")[0]
    assert (outcome["status"], outcome["usage"]["kind"]) == ("ok", "estimated")
    assert outcome["cost"] > 0
