"""What does one worker's data plane consist of? Everything a request needs, in one place.

Pure wiring: built by `gateway/asgi.py` (or a test) and handed to `app.DataPlane`.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.dataplane.health import Health
from gateway.dataplane.ports import (
    Budgets,
    Configuration,
    Conversations,
    Journal,
    RateLimits,
    RecordLookup,
    Shadows,
    UpstreamClient,
)
from gateway.dataplane.stats import Stats
from gateway.journal import JournalError

MAX_UNWRITTEN = 20_000


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each step of a request may take."""

    connect_s: float = 5.0
    first_event_s: float = 60.0
    between_events_s: float = 60.0
    total_s: float = 600.0
    body_s: float = 60.0
    keepalive_comment_s: float = 15.0
    disconnect_watch_s: float = 0.25


@dataclass(slots=True)
class Gateway:
    """One worker. `clients` maps a base URL's scheme to the client that can call it."""

    configuration: Configuration
    journal: Journal
    records: RecordLookup
    clients: dict[str, UpstreamClient]
    health: Health
    stats: Stats = field(default_factory=Stats)
    timeouts: Timeouts = field(default_factory=Timeouts)
    draw: Callable[[], float] = random.random
    now_unix_s: Callable[[], float] = time.time
    conversations: Conversations | None = None
    budgets: Budgets | None = None
    rate_limits: RateLimits | None = None
    shadows: Shadows | None = None
    is_draining: bool = False
    # Outcomes that a full disk refused. Their requests are answered and maybe paid for: they are written when there
    # is room again. What does not fit here any more stays as its intent line, `interrupted`.
    unwritten: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_UNWRITTEN))

    def client_for(self, base_url: str) -> UpstreamClient:
        """The client of this base URL's scheme."""
        return self.clients[base_url.partition(":")[0]]

    def write_unwritten(self) -> None:
        """Append waiting outcomes in order, as far as the journal takes them. Called every second and at the end."""
        while self.unwritten:
            try:
                self.journal.append(self.unwritten[0])
            except JournalError:
                return
            self.unwritten.popleft()
