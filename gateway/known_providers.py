"""Which providers, models and list prices do we know, so that a key in the environment is enough to begin?

Pure. Facts with their source; an operator changes the rows in the console, never this file, to run a gateway.
A price stands here only where the whole list price is one rate per unit; the other models begin unpriced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as it is called here and upstream, and what it can do. `rating` in 0..1 only where it is invented."""

    name: str
    upstream_model: str
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    output_limit_parameter: str = ""
    price: Mapping[str, str] = field(default_factory=dict)
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """A provider whose key stands in an environment variable. All are called in OpenAI's wire format."""

    name: str
    key_variable: str
    base_url: str
    price_source: str
    models: Sequence[KnownModel]


def _rates(*, uncached: str, read: str, out: str, write: str = "") -> dict[str, str]:
    rates = {"input_usd_per_mtok": uncached, "cache_read_usd_per_mtok": read, "output_usd_per_mtok": out}
    return {**rates, "cache_write_usd_per_mtok": write} if write else rates


_OPENAI_ALL = ("files", "json_schema", "tools", "vision")
_GPT_5 = KnownModel(
    "gpt-5", "gpt-5", 400_000, 128_000, _OPENAI_ALL, output_limit_parameter="max_completion_tokens",
    price=_rates(uncached="1.25", read="0.125", out="10"),
)  # fmt: skip
_GPT_5_MINI = KnownModel(
    "gpt-5-mini", "gpt-5-mini", 400_000, 128_000, _OPENAI_ALL, output_limit_parameter="max_completion_tokens",
    price=_rates(uncached="0.25", read="0.025", out="2"),
)  # fmt: skip
_GPT_41_MINI = KnownModel(
    "gpt-4.1-mini", "gpt-4.1-mini", 1_047_576, 32_768, (*_OPENAI_ALL, "logprobs"),
    price=_rates(uncached="0.40", read="0.10", out="1.60"),
)  # fmt: skip
_EMBEDDING_3_SMALL = KnownModel(
    "text-embedding-3-small", "text-embedding-3-small", 8_191, endpoints=("embeddings",),
    price={"input_usd_per_mtok": "0.02"},
)  # fmt: skip
# Anthropic's OpenAI-compatible address takes no JSON schema.
_SONNET = KnownModel(
    "claude-sonnet-4-5", "claude-sonnet-4-5", 200_000, 64_000, ("tools", "vision"),
    price=_rates(uncached="3", read="0.30", write="3.75", out="15"),
)  # fmt: skip
_HAIKU = KnownModel(
    "claude-haiku-4-5", "claude-haiku-4-5", 200_000, 64_000, ("tools", "vision"),
    price=_rates(uncached="1", read="0.10", write="1.25", out="5"),
)  # fmt: skip
_GEMINI_ALL = ("audio", "json_schema", "tools", "vision")

KNOWN_PROVIDERS = (
    KnownProvider(
        "openai",
        "OPENAI_API_KEY",
        "https://api.openai.com/v1",
        "OpenAI price list, standard tier, 2025-10",
        (_GPT_5_MINI, _GPT_5, _GPT_41_MINI, _EMBEDDING_3_SMALL),
    ),
    KnownProvider(
        "anthropic",
        "ANTHROPIC_API_KEY",
        "https://api.anthropic.com/v1",
        "Anthropic price list, 2025-10",
        (_HAIKU, _SONNET),
    ),
    KnownProvider(
        "gemini",
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "",  # Prices depend on prompt length, modality and cache storage: the operator states them.
        (
            KnownModel("gemini-2.5-flash", "gemini-2.5-flash", 1_048_576, 65_536, _GEMINI_ALL),
            KnownModel("gemini-2.5-pro", "gemini-2.5-pro", 1_048_576, 65_536, _GEMINI_ALL),
        ),
    ),
    KnownProvider(
        "openrouter",
        "OPENROUTER_API_KEY",
        "https://openrouter.ai/api/v1",
        "",  # Prices depend on which host OpenRouter picks: the operator states them.
        (
            KnownModel("gpt-5-mini", "openai/gpt-5-mini", 400_000, 128_000, _OPENAI_ALL),
            KnownModel(
                "claude-sonnet-4-5", "anthropic/claude-sonnet-4.5", 200_000, 64_000, ("tools", "vision")
            ),
            KnownModel("llama-3.3-70b", "meta-llama/llama-3.3-70b-instruct", 131_072, None, ("tools",)),
        ),
    ),
)

# Invented models of the simulated provider, priced and rated like models of the day of four sizes.
SIMULATED_MODELS = (
    KnownModel(
        "sim-small", "sim-small", 32_768, 8_192, ("json_schema", "tools"),
        price=_rates(uncached="0.10", read="0.025", out="0.40"), rating=0.74,
    ),
    KnownModel(
        "sim-medium", "sim-medium", 131_072, 16_384, ("json_schema", "tools"),
        price=_rates(uncached="0.40", read="0.10", out="1.60"), rating=0.83,
    ),
    KnownModel(
        "sim-code", "sim-code", 131_072, 32_768, ("tools",),
        price=_rates(uncached="0.80", read="0.20", out="3.20"), rating=0.82,
    ),
    KnownModel(
        "sim-large", "sim-large", 200_000, 32_768, ("json_schema", "tools", "vision"),
        price=_rates(uncached="2.50", read="1.25", out="10"), rating=0.85,
    ),
    KnownModel("sim-embed", "sim-embed", 8_192, endpoints=("embeddings",), price={"input_usd_per_mtok": "0.02"}),
)  # fmt: skip
