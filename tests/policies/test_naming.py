"""What would a request ask for that asked for one policy, were another one to answer it?"""

from __future__ import annotations

from typing import Any

import pytest

from policies.naming import name_instead
from tests.make_routing import make_deployments, make_policy

FIXED: dict[str, Any] = {"name": "all", "deployments": ["a"]}
AUTO: dict[str, Any] = {"name": "all", "strategy": "auto", "deployments": ["a"]}


@pytest.mark.parametrize(
    ("name", "of", "rule", "expected"),
    [
        ("acme/old", "acme/old", FIXED, "acme/auto"),
        ("acme/old:cost", "acme/old", AUTO, "acme/auto:cost"),
        ("acme/old:cost", "acme/old", FIXED, "acme/auto"),
        ("auto:cost", "pointsman/auto", AUTO, "acme/auto:cost"),
        ("auto:cost", "acme/old", AUTO, "auto:cost"),
        ("acme/old:large", "acme/old", AUTO, "acme/old:large"),
        ("llama", "acme/old", AUTO, "llama"),
    ],
)
def test_only_names_of_the_other_policy_are_replaced(
    name: str, of: str, rule: dict[str, Any], expected: str
) -> None:
    policy = make_policy(make_deployments("a"), rule)
    assert name_instead(name, of=of, policy=policy) == expected
