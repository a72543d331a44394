"""What did a recorded request ask, and does it get the same decision again?

Pure. `replay` restores what `decide` was given: the caller's wishes, the features, the health view and the draw;
`recompute` decides again; `explain_mismatch` says why another decision came out.

Health comes back from the decision itself: who was left out as ejected, cooling, credential_rejected or rate_room was
so, and latencies stand among the scores. When nothing was fit, what was ejected or cooling was used all the same and
is among the candidates: it is then taken for fit, which gives the same candidates in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

from policies.asks import Ask, HealthView
from policies.decision import RoutingError, decide
from policies.explaining import decision_record
from policies.features import FEATURE_NAMES, NO_TAGS, Features
from policies.score_columns import read_latencies, with_columns
from policies.snapshot import DeploymentSnapshot, KeyGrant, RoutingSnapshot

HEALTH_REASONS = frozenset({"ejected", "cooling", "credential_rejected", "rate_room"})
# Where a decision comes from, not what it says.
ORIGIN_MEMBERS = frozenset({"rev", "tables", "canary", "version"})
_WISHES = frozenset(Ask._fields) - {"requested_model", "is_pinned", "endpoint"}
_DEFAULTS = Features()._asdict()
_NO_LATENCY: Mapping[str, float | None] = {}

MismatchReason = Literal[
    "other_version",
    "older_release",
    "truncated",
    "feature_missing",
    "model_budget",
    "deployment_budget",
    "tables_changed",
    "catalog_changed",
    "unexplained",
]


class StoredRequest(NamedTuple):
    """The columns of a request record that its decision was made from. `tenant`, `project`, `key` are names."""

    requested_model: str
    endpoint: str
    is_stream: bool
    is_pinned: bool
    tenant: str
    project: str
    key: str
    tags: Mapping[str, str]
    features: Mapping[str, Any]
    decision: Mapping[str, Any]


class Replayed(NamedTuple):
    """What `decide` was given, but for snapshot and grant."""

    ask: Ask
    features: Features
    health: HealthView
    draw: float


class RecordedHealth:
    """How deployments fared when a decision was made, as far as the decision says.

    `names`: deployment id -> name. `otherwise_ms` answers for deployments whose latency is not in the record: for a
    document that asks about others than the recorded one did.
    """

    __slots__ = ("_latencies", "_names", "_otherwise_ms", "_problems")

    def __init__(
        self,
        decision: Mapping[str, Any],
        names: Mapping[int, str],
        otherwise_ms: Callable[[int], float | None] | None = None,
    ) -> None:
        dropped = decision.get("dropped")
        self._problems: dict[str, str] = (
            {name: reason for name, reason in dropped if reason in HEALTH_REASONS} if dropped else {}
        )
        self._latencies = _latencies_of(decision)
        self._names = names
        self._otherwise_ms = otherwise_ms

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        """The recorded reason, None when it was fit or nobody looked."""
        return self._problems.get(deployment.name) if self._problems else None

    def latency_ms(self, deployment_id: int, /) -> float | None:
        """The recorded latency; None also when it was recorded as not measured."""
        name = self._names.get(deployment_id, "")
        if name in self._latencies:
            return self._latencies[name]
        return None if self._otherwise_ms is None else self._otherwise_ms(deployment_id)


def _latencies_of(decision: Mapping[str, Any]) -> Mapping[str, float | None]:
    """Deployment name -> ms. Costs are whole numbers, latencies are not; the router's scores have a place for them."""
    scores = decision.get("scores", ())
    if not scores and "latencies" not in decision:
        return _NO_LATENCY
    if isinstance(scores, dict):
        return {**dict(read_latencies(decision)), **dict(decision.get("latencies", ()))}
    has_latencies = decision.get("strategy") != "least_cost"
    found: dict[str, float | None] = {}
    for name, *values in scores:
        value = values[3] if len(values) > 1 else values[0]
        if isinstance(value, float) or len(values) > 1 or (value is None and has_latencies):
            found[name] = value
    found.update(decision.get("latencies", ()))
    return found


# Of most records: nothing was left out, nothing measured.
_HEALTHY = RecordedHealth({}, {})


def replay(
    stored: StoredRequest,
    *,
    names: Mapping[int, str],
    otherwise_ms: Callable[[int], float | None] | None = None,
) -> Replayed:
    """Restore what the decision of a record was made from. `names`: deployment id -> name."""
    decision = stored.decision
    if otherwise_ms is None and "dropped" not in decision and "scores" not in decision:
        health = _HEALTHY
    else:
        health = RecordedHealth(decision, names, otherwise_ms)
    return Replayed(restore_ask(stored), restore_features(stored), health, float(decision.get("draw", 0.0)))


def restore_ask(stored: StoredRequest) -> Ask:
    """The caller's wishes. Those that are not recorded were not expressed."""
    line = stored.features
    ask = Ask(stored.requested_model, (), stored.is_pinned, stored.endpoint)
    if _WISHES.isdisjoint(line):
        return ask
    wishes: dict[str, Any] = {name: value for name, value in line.items() if name in _WISHES}
    for name, value in wishes.items():
        if isinstance(value, list):
            wishes[name] = tuple(value)
    return ask._replace(**wishes)


def restore_features(stored: StoredRequest) -> Features:
    """The features. Those that are not recorded had their default; those of another release are left out."""
    line = stored.features
    if not line.keys() <= FEATURE_NAMES:
        line = {name: value for name, value in line.items() if name in FEATURE_NAMES}
    # A dictionary in the order of the fields: half the time of a call with thirty names.
    values = _DEFAULTS.copy()
    values.update(line)
    values["requested_model"] = stored.requested_model
    values["endpoint"] = stored.endpoint
    values["tenant"] = stored.tenant
    values["project"] = stored.project
    values["key"] = stored.key
    values["tags"] = stored.tags or NO_TAGS
    values["is_stream"] = stored.is_stream
    return Features._make(values.values())


def recompute(stored: StoredRequest, *, snapshot: RoutingSnapshot, grant: KeyGrant) -> dict[str, Any]:
    """Decide again, and return the decision as a record. Raises RoutingError when the name no longer resolves."""
    names = {deployment.id: name for name, deployment in snapshot.deployments.items()}
    ask, features, health, draw = replay(stored, names=names)
    return decision_record(decide(ask, features, snapshot, grant, health, draw=draw))


def differing_members(recorded: Mapping[str, Any], recomputed: Mapping[str, Any]) -> list[str]:
    """What two decisions say differently: names of members, sorted; empty when they are the same decision."""
    origin = {name: recorded[name] for name in ORIGIN_MEMBERS if name in recorded}
    # Nearly always they are equal, and one comparison of dictionaries says so.
    if origin.keys() >= ORIGIN_MEMBERS & recomputed.keys() and {**recomputed, **origin} == recorded:
        return []
    # A record of an earlier release may say the same in another form.
    recorded = with_columns(recorded)
    missing = object()
    names = (recorded.keys() | recomputed.keys()) - ORIGIN_MEMBERS
    return sorted(name for name in names if recorded.get(name, missing) != recomputed.get(name, missing))


def explain_mismatch(
    recorded: Mapping[str, Any],
    *,
    versions: Collection[int],
    last_change: int,
    tables: int | None,
    lacks_features: bool = False,
) -> MismatchReason:
    """Say why a recorded decision did not come out again.

    `versions`: numbers of the versions with the document that was run. `last_change`: the newest change of catalog,
    tenants, keys or prices. `tables`: the router tables that were used.
    """
    if recorded.get("version") not in versions:
        return "other_version"
    if "rev" not in recorded:
        return "older_release"
    if recorded.get("dropped_more"):
        return "truncated"
    if lacks_features:
        return "feature_missing"
    left_out = {reason for _, reason in recorded.get("dropped", ())}
    if "model_budget" in left_out:
        return "model_budget"
    if "deployment_budget" in left_out:
        return "deployment_budget"
    if recorded.get("tables") is not None and recorded["tables"] != tables:
        return "tables_changed"
    if recorded["rev"] < last_change:
        return "catalog_changed"
    return "unexplained"


__all__ = [
    "MismatchReason",
    "RecordedHealth",
    "Replayed",
    "RoutingError",
    "StoredRequest",
    "differing_members",
    "explain_mismatch",
    "recompute",
    "replay",
]
