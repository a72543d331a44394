"""What does a caller wish about routing? `models`, `provider` and `plugins` as OpenRouter's clients send them.

Pure. These members are the gateway's own and never reach a provider. What is not understood in them is ignored, as
their clients expect; what is of the wrong type is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.dataplane.errors import BadRequest

WISH_MEMBERS = frozenset({"models", "provider", "plugins"})
AUTO_PLUGINS = ("auto-router", "auto")
MAX_NAMES = 32
MAX_NAME_CHARACTERS = 300
MAX_SLIDER = 10
# Names that a caller gives may hold `*`; more of them than this would be no name but work.
MAX_STARS = 4
SORTS = {"price": "least_cost", "latency": "least_latency", "throughput": "least_latency"}


class Wishes(NamedTuple):
    """Routing wishes. Prices are USD per million tokens; `slider` is 0 (quality) to 10 (cost).

    `retention_limit`: `policies.retention`. `provider_sort` is a strategy of `policies.strategies`.
    """

    models: tuple[str, ...] = ()
    provider_order: tuple[str, ...] = ()
    provider_only: tuple[str, ...] = ()
    provider_ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    max_input_price: float | int | None = None
    max_output_price: float | int | None = None
    slider: float | int | None = None
    allowed_models: tuple[str, ...] = ()
    excluded_models: tuple[str, ...] = ()
    retention_limit: str = ""
    provider_sort: str = ""


NO_WISHES = Wishes()


def read_wishes(payload: Mapping[str, Any]) -> Wishes:
    """Read the wishes of a body. Raises BadRequest naming the field."""
    if WISH_MEMBERS.isdisjoint(payload):
        return NO_WISHES
    wishes = Wishes(models=_names(payload.get("models"), "models"))
    wishes = _with_provider(wishes, payload.get("provider"))
    return _with_auto_plugin(wishes, payload.get("plugins"))


def _with_provider(wishes: Wishes, provider: object) -> Wishes:
    if provider is None:
        return wishes
    if not isinstance(provider, dict):
        raise wrong_type("provider", "an object")
    prices = provider.get("max_price")
    if prices is not None and not isinstance(prices, dict):
        raise wrong_type("provider.max_price", "an object")
    prices = prices or {}
    return wishes._replace(
        provider_order=_names(provider.get("order"), "provider.order"),
        provider_only=_names(provider.get("only"), "provider.only"),
        provider_ignore=_names(provider.get("ignore"), "provider.ignore"),
        allow_fallbacks=provider.get("allow_fallbacks", True) is not False,
        max_input_price=_price(prices.get("prompt"), "provider.max_price.prompt"),
        max_output_price=_price(prices.get("completion"), "provider.max_price.completion"),
        retention_limit=_retention_limit(provider),
        provider_sort=_sort(provider.get("sort")),
    )


def _with_auto_plugin(wishes: Wishes, plugins: object) -> Wishes:
    if plugins is None:
        return wishes
    if not isinstance(plugins, list) or len(plugins) > MAX_NAMES:
        raise wrong_type("plugins", f"a list of at most {MAX_NAMES} plugins")
    for plugin in plugins:
        if not isinstance(plugin, dict) or plugin.get("id") not in AUTO_PLUGINS:
            continue
        slider = plugin.get("cost_quality_tradeoff")
        if slider is not None:
            slider = _number(slider, "plugins.cost_quality_tradeoff", MAX_SLIDER)
        return wishes._replace(
            slider=slider,
            allowed_models=_patterns(plugin.get("allowed_models"), "plugins.allowed_models"),
            excluded_models=_patterns(plugin.get("excluded_models"), "plugins.excluded_models"),
        )
    return wishes


def _retention_limit(provider: Mapping[str, Any]) -> str:
    """`zdr`: only who keeps nothing; `data_collection: deny`: only who never trains on it."""
    if provider.get("zdr") is True:
        return "none"
    return "temporary" if provider.get("data_collection") == "deny" else ""


def _sort(value: object) -> str:
    """The strategy that `provider.sort` asks for. Throughput is not measured: the first token stands for it."""
    if isinstance(value, dict):
        value = value.get("by")
    if value is None:
        return ""
    strategy = SORTS.get(value) if isinstance(value, str) else None
    if strategy is None:
        raise BadRequest(
            f"'provider.sort' must be one of {', '.join(SORTS)}.", code="invalid_value", param="provider.sort"
        )
    return strategy


def _names(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > MAX_NAMES
        or not all(isinstance(item, str) and 0 < len(item) <= MAX_NAME_CHARACTERS for item in value)
    ):
        # Names are recorded with the request: a text of a megabyte is none.
        raise wrong_type(
            name, f"a list of at most {MAX_NAMES} names of at most {MAX_NAME_CHARACTERS} characters"
        )
    return tuple(value)


def _patterns(value: object, name: str) -> tuple[str, ...]:
    patterns = _names(value, name)
    for pattern in patterns:
        if pattern.count("*") > MAX_STARS:
            raise BadRequest(
                f"'{name}' holds a name that has more than {MAX_STARS} stars.",
                code="invalid_value",
                param=name,
            )
    return patterns


def _price(value: object, name: str) -> float | int | None:
    """USD per million tokens, as a number or a text."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise wrong_type(name, "a price in USD per million tokens") from None
    return _number(value, name, 1_000_000)


def _number(value: object, name: str, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(name, "a number")
    # Not a number is not between anything.
    if not 0 <= value <= maximum:
        raise BadRequest(f"'{name}' must be between 0 and {maximum}.", code="invalid_value", param=name)
    return float(value)


def wrong_type(name: str, expected: str) -> BadRequest:
    """The answer to a member of the wrong type."""
    return BadRequest(f"Invalid type for '{name}': expected {expected}.", code="invalid_type", param=name)
