"""Is a body that says no size bounded like one that does?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dataplane.errors import GatewayUnready
from gateway.dataplane.limits import LARGE_BODY_BYTES, MAX_HELD_BYTES, Receive, Room, read_body
from gateway.dataplane.stats import Stats


def in_pieces(*sizes: int) -> Receive:
    """A channel that brings a body in pieces of these sizes."""
    pieces: Iterator[tuple[int, int]] = iter(enumerate(sizes, start=1))

    async def receive() -> dict[str, Any]:
        number, size = next(pieces)
        return {"type": "http.request", "body": b"x" * size, "more_body": number < len(sizes)}

    return receive


async def test_a_body_in_chunks_is_counted_while_it_grows_and_given_back():
    stats = Stats()
    room = Room(stats)
    body = await read_body(in_pieces(LARGE_BODY_BYTES - 1, 1, 5), room=room)
    assert len(body) == stats.held_bytes == LARGE_BODY_BYTES + 5
    room.leave()
    room.leave()
    assert stats.held_bytes == 0


async def test_a_large_body_in_chunks_is_turned_away_while_too_many_are_held_and_a_small_one_never():
    stats = Stats()
    stats.held_bytes = full = MAX_HELD_BYTES
    small, large = Room(stats), Room(stats)
    assert len(await read_body(in_pieces(500, LARGE_BODY_BYTES - 501), room=small)) == LARGE_BODY_BYTES - 1
    with pytest.raises(GatewayUnready):
        await read_body(in_pieces(500, LARGE_BODY_BYTES), room=large)
    small.leave()
    large.leave()
    assert stats.held_bytes == full


async def test_what_was_declared_is_not_counted_twice():
    stats = Stats()
    room = Room(stats)
    room.take(2 * LARGE_BODY_BYTES)
    await read_body(in_pieces(LARGE_BODY_BYTES, LARGE_BODY_BYTES), room=room)
    assert stats.held_bytes == 2 * LARGE_BODY_BYTES
