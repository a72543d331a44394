"""What do tables foresee of many requests at once: quality, caution and cost of every candidate?

Pure. The same estimates as in `ranking.rank`, without pins, latencies and floors: for replaying scored requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policies.autorouter.difficulty import UNKNOWN
from policies.autorouter.ranking import expected_costs, prepare
from policies.autorouter.tables import RouterTables
from policies.features import Features
from policies.snapshot import DeploymentSnapshot

Floats = npt.NDArray[np.float64]
Choices = npt.NDArray[np.intp]


class Foreseen(NamedTuple):
    """Requests by candidates. `cost_ratio` is that to the request's dearest candidate."""

    quality: Floats
    caution: Floats
    cost_ratio: Floats

    def choose(self, tau: float | Floats) -> Choices:
        """Return the candidate (its column) that would serve each request; `tau` is one for all, or a column."""
        score: Floats = self.quality - self.caution - tau * self.cost_ratio
        chosen: Choices = score.argmax(axis=1)
        return chosen


def foresee(
    deployments: tuple[DeploymentSnapshot, ...], features: Sequence[Features], tables: RouterTables
) -> Foreseen:
    """Return what the tables foresee of these requests at these deployments; unpriced ones count as the dearest."""
    shape = (len(features), len(deployments))
    quality, caution, ratio = np.empty(shape), np.empty(shape), np.ones(shape)
    for at, facts in enumerate(features):
        prepared = prepare(deployments, facts.workload, facts.task_type, tables).prepared
        offset = facts.difficulty - UNKNOWN
        quality[at] = [entry.quality + entry.slope * offset for entry in prepared]
        caution[at] = [entry.caution for entry in prepared]
        costs = np.array(expected_costs(prepared, facts), dtype=float)
        dearest = costs[~np.isnan(costs)].max(initial=0.0)
        if dearest:
            ratio[at] = np.nan_to_num(costs / dearest, nan=1.0)
    return Foreseen(quality.clip(0.0, 1.0), caution, ratio)
