"""What was counted, in whose terms? Normalised usage of one attempt.

Pure. `wire/` turns a provider's usage object into this; `billing.rating` prices it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

UsageKind = Literal["reported", "estimated", "unknown"]

# A provider that says more than this is broken or hostile (10^12 tokens); the usage is then not believed.
MAX_TOKENS = 1_000_000_000_000
# The same of what is counted by the piece: searches, images, seconds.
MAX_PIECES = 1_000_000


class Usage(NamedTuple):
    """Counted units of one attempt. Totals include their parts. A named tuple, as one is made per attempt.

    `input_tokens` counts everything sent: uncached, `cache_read_tokens`, `cache_write_tokens`, `audio_input_tokens` and
    `image_input_tokens` are inside it. `output_tokens` counts everything generated: `reasoning_tokens`,
    `audio_output_tokens` and `image_output_tokens` are inside it. `cache_write_1h_tokens` are inside
    `cache_write_tokens`: those kept for an hour, which some providers charge apart. None means the provider did not
    say. `convention` names what the provider's own numbers meant, so that a row can be read back ("openai",
    "xai_reasoning_outside", ...).
    `search_count` are searches that the provider did on the way, as it counts them (calls, or sources that it read).
    `image_count` are the images in the answer, counted there: no provider states their number. `audio_s` are the
    seconds of audio that the provider says it heard.
    `reported_cost_nanousd` is the price that the provider itself stated, kept beside ours, never used for it.
    """

    kind: UsageKind = "unknown"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    convention: str = ""
    service_tier: str = ""
    reported_cost_nanousd: int | None = None
    cache_write_1h_tokens: int = 0
    search_count: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    image_count: int = 0
    audio_s: int = 0


UNKNOWN_USAGE = Usage()
