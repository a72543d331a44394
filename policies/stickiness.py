"""Does a conversation keep the deployment that served it so far?

Pure. It does while that deployment can serve, so that a conversation is answered in one voice and out of a warm prompt
cache. It is broken when the deployment was left out, or when another is better and the saving beats what the lost
cache costs; never between a tool call and its result, unless the deployment cannot serve at all. The simulated provider
of a demo keeps none from a real one: whoever has just added a key wants to hear a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from policies.features import Features
from policies.provider_addresses import SIMULATED
from policies.snapshot import DeploymentSnapshot

# Providers charge a tenth for what they find in their cache, and keep nothing shorter than this.
CACHE_DISCOUNT = 0.9
CACHED_FROM_TOKENS = 1024
# A conversation that changed its model for every cent would change it in every turn.
MIN_SAVING_RATIO = 0.25

PinState = Literal["new", "kept", "broken"]


class Pin(NamedTuple):
    """What became of a conversation's deployment. `reason`, if broken: a drop reason, `saving` or `simulated`."""

    state: PinState
    deployment: str = ""
    reason: str = ""


class Cost(NamedTuple):
    """What a candidate is expected to cost, nano-USD, and how good the router finds it. None: unpriced."""

    nanousd: int | None
    score: float


def judge_pin(
    deployment_name: str,
    candidates: Sequence[DeploymentSnapshot],
    costs: Sequence[Cost],
    features: Features,
    *,
    drop_reason: str,
) -> tuple[Pin, int]:
    """Say whether the conversation stays, and at which place of `candidates` its deployment stands (0: leave as is).

    `costs` run beside the candidates, or are empty where the strategy knows none: then only a deployment that
    cannot serve loses its conversation. `drop_reason` is why it is not among them.
    """
    if not deployment_name:
        return Pin("new"), 0
    place = next((at for at, found in enumerate(candidates) if found.name == deployment_name), -1)
    if place < 0:
        return Pin("broken", deployment_name, drop_reason or "not_listed"), 0
    if place and is_simulated(candidates[place]) and not is_simulated(candidates[0]):
        return Pin("broken", deployment_name, "simulated"), 0
    if place and place < len(costs) and not features.is_tool_result:
        best, kept = costs[0], costs[place]
        if best.score > kept.score and _is_worth_it(best, kept, candidates[place], features):
            return Pin("broken", deployment_name, "saving"), 0
    return Pin("kept", deployment_name), place


def is_simulated(deployment: DeploymentSnapshot) -> bool:
    """Whether no model answers there."""
    return deployment.provider.base_url == SIMULATED


def _is_worth_it(best: Cost, kept: Cost, deployment: DeploymentSnapshot, features: Features) -> bool:
    if best.nanousd is None or kept.nanousd is None:
        return False
    cached_nanousd = 0.0
    if features.turn > 1 and features.input_tokens >= CACHED_FROM_TOKENS:
        rate = deployment.input_nanousd_per_mtok or 0
        cached_nanousd = CACHE_DISCOUNT * features.input_tokens * rate / 1_000_000
    return kept.nanousd - best.nanousd > cached_nanousd + MIN_SAVING_RATIO * kept.nanousd
