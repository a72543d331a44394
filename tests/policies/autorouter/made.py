"""What do tests of the automatic router build things from?"""

from __future__ import annotations

from collections.abc import Sequence

from policies.autorouter.tables import Estimate, Rating, RouterTables, Workload
from policies.snapshot import DeploymentSnapshot, ModelSnapshot, ProviderSnapshot

PROVIDER = ProviderSnapshot(1, "local", "openai_chat", "http://127.0.0.1:1")


def deployment(
    number: int, *, model: str = "", input_usd: float | None = 1.0, output_usd: float | None = 3.0
) -> DeploymentSnapshot:
    """A deployment with prices in USD per million tokens; None: unpriced."""
    name = model or f"m{number}"
    return DeploymentSnapshot(
        id=number,
        name=f"{name}@local",
        model=ModelSnapshot(id=number, name=name),
        provider=PROVIDER,
        upstream_model=name,
        input_nanousd_per_mtok=None if input_usd is None else round(input_usd * 1e9),
        output_nanousd_per_mtok=None if output_usd is None else round(output_usd * 1e9),
    )


def rated(qualities: Sequence[float]) -> RouterTables:
    """Tables that know a rating of m0, m1, …"""
    return RouterTables(ratings={f"m{at}": Rating(quality) for at, quality in enumerate(qualities)})


def workload(n: float, level: float, **differences: float) -> Workload:
    """Evidence with a small error: workload(200, 0.7, m0=-0.1, m1=0.1)."""
    return Workload(n, level, {model: Estimate(n, found, 0.01) for model, found in differences.items()})
