"""Which configuration is in force in this worker? The newest, within a moment of its change.

Reads: the change feed, and through `snapshots` what it says has changed. A thread with its own database connection
follows the feed; requests read attributes that are replaced whole. While the database is away, what was loaded stays.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from billing.pricebook import PriceVersion, price_at
from gateway.kept_configuration import KeptConfiguration
from gateway.snapshots import (
    Grants,
    Loaded,
    Prices,
    load_changes,
    load_everything,
    load_prices_again,
    read_revision,
)
from policies.keys import hash_secret
from policies.models import ChangeEvent
from policies.snapshot import KeyGrant, RoutingSnapshot

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
SETTLE_S = 0.05
START_WAIT_S = 5.0
MAX_SEEN_KEYS = 10_000


class WorkerConfiguration:
    """The `Configuration` port: attribute reads only. Starts its thread at once; call `close` at the end.

    Waits up to `start_wait_s` for the first load, so that a worker that starts beside a living database is ready
    when it begins to listen. Where the database is away by then, what `kept` holds is in force until it is back.
    """

    def __init__(
        self,
        *,
        start_wait_s: float = START_WAIT_S,
        poll_interval_s: float = POLL_INTERVAL_S,
        kept: KeptConfiguration | None = None,
    ) -> None:
        self.snapshot = RoutingSnapshot(revision=0)
        self.is_ready = False
        self.checked_at_unix_s = 0.0  # when the feed was last read without an error
        self._pepper = settings.POINTSMAN_KEY_PEPPER
        self._poll_interval_s = poll_interval_s
        self._grants: Grants = {}
        # Keys of late, so that a key in use is hashed once per configuration. Replaced with every swap.
        self._seen: dict[str, KeyGrant] = {}
        self._prices: Prices = {}
        self._loaded: Loaded | None = None
        self._kept = kept
        self._next_price_unix_s: float | None = None
        self._is_closing = threading.Event()
        self._is_loaded = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="configuration", daemon=True)
        self._thread.start()
        self._is_loaded.wait(start_wait_s)

    def find_key(self, secret: str, /) -> KeyGrant | None:
        """The grant of an unrevoked key, None for any other text. Expiry is the caller's to check."""
        seen = self._seen  # before the grants: what is put into an outdated one is forgotten with it
        grant = seen.get(secret)
        if grant is None:
            grant = self._grants.get(hash_secret(secret, pepper=self._pepper))
            if grant is not None and len(seen) < MAX_SEEN_KEYS:
                seen[secret] = grant
        return grant

    def find_price(self, deployment_id: int, at_unix_s: float, /) -> PriceVersion | None:
        """The cost price in force at that time; None: unpriced."""
        versions = self._prices.get(deployment_id)
        return None if versions is None else price_at(versions, at_unix_s)

    def close(self) -> None:
        """End the thread and its connection."""
        self._is_closing.set()
        self._thread.join(timeout=5)

    def _follow(self) -> None:
        """Load, then follow the feed until closed. Nothing ends this thread but `close`."""
        is_listening, is_away = False, False
        while not self._is_closing.is_set():
            try:
                if not is_listening:
                    connection.ensure_connection()
                    with connection.cursor() as cursor:
                        cursor.execute("LISTEN pointsman_changes")
                    is_listening = True
                self._check_feed()
                if is_away:
                    logger.info("configuration can be read again")
                is_away = False
                self._wait_for_notice()
            except (DatabaseError, InterfaceError) as error:
                # Once an outage, not twice a second: it may last for hours.
                logger.log(
                    logging.DEBUG if is_away else logging.WARNING,
                    "configuration cannot be read, revision %s stays in force: %s",
                    self.snapshot.revision,
                    str(error).strip().partition("\n")[0],
                )
                if not is_away and isinstance(error, (InterfaceError, OperationalError)):
                    self._fall_back_on_kept()
                is_listening, is_away = False, True
                connection.close()
                self._is_closing.wait(self._poll_interval_s)
            except Exception:
                # An edge: a worker that silently stopped following would serve revoked keys for ever.
                logger.exception("configuration cannot be built, revision %s stays", self.snapshot.revision)
                self._is_closing.wait(self._poll_interval_s)
        connection.close()

    def _wait_for_notice(self) -> None:
        """Wait for a notice of the feed, at most one poll interval. Lost notices cost that interval, no more."""
        raw: Any = connection.connection
        with connection.wrap_database_errors:
            for _ in raw.notifies(timeout=self._poll_interval_s, stop_after=1):
                # Changes come in bursts (a file is applied): one rebuild for those that follow at once.
                self._is_closing.wait(SETTLE_S)
                break

    def _check_feed(self) -> None:
        revision = read_revision()
        loaded = self._loaded
        now_unix_s = time.time()
        is_price_due = self._next_price_unix_s is not None and self._next_price_unix_s <= now_unix_s
        if loaded is None or revision < loaded.routing.revision:
            self._put_in_force(load_everything())
        elif revision > loaded.routing.revision:
            changed = list(
                ChangeEvent.objects.filter(id__gt=loaded.routing.revision, id__lte=revision)
                .values_list("object_type", "object_id")
                .distinct()
            )
            self._put_in_force(load_changes(loaded, revision, changed))
        elif is_price_due:
            self._put_in_force(load_prices_again(loaded))
        self.checked_at_unix_s = now_unix_s
        if self._kept is not None and self._loaded is not None:
            self._kept.keep(self._loaded, now_s=now_unix_s)

    def _fall_back_on_kept(self) -> None:
        """Put what was kept into force where nothing was ever loaded. It stays until the database has been read."""
        if self.is_ready or self._kept is None:
            return
        loaded = self._kept.read(now_s=time.time())
        if loaded is not None:
            self._put_in_force(loaded)
            self._loaded = None  # everything is read anew when the database is back

    def _put_in_force(self, loaded: Loaded) -> None:
        # Attributes one after the other, each whole. Keys go last: a new key finds its policies already there.
        self._loaded = loaded
        self._prices = loaded.prices
        self.snapshot = loaded.routing
        self._grants = loaded.grants
        self._seen = {}
        now_unix_s = time.time()
        # Routing compares what prices say now: it is built anew when one begins, or another of its hours does.
        self._next_price_unix_s = min(
            (version.changes_at(now_unix_s) for versions in loaded.prices.values() for version in versions),
            default=None,
        )
        if self._next_price_unix_s == math.inf:
            self._next_price_unix_s = None
        self.is_ready = True
        self._is_loaded.set()
