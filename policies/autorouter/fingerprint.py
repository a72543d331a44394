"""Which workload, and which conversation, does a request belong to? Two hashes.

Pure, but for a bounded memory of hashes: what is kept of a system prompt is its digest and the digest of its masked
form, never a word of it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import blake2b
from typing import Final

HASH_BYTES: Final = 8
MEMORY_SIZE: Final = 4096
# Two conversations of one key whose long beginnings agree in this many characters and in length are taken for one.
OUTLINE_CHARS: Final = 4096
# Masking takes 0.06 ms a thousand characters: of a longer system prompt the two ends speak for the whole.
MASKED_CHARS: Final = 24_000
COMPARED_CHARS: Final = 8_000
# A separator that no text part can end with by accident matters less than that it is always there.
SEPARATOR: Final = b"\x1f"

_NUMBERS = re.compile(r"\d+(?:[.,:/\-]\d+)*")
_memory: OrderedDict[bytes, bytes] = OrderedDict()


def find_workload(
    *, key_id: int, app: str, system: str, tool_names: tuple[str, ...], schema: str, tenant_id: int = 0
) -> str:
    """Return 16 hex digits: equal for requests of one app (or key) with one system prompt, tools and schema.

    An app is one tenant's: who calls itself like another tenant's app shall not speak for its workload.
    Numbers in the system prompt are masked: a date or a customer number in it does not make another workload.
    """
    digest = blake2b(_whose(tenant_id, key_id, app).encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES)
    digest.update(SEPARATOR)
    if system:
        digest.update(_masked_digest(system))
    if tool_names:
        digest.update(SEPARATOR)
        digest.update("\x1e".join(sorted(tool_names)).encode("utf-8", "surrogatepass"))
    if schema:
        digest.update(SEPARATOR + b"schema" + SEPARATOR)
        digest.update(schema.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _whose(tenant_id: int, key_id: int, app: str) -> str:
    if not app:
        return f"key:{key_id}"
    return f"tenant:{tenant_id}:app:{app}" if tenant_id else f"app:{app}"


def workload_of_label(label: str) -> str:
    """Return the workload of requests that carry this app name and nothing else: a name instead of a fingerprint."""
    return find_workload(key_id=0, app=label, system="", tool_names=(), schema="")


def find_conversation(
    *, session: str, key_id: int, system: str, tool_names: tuple[str, ...], first_user: str
) -> str:
    """Return 16 hex digits: the caller's session where it names one, else what the conversation began with."""
    if session:
        began_with = f"session:{key_id}:{session}"
    else:
        tools = "\x1e".join(sorted(tool_names))
        began_with = f"key:{key_id}\x1f{_outline(system)}\x1f{tools}\x1f{_outline(first_user)}"
    return blake2b(began_with.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).hexdigest()


def _outline(text: str) -> str:
    """Return a text, or where it is long its length, beginning and end: a document takes no longer than a page."""
    if len(text) <= OUTLINE_CHARS:
        return text
    return f"{len(text)}\x1f{text[: OUTLINE_CHARS // 2]}\x1f{text[-OUTLINE_CHARS // 2 :]}"


def _masked_digest(system: str) -> bytes:
    """Return the digest of a system prompt without its numbers, remembered by the digest of the prompt itself."""
    raw = blake2b(system.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    known = _memory.get(raw)
    if known is None:
        if len(system) <= MASKED_CHARS:
            masked = _mask(system)
        else:
            # Cut once more when masked, so that a longer number does not push other words into what is compared.
            head, tail = _mask(system[: MASKED_CHARS // 2]), _mask(system[-MASKED_CHARS // 2 :])
            masked = f"{head[:COMPARED_CHARS]}\x1f{tail[-COMPARED_CHARS:]}"
        known = blake2b(masked.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
        if len(_memory) >= MEMORY_SIZE:
            _memory.popitem(last=False)
        _memory[raw] = known
    return known


def _mask(text: str) -> str:
    return " ".join(_NUMBERS.sub("#", text).split())
