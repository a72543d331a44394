"""How is a backtest's result said to people? Sentences for its codes, shares for its bars.

Pure. The result's form: `billing.backtest_results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from billing.money import format_usd
from policies.explaining import reason_text

NOT_COMPARED: Final[Mapping[str, str]] = {
    "no_candidate": "would have had no deployment",
    "not_answered": "got no answer then",
    "cost_unknown": "had no known cost then",
    "unpriced": "would go to a deployment that had no price then",
    "key_gone": "came with a key that is deleted",
    "no_decision": "were recorded without a decision",
}
MISMATCHES: Final[Mapping[str, str]] = {
    "other_version": "another version of the policy was live",
    "older_release": "recorded by a release that did not keep all that a decision looked at",
    "truncated": "the record names only the first deployments that were left out",
    "feature_missing": "a feature that this version reads was not recorded",
    "model_budget": "a model was left out because its budget had no room",
    "deployment_budget": "a deployment was left out because its own budget had no room",
    "tables_changed": "the automatic router used tables that are no longer kept",
    "catalog_changed": "the catalog, a price, a tenant or a key was changed since",
    "unexplained": "nobody knows why: please report this",
}
LEVELS: Final[Mapping[str, str]] = {
    "workload": "of the same model on the same workload",
    "model": "of the same model on other workloads",
    "all": "of all models: this one answered fewer than 5 times in the period",
    "none": "assumed to be 500 tokens: there was no answer in the period",
}
REFUSALS: Final[Mapping[str, str]] = {
    "no_rule": "no rule took the request",
    "model_not_found": "these rules do not answer to the name that was asked for (a preset needs an automatic rule)",
}


def say_counts(counts: Mapping[str, int], words: Mapping[str, str]) -> list[tuple[int, str]]:
    """[(count, sentence)], in the order given."""
    return [(count, words.get(code, code.replace("_", " "))) for code, count in counts.items()]


def say_refusal(code: str) -> str:
    """Why a request has no candidate: a drop reason, or that no rule took it."""
    return REFUSALS.get(code) or reason_text(code)


def with_shares(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of {"name", "then", "now"} with what part of all requests each is, 0..1."""
    listed = [dict(row) for row in rows]
    then, now = sum(row["then"] for row in listed) or 1, sum(row["now"] for row in listed) or 1
    for row in listed:
        row["then_share"], row["now_share"] = row["then"] / then, row["now"] / now
        row["then_width"], row["now_width"] = (
            round(row["then_share"] * 100, 2),
            round(row["now_share"] * 100, 2),
        )
        row["change"] = signed_points(row["now_share"] - row["then_share"])
    return listed


def signed_usd(nanousd: int) -> str:
    """An amount of change: +$1.20, −$0.30, $0.00."""
    return f"{_sign(nanousd)}{format_usd(abs(nanousd))}"


def signed_percent(part: float | None) -> str:
    """A change as a part of what was: +12.3 %; a dash where there was nothing."""
    if part is None:
        return "–"
    rounded = round(part * 100, 1)
    return f"{_sign(rounded)}{abs(rounded):.1f} %" if rounded else "no change"


def signed_points(difference: float) -> str:
    """A difference of two shares, in percentage points."""
    rounded = round(difference * 100, 1)
    return "=" if not rounded else f"{_sign(rounded)}{abs(rounded):.1f}"


def _sign(value: float) -> str:
    return "+" if value > 0 else "−" if value < 0 else ""


def ratio(now: float, then: float) -> float | None:
    """The change as a part of what was: -0.25 is a quarter less; None where there was nothing."""
    return (now - then) / then if then else None
