"""What must the data plane be handed? Protocols only; `gateway/asgi.py` fills them.

Pure. Nothing here or below imports Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from billing.pricebook import PriceVersion
from gateway.dataplane.budgets import BudgetShortError, Hold
from gateway.dataplane.rate_shares import Hold as RateHold
from gateway.dataplane.rate_shares import Standing
from policies.snapshot import BudgetTerms, KeyGrant, RateTerms, RoutingSnapshot

if TYPE_CHECKING:
    from gateway.dataplane.answer_checks import JsonAnswer
    from gateway.dataplane.exchange import Exchange
    from gateway.dataplane.limits import Room


class Configuration(Protocol):
    """The configuration in force. Attribute reads only: no call blocks and no call touches a database."""

    snapshot: RoutingSnapshot
    is_ready: bool

    def find_key(self, secret: str, /) -> KeyGrant | None:
        """The grant of an unrevoked key, None for any other text. Expiry is the caller's to check."""
        ...

    def find_price(self, deployment_id: int, at_unix_s: float, /) -> PriceVersion | None:
        """The cost price in force at that time; None: unpriced."""
        ...


class RecordLookup(Protocol):
    """Request records by id, for `GET /v1/requests/{id}`; the one port that may query, off the loop."""

    async def find_request(self, request_id: str, key_id: int, /) -> Mapping[str, Any] | None:
        """The record as the API shows it, None when there is none of this key; by our id, or by its answer's."""
        ...


class Conversations(Protocol):
    """Which deployment served a conversation last, for all workers of this machine. May forget at any time."""

    def find(self, conversation: str, /) -> int | None:
        """The deployment's id, None when nobody knows."""
        ...

    def keep(self, conversation: str, deployment_id: int, /) -> None:
        """Note that this deployment serves the conversation."""
        ...


class Budgets(Protocol):
    """What keys with a hard budget may still spend. Holding waits for the database only when a lease is used up."""

    async def hold(self, budgets: tuple[BudgetTerms, ...], nanousd: int, /, *, at_unix_s: float) -> Hold:
        """Hold an amount of every budget. Raises BudgetShortError, BudgetUnknownError; then nothing is held."""
        ...

    async def extend(
        self, hold: Hold, budgets: tuple[BudgetTerms, ...], nanousd: int, /, *, at_unix_s: float
    ) -> None:
        """Hold more for the same request. Raises as `hold` does."""
        ...

    def settle(self, hold: Hold, nanousd: int, /) -> None:
        """End a hold with what the request cost; 0 when it used nothing."""
        ...

    def used_ratio(self, budgets: tuple[BudgetTerms, ...], /, *, at_unix_s: float) -> float:
        """How much of the fullest budget is used; 0 while this worker has not heard of it."""
        ...

    def find_spent(
        self, budgets: tuple[BudgetTerms, ...], nanousd: int, /, *, at_unix_s: float
    ) -> BudgetShortError | None:
        """The budget that is known to have no room for an amount any more; None: there may be room."""
        ...

    def remaining_nanousd(self, budgets: tuple[BudgetTerms, ...], /, *, at_unix_s: float) -> int | None:
        """What is left of the tightest budget, as this worker last heard; None: it has heard of none."""
        ...


class RateLimits(Protocol):
    """What limited keys may still send and limited deployments still take. Waits only when a share is used up."""

    async def hold(
        self, limits: tuple[RateTerms, ...], tokens: int, /, *, patience_s: float = ...
    ) -> RateHold:
        """Let a request in, at all of these limits or none. Raises RateLimitedError."""
        ...

    def settle(self, hold: RateHold, tokens: int | None, /) -> None:
        """End a request; None: nobody knows how many tokens it took."""
        ...

    def room_in_s(self, terms: RateTerms, tokens: int = 1, /) -> float:
        """In how many seconds there may be room for such a request; 0 where nothing is known against it."""
        ...

    async def look(self, limits: Iterable[RateTerms], /) -> None:
        """Hear how these limits stand, and take nothing of them."""
        ...

    def standings(self, limits: tuple[RateTerms, ...], /) -> tuple[Standing | None, Standing | None]:
        """Requests and tokens of the limits of which the least is left."""
        ...


class Shadows(Protocol):
    """Asks another model what a client has been answered (`dataplane.shadowing`)."""

    def offer(self, exchange: Exchange, answer: JsonAnswer, /) -> None:
        """Take an answered request, or leave it. Never waits and never raises."""
        ...


class ShadowBudget(Protocol):
    """What tenants' shadow requests may cost in a day, over all workers. May wait for the database."""

    async def reserve(self, tenant_id: int, day: date, nanousd: int, /) -> bool:
        """Set an amount aside; False when the day's budget does not hold it."""
        ...

    async def settle(self, tenant_id: int, day: date, reserved_nanousd: int, cost_nanousd: int, /) -> None:
        """Put what the call did cost in the place of what was set aside."""
        ...


class Journal(Protocol):
    """Durable append-only lines; see gateway/journal.py for their form."""

    def append(self, line: Mapping[str, Any], /) -> None:
        """Write one line; it survives `kill -9` when this returns. Raises JournalError when it cannot."""
        ...

    def has_room(self) -> bool:
        """Whether lines can be written: the disk is not full. Asked by readiness checks, not by requests."""
        ...


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Header names are lower-case. Closing twice is harmless."""

    status: int
    headers: list[tuple[str, str]]

    async def read(self, *, limit_bytes: int, timeout_s: float, room: Room | None = None) -> bytes:
        """The rest of the body. Raises UpstreamError (kinds timeout, broken, too_large).

        With `room`, a large one takes of it, and is read on when there is some; GatewayUnready when there is none.
        """
        ...

    async def read_chunk(self, *, timeout_s: float) -> bytes:
        """The next bytes as they came, b"" at the end. Raises UpstreamError (kinds timeout, broken)."""
        ...

    def close(self) -> None:
        """Give the connection back when the body was read whole, else drop it, at once."""
        ...


class UpstreamClient(Protocol):
    """Calls providers over HTTP/1.1. One per worker, on one event loop."""

    async def send(
        self,
        *,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes | tuple[bytes | memoryview, ...],
        connect_timeout_s: float,
        head_timeout_s: float,
        allow_private_network: bool,
    ) -> UpstreamResponse:
        """Send and wait for the answer's head. Cancelling frees the connection at once.

        `body` is bytes, or pieces that follow one another.

        Raises UpstreamError with `kind` one of: refused_address, resolve, connect, tls, connect_timeout,
        timeout, broken, bad_answer. `is_safe_to_retry` says that no byte of the request can have been acted on.
        Redirects are answers, not followed.
        """
        ...

    async def aclose(self) -> None:
        """Drop all connections."""
        ...
