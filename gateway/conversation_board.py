"""Which deployment served a conversation last? One table for all workers of a machine, in shared memory.

Writes and reads: DATA_DIR/run/conversations, mapped into each worker. No Django. It holds hashes and numbers, is no
record of anything, and may be lost: a conversation then gets a deployment anew.

A slot is 16 bytes: the conversation's 8, the deployment's id, the second of the last use. Two workers that write one
slot at once can tear it: it then answers for no conversation, or names a deployment, which the decision checks anyway.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SLOT = struct.Struct("<8sII")
SLOT_COUNT = 1 << 16
WAYS = 4  # slots that a conversation may stand in; the one used longest ago gives way
# Longer than people leave a conversation lying, and than any provider keeps its prompt cache.
TTL_S = 6 * 3600
# Writing the time of every use would dirty a page per request.
REFRESH_S = 60


class ConversationBoard:
    """The mapped table. Raises OSError when the file cannot be made."""

    def __init__(self, data_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        folder = data_dir / "run"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "conversations", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SLOT.size * SLOT_COUNT)
            self._table = mmap.mmap(descriptor, SLOT.size * SLOT_COUNT)
        finally:
            os.close(descriptor)

    def find(self, conversation: str, /) -> int | None:
        """The id of the deployment that served this conversation (16 hex digits) last, None when nobody knows."""
        key, first = _place(conversation)
        table = self._table
        for offset in range(first, first + WAYS * SLOT.size, SLOT.size):
            if table[offset : offset + 8] == key:
                _, deployment_id, used_s = SLOT.unpack_from(table, offset)
                return int(deployment_id) if self._clock() - used_s < TTL_S else None
        return None

    def keep(self, conversation: str, deployment_id: int, /) -> None:
        """Note that this deployment serves the conversation."""
        key, first = _place(conversation)
        table = self._table
        now_s = int(self._clock())
        oldest, oldest_s = first, now_s + TTL_S
        for offset in range(first, first + WAYS * SLOT.size, SLOT.size):
            found, known_id, used_s = SLOT.unpack_from(table, offset)
            if found == key:
                if known_id != deployment_id or now_s - used_s > REFRESH_S:
                    SLOT.pack_into(table, offset, key, deployment_id, now_s)
                return
            if used_s < oldest_s:
                oldest, oldest_s = offset, used_s
        SLOT.pack_into(table, oldest, key, deployment_id, now_s)

    def close(self) -> None:
        """Let go of the memory; the table stays for other workers."""
        with suppress(BufferError):
            self._table.close()


def _place(conversation: str) -> tuple[bytes, int]:
    """A conversation's 8 bytes, and the offset of the first slot that it may stand in."""
    key = bytes.fromhex(conversation)
    first = int.from_bytes(key[:4], "little") % (SLOT_COUNT - WAYS)
    return key, first * SLOT.size
