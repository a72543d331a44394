"""Which deployments are fit to be called? This worker's view: one breaker per deployment, retry budgets.

Pure state over a clock. The rules are `policies.breaker`'s; this finds the right breaker and shares the view with
decisions (`problem`, `latency_ms`), attempts (`on_…`) and the run file (`as_report`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from policies.breaker import DeploymentHealth
from policies.snapshot import DeploymentSnapshot, RateTerms

RETRY_SHARE = 0.2
MIN_RETRIES = 3
BUCKET_SIZE = 10.0
BUCKET_REFILL_PER_SUCCESS = 0.2


class Health:
    """Health of all deployments as this worker has seen them."""

    def __init__(self, clock: Callable[[], float] = time.time, *, allows_retries: bool = True) -> None:
        self._clock = clock
        self._allows_retries = allows_retries
        # In how many seconds a limited deployment has room again, as `RateLimits` knows.
        self.room_in_s: Callable[[RateTerms], float] | None = None
        self._by_deployment: dict[int, DeploymentHealth] = {}
        self._tokens: dict[int, float] = {}
        self._retries_in_flight = 0

    def of(self, deployment_id: int) -> DeploymentHealth:
        """The breaker of one deployment, made on first use."""
        health = self._by_deployment.get(deployment_id)
        if health is None:
            health = self._by_deployment[deployment_id] = DeploymentHealth()
        return health

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        """Why this deployment should not be called now, None when it may be."""
        limit = deployment.rate_limit
        if limit is not None and self.room_in_s is not None and self.room_in_s(limit):
            return "rate_room"
        health = self._by_deployment.get(deployment.id)
        if health is None:
            return None
        return health.problem(self._clock(), deployment.provider.credential_revision)

    def latency_ms(self, deployment_id: int, /) -> float | None:
        """Running mean of the time to the first byte, None before any answer."""
        health = self._by_deployment.get(deployment_id)
        return None if health is None else health.first_token_ms

    def may_call(self, deployment: DeploymentSnapshot) -> bool:
        """Ask to call now: False while another request probes a deployment that comes back from ejection."""
        health = self._by_deployment.get(deployment.id)
        return health is None or health.try_probe(self._clock())

    def on_success(self, deployment: DeploymentSnapshot, first_token_ms: float | None) -> None:
        """An answer came whole. Gives the deployment's retry bucket something back."""
        self.of(deployment.id).on_success(self._clock(), first_token_ms)
        tokens = self._tokens.get(deployment.id)
        if tokens is not None:
            self._tokens[deployment.id] = min(BUCKET_SIZE, tokens + BUCKET_REFILL_PER_SUCCESS)

    def on_failure(self, deployment: DeploymentSnapshot, outcome: str) -> None:
        """A call failed. Outcomes that the request caused are ignored by the breaker."""
        self.of(deployment.id).on_failure(self._clock(), outcome)

    def on_rate_limited(self, deployment: DeploymentSnapshot, retry_after_s: float | None) -> None:
        """The provider answered 429: it cools, it is not ejected."""
        self.of(deployment.id).on_rate_limited(self._clock(), retry_after_s)

    def on_credential_rejected(self, deployment: DeploymentSnapshot) -> None:
        """The provider refused our credential: out until it is edited."""
        self.of(deployment.id).on_credential_rejected(deployment.provider.credential_revision)

    def abandon(self, deployment: DeploymentSnapshot) -> None:
        """A call ended without telling anything (the client left): let another request probe."""
        health = self._by_deployment.get(deployment.id)
        if health is not None:
            health.abandon_probe()

    def may_retry(self, deployment_id: int, *, in_flight: int) -> bool:
        """Take a token for another attempt after this deployment failed, if the budgets allow one.

        Retries may be a fifth of the requests in flight (at least three at once), so that a provider in trouble is
        not buried under repetitions; and a deployment that keeps failing runs out of tokens.
        """
        if not self._allows_retries or self._retries_in_flight >= max(MIN_RETRIES, RETRY_SHARE * in_flight):
            return False
        tokens = self._tokens.get(deployment_id, BUCKET_SIZE)
        if tokens < 1:
            return False
        self._tokens[deployment_id] = tokens - 1
        return True

    @contextmanager
    def retrying(self) -> Iterator[None]:
        """Count one request as being in a retry."""
        self._retries_in_flight += 1
        try:
            yield
        finally:
            self._retries_in_flight -= 1

    def as_report(self, deployments: Iterable[DeploymentSnapshot]) -> dict[str, dict[str, Any]]:
        """Deployment id (as text) -> its state, for the run file; of those deployments that were ever called."""
        now_s = self._clock()
        known = self._by_deployment
        return {
            str(deployment.id): known[deployment.id].as_report(now_s, deployment.provider.credential_revision)
            for deployment in deployments
            if deployment.id in known
        }
