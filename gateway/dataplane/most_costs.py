"""How much can one attempt of a request cost at most, and with which output limit does that fit?

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from billing.budget_arithmetic import most_nanousd, most_output_tokens
from billing.pricebook import PriceVersion
from gateway.dataplane.errors import NoCandidate
from gateway.dataplane.exchange import Exchange
from gateway.wire.openai_request import ParsedRequest
from policies.snapshot import DeploymentSnapshot

# What a provider puts around a request (its template, what explains tools to the model), and what an image or a file
# that is only named can be. A byte of text is at most one token.
TEMPLATE_TOKENS = 1_000
MEDIA_TOKENS = 50_000
TEXT_PARTS = ("text", "refusal", "thinking", "redacted_thinking", "input_text", "output_text")
# The output limit that is set for a request without one, where the model's own is not known.
DEFAULT_OUTPUT_TOKENS = 4_096
# A lowered limit below this would be no answer.
LEAST_OUTPUT_TOKENS = 16
AMPLE_OUTPUT_TOKENS = 1_024


class CostPlan:
    """What the candidates may cost, with one output limit or another."""

    def __init__(
        self, exchange: Exchange, parsed: ParsedRequest, candidates: Sequence[DeploymentSnapshot]
    ) -> None:
        """Raises NoCandidate when one of the candidates has no price."""
        features = exchange.features
        assert features is not None
        find_price = exchange.gateway.configuration.find_price
        # The price, and the most that the model writes where that is known.
        self._known: dict[int, tuple[PriceVersion, int | None]] = {}
        for candidate in candidates:
            price = find_price(candidate.id, exchange.started_at_unix_s)
            if price is None:  # its price begins later than the request
                raise NoCandidate(
                    f"The deployment '{candidate.name}' has no price at this moment, and the key has a budget.",
                    code="no_candidate",
                    extra={"reasons": {candidate.name: "unpriced"}},
                )
            self._known[candidate.id] = (price, candidate.model.max_output_tokens)
        self._input_tokens = most_input_tokens(parsed)
        self._choices = _choice_count(parsed)
        self._asked = features.max_output_tokens
        self._writes = parsed.endpoint != "embeddings"
        # What must be sent along so that the answer ends where the hold does; None: it ends there by itself.
        self.output_limit: int | None = None
        if self._writes and not self._asked and any(known is None for _, known in self._known.values()):
            limits = [known or 0 for _, known in self._known.values()]
            self.output_limit = max(DEFAULT_OUTPUT_TOKENS, *limits)

    def most_nanousd(
        self, output_limit: int | None, among: Sequence[DeploymentSnapshot] | None = None
    ) -> int:
        """The most that an attempt at the dearest of them costs; `among` None: of all."""
        return max(
            most_nanousd(
                price,
                input_tokens=self._input_tokens,
                output_tokens=self._choices * self._output_tokens(known, output_limit),
                choices=self._choices,
            )
            for price, known in self._among(among)
        )

    def _among(
        self, among: Sequence[DeploymentSnapshot] | None
    ) -> Collection[tuple[PriceVersion, int | None]]:
        return self._known.values() if among is None else [self._known[one.id] for one in among]

    def _output_tokens(self, known: int | None, output_limit: int | None) -> int:
        if not self._writes:
            return 0
        if self._asked:
            return self._asked
        return min(limit for limit in (known, output_limit, 10**9) if limit is not None)

    def limit_that_fits(self, nanousd: int, among: Sequence[DeploymentSnapshot] | None = None) -> int | None:
        """The output limit with which each of them costs no more than an amount; None: there is none.

        Where half of what is left is enough for an answer of some length, the other half is left to other requests.
        """
        half = self._limit_within(nanousd // 2, among)
        return (
            half if half is not None and half >= AMPLE_OUTPUT_TOKENS else self._limit_within(nanousd, among)
        )

    def _limit_within(self, nanousd: int, among: Sequence[DeploymentSnapshot] | None) -> int | None:
        if self._asked or not self._writes:
            return None
        fitting = [
            most_output_tokens(price, input_tokens=self._input_tokens, nanousd=nanousd, choices=self._choices)
            for price, _ in self._among(among)
        ]
        limited = [tokens // self._choices for tokens in fitting if tokens is not None]
        if not limited or min(limited) < LEAST_OUTPUT_TOKENS:
            return None
        return min(limited)


def most_input_tokens(parsed: ParsedRequest) -> int:
    """More tokens than any tokenizer makes of this body: a byte of text is at most one."""
    return len(parsed.body) + TEMPLATE_TOKENS + MEDIA_TOKENS * _count_media(parsed.payload)


def _count_media(payload: Mapping[str, Any]) -> int:
    """Parts that a provider may make more tokens of than they have bytes: it fetches an image by its address.

    Whatever is not known to be text is one, as the caller writes what a part is called, and how.
    """
    messages, sent = payload.get("messages"), payload.get("input")
    contents = [one.get("content") for one in messages if type(one) is dict] if type(messages) is list else []
    return sum(
        1
        for content in (*contents, sent)
        if type(content) is list
        for part in content
        if type(part) is dict and part.get("type") not in TEXT_PARTS
    )


def _choice_count(parsed: ParsedRequest) -> int:
    """How many answers may be written: as many as `n` or `best_of` says, and that for each prompt of a list."""
    count: int = parsed.facts.get("choice_count", 1)
    try:
        count = max(count, int(parsed.payload.get("best_of") or 1))  # providers read "20" and 20.0, too
    except (TypeError, ValueError, OverflowError):
        pass  # no provider can read it
    prompts = parsed.payload.get("prompt") if parsed.endpoint == "completions" else None
    if isinstance(prompts, list) and not isinstance(prompts[0], int):  # else token ids of one prompt
        count *= len(prompts)
    return count
