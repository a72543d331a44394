"""Which deployments are fit to be called? This worker's view: one breaker per deployment, retry budgets.

Pure state over a clock. The rules are `policies.breaker`'s; this finds the right breaker and shares the view with
decisions (`problem`, `latency_ms`), attempts (`on_…`) and the run file (`as_report`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from policies.breaker import DeploymentHealth

from policies.snapshot import DeploymentSnapshot

RETRY_SHARE = 0.2
MIN_RETRIES = 3
BUCKET_SIZE = 10.0
BUCKET_REFILL_PER_SUCCESS = 0.2


class Health:
    """Health of all deployments as this worker has seen them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_deployment: dict[int, DeploymentHealth] = {}
        self._tokens: dict[int, float] = {}
        self._retries_in_flight = 0

    def of(self, deployment_id: int) -> DeploymentHealth:
        """The breaker of one deployment, made on first use."""
        health = self._by_deployment.get(deployment_id)
        if health is None:
            health = self._by_deployment[deployment_id] = DeploymentHealth()
        return health

    def problem(self, deployment: DeploymentSnapshot) -> str | None:
        """Why this deployment should not be called now, None when it may be."""
        health = self._by_deployment.get(deployment.id)
        if health is None:
            return None
        return health.problem(self._clock(), deployment.provider.credential_revision)

    def latency_ms(self, deployment_id: int) -> float | None:
        """Running mean of the time to the first byte, None before any answer."""
        health = self._by_deployment.get(deployment_id)
        return None if health is None else health.first_token_ms
