"""Do rate limits stand under whom they are for, and does a file take back what it made?"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.configuration_file.applying import apply_configuration
from gateway.configuration_file.exporting import export_text
from gateway.configuration_file.format import read_configuration
from gateway.configuration_file.outcome import Outcome
from gateway.configuration_file.pruning import prune
from gateway.configuration_file.values import FileError
from policies.models import RateLimit
from tests.make_configuration import make_deployment

pytestmark = pytest.mark.django_db

OWNER = "apply:/etc/pointsman.yaml"
LIMITS = """
tenants: [{name: acme, limits: {requests_per_minute: 600, tokens_per_minute: 90000},
           projects: [{name: web, limits: {concurrent: 5}, keys: [{name: dev, limits: {requests_per_minute: 60}}]}]}]
deployments: [{name: d, limits: {concurrent: 3}}]
"""


def apply(text: str, *, with_prune: bool = False) -> list[str]:
    file = read_configuration(text, folder=Path("/etc"))
    outcome: Outcome = apply_configuration(file, owner=OWNER, is_plan=False)
    if with_prune:
        prune(file, owner=OWNER, outcome=outcome)
    return [str(step) for step in outcome.steps if step.action != "nothing" and "rate_limit" in str(step)]


def test_limits_stand_under_whom_they_are_for() -> None:
    make_deployment(name="d")
    assert apply(LIMITS) == [
        "create   rate_limit d  concurrent 3",
        "create   rate_limit acme  requests_per_minute 600, tokens_per_minute 90000",
        "create   rate_limit acme/web  concurrent 5",
        "create   rate_limit acme/web/dev  requests_per_minute 60",
    ]
    assert apply(LIMITS) == []
    assert apply(export_text()) == []
    assert apply(LIMITS.replace("concurrent: 5", "concurrent: 9")) == [
        "change   rate_limit acme/web  concurrent 9"
    ]
    # What an entry does not mention stays; an empty one takes back, and so does pruning.
    assert apply("tenants: [{name: acme}]") == []
    assert apply("deployments: [{name: d, limits: {}}]") == ["delete   rate_limit d"]
    assert sorted(map(str, RateLimit.objects.all())) == [
        "key acme/web/dev", "project acme/web", "tenant acme"
    ]  # fmt: skip
    without = LIMITS.replace("limits: {concurrent: 5}, ", "")
    assert "delete   rate_limit acme/web" in apply(without, with_prune=True)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ("{requests_per_minute: 0}", "tenants[0].limits.requests_per_minute"),
        ("{requests_per_minute: -1}", "tenants[0].limits.requests_per_minute"),
        ("{concurrent: many}", "tenants[0].limits.concurrent"),
        ("{requests: 5}", "tenants[0].limits.requests"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_its_place(wrong: str, path: str) -> None:
    with pytest.raises(FileError) as refusal:
        apply(f"tenants: [{{name: acme, limits: {wrong}}}]")
    assert [problem.path for problem in refusal.value.problems] == [path]
