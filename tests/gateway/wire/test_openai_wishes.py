"""What does a caller wish about routing?"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dataplane.errors import BadRequest
from gateway.wire.openai_wishes import NO_WISHES, read_wishes


def test_a_body_without_wishes_has_none() -> None:
    assert read_wishes({"model": "m", "messages": []}) is NO_WISHES


def test_openrouters_members_are_understood() -> None:
    wishes = read_wishes(
        {
            "models": ["a", "b"],
            "provider": {
                "order": ["x"],
                "only": ["x", "y"],
                "ignore": ["z"],
                "allow_fallbacks": False,
                "max_price": {"prompt": 1, "completion": "2.5"},
                "sort": "price",
            },
            "plugins": [
                {"id": "web"},
                {
                    "id": "auto-router",
                    "allowed_models": ["acme/*"],
                    "excluded_models": ["acme/old"],
                    "cost_quality_tradeoff": 7,
                },
            ],
        }
    )
    assert wishes == (
        ("a", "b"),
        ("x",),
        ("x", "y"),
        ("z",),
        False,
        1.0,
        2.5,
        7.0,
        ("acme/*",),
        ("acme/old",),
        "",
        "least_cost",
    )


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [("price", "least_cost"), ("latency", "least_latency"), ("throughput", "least_latency"),
     ({"by": "price", "partition": "model"}, "least_cost"), (None, ""), ({}, "")],
)  # fmt: skip
def test_a_sort_is_one_of_the_strategies(asked: object, strategy: str) -> None:
    assert read_wishes({"provider": {"sort": asked}}).provider_sort == strategy


@pytest.mark.parametrize(
    ("provider", "limit"),
    [
        ({"zdr": True}, "none"),
        ({"data_collection": "deny"}, "temporary"),
        ({"data_collection": "deny", "zdr": True}, "none"),
        ({"data_collection": "allow", "zdr": False}, ""),
    ],
)
def test_what_openrouters_clients_say_of_data_collection_limits_retention(
    provider: dict[str, object], limit: str
) -> None:
    assert read_wishes({"provider": provider}).retention_limit == limit


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({"models": "a"}, "models"),
        ({"models": [""]}, "models"),
        ({"models": ["long" * 100]}, "models"),
        ({"provider": {"only": ["long" * 100]}}, "provider.only"),
        ({"provider": []}, "provider"),
        ({"provider": {"order": [1]}}, "provider.order"),
        ({"provider": {"max_price": 3}}, "provider.max_price"),
        ({"provider": {"sort": "beauty"}}, "provider.sort"),
        ({"provider": {"sort": ["price"]}}, "provider.sort"),
        ({"provider": {"max_price": {"prompt": "cheap"}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"prompt": True}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"completion": float("nan")}}}, "provider.max_price.completion"),
        ({"provider": {"max_price": {"completion": "nan"}}}, "provider.max_price.completion"),
        ({"provider": {"max_price": {"prompt": -1}}}, "provider.max_price.prompt"),
        ({"plugins": {}}, "plugins"),
        ({"plugins": [{"id": "auto-router", "cost_quality_tradeoff": 11}]}, "plugins.cost_quality_tradeoff"),
        ({"plugins": [{"id": "auto-router", "allowed_models": "a"}]}, "plugins.allowed_models"),
        ({"plugins": [{"id": "auto-router", "allowed_models": ["*" * 5]}]}, "plugins.allowed_models"),
        ({"plugins": [{"id": "auto-router", "excluded_models": ["x" * 301]}]}, "plugins.excluded_models"),
    ],
)
def test_what_cannot_be_a_wish_is_refused_by_name(payload: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_wishes(payload)
    assert refused.value.param == param
