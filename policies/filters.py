"""Which deployments can serve a request at all? Hard filters, each with a reason code.

Pure. Codes, in the order in which they are looked at:

    endpoint_unsupported   the model does not offer this endpoint
    context_window         input and the most output asked for do not fit
    vision audio files tools json_schema logprobs   the request needs it, the model does not list it
    region                 outside the regions the tenant allows
    retention              its provider keeps prompts longer than the tenant or the caller allows, or has not said
    provider_only provider_ignored                  the caller's provider preferences
    unpriced               the key has a budget, and what has no price cannot be held in it
    price_cap              dearer than the caller's `provider.max_price`, or unpriced
    not_allowed excluded   the caller's `allowed_models` and `excluded_models`, for automatic rules

and, found elsewhere: `disabled` (a rule names it, an operator switched it off), `ejected`, `cooling`,
`credential_rejected` (this worker's health view), `rate_room` (its own limits leave it no room), `no_fallbacks` (the
caller allows one candidate only), `pinned` (a further name of a pinned request), `model_budget` (what it can cost does
not fit into the budget of its model; it was a candidate until then), `deployment_budget` (the same of the budget of the
deployment itself, over all callers), `model_not_found` (a further name that does not
exist or is not allowed).

What a model does not list among its capabilities it does not offer. A model that lists none at all is one about
which nobody has said anything: it is let through, so that a catalog entry of two lines works. An operator who lists
one capability speaks for all of them.
"""

from __future__ import annotations

from typing import NamedTuple

from policies.features import Features
from policies.retention import ANY_RANK, rank_of_class, rank_of_limit
from policies.snapshot import DeploymentSnapshot, KeyGrant

CAPABILITY_BY_FEATURE = {
    "has_images": "vision",
    "has_audio": "audio",
    "has_files": "files",
    "has_tools": "tools",
    "has_schema": "json_schema",
    "has_logprobs": "logprobs",
}
NANOUSD_PER_USD = 1_000_000_000
# Nothing that a caller changes about the request would help; time or an operator may.
TEMPORARY_REASONS = frozenset({"disabled", "ejected", "cooling", "credential_rejected", "rate_room"})
# Of what a health view may say, what takes a deployment away in any case: it is not called as a last resort either.
HARD_HEALTH_REASONS = frozenset({"credential_rejected", "rate_room"})


class Needs(NamedTuple):
    """What one request asks of a deployment. `tokens` 0: unknown, or not limited by the context window."""

    endpoint: str
    tokens: int
    capabilities: tuple[str, ...]
    regions: frozenset[str]
    provider_only: frozenset[str]
    provider_ignore: frozenset[str]
    max_input_nanousd: float | int | None = None
    max_output_nanousd: float | int | None = None
    must_be_priced: bool = False
    retention_rank: int = ANY_RANK


def needs_of(
    features: Features,
    grant: KeyGrant,
    *,
    endpoint: str,
    provider_only: tuple[str, ...] = (),
    provider_ignore: tuple[str, ...] = (),
    max_input_price: float | int | None = None,
    max_output_price: float | int | None = None,
    retention_limit: str = "",
) -> Needs:
    """Collect what the filters look at, once per request."""
    capabilities: tuple[str, ...] = ()
    if (
        features.has_tools
        or features.has_images
        or features.has_schema
        or features.has_files
        or features.has_audio
        or features.has_logprobs
    ):
        capabilities = tuple(
            capability for name, capability in CAPABILITY_BY_FEATURE.items() if getattr(features, name)
        )
    return Needs(
        endpoint,
        # An embeddings request is a batch: its inputs share no window, so their sum says nothing.
        0 if endpoint == "embeddings" else features.input_tokens + features.max_output_tokens,
        capabilities,
        grant.tenant.allowed_regions,
        frozenset(name.lower() for name in provider_only) if provider_only else _NONE,
        frozenset(name.lower() for name in provider_ignore) if provider_ignore else _NONE,
        None if max_input_price is None else max_input_price * NANOUSD_PER_USD,
        None if max_output_price is None else max_output_price * NANOUSD_PER_USD,
        bool(grant.budgets),
        min(rank_of_limit(grant.tenant.retention_limit), rank_of_limit(retention_limit)),
    )


def find_problem(deployment: DeploymentSnapshot, needs: Needs) -> str | None:
    """Return the code of the first reason why this deployment cannot serve the request, None when it can."""
    endpoint, tokens, capabilities, regions, only, ignored, max_input, max_output, must_be_priced, kept = (
        needs
    )
    model = deployment.model
    if endpoint not in model.endpoints:
        return "endpoint_unsupported"
    if model.context_tokens is not None and tokens > model.context_tokens:
        return "context_window"
    if capabilities and model.capabilities:
        for capability in capabilities:
            if capability not in model.capabilities:
                return capability
    if regions and deployment.region not in regions:
        return "region"
    if kept < ANY_RANK and rank_of_class(deployment.retention) > kept:
        return "retention"
    if only and deployment.provider.name.lower() not in only:
        return "provider_only"
    if ignored and deployment.provider.name.lower() in ignored:
        return "provider_ignored"
    if must_be_priced and deployment.input_nanousd_per_mtok is None:
        return "unpriced"
    if max_input is not None and not _is_within(deployment.input_nanousd_per_mtok, max_input):
        return "price_cap"
    if max_output is not None and not _is_within(deployment.output_nanousd_per_mtok, max_output):
        return "price_cap"
    return None


def find_unwanted(
    deployment: DeploymentSnapshot, allowed: tuple[str, ...], excluded: tuple[str, ...]
) -> str | None:
    """Return why a caller's lists leave a deployment out. Names of models or deployments, `*` for any characters."""
    if allowed and not _is_listed(deployment, allowed):
        return "not_allowed"
    return "excluded" if excluded and _is_listed(deployment, excluded) else None


def _is_listed(deployment: DeploymentSnapshot, patterns: tuple[str, ...]) -> bool:
    return any(
        _is_like(deployment.model.name, pattern) or _is_like(deployment.name, pattern) for pattern in patterns
    )


def _is_like(name: str, pattern: str) -> bool:
    """Whether a name is that of a pattern, `*` standing for any characters.

    By hand: patterns come from callers, a new one for every request if they like, and to compile one takes 0.5 ms.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return name == pattern
    last = middle.pop()
    if not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def _is_within(rate_nanousd: int | None, limit_nanousd: float) -> bool:
    """An unknown price is not a low one."""
    return rate_nanousd is not None and rate_nanousd <= limit_nanousd


_NONE: frozenset[str] = frozenset()
