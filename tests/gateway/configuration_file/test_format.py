"""Does a configuration file say exactly where it is wrong?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.configuration_file.format import read_configuration
from gateway.configuration_file.values import FileError

FOLDER = Path("/etc/pointsman")

# As the issue that fixed the format wrote it.
ISSUE_EXAMPLE = """
providers:   [{name: local, wire_format: openai_chat, base_url: "http://127.0.0.1:18081/v1", credential: "env:LOCAL_KEY", allow_private_network: true}]
models:      [{name: smollm2-135m, context_tokens: 8192, capabilities: [tools, json_schema]}]
deployments: [{name: smollm2@local, model: smollm2-135m, provider: local, upstream_model: smollm2-135m, region: eu,
               price: {input_usd_per_mtok: "0.05", cache_read_usd_per_mtok: "0.005", output_usd_per_mtok: "0.20"}}]
policies:    [{id: acme/support, baseline: smollm2-135m, rules: [{name: long prompts, when: "input_tokens > 4000", strategy: priority, deployments: [smollm2@local]}, {name: rest, strategy: weighted, deployments: [{name: smollm2@local, weight: 1}]}]}]
tenants:     [{name: acme, time_zone: Europe/Berlin, policies: [acme/support], projects: [{name: web, keys: [{name: dev, secret: "env:ACME_DEV_KEY"}]}]}]
"""  # noqa: E501


def problems_of(text: str) -> list[str]:
    with pytest.raises(FileError) as refusal:
        read_configuration(text, folder=FOLDER)
    return [str(problem) for problem in refusal.value.problems]


def test_the_example_of_the_issue_is_read_whole() -> None:
    file = read_configuration(ISSUE_EXAMPLE, folder=FOLDER)
    assert file.providers[0]["credential"] == "env:LOCAL_KEY"
    assert file.deployments[0]["price"]["rates"]["cache_read_usd_per_mtok"] == Decimal("0.005")
    assert file.policies[0]["rules"][0]["deployments"] == [{"name": "smollm2@local"}]
    assert file.policies[0]["rules"][1]["deployments"] == [{"name": "smollm2@local", "weight": 1}]
    key = file.tenants[0]["projects"][0]["keys"][0]
    assert (key.path, key["secret"]) == ("tenants[0].projects[0].keys[0]", "env:ACME_DEV_KEY")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tenant: []", "tenant: no such key; did you mean tenants?"),
        (
            "models: [{name: m, contxt_tokens: 1}]",
            "models[0].contxt_tokens: no such key; did you mean context_tokens?",
        ),
        (
            "deployments: [{name: a}, {name: b}, {name: c, price: {input_usd_per_mtoken: '1'}}]",
            "deployments[2].price.input_usd_per_mtoken: no such key; did you mean input_usd_per_mtok?",
        ),
        (
            "deployments: [{name: a, price: {input_usd_per_mtok: 0.05}}]",
            'deployments[0].price.input_usd_per_mtok: write the number as a text, for example "0.05"',
        ),
        (
            "deployments: [{name: a, price: {'input_usd_per_mtok>200000': '1'}}]",
            "deployments[0].price: input_usd_per_mtok>200000: input_usd_per_mtok is missing, which holds where this"
            " one does not",
        ),
        ("deployments: [{name: a, price: {}}]", "deployments[0].price: a price states at least one rate"),
        ("providers: [{base_url: 'http://x'}]", "providers[0].name: is missing"),
        ("providers: {name: x}", "providers: a list is needed"),
        ("providers: [x]", "providers[0]: a mapping (name: value) is needed"),
        ("models: [{name: no}]", "models[0].name: a text is needed, not False: put it in quotes"),
        (
            "models: [{name: m, context_tokens: -1}]",
            "models[0].context_tokens: a whole number above 0 is needed",
        ),
        ("models: [{name: m, capabilities: tools}]", "models[0].capabilities: a list of texts is needed"),
        ("models: [{name: m}, {name: m}]", "models[1].name: 'm' is already at models[0]"),
        ("tenants: [{name: t, is_enabled: maybe}]", "tenants[0].is_enabled: true or false is needed"),
        (
            "tenants: [{name: t, projects: [{name: p, keys: [{name: k, expires_at: soon}]}]}]",
            "tenants[0].projects[0].keys[0].expires_at: 'soon' is not a time like 2026-01-31 "
            "or 2026-01-31T12:00:00+01:00",
        ),
        ("- a", "a mapping (name: value) is needed"),
    ],
)
def test_each_mistake_is_named_with_its_path(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_a_secret_written_into_the_file_is_refused_and_not_repeated() -> None:
    for text in ("providers: [{name: p, credential: sk-oops}]",
                 "tenants: [{name: t, projects: [{name: p, keys: [{name: k, secret: sk-oops}]}]}]"):  # fmt: skip
        (problem,) = problems_of(text)
        assert "a secret is named, not written" in problem
        assert "oops" not in problem


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems_of("models: [{name: 1}, {nme: x}]\nproviders: 3")) == 4


def test_a_key_that_stands_twice_and_text_that_is_not_yaml_are_refused_with_their_line() -> None:
    assert problems_of("models: []\nproviders: []\nmodels: []") == [
        "line 3: 'models' stands twice in one mapping"
    ]
    assert "line 1" in problems_of("models: [")[0]


def test_an_empty_file_is_an_empty_configuration() -> None:
    assert read_configuration("", folder=FOLDER).tenants == ()
    assert read_configuration("# nothing yet", folder=FOLDER).tenants == ()


def test_python_objects_are_not_built() -> None:
    assert "this is not YAML" in problems_of("models: !!python/object/apply:os.getcwd []")[0]


def test_relative_file_references_begin_at_the_file() -> None:
    file = read_configuration("providers: [{name: p, credential: 'file:secrets/key'}]", folder=FOLDER)
    assert file.providers[0]["credential"] == "file:/etc/pointsman/secrets/key"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", dt.datetime(2026, 1, 31, tzinfo=dt.UTC)),
        ("2026-01-31T12:00:00+01:00", dt.datetime(2026, 1, 31, 11, tzinfo=dt.UTC)),
        ("'2026-01-31T12:00:00Z'", dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)),
    ],
)
def test_times_are_read_as_utc(text: str, moment: dt.datetime) -> None:
    price = f"{{usd_per_request: '1', effective_from: {text}}}"
    file = read_configuration(f"deployments: [{{name: d, price: {price}}}]", folder=FOLDER)
    assert file.deployments[0]["price"]["effective_from"] == moment


def test_a_time_without_zone_is_refused() -> None:
    price = "{usd_per_request: '1', effective_from: '2026-01-31T12:00:00'}"
    assert "needs its zone" in problems_of(f"deployments: [{{name: d, price: {price}}}]")[0]


def test_a_price_may_hold_limited_rates() -> None:
    price = "{input_usd_per_mtok: '1', 'input_usd_per_mtok@flex>200000': '2'}"
    file = read_configuration(f"deployments: [{{name: d, price: {price}}}]", folder=FOLDER)
    assert file.deployments[0]["price"]["rates"] == {
        "input_usd_per_mtok": 1,
        "input_usd_per_mtok@flex>200000": 2,
    }
