"""Is each deployment that cannot serve dropped for the right reason?"""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.features import Features
from policies.filters import find_problem, find_unwanted, needs_of
from policies.snapshot import ModelSnapshot
from tests.make_routing import make_deployments, make_grant


def problem(
    features: Features,
    *,
    endpoint: str = "chat",
    model: ModelSnapshot | None = None,
    region: str = "",
    regions: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
) -> str | None:
    deployment = make_deployments("d", model=model, provider="Local", region=region)["d"]
    needs = needs_of(
        features,
        make_grant(regions=regions),
        endpoint=endpoint,
        provider_only=only,
        provider_ignore=ignore,
    )
    return find_problem(deployment, needs)


@pytest.mark.parametrize(
    ("feature", "code"),
    [
        ("has_images", "vision"),
        ("has_audio", "audio"),
        ("has_files", "files"),
        ("has_tools", "tools"),
        ("has_schema", "json_schema"),
        ("has_logprobs", "logprobs"),
    ],
)
def test_what_a_model_does_not_list_it_does_not_offer(feature: str, code: str) -> None:
    features = Features(**{feature: True})
    assert problem(features, model=ModelSnapshot(1, "m", capabilities=frozenset({"other"}))) == code
    assert problem(features, model=ModelSnapshot(1, "m", capabilities=frozenset({code}))) is None


def test_a_model_that_lists_nothing_is_let_through() -> None:
    features = Features(has_images=True, has_tools=True, has_schema=True)
    assert problem(features, model=ModelSnapshot(1, "m")) is None


def test_input_and_asked_output_must_fit_into_the_context_window() -> None:
    model = ModelSnapshot(1, "m", context_tokens=1000)
    assert problem(Features(input_tokens=900, max_output_tokens=100), model=model) is None
    assert problem(Features(input_tokens=900, max_output_tokens=101), model=model) == "context_window"
    assert problem(Features(input_tokens=10**9), model=ModelSnapshot(1, "m")) is None


def test_a_batch_of_embeddings_is_not_measured_against_one_window() -> None:
    model = ModelSnapshot(1, "m", context_tokens=512, endpoints=frozenset({"embeddings"}))
    assert problem(Features(input_tokens=100_000), model=model, endpoint="embeddings") is None


def test_an_endpoint_that_the_model_does_not_offer() -> None:
    assert problem(Features(), endpoint="embeddings") == "endpoint_unsupported"


def test_a_region_outside_those_allowed_is_refused_also_when_it_is_not_stated() -> None:
    assert problem(Features(), region="us", regions=("eu",)) == "region"
    assert problem(Features(), region="", regions=("eu",)) == "region"
    assert problem(Features(), region="eu", regions=("eu", "ch")) is None
    assert problem(Features(), region="us") is None


@pytest.mark.parametrize(
    ("retention", "accepted"),
    [
        ("none", {"", "temporary", "none"}),
        ("temporary", {"", "temporary"}),
        ("training", {""}),
        ("", {""}),
        ("a class of a later release", {""}),
    ],
)
def test_what_nobody_said_of_retention_serves_only_those_who_set_no_limit(
    retention: str, accepted: set[str]
) -> None:
    deployment = make_deployments("d", retention=retention)["d"]
    for limit in ("", "temporary", "none"):
        of_tenant = needs_of(Features(), make_grant(retention_limit=limit), endpoint="chat")
        of_caller = needs_of(Features(), make_grant(), endpoint="chat", retention_limit=limit)
        expected = None if limit in accepted else "retention"
        assert find_problem(deployment, of_tenant) == find_problem(deployment, of_caller) == expected


def test_of_tenant_and_caller_the_stricter_retention_holds() -> None:
    deployment = make_deployments("d", retention="temporary")["d"]
    for tenant, caller in (("none", "temporary"), ("temporary", "none"), ("none", "")):
        needs = needs_of(
            Features(), make_grant(retention_limit=tenant), endpoint="chat", retention_limit=caller
        )
        assert find_problem(deployment, needs) == "retention"


def test_provider_preferences_do_not_look_at_case() -> None:
    assert problem(Features(), only=("LOCAL",)) is None
    assert problem(Features(), only=("other",)) == "provider_only"
    assert problem(Features(), ignore=("local",)) == "provider_ignored"
    assert problem(Features(), ignore=("other",)) is None


@given(st.text("ab/", max_size=8), st.lists(st.text("ab/", max_size=3), min_size=1, max_size=5).map("*".join))
def test_a_star_stands_for_any_characters(name: str, pattern: str) -> None:
    deployment = make_deployments("d", model=ModelSnapshot(id=1, name=name))["d"]
    reason = find_unwanted(deployment, (pattern,), ())
    assert (reason is None) is fnmatchcase(name, pattern) or fnmatchcase("d", pattern)


def test_nothing_but_a_star_is_a_pattern() -> None:
    deployment = make_deployments("d", model=ModelSnapshot(id=1, name="a[1]?"))["d"]
    assert find_unwanted(deployment, ("a[1]?",), ()) is None
    assert find_unwanted(deployment, ("a?1]?",), ()) == "not_allowed"
    assert find_unwanted(deployment, (), ("a[*",)) == "excluded"
