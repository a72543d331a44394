"""How is usage kept in a JSON column, and read back?

Pure. The words of `billing.usage`; what is zero, empty or not said is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billing.usage import UNKNOWN_USAGE, Usage


def usage_from_json(stored: Mapping[str, Any]) -> Usage:
    """Read what `journal_lines` stored. An empty object (a call that used nothing) is unknown usage."""
    return Usage(**stored) if stored else UNKNOWN_USAGE


def usage_as_json(usage: Usage) -> dict[str, Any]:
    """The usage object of the API: every count named, None where nobody said."""
    return {
        "kind": usage.kind,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_input_tokens": usage.audio_input_tokens,
        "audio_output_tokens": usage.audio_output_tokens,
        "image_input_tokens": usage.image_input_tokens,
        "image_output_tokens": usage.image_output_tokens,
        "search_count": usage.search_count,
        "image_count": usage.image_count,
        "audio_s": usage.audio_s,
        "convention": usage.convention,
        "service_tier": usage.service_tier,
        "reported_cost_nanousd": usage.reported_cost_nanousd,
    }
