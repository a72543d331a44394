"""What does a complete OpenAI-format answer say: model, usage, finish reason, and how much was generated?

Pure. The answer's bytes go to the client as they came; this only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from billing.usage import Usage
from gateway.wire.openai_usage import count_images, find_usage, read_usage, says_output, with_images

CHARACTERS_PER_TOKEN = 4
# Parts hold parts (thinking) two levels deep; what is deeper was not written to be counted.
MAX_CONTENT_DEPTH = 8


class AnswerFacts(NamedTuple):
    """`served_model` is the provider's own word for what answered, `answer_id` its own id of the answer."""

    served_model: str
    finish_reason: str
    usage: Usage
    answer_id: str = ""


def read_answer(payload: Mapping[str, Any], *, estimated_input_tokens: int) -> AnswerFacts:
    """Read a chat, completions or embeddings answer. Usage that is missing is estimated and marked so."""
    model = payload.get("model")
    finish = ""
    image_count = 0
    choices = payload.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                finish = reason
            image_count += count_images(choice.get("message"))
    stated = find_usage(payload)
    usage = read_usage(stated, service_tier=payload.get("service_tier"))
    if usage.kind == "unknown":
        usage = estimate_usage(
            input_tokens=estimated_input_tokens, output_characters=_generated_characters(choices)
        )
    elif choices and not usage.output_tokens and not says_output(stated):
        usage = with_unsaid(usage, output_characters=_generated_characters(choices))
    return AnswerFacts(
        model if isinstance(model, str) else "",
        finish[:60],
        with_images(usage, image_count),
        answer_id if isinstance(answer_id := payload.get("id"), str) else "",
    )


def estimate_usage(*, input_tokens: int, output_characters: int) -> Usage:
    """Usage made from sizes, marked `estimated`: four characters a token, never zero for something generated."""
    return Usage(
        kind="estimated",
        input_tokens=input_tokens,
        output_tokens=-(-output_characters // CHARACTERS_PER_TOKEN),
        convention="characters",
    )


def with_unsaid(usage: Usage, *, output_characters: int) -> Usage:
    """Usage with an estimate of output that no count of the provider's holds; marked so, as it is part of the cost.

    A provider that states a total alone has counted it there: then the total stays.
    """
    if output_characters <= 0 or usage.input_tokens is None or usage.output_tokens is None:
        return usage
    unsaid = -(-output_characters // CHARACTERS_PER_TOKEN)
    sent = usage.input_tokens
    if usage.convention == "total_only":
        unsaid = min(unsaid, sent)
        sent -= unsaid
    return usage._replace(kind="estimated", input_tokens=sent, output_tokens=usage.output_tokens + unsaid)


def _generated_characters(choices: object) -> int:
    if not isinstance(choices, list):
        return 0
    return sum(
        _characters(choice.get("message") or choice.get("text"))
        for choice in choices
        if isinstance(choice, dict)
    )


def _characters(value: object, depth: int = 0) -> int:
    if isinstance(value, str):
        return len(value)
    if depth > MAX_CONTENT_DEPTH:
        return 0
    if isinstance(value, dict):
        return sum(
            _characters(value.get(key), depth + 1)
            for key in ("content", "refusal", "reasoning", "reasoning_content", "text")
        ) + _call_characters(value.get("tool_calls"))
    if isinstance(value, list):
        return sum(_characters(part, depth + 1) for part in value)
    return 0


def _call_characters(calls: object) -> int:
    if not isinstance(calls, list):
        return 0
    try:
        return len(orjson.dumps(calls))
    except TypeError:  # nested too deep to be a call
        return 0
