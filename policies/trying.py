"""What would become of a request, and why? Every rule, every candidate, the order of trying; no provider is called.

Pure. `decide` itself decides, over the live policies or over a draft that is put in their place, so that what is shown
is what would happen. `as_json` is what `POST /v1/route/explain`, the management API and the test panel show:

    {"object": "route.explanation", "path": "routed", "requested_model": "acme/support",
     "policy": {"id": "acme/support", "version": 3, "is_draft": false}, "rule": "rest", "strategy": "weighted",
     "rules": [{"place": 1, "name": "long", "when": "input_tokens > 4000", "outcome": "skipped", "is_reached": true,
                "detail": "", "reasons": ["Input tokens (estimate) is 120, not > 4000"]}, ...],
     "candidates": [{"place": 1, "deployment": "a", "model": "m", "provider": "p", "region": "eu", "role": "choice",
                     "reason": null, "why": "", "score": null, "expected_cost_nanousd": 1200, "quality": null,
                     "quality_error": null, "latency_ms": null}, ...],
     "order": ["a", "b"], "draw": 0.25, "is_canary": false, "pin": null, "max_attempts": null, "timeout_s": null,
     "never_possible": false, "features": {"input_tokens": 120}, "sentences": ["...", ...], "notes": [], "error": null}

Outcomes of rules: matched, skipped, failed, disabled. A rule behind the first that matched has `is_reached` false, and
its outcome is what it would have been. `role` is choice, fallback, missing (named by the rule, and switched off or
gone), or named (asked for by its own or its model's name). A candidate without `place` is not tried; `reason` is the
code (`policies.filters`), `why` says it. `score` is what the strategy compared: nano-USD, ms, or the automatic
router's score. `features` leaves out what is at its default.
`error` {"code", "message", "status"}: the request would be refused before a rule is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from policies.asks import Ask, HealthView
from policies.conditions import RUN_TIME_ERRORS, first_line, prepare
from policies.decision import Decision, RoutingError, decide
from policies.document_checks import Problem, check_document, has_errors
from policies.documents import build_policy
from policies.explaining import decision_record, reason_text, sentences
from policies.features import Features
from policies.naming import name_instead, names_of
from policies.rule_matching import RuleOutcome
from policies.score_columns import ScoreRow, read_rows
from policies.snapshot import DeploymentSnapshot, KeyGrant, PolicySnapshot, RoutingSnapshot, RuleSnapshot
from policies.strategies import expected_cost_nanousd
from policies.unmet_conditions import list_unmet

DRAFT_VERSION = 0
# Who else uses a policy is no caller's business.
ACCESS_FIELDS = frozenset({"tenant", "project", "key"})


class UnsoundDraftError(ValueError):
    """A draft that cannot be tried. `problems` say where and why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        self.problems = problems


class ExplainedRule(NamedTuple):
    """One rule. `place` is 1-based; `reasons` say which comparisons did not hold, where they can be told apart."""

    place: int
    name: str
    when: str
    outcome: RuleOutcome
    is_reached: bool
    detail: str = ""
    reasons: tuple[str, ...] = ()


class ExplainedCandidate(NamedTuple):
    """One deployment (or a name that led to none). `place` is 1-based in the order of trying, None when dropped."""

    place: int | None
    deployment: str
    model: str = ""
    provider: str = ""
    region: str = ""
    role: str = "named"
    reason: str | None = None
    why: str = ""
    score: float | None = None
    expected_cost_nanousd: int | None = None
    quality: float | None = None
    quality_error: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with everything that led to it. `decision` is None when the request would be refused (`error`)."""

    ask: Ask
    features: Features
    decision: Decision | None
    rules: tuple[ExplainedRule, ...] = ()
    candidates: tuple[ExplainedCandidate, ...] = ()
    notes: tuple[str, ...] = ()
    error: RoutingError | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the deployments that would be tried, first to last."""
        return () if self.decision is None else tuple(found.name for found in self.decision.candidates)

    def as_json(self) -> dict[str, Any]:
        """The form shown in this module's docstring."""
        decision = self.decision
        policy = None if decision is None else decision.policy
        rule = None if decision is None else decision.rule
        error = self.error
        return {
            "object": "route.explanation",
            "path": None if decision is None else decision.path,
            "requested_model": self.ask.requested_model,
            "policy": policy
            and {
                "id": policy.public_id,
                "version": policy.version_number or None,
                "is_draft": policy.version_number == DRAFT_VERSION,
            },
            "rule": rule and rule.name,
            "strategy": rule and rule.strategy,
            "rules": [{**row._asdict(), "reasons": list(row.reasons)} for row in self.rules],
            "candidates": [row._asdict() for row in self.candidates],
            "order": list(self.order),
            "draw": None if decision is None else decision.draw,
            "is_canary": decision is not None and decision.is_canary,
            "pin": None if decision is None else decision_record(decision).get("pin"),
            "max_attempts": None if decision is None else decision.max_attempts,
            "timeout_s": rule and rule.timeout_s,
            "never_possible": decision is not None and decision.is_never_possible,
            "features": _told_features(self.features),
            "sentences": [] if decision is None else sentences(decision_record(decision)),
            "notes": list(self.notes),
            "error": error and {"code": error.code, "message": str(error), "status": error.status},
        }


def explain_request(
    *,
    ask: Ask,
    features: Features,
    snapshot: RoutingSnapshot,
    grant: KeyGrant,
    health: HealthView,
    draw: float,
    document: Mapping[str, Any] | None = None,
    public_id: str = "",
    is_for_caller: bool = False,
) -> Explanation:
    """Explain one request over what is live, or over `document` in the place of the policy `public_id`.

    With a document, the request is taken to ask for that policy (by a preset, where it does), and the tenant to be
    allowed to use it; `notes` say where that is not so. `is_for_caller`: for who holds a key, not for an operator: a
    policy that several tenants use may name the others in its conditions, so the texts of conditions are left out.
    Raises UnsoundDraftError when the document has errors that keep it from being built.
    """
    notes: tuple[str, ...] = ()
    if document is not None:
        snapshot = with_draft(snapshot, document=document, public_id=public_id)
        name = _own_name(ask.requested_model, snapshot.policies[public_id])
        notes = tuple(_draft_notes(ask, grant, public_id, name))
        grant = replace(
            grant,
            tenant=replace(grant.tenant, policy_ids=grant.tenant.policy_ids | {public_id}),
            allowed_models=grant.allowed_models and grant.allowed_models | {public_id},
        )
        ask = ask._replace(requested_model=name)
        features = features._replace(requested_model=name)
    try:
        decision = decide(ask, features, snapshot, grant, health, draw=draw)
    except RoutingError as refused:
        return Explanation(ask, features, None, notes=notes, error=refused)
    policy = decision.policy
    return Explanation(
        ask,
        features,
        decision,
        ()
        if policy is None
        else tuple(_explained_rules(policy, decision, features, is_for_caller=is_for_caller)),
        tuple(_explained_candidates(decision, features, snapshot)),
        notes,
    )


def with_draft(snapshot: RoutingSnapshot, *, document: Mapping[str, Any], public_id: str) -> RoutingSnapshot:
    """The snapshot as it would be with this document published (without canary). Raises UnsoundDraftError."""
    names = set(_names_in(document))
    problems = check_document(
        document, deployment_names=names, model_names={str(document.get("baseline") or "")}
    )
    if has_errors(problems):
        raise UnsoundDraftError([problem for problem in problems if problem.severity == "error"])
    live = snapshot.policies.get(public_id)
    draft = build_policy(
        document,
        snapshot.deployments,
        policy_id=0 if live is None else live.id,
        public_id=public_id,
        version_number=DRAFT_VERSION,
    )
    return replace(snapshot, policies={**snapshot.policies, public_id: draft})


def find_outcome(rule: RuleSnapshot, features: Features) -> tuple[RuleOutcome, str]:
    """What one rule makes of a request, whatever stands before it: the outcome and its detail."""
    if not rule.is_enabled:
        return "disabled", ""
    if rule.condition is None:
        return "matched", ""
    try:
        outcome = rule.condition(prepare(features, rule.feature_names))
    except KeyError as missing:
        return "skipped", f"no tag {missing.args[0]}"[:100]
    except RUN_TIME_ERRORS as error:
        return "failed", first_line(error)
    if outcome is True:
        return "matched", ""
    return ("skipped", "") if outcome is False else ("failed", "neither true nor false")


def _own_name(asked: str, policy: PolicySnapshot) -> str:
    """The name that was asked for where it leads to this policy, else the policy's id."""
    public_id = policy.public_id
    is_preset = policy.has_auto and name_instead(asked, of=public_id, policy=policy) != asked
    return asked if is_preset or asked in names_of(policy) else public_id


def _draft_notes(ask: Ask, grant: KeyGrant, public_id: str, name: str) -> Iterator[str]:
    if public_id not in grant.tenant.policy_ids:
        yield f"The tenant {grant.tenant.name} may not use this policy yet; here it is taken as allowed."
    elif grant.allowed_models and public_id not in grant.allowed_models:
        yield f"The key {grant.key_name} may not use this policy; here it is taken as allowed."
    if ask.requested_model not in ("", name):
        yield f"The request asked for {ask.requested_model[:200]}; here it is taken to ask for {name}."


def _explained_rules(
    policy: PolicySnapshot, decision: Decision, features: Features, *, is_for_caller: bool
) -> Iterator[ExplainedRule]:
    is_reached = True
    hidden = ACCESS_FIELDS if is_for_caller else frozenset[str]()
    for place, rule in enumerate(policy.rules, start=1):
        outcome, detail = find_outcome(rule, features)
        reasons = list_unmet(rule.when, features, hidden=hidden) if outcome == "skipped" else []
        when = "" if is_for_caller else rule.when
        yield ExplainedRule(place, rule.name, when, outcome, is_reached, detail, tuple(reasons))
        if rule is decision.rule:
            is_reached = False


def _explained_candidates(
    decision: Decision, features: Features, snapshot: RoutingSnapshot
) -> Iterator[ExplainedCandidate]:
    rule = decision.rule
    fallbacks = frozenset() if rule is None else {deployment.name for deployment in rule.fallbacks}
    choices = frozenset() if rule is None else {choice.deployment.name for choice in rule.choices}
    missing = () if rule is None else rule.missing
    scores = _scores(decision)

    def explain(name: str, place: int | None, reason: str | None) -> ExplainedCandidate:
        deployment = snapshot.deployments.get(name)
        role = (
            "choice"
            if name in choices
            else "fallback"
            if name in fallbacks
            else "missing"
            if name in missing
            else "named"
        )
        why = "" if reason is None else reason_text(reason)
        return _candidate(name, deployment, place, role, reason, why, scores.get(name), features)

    for place, deployment in enumerate(decision.candidates, start=1):
        yield explain(deployment.name, place, None)
    for name, reason in decision.dropped:
        yield explain(name, None, reason)


def _candidate(
    name: str,
    deployment: DeploymentSnapshot | None,
    place: int | None,
    role: str,
    reason: str | None,
    why: str,
    score: _Score | None,
    features: Features,
) -> ExplainedCandidate:
    candidate = ExplainedCandidate(place, name, role=role, reason=reason, why=why)
    if deployment is None:
        return candidate
    candidate = candidate._replace(
        model=deployment.model.name,
        provider=deployment.provider.name,
        region=deployment.region,
        expected_cost_nanousd=expected_cost_nanousd(deployment, features),
    )
    if score is None:
        return candidate
    return candidate._replace(**{key: value for key, value in score._asdict().items() if value is not None})


class _Score(NamedTuple):
    score: float | None
    quality: float | None = None
    quality_error: float | None = None
    expected_cost_nanousd: int | None = None
    latency_ms: float | None = None


def _scores(decision: Decision) -> dict[str, _Score]:
    """Scores by deployment, from the decision's record: of the automatic router six values each, else two."""
    found: dict[str, _Score] = {}
    for entry in read_rows(decision_record(decision)):
        if isinstance(entry, ScoreRow):
            found[entry.name] = _Score(
                entry.score, entry.quality, entry.error, entry.cost_nanousd, entry.latency_ms
            )
        else:
            found[entry[0]] = _Score(entry[1])
    return found


def _told_features(features: Features) -> dict[str, Any]:
    defaults = Features()
    told = {name: value for name, value in features._asdict().items() if value != getattr(defaults, name)}
    if features.tags:
        told["tags"] = dict(features.tags)
    return told


def _names_in(document: Mapping[str, Any]) -> Iterator[str]:
    """Every deployment that a document names: one that is gone is left out when it is built, not refused."""
    rules = document.get("rules")
    for rule in rules if isinstance(rules, list) else ():
        if not isinstance(rule, Mapping):
            continue
        for member in ("deployments", "fallbacks"):
            entries = rule.get(member)
            for entry in entries if isinstance(entries, list) else ():
                name = entry.get("name") if isinstance(entry, Mapping) else entry
                if isinstance(name, str):
                    yield name
