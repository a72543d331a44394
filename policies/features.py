"""Which facts about a request may routing look at? Never prompt text.

Pure. `gateway/wire/` reads them out of a request body; conditions, strategies and filters use them; request
records keep them, so that a decision can be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Features(NamedTuple):
    """Facts about one request. A named tuple: one is made per request, and a frozen data class takes 5 µs.

    `input_tokens` is an estimate from sizes, made before any provider counted. `hour` (0-23) and `weekday` (1 Monday -
    7 Sunday) are in the tenant's time zone. Empty string, 0 and None mean that the caller said nothing.
    The last six are read from the words of a request (`policies.autorouter.request_facts`), and only for policies that
    look at them: `workload` and `conversation` are hashes, `difficulty` in 0..1 is 0.5 where nothing is known.
    """

    requested_model: str = ""
    endpoint: str = "chat"
    tenant: str = ""
    project: str = ""
    key: str = ""
    app: str = ""
    task: str = ""
    priority: str = ""
    quality: str = ""
    max_latency_ms: int = 0
    tags: Mapping[str, str] = NO_TAGS
    input_tokens: int = 0
    max_output_tokens: int = 0
    message_count: int = 0
    turn: int = 0
    choice_count: int = 1
    has_images: bool = False
    has_audio: bool = False
    has_files: bool = False
    has_tools: bool = False
    has_schema: bool = False
    has_logprobs: bool = False
    is_tool_forced: bool = False
    is_stream: bool = False
    hour: int = 0
    weekday: int = 1
    budget_used_ratio: float = 0.0
    workload: str = ""
    task_type: str = ""
    language: str = ""
    conversation: str = ""
    difficulty: float = 0.5
    is_tool_result: bool = False

    def context(self, names: frozenset[str]) -> dict[str, Any]:
        """The values of `names` alone: preparing a field for CEL costs more than evaluating a rule."""
        return {name: getattr(self, name) for name in names}


FEATURE_NAMES = frozenset(Features._fields)
# What only the words of a request tell.
TEXT_FEATURE_NAMES = frozenset(
    {"workload", "task_type", "language", "conversation", "difficulty", "is_tool_result"}
)
