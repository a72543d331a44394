"""What does a request say about routing, and what must be known of deployments to decide it?

Pure: the arguments of `policies.decision.decide`, and what it says of deployments that are left out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from policies.snapshot import DeploymentSnapshot

ProviderSort = Literal["", "least_cost", "least_latency"]


class HealthView(Protocol):
    """How deployments fare, as one worker sees it."""

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        """Return ejected, cooling, credential_rejected, rate_room, or None when it may be called."""
        ...

    def latency_ms(self, deployment_id: int, /) -> float | None:
        """Running mean of the time to the first token; None: not measured."""
        ...


# Named tuples where data classes would do: they are made for every request, and a frozen data class of this size takes
# 2 µs to make, a tuple 0.4.
class Ask(NamedTuple):
    """What a request says about routing. `models` are further names, tried in order after the first.

    `provider_*` name providers, in any case; `provider_order` puts candidates of these providers first. `max_*_price`
    leave out what costs more, USD per million tokens. `slider`, `allowed_models` and `excluded_models` (names, with
    `*`) are for automatic rules. `conversation_deployment` is the one that served this conversation last.
    `retention_limit` is one of `policies.retention`. `provider_sort` is the strategy, if any, by which the caller wants
    the deployments of a model that it names itself; a policy's rules say how theirs are ordered.
    """

    requested_model: str
    models: tuple[str, ...] = ()
    is_pinned: bool = False
    endpoint: str = "chat"
    provider_order: tuple[str, ...] = ()
    provider_only: tuple[str, ...] = ()
    provider_ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    max_input_price: float | None = None
    max_output_price: float | None = None
    slider: float | None = None
    allowed_models: tuple[str, ...] = ()
    excluded_models: tuple[str, ...] = ()
    conversation_deployment: str = ""
    retention_limit: str = ""
    provider_sort: ProviderSort = ""


class Dropped(NamedTuple):
    """A deployment (or a further name) that is not tried. Reason codes: `policies.filters`."""

    deployment: str
    reason: str
