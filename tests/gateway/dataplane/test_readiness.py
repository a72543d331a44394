"""Does a worker that cannot serve say so to whoever balances the load?"""

from __future__ import annotations

from gateway.dataplane.app import DataPlane
from tests.gateway.dataplane.in_process import Client, Plane


async def read(plane: Plane, path: str) -> tuple[int, bytes]:
    client = Client(plane, "a")
    scope = {"method": "GET", "path": f"/{path}", "headers": []}
    await DataPlane(plane.gateway)(scope, client.receive, client.send, path)
    return client.status, client.body


async def test_ready_is_who_has_a_configuration_and_room_for_its_journal_and_does_not_drain():
    plane = Plane("a")
    assert await read(plane, "readyz") == (200, b'{"status":"ok"}')
    plane.is_journal_full = True
    assert await read(plane, "readyz") == (503, b'{"status":"disk_full"}')
    plane.is_journal_full = False
    plane.gateway.configuration.is_ready = False
    assert await read(plane, "readyz") == (503, b'{"status":"starting"}')
    plane.gateway.is_draining = True
    assert await read(plane, "readyz") == (503, b'{"status":"draining"}')
    assert await read(plane, "healthz") == (200, b'{"status":"ok"}')
