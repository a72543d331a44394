"""Which rule of a policy takes a request, and what became of those before it?

Pure. A condition that fails at run time does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from policies.conditions import RUN_TIME_ERRORS, first_line, prepare
from policies.features import Features
from policies.snapshot import PolicySnapshot, RuleSnapshot

RuleOutcome = Literal["matched", "skipped", "failed", "disabled"]


class RuleTrace(NamedTuple):
    """What became of one rule. Rules after the matching one were not looked at and have no trace."""

    rule: str
    outcome: RuleOutcome
    detail: str = ""


def match_rule(policy: PolicySnapshot, features: Features, trace: list[RuleTrace]) -> RuleSnapshot | None:
    """The first rule whose condition holds. A condition that fails at run time does not hold."""
    context = None
    for rule, condition, skipped, matched in _steps(policy):
        if not rule.is_enabled:
            trace.append(RuleTrace(rule.name, "disabled"))
            continue
        if condition is not None:
            if context is None:
                context = prepare(features, policy.feature_names)
            try:
                outcome = condition(context)
            except KeyError as missing:
                trace.append(RuleTrace(rule.name, "skipped", f"no tag {missing.args[0]}"[:100]))
                continue
            except RUN_TIME_ERRORS as error:
                trace.append(RuleTrace(rule.name, "failed", first_line(error)))
                continue
            if outcome is False:
                trace.append(skipped)
                continue
            if outcome is not True:
                trace.append(RuleTrace(rule.name, "failed", "neither true nor false"))
                continue
        trace.append(matched)
        return rule
    return None


_Step = tuple[RuleSnapshot, Callable[[Any], Any] | None, RuleTrace, RuleTrace]


@lru_cache(maxsize=1024)
def _steps(policy: PolicySnapshot) -> tuple[_Step, ...]:
    """A policy's rules with the traces they leave, made once: ten rules are passed in every request."""
    return tuple(
        (rule, rule.condition, RuleTrace(rule.name, "skipped"), RuleTrace(rule.name, "matched"))
        for rule in policy.rules
    )
