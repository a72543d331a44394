"""What would this document have done with one recorded request, and how does that compare?

Pure: a row of `billing.backtest_reading` in, sums of a `Tally` changed. Runs a million times: what is the same for all
requests is made once, by the caller, and sits in `Setup`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from zlib import crc32
from zoneinfo import ZoneInfo

import orjson

from billing.backtest_expectations import Expectations
from billing.backtest_reading import Row
from billing.backtest_tally import Tally
from billing.pricebook import PriceVersion, price_at
from billing.rating import total_nanousd
from billing.usage import Usage
from policies.autorouter.tables import RouterTables
from policies.decision import Decision, RoutingError, decide
from policies.explaining import decision_record
from policies.features import TEXT_FEATURE_NAMES
from policies.naming import name_instead
from policies.replaying import (
    StoredRequest,
    differing_members,
    explain_mismatch,
    replay,
)
from policies.snapshot import DeploymentSnapshot, KeyGrant, PolicySnapshot, RoutingSnapshot

TIME_FEATURE_NAMES: Final = frozenset({"hour", "weekday"})
NANOUSD_PER_TOKEN: Final = 1_000
# As long as `gateway.conversation_board` remembers.
CONVERSATION_MS: Final = 6 * 3600 * 1000
MAX_CONVERSATIONS: Final = 400_000
ANSWERED: Final = frozenset({"ok", "cancelled"})
_NO_JSON: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class Setup:
    """What all requests of a run are judged by.

    `snapshot` holds the catalog as it is now and the document as the policy; `names`: deployment id -> name.
    `versions`: numbers of the published versions with this very document; empty: it was never live.
    `asked_for`: the policy that the requests asked for, where it is another one; "" for this very policy.
    `last_change`: the newest change of catalog, tenants, keys or prices. `tables`: older router tables by version.
    """

    snapshot: RoutingSnapshot
    policy: PolicySnapshot
    grants: Mapping[int, KeyGrant]
    names: Mapping[int, str]
    prices: Mapping[int, Sequence[PriceVersion]]
    expectations: Expectations
    versions: Collection[int] = ()
    last_change: int = 0
    last_price_unix_ms: int = 0
    tables: Mapping[int, RouterTables] = field(default_factory=dict)
    reads_time: bool = False
    is_sticky: bool = False
    text_features: frozenset[str] = frozenset()
    asked_for: str = ""


class Conversations:
    """Where each conversation would have been served last, had the document been live: it may keep that deployment.

    Conversations that lie longer than the gateway remembers them are forgotten here too.
    """

    def __init__(self) -> None:
        self._served: dict[str, tuple[int, str]] = {}

    def find(self, conversation: str, request_id: str) -> str:
        """The deployment's name, "" when nobody would know."""
        at_ms, name = self._served.get(conversation, (0, ""))
        return name if unix_ms_of(request_id) - at_ms < CONVERSATION_MS else ""

    def keep(self, conversation: str, request_id: str, name: str) -> None:
        """Note that this deployment serves the conversation."""
        if len(self._served) >= MAX_CONVERSATIONS:
            since_ms = unix_ms_of(request_id) - CONVERSATION_MS
            kept = {key: served for key, served in self._served.items() if served[0] > since_ms}
            self._served = kept if len(kept) < MAX_CONVERSATIONS // 2 else {}
        self._served[conversation] = (unix_ms_of(request_id), name)


class Judge:
    """Judges requests one by one into `tally`."""

    def __init__(self, setup: Setup) -> None:
        self.tally = Tally()
        self._setup = setup
        self._conversations = Conversations()
        self._zones: dict[str, ZoneInfo] = {}
        self._output_rates: dict[tuple[int, int], float] = {}
        self._snapshots: dict[int, RoutingSnapshot] = {}

    def take_tally(self) -> Tally:
        """Hand over what was counted since the last time."""
        taken, self.tally = self.tally, Tally()
        return taken

    def judge(self, row: Row) -> None:
        """Judge one record."""
        setup, tally = self._setup, self.tally
        recorded: dict[str, Any] = orjson.loads(row.decision)
        line: dict[str, Any] = orjson.loads(row.features)
        grant = setup.grants.get(row.api_key_id)
        tally.count += 1
        sums = tally.tenant(row.tenant_id)
        sums.count += 1
        if grant is None or "draw" not in recorded:
            tally.not_compared["key_gone" if grant is None else "no_decision"] += 1
            return
        lacks = self._complete(line, row.id, recorded, grant)
        stored = StoredRequest(
            self._requested(row.requested_model, line),
            row.endpoint,
            row.is_stream,
            row.is_pinned,
            grant.tenant.name,
            grant.project_name,
            grant.key_name,
            _NO_JSON if row.tags == "{}" else orjson.loads(row.tags),
            line,
            recorded,
        )
        decision = self._decide(row, stored, grant)
        number = crc32(row.id.encode())
        if setup.versions:
            self._check(row.id, recorded, decision, lacks=lacks, number=number)
        candidates = recorded["candidates"]
        then = candidates[0] if candidates else None
        tally.then_by_rule[recorded.get("rule", "")] += 1
        if then is None:
            tally.no_candidate_then += 1
        else:
            tally.then_by_deployment[then] += 1
        if decision is None or not decision.candidates:
            self._count_no_candidate(row, recorded, decision, number)
            return
        first = decision.candidates[0]
        tally.now_by_deployment[first.name] += 1
        tally.now_by_rule[decision.rule.name if decision.rule is not None else ""] += 1
        is_moved = first.name != then
        if is_moved:
            tally.moved += 1
            sums.moved += 1
            tally.moves[then or "", first.name] += 1
        self._compare(row, line, recorded, decision, first, is_moved=is_moved, number=number)

    def _requested(self, name: str, line: dict[str, Any]) -> str:
        """The name asked for; of another policy's requests the name of this one, also among further names."""
        setup = self._setup
        if not setup.asked_for:
            return name
        if further := line.get("models"):
            line["models"] = [name_instead(one, of=setup.asked_for, policy=setup.policy) for one in further]
        return name_instead(name, of=setup.asked_for, policy=setup.policy)

    def _complete(
        self, line: dict[str, Any], request_id: str, recorded: Mapping[str, Any], grant: KeyGrant
    ) -> bool:
        """Put in what follows from other columns; say whether the document reads what the record does not hold."""
        setup = self._setup
        if setup.reads_time:
            at = dt.datetime.fromtimestamp(unix_ms_of(request_id) / 1000, self._zone(grant.tenant.time_zone))
            line["hour"], line["weekday"] = at.hour, at.isoweekday()
        lacks = bool(setup.text_features) and "workload" not in line
        if lacks and not self._is_same_version(recorded):
            self.tally.lacking += 1
        return lacks

    def _decide(self, row: Row, stored: StoredRequest, grant: KeyGrant) -> Decision | None:
        """None: the name no longer resolves."""
        setup = self._setup
        ask, features, health, draw = replay(stored, names=setup.names, otherwise_ms=self._otherwise(stored))
        conversation = features.conversation if setup.is_sticky else ""
        if conversation and not self._is_same_version(stored.decision):
            ask = ask._replace(conversation_deployment=self._conversations.find(conversation, row.id))
        try:
            decision = decide(ask, features, self._snapshot_for(stored.decision), grant, health, draw=draw)
        except RoutingError:
            return None
        if conversation and decision.candidates:
            self._conversations.keep(conversation, row.id, decision.candidates[0].name)
        return decision

    def _otherwise(self, stored: StoredRequest) -> Callable[[int], float | None] | None:
        if self._is_same_version(stored.decision):
            return None  # to come out the same, it may know no more than the worker did
        first_token_ms = self._setup.expectations.first_token_ms
        workload = stored.features.get("workload", "")
        return lambda deployment_id: first_token_ms(workload, deployment_id)

    def _is_same_version(self, recorded: Mapping[str, Any]) -> bool:
        versions = self._setup.versions
        return bool(versions) and recorded.get("version") in versions

    def _snapshot_for(self, recorded: Mapping[str, Any]) -> RoutingSnapshot:
        """With the router tables of that time, where the same version is run and they still exist."""
        version = recorded.get("tables")
        setup = self._setup
        if version is None or version == setup.snapshot.router.version:
            return setup.snapshot
        tables = setup.tables.get(version) if self._is_same_version(recorded) else None
        if tables is None:
            return setup.snapshot
        found = self._snapshots.get(version)
        if found is None:
            found = self._snapshots[version] = replace(setup.snapshot, router=tables)
        return found

    def _zone(self, name: str) -> ZoneInfo:
        found = self._zones.get(name)
        if found is None:
            found = self._zones[name] = ZoneInfo(name)
        return found

    def _check(
        self,
        request_id: str,
        recorded: dict[str, Any],
        decision: Decision | None,
        *,
        lacks: bool,
        number: int,
    ) -> None:
        """Compare with the recorded decision, member by member."""
        tally, setup = self.tally, self._setup
        tally.checked += 1
        again = decision_record(decision) if decision is not None else {}
        differing = differing_members(recorded, again)
        if not differing and recorded.get("version") in setup.versions:
            tally.reproduced += 1
            return
        reason = explain_mismatch(
            recorded,
            versions=setup.versions,
            last_change=setup.last_change,
            tables=recorded.get("tables")
            if recorded.get("tables") in setup.tables
            else setup.snapshot.router.version,
            lacks_features=lacks,
        )
        if reason == "unexplained" and unix_ms_of(request_id) < setup.last_price_unix_ms:
            reason = "catalog_changed"  # a price came into force as planned, without a change that day
        tally.mismatches[reason] += 1
        # What nobody can explain is shown first.
        if reason != "unexplained":
            number += 1 << 32
        if tally.mismatch_sample.wants(number):
            entry = {"id": request_id, "reason": reason, "members": differing}
            entry["then"], entry["now"] = recorded.get("candidates", []), again.get("candidates", [])
            tally.mismatch_sample.add(number, entry)

    def _count_no_candidate(
        self, row: Row, recorded: Mapping[str, Any], decision: Decision | None, number: int
    ) -> None:
        tally = self.tally
        tally.no_candidate += 1
        tally.not_compared["no_candidate"] += 1
        if decision is None:
            reasons = ["model_not_found"]
        elif decision.rule is None:
            reasons = ["no_rule"]
        else:
            reasons = sorted({reason for _, reason in decision.dropped})
        tally.reasons.update(reasons)
        if tally.no_candidate_sample.wants(number):
            then = recorded["candidates"][:1]
            entry = {"id": row.id, "tenant": row.tenant_id, "reasons": reasons, "then": "".join(then)}
            tally.no_candidate_sample.add(number, entry)

    def _compare(
        self,
        row: Row,
        line: Mapping[str, Any],
        recorded: Mapping[str, Any],
        decision: Decision,
        first: DeploymentSnapshot,
        *,
        is_moved: bool,
        number: int,
    ) -> None:
        """Cost and latency then and now. What stayed where it was costs what it cost."""
        tally = self.tally
        cost_then = row.cost_nanousd
        cost_now: int | None = cost_then
        workload = line.get("workload") or f"rule {row.rule}"
        if row.status not in ANSWERED or row.input_tokens is None:
            tally.not_compared["not_answered"] += 1
            cost_then = None
        elif cost_then is None:
            tally.not_compared["cost_unknown"] += 1
        elif is_moved:
            cost_now = self._expected_cost(row, line, first, workload)
            if cost_now is None:
                tally.not_compared["unpriced"] += 1
        if cost_then is not None and cost_now is not None:
            sums = tally.tenants[row.tenant_id]
            tally.compared += 1
            sums.compared += 1
            sums.cost_then_nanousd += cost_then
            sums.cost_now_nanousd += cost_now
        if row.status == "ok":
            self._compare_latency(row, first.id, workload, is_moved=is_moved)
        if is_moved and tally.moved_sample.wants(number):
            entry = {
                "id": row.id,
                "tenant": row.tenant_id,
                "then": recorded["candidates"][0] if recorded["candidates"] else "",
                "now": first.name,
                "rule_then": recorded.get("rule", ""),
                "rule_now": decision.rule.name if decision.rule is not None else "",
                "cost_then": cost_then,
                "cost_now": cost_now if cost_then is not None else None,
            }
            tally.moved_sample.add(number, entry)

    def _expected_cost(
        self, row: Row, line: Mapping[str, Any], first: DeploymentSnapshot, workload: str
    ) -> int | None:
        """Input and cached tokens as recorded, the answer as long as this model's are; None: unpriced."""
        price = price_at(self._setup.prices.get(first.id, ()), unix_ms_of(row.id) / 1000)
        if price is None:
            return None
        expected = self._setup.expectations.output_tokens(workload, first.model.id)
        limit = line.get("max_output_tokens", 0) * line.get("choice_count", 1)
        tokens = min(expected.tokens, limit) if limit else expected.tokens
        self.tally.doubt(expected, self._output_rate(price))
        return total_nanousd(
            Usage(
                "estimated",
                row.input_tokens or 0,
                round(tokens),
                row.cache_read_tokens or 0,
                row.cache_write_tokens or 0,
            ),
            price,
        )

    def _output_rate(self, price: PriceVersion) -> float:
        """Nano-USD for each token of the answer: to speak of uncertainty, not of money."""
        rate = self._output_rates.get((price.id, price.variant))
        if rate is None:
            stated = price.rates.get("output_usd_per_mtok")
            rate = float(stated) * NANOUSD_PER_TOKEN if stated is not None else 0.0
            self._output_rates[price.id, price.variant] = rate
        return rate

    def _compare_latency(self, row: Row, now_id: int, workload: str, *, is_moved: bool) -> None:
        tally, expectations = self.tally, self._setup.expectations
        if not is_moved:
            tally.first_token.keep(row.first_token_ms)
            tally.duration.keep(row.duration_ms)
            return
        for latency, then_ms, expect in (
            (tally.first_token, row.first_token_ms, expectations.first_token_ms),
            (tally.duration, row.duration_ms, expectations.duration_ms),
        ):
            if then_ms is None:
                continue
            now_ms = expect(workload, now_id)
            if now_ms is None:
                latency.unknown += 1
            else:
                latency.count += 1
                latency.then_ms += then_ms
                latency.now_ms += now_ms


def unix_ms_of(request_id: str) -> int:
    """The millisecond inside a UUIDv7."""
    return int(request_id[:8] + request_id[9:13], 16)


def text_features_of(policy: PolicySnapshot) -> frozenset[str]:
    """What the document reads of a request's words; such features are recorded only where a policy asked for them."""
    named = policy.feature_names & TEXT_FEATURE_NAMES
    if policy.has_auto:
        named |= {"workload", "task_type", "difficulty", "conversation"}
    return named | {"conversation"} if policy.session_stickiness else named
