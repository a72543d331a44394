"""Why was a request routed as it was? The decision for the record, and the record for people.

Pure. The record is written for every request, so it holds names and codes, no sentences, and leaves out what is empty:

    {"path": "routed", "draw": 0.25, "policy": "acme/support", "version": 3, "rule": "rest", "strategy": "weighted",
     "candidates": ["a", "b"], "dropped": [["c", "vision"]], "scores": [["a", 1200], ["b", null]],
     "trace": ["long prompts", ["tagged", "skipped", "no tag team"], ["rest", "matched"]], "max_attempts": 2, "rev": 81}

`rev` is the newest change that the worker knew of. An automatic rule adds `"tables"` (version of the router's tables),
`"slider"`, and scores by column (`score_columns`): quality, its standard error, expected nano-USD and ms, score.
`"pin"` says what became of a conversation's deployment: ["new"], ["kept", name], ["broken", name, reason].
`"latencies"` [name, ms] are of the further names that a request gave, where they were ordered by latency.
`"canary": true`: the version on trial served. A rule in `trace` that is a text alone was skipped: its condition did not
hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.decision import Decision
from policies.score_columns import AUTO_LENGTH, read_rows, to_columns
from policies.stickiness import Pin

MAX_DROPPED = 20
MAX_NAME_CHARACTERS = 200

_REASONS = {
    "disabled": "it is switched off",
    "endpoint_unsupported": "its model does not offer this kind of request",
    "context_window": "the request does not fit into its context window",
    "vision": "the request holds images, which its model is not listed to read",
    "audio": "the request holds audio, which its model is not listed to handle",
    "files": "the request holds files, which its model is not listed to read",
    "tools": "the request uses tools, which its model is not listed to use",
    "json_schema": "the request wants answers after a JSON schema, which its model is not listed to give",
    "logprobs": "the request wants log probabilities, which its model is not listed to give",
    "region": "its region is not among those the tenant allows",
    "retention": "what it is sent may be kept there longer than the tenant or the caller allows, or nobody has said",
    "provider_only": "the caller asked for other providers only",
    "provider_ignored": "the caller asked not to use its provider",
    "ejected": "it failed too often and is left out for a while",
    "cooling": "its provider asked for a pause (429)",
    "credential_rejected": "its provider refused the gateway's credential",
    "rate_room": "its own limits (requests, tokens, at once) left no room",
    "no_fallbacks": "the caller allowed no fallback",
    "unpriced": "it has no price, and the key has a budget",
    "model_budget": "what it can cost does not fit into the budget of its model",
    "deployment_budget": "what it can cost does not fit into this deployment's own budget",
    "price_cap": "it costs more than the caller allows, or has no price",
    "not_allowed": "the caller's list of allowed models does not name it",
    "excluded": "the caller excluded it",
    "pinned": "the request is pinned to one deployment",
    "model_not_found": "there is no such model, or this key may not use it",
}
_STRATEGIES = {
    "fixed": "as listed",
    "priority": "in the order listed",
    "weighted": "drawn by weight, then the fallbacks as listed",
    "least_cost": "the cheapest first, then the fallbacks as listed",
    "least_latency": "the fastest first, then the fallbacks as listed",
    "auto": "best by the automatic router first, then the fallbacks as listed",
}


_REFUSALS = {
    "requests": "all requests per minute of {} were taken",
    "tokens": "too few tokens per minute of {} were left for it",
    "concurrent": "as many requests as {} may have running at once were running",
    "budget": "what it could cost did not fit into the budget of {}",
}


def decision_record(decision: Decision) -> dict[str, Any]:
    """The decision as the journal and the request record keep it: JSON values, under 1 kB on average."""
    record: dict[str, Any] = {"path": decision.path, "draw": decision.draw, "rev": decision.revision}
    policy, rule = decision.policy, decision.rule
    if policy is not None:
        record["policy"] = policy.public_id
        record["version"] = policy.version_number
    if rule is not None:
        record["rule"] = rule.name
        record["strategy"] = rule.strategy
    elif decision.sorted_by:
        record["strategy"] = decision.sorted_by
    candidates = record["candidates"] = [deployment.name for deployment in decision.candidates]
    if decision.dropped:
        record["dropped"] = [
            [name[:MAX_NAME_CHARACTERS], reason] for name, reason in decision.dropped[:MAX_DROPPED]
        ]
        if len(decision.dropped) > MAX_DROPPED:
            record["dropped_more"] = len(decision.dropped) - MAX_DROPPED
    scores = decision.scores
    if scores:
        is_auto = len(scores[0]) == AUTO_LENGTH
        record["scores"] = (
            to_columns(scores, candidates) if is_auto else [[name, _short(value)] for name, value in scores]
        )
    if decision.further_latencies:
        record["latencies"] = [[name, _short(ms)] for name, ms in decision.further_latencies]
    if decision.slider is not None:
        record["tables"] = decision.tables_version
        record["slider"] = decision.slider
    if decision.pin is not None:
        record["pin"] = _pin_row(decision.pin)
    if decision.is_canary:
        record["canary"] = True
    if decision.trace:
        record["trace"] = [
            name
            if outcome == "skipped" and not detail
            else [name, outcome, detail]
            if detail
            else [name, outcome]
            for name, outcome, detail in decision.trace
        ]
    if decision.max_attempts is not None:
        record["max_attempts"] = decision.max_attempts
    if not decision.candidates:
        record["never_possible"] = decision.is_never_possible
    return record


def sentences(record: Mapping[str, Any], *, refused_by: str = "") -> list[str]:
    """Say the decision in plain English, one fact a sentence, in the order in which it was made.

    `refused_by` is what a request's features say of the limit or the budget that refused it (`refusal_text`).
    """
    told = _decision_sentences(record)
    if refused_by:
        told.append(f"The request was refused: {refusal_text(refused_by)}.")
    return told


def refusal_text(refused_by: str) -> str:
    """Say what refused a request: `requests of key acme/web/dev`, `budget of acme each day`."""
    kind, _, name = refused_by.partition(" of ")
    return _REFUSALS[kind].format(name) if kind in _REFUSALS else refused_by


def _decision_sentences(record: Mapping[str, Any]) -> list[str]:
    if not record:
        return ["The request was refused before it was routed."]
    told = [_path_sentence(record)]
    told += [_rule_sentence(entry) for entry in record.get("trace", [])]
    if record.get("policy") and not record.get("rule"):
        told.append("No rule took the request.")
    candidates = list(record.get("candidates", []))
    for name, reason in record.get("dropped", []):
        told.append(f"{name} was left out: {_REASONS.get(reason, reason)} ({reason}).")
    if record.get("dropped_more"):
        told.append(f"{record['dropped_more']} more were left out.")
    if candidates:
        how = _STRATEGIES.get(record.get("strategy", ""), "in the order of their names")
        if len(candidates) == 1:
            told.append(f"One deployment could be tried: {candidates[0]}.")
        else:
            told.append(f"To be tried, {how}: {', then '.join(candidates)}.")
        if record.get("strategy") == "weighted":
            told.append(f"The number drawn was {record.get('draw', 0.0):.4f}.")
        told += _score_sentences(record)
        told += _pin_sentences(record.get("pin") or [])
    elif record.get("never_possible"):
        told.append("No deployment could ever serve this request as it is.")
    else:
        told.append("No deployment could be called at that moment.")
    return told


def reason_text(reason: str) -> str:
    """Say a drop reason's code in words; an unknown code is returned as it is."""
    return _REASONS.get(reason, reason)


def _path_sentence(record: Mapping[str, Any]) -> str:
    if record.get("policy"):
        on_trial = " (on trial as a canary)" if record.get("canary") else ""
        return f"Policy {record['policy']}, version {record.get('version')}{on_trial}, decided."
    if record.get("path") == "pinned":
        return "The request was pinned: exactly the deployment asked for, no fallback."
    return "The model was asked for by name; no policy was involved."


def _rule_sentence(entry: Any) -> str:
    if isinstance(entry, str):
        return f"Rule “{entry}”: its condition did not hold."
    name, outcome, *details = entry
    detail = f" ({details[0]})" if details else ""
    if outcome == "matched":
        return f"Rule “{name}” matched."
    if outcome == "disabled":
        return f"Rule “{name}” is switched off."
    if outcome == "failed":
        return f"Rule “{name}”: its condition failed and so did not hold{detail}."
    return f"Rule “{name}”: its condition did not hold{detail}."


def _score_sentences(record: Mapping[str, Any]) -> list[str]:
    scores = read_rows(record)
    if not scores:
        return []
    if record.get("strategy") == "auto":
        slider, tables = record.get("slider", 0), record.get("tables", 0)
        told = [
            f"The slider stood at {slider:g} of 10; version {tables} of the router's tables was in force."
        ]
        told.append(f"Judged best: {_judged(*scores[0])}.")
        if len(scores) > 1:
            told.append(f"Next: {_judged(*scores[1])}.")
        return told
    if record.get("strategy") == "least_cost":
        shown = [
            f"{name} {'unpriced' if value is None else f'{value / 1e9:.6f} USD'}" for name, value in scores
        ]
        return [f"Expected cost: {', '.join(shown)}."]
    shown = [f"{name} {'not measured yet' if value is None else f'{value:.0f} ms'}" for name, value in scores]
    return [f"Time to the first token so far: {', '.join(shown)}."]


def _judged(
    name: str, quality: float, error: float, nanousd: int | None, latency_ms: float | int | None, score: float
) -> str:
    """One candidate of an automatic rule in words."""
    told = f"{name} quality {quality:.2f} ± {error:.2f}, {_usd(nanousd)}"
    if latency_ms is not None:
        told += f", {latency_ms:.0f} ms"
    return f"{told}, score {score:.3f}"


def _usd(nanousd: int | None) -> str:
    return "unpriced" if nanousd is None else f"${nanousd / 1e9:.6f}"


def _pin_sentences(pin: list[str]) -> list[str]:
    if not pin or pin[0] == "new":
        return []
    if pin[0] == "kept":
        return [f"The conversation stays with {pin[1]}, which served it before."]
    if pin[2] == "saving":
        return [
            f"The conversation leaves {pin[1]}: another is better, and saves more than the lost cache costs."
        ]
    if pin[2] == "simulated":
        return [f"The conversation leaves {pin[1]}, where no model answers."]
    return [f"The conversation leaves {pin[1]}: {_REASONS.get(pin[2], 'no rule names it any more')}."]


def _pin_row(pin: Pin) -> list[str]:
    return [part for part in pin if part]


def _short(value: float | int | None) -> float | int | None:
    return round(value, 1) if isinstance(value, float) else value


def candidates_of(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every deployment that was looked at: {"name", "place", "score", "reason"}, those to be tried first."""
    scores = {score[0]: score[1:] for score in read_rows(record)}
    strategy = record.get("strategy", "")
    listed = [
        {
            "name": str(name),
            "place": str(place),
            "score": _score_text(strategy, scores, str(name)),
            "reason": "",
        }
        for place, name in enumerate(record.get("candidates", []), start=1)
    ]
    listed += [
        {
            "name": str(name),
            "place": "",
            "score": _score_text(strategy, scores, str(name)),
            "reason": _REASONS.get(reason, str(reason)),
        }
        for name, reason in record.get("dropped", [])
    ]
    return listed


def rules_of(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rules in the order in which they were looked at: {"name", "outcome", "detail"}."""
    told = []
    for entry in record.get("trace", []):
        if isinstance(entry, str):
            told.append({"name": entry, "outcome": "skipped", "detail": ""})
        else:
            told.append({"name": entry[0], "outcome": entry[1], "detail": entry[2] if len(entry) > 2 else ""})
    return told


def _score_text(strategy: str, scores: Mapping[str, Any], name: str) -> str:
    if name not in scores:
        return ""
    value, *more = scores[name]
    if more:
        error, nanousd, latency_ms, _ = more
        told = f"quality {value:.2f} ± {error:.2f}, {_usd(nanousd)}"
        return told if latency_ms is None else f"{told}, {latency_ms:.0f} ms"
    if strategy == "least_cost":
        return "unpriced" if value is None else f"${value / 1e9:.6f}"
    return "not measured" if value is None else f"{value:.0f} ms"
