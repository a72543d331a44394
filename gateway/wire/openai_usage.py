"""What did an OpenAI-format provider count? Its usage object -> Usage, in our terms.

Pure. Providers agree on the names and on little else; each branch names who does it. Sources: recorded traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billing.usage import MAX_PIECES, MAX_TOKENS, UNKNOWN_USAGE, Usage


def find_usage(payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The usage object of an answer or a chunk, wherever this provider puts it."""
    usage = payload.get("usage")
    if isinstance(usage, dict) and usage:
        return usage
    groq = payload.get("x_groq")  # Groq streams: only here, on the last chunk
    if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
        return groq["usage"] or None
    return None


def read_usage(raw: Mapping[str, Any] | None, *, service_tier: object = None) -> Usage:
    """Return the usage; UNKNOWN_USAGE when the numbers are missing or cannot be believed.

    A number that is negative, not finite, not whole, a text or absurdly large makes the whole object unknown:
    half-believed usage would be money made up.
    """
    if not raw:
        return UNKNOWN_USAGE
    try:
        return _read(raw, service_tier)
    except _UnbelievableError:
        return UNKNOWN_USAGE


def says_output(raw: Mapping[str, Any] | None) -> bool:
    """Whether a usage object counts what was generated; of embeddings none does, and need not."""
    return raw is not None and raw.get("completion_tokens", raw.get("output_tokens")) is not None


def with_images(usage: Usage, image_count: int) -> Usage:
    """The usage of an answer that holds so many images; UNKNOWN_USAGE where nobody can believe that."""
    if not image_count:
        return usage
    return usage._replace(image_count=image_count) if image_count <= MAX_PIECES else UNKNOWN_USAGE


def count_images(message: object) -> int:
    """The images in a message or delta: OpenRouter and LiteLLM put them into `images`, vLLM-Omni into `content`."""
    if not isinstance(message, dict):
        return 0
    places = [parts for parts in (message.get("images"), message.get("content")) if isinstance(parts, list)]
    return sum(1 for parts in places for part in parts if isinstance(part, dict) and part.get("image_url"))


class _UnbelievableError(ValueError):
    pass


def _count(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int:
        if not isinstance(value, float) or not value.is_integer():
            raise _UnbelievableError
        value = int(value)
    if not 0 <= value <= MAX_TOKENS:
        raise _UnbelievableError
    return value


def _part(details: Any, name: str) -> int:
    value = details.get(name) if type(details) is dict else None
    return _count(value) or 0 if value else 0


def _seconds(value: Any) -> int:
    """Whole seconds, half a second up: providers that state parts of one charge by the nearest."""
    if not value:
        return 0
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_PIECES:
        raise _UnbelievableError
    return int(value + 0.5)


def _read(raw: Mapping[str, Any], service_tier: object) -> Usage:
    get = raw.get
    prompt = _count(get("prompt_tokens", get("input_tokens")))
    completion = _count(get("completion_tokens", get("output_tokens")))
    total = _count(get("total_tokens"))
    if prompt is None and completion is None and total is None:
        # Whisper and what is like it: charged by the second of audio, and no tokens are counted.
        seconds = _seconds(get("seconds")) if get("type") == "duration" else 0
        return Usage("reported", 0, 0, convention="duration", audio_s=seconds) if seconds else UNKNOWN_USAGE
    prompt_details = get("prompt_tokens_details", get("input_tokens_details"))
    completion_details = get("completion_tokens_details", get("output_tokens_details"))
    cached = cache_write = write_1h = searches = audio_in = reasoning = audio_out = 0
    image_in = image_out = seconds = 0
    if prompt_details:
        cached = _part(prompt_details, "cached_tokens")
        cache_write = _part(prompt_details, "cache_write_tokens")
        audio_in = _part(prompt_details, "audio_tokens")
        image_in = _part(prompt_details, "image_tokens")  # xAI, Google, OpenAI
    if completion_details:
        reasoning = _part(completion_details, "reasoning_tokens")
        audio_out = _part(completion_details, "audio_tokens")
        image_out = _part(completion_details, "image_tokens")  # OpenRouter, Google
    # Are there members beyond the standard ones?
    has_more = len(raw) > (prompt is not None) + (completion is not None) + (total is not None) + bool(
        prompt_details
    ) + bool(completion_details)
    if has_more:
        if not cached:
            # Top level: DeepSeek, Mistral, Moonshot and Together, Anthropic's surface.
            for name in (
                "prompt_cache_hit_tokens",
                "num_cached_tokens",
                "cached_tokens",
                "cache_read_input_tokens",
            ):
                cached = _count(get(name)) or 0
                if cached:
                    break
        if not cache_write:
            cache_write = _count(get("cache_creation_input_tokens")) or 0
        if cache_write:
            write_1h = _part(get("cache_creation"), "ephemeral_1h_input_tokens")  # Anthropic
        searches = (
            _part(get("server_tool_use"), "web_search_requests")  # Anthropic, OpenRouter
            or _count(get("num_search_queries"))  # Perplexity
            or _count(get("num_sources_used"))  # xAI: it charges the sources that it read
            or 0
        )
        if searches > MAX_PIECES:
            raise _UnbelievableError
        seconds = _seconds(get("prompt_audio_seconds"))  # Mistral
    convention = "openai"
    if prompt is None:
        if total is None:
            raise _UnbelievableError  # what was sent is not nothing, only because nobody counted it
        prompt = total if completion is None else total - completion  # Voyage: only a total
        convention = "total_only"
        if prompt < 0:
            raise _UnbelievableError
    output = completion or 0
    surplus = 0 if total is None else total - prompt - output
    if surplus > 0:
        if surplus == audio_in:
            prompt += surplus  # Mistral: audio beside prompt_tokens
            convention = "audio_beside_prompt"
        else:
            # xAI counts reasoning beside completion_tokens; Gemini's OpenAI surface does so without saying.
            output += surplus
            reasoning = max(reasoning, surplus)
            convention = "reasoning_beside_completion"
    elif reasoning > output and total is None:
        output += reasoning
        convention = "reasoning_beside_completion"
    reasoning = min(reasoning, output)  # OpenRouter: 11 of 10, with a total that counts 10
    tier = service_tier if isinstance(service_tier, str) else get("service_tier")
    # By position: with names it takes three times as long.
    return Usage(
        "reported",
        prompt,
        output,
        cached,
        cache_write,
        reasoning,
        audio_in,
        audio_out,
        convention,
        tier[:40] if isinstance(tier, str) else "",
        _stated_cost_nanousd(raw) if has_more else None,
        write_1h,
        searches,
        image_in,
        image_out,
        0,  # images: the answer shows them, no usage counts them
        seconds,
    )


def _stated_cost_nanousd(raw: Mapping[str, Any]) -> int | None:
    """What the provider says it charged: OpenRouter `cost`, Perplexity `cost.total_cost`, xAI ticks of 1e-10 USD.

    Kept beside our own rating for reconciliation; a float is what the provider sent, so this is not our money.
    """
    ticks = raw.get("cost_in_usd_ticks")
    if isinstance(ticks, int) and not isinstance(ticks, bool) and 0 <= ticks < 10**18:
        return ticks // 10
    cost = raw.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if isinstance(cost, (int, float)) and not isinstance(cost, bool) and 0 <= cost < 1e8:
        return round(cost * 1_000_000_000)
    return None
