"""What does one worker's data plane consist of? Everything a request needs, in one place.

Pure wiring: built by `gateway/asgi.py` (or a test) and handed to `app.DataPlane`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.dataplane.health import Health
from gateway.dataplane.ports import Configuration, Journal, RecordLookup, UpstreamClient
from gateway.dataplane.stats import Stats


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
    is_draining: bool = False

    def client_for(self, base_url: str) -> UpstreamClient:
        """The client of this base URL's scheme."""
        return self.clients[base_url.partition(":")[0]]
