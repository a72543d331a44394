"""What are well-known models worth, to go by public tables? The seed of every estimate, until evidence comes.

Pure. Facts, rounded: the share of MMLU-Pro questions answered rightly, as published by whom `SOURCES` names. One
benchmark for all, so that the ratings are comparable; operators rate their own models in the console.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from policies.autorouter.tables import Rating

SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    "leaderboard": ("MMLU-Pro leaderboard (TIGER-Lab)", "2025-03"),
    "card": ("MMLU-Pro, the maker's model card", "2025-06"),
}
_RATED: Final = """
gpt-5 .87 card | gpt-4.1 .81 card | gpt-4.1-mini .78 card | gpt-4.1-nano .65 card | o3-mini .79 card
gpt-4o .73 leaderboard | gpt-4o-mini .63 leaderboard | gpt-4-turbo .64 leaderboard | gpt-4 .62 card
gpt-3.5-turbo .43 card | claude-3-opus .68 leaderboard | claude-3-sonnet .57 leaderboard
claude-3-haiku .42 leaderboard | claude-3-5-sonnet .77 leaderboard | claude-3-5-haiku .62 leaderboard
claude-3-7-sonnet .80 card | claude-sonnet-4 .83 card | claude-opus-4 .85 card | gemini-1.5-pro .69 leaderboard
gemini-1.5-flash .59 leaderboard | gemini-1.5-flash-8b .51 card | gemini-2.0-flash .77 leaderboard
gemini-2.0-flash-lite .72 card | gemini-2.5-pro .86 card | gemini-2.5-flash .81 card
llama-3-8b .41 leaderboard | llama-3-70b .56 leaderboard | llama-3.1-8b .44 leaderboard
llama-3.1-70b .63 leaderboard | llama-3.1-405b .73 leaderboard | llama-3.2-1b .19 card | llama-3.2-3b .37 card
llama-3.3-70b .69 card | llama-4-scout .74 card | llama-4-maverick .80 card | mistral-7b .31 leaderboard
mixtral-8x7b .43 leaderboard | mixtral-8x22b .56 leaderboard | mistral-nemo .45 leaderboard
mistral-small-3 .66 card | mistral-large .66 leaderboard | gemma-2-2b .26 card | gemma-2-9b .52 leaderboard
gemma-2-27b .57 leaderboard | gemma-3-4b .44 card | gemma-3-12b .61 card | gemma-3-27b .68 card
qwen2-7b .47 leaderboard | qwen2-72b .64 leaderboard | qwen2.5-0.5b .15 card | qwen2.5-1.5b .32 card
qwen2.5-3b .44 card | qwen2.5-7b .56 card | qwen2.5-14b .64 card | qwen2.5-32b .69 card | qwen2.5-72b .71 card
qwen3-32b .80 card | qwen3-235b .83 card | phi-3-mini .46 leaderboard | phi-3.5-mini .47 leaderboard
phi-4 .70 card | deepseek-v2.5 .65 leaderboard | deepseek-v3 .76 leaderboard | deepseek-r1 .84 leaderboard
yi-1.5-9b .46 leaderboard | yi-1.5-34b .52 leaderboard | command-r .38 leaderboard | command-r-plus .45 leaderboard
smollm2-1.7b .19 card | smollm2-360m .11 card | smollm2-135m .11 card | jamba-1.5-large .54 card
"""
# What a catalog name may have around the model's own: a vendor before it; a date, a size of quantisation or the word
# for "instruction-tuned" behind it.
_SUFFIXES = re.compile(
    r"(?:[-_@:](?:instruct|inst|it|chat|hf|latest|preview|turbo-preview|fp8|fp16|bf16|awq|gptq|gguf|q\d\w*|free|"
    r"v\d+(?:\.\d+)*|\d{3,8}|\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|16e|17b|exp))+$"
)


def _read() -> dict[str, Rating]:
    ratings = {}
    for entry in _RATED.replace("\n", " | ").split("|"):
        if entry.strip():
            name, quality, source = entry.split()
            ratings[name] = Rating(float(quality), *SOURCES[source])
    return ratings


PUBLIC_RATINGS: Final[Mapping[str, Rating]] = _read()


@lru_cache(maxsize=4096)
def find_public_rating(model: str) -> Rating | None:
    """Return the rating of the model that a catalog name means, or None: "openai/gpt-4o-2024-08-06" is gpt-4o."""
    name = plain_name(model)
    return PUBLIC_RATINGS.get(name) or PUBLIC_RATINGS.get(name.replace("meta-llama", "llama"))


def plain_name(model: str) -> str:
    """Return a catalog name without vendor, date and form: what two spellings of one model share."""
    name = model.rsplit("/", 1)[-1].lower().replace("_", ".").replace(" ", "-").split("@")[0].split(":")[0]
    return _SUFFIXES.sub("", name)
