"""Does applying a file change only what differs, and does exporting give it back?"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import transaction

from billing.models import Price
from gateway.configuration_file.applying import apply_configuration
from gateway.configuration_file.exporting import export_text
from gateway.configuration_file.format import read_configuration
from gateway.configuration_file.outcome import Outcome
from gateway.configuration_file.pruning import prune
from gateway.configuration_file.values import FileError
from policies.issuing import is_secret_of
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Policy, Provider, Tenant
from tests.gateway.configuration_file.test_format import ISSUE_EXAMPLE
from tests.make_configuration import make_provider

pytestmark = pytest.mark.django_db

OWNER = "apply:/etc/pointsman.yaml"


@pytest.fixture(autouse=True)
def secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_DEV_KEY", "acme-dev-secret-0123456789")
    monkeypatch.setenv("LOCAL_KEY", "sk-local")


def apply(text: str, *, owner: str = OWNER, is_plan: bool = False, with_prune: bool = False) -> Outcome:
    file = read_configuration(text, folder=Path("/etc"))
    outcome = apply_configuration(file, owner=owner, is_plan=is_plan)
    if with_prune:
        prune(file, owner=owner, outcome=outcome)
    return outcome


def changes_of(outcome: Outcome) -> list[str]:
    return [str(step) for step in outcome.steps if step.action != "nothing"]


def test_the_example_of_the_issue_sets_up_everything_and_a_second_time_nothing() -> None:
    outcome = apply(ISSUE_EXAMPLE)
    assert [(step.action, step.kind, step.name) for step in outcome.steps if step.action != "nothing"] == [
        ("create", "provider", "local"),
        ("create", "model", "smollm2-135m"),
        ("create", "deployment", "smollm2@local"),
        ("add", "price", "smollm2@local"),
        ("create", "policy", "acme/support"),
        ("publish", "policy", "acme/support"),
        ("create", "tenant", "acme"),
        ("change", "tenant", "acme"),
        ("create", "project", "acme/web"),
        ("issue", "api_key", "acme/web/dev"),
    ]
    assert outcome.secrets == {}
    assert is_secret_of(ApiKey.objects.get(), "acme-dev-secret-0123456789")
    assert Provider.objects.get().credential_reference == "env:LOCAL_KEY"
    events = ChangeEvent.objects.count()
    again = apply(ISSUE_EXAMPLE)
    assert changes_of(again) == []
    assert not again.is_change
    assert ChangeEvent.objects.count() == events


def test_a_plan_says_the_same_and_does_nothing() -> None:
    plan = apply(ISSUE_EXAMPLE, is_plan=True)
    assert not Provider.objects.exists()
    assert not ChangeEvent.objects.exists()
    assert [str(step) for step in plan.steps] == [str(step) for step in apply(ISSUE_EXAMPLE).steps]


EVERY_FIELD = """
providers: [{name: azure, base_url: "https://x.example.com", addressing: azure, auth_style: api-key,
             api_version: "2024-10-21", extra_headers: {X-Team: a}, is_enabled: false}]
models: [{name: e, endpoints: [embeddings], max_output_tokens: 5, description: "two\\nlines",
          output_limit_parameter: max_tokens}]
deployments: [{name: e@azure, model: e, provider: azure, retention: temporary, prices: [
    {input_usd_per_mtok: "1", effective_from: 2026-01-01}, {input_usd_per_mtok: "2", effective_from: 2026-02-01},
    {input_usd_per_mtok: "3", effective_from: 2026-01-01, book: sale, source: "a list"}]}]
policies: [{id: no/rules, description: "for later", is_enabled: false},
    {id: with/auto, requires_approval: true, session_stickiness: true, rules: [{name: all, strategy: auto,
     deployments: [e@azure], slider: 7.5, quality_floor: 0.5, check_answers: true}]}]
tenants: [{name: t2, allowed_regions: [us, eu], retention_limit: none, is_enabled: false,
    shadow_percent: 2.5, shadow_daily_budget_usd: 0.30,
    projects: [{name: "off", is_enabled: false, keys: [{name: k, is_pinned: true, allowed_models: [e], owner: ann,
    expires_at: 2099-01-01}]}]}]
"""


def test_applying_an_export_changes_nothing_and_rebuilds_an_empty_installation() -> None:
    with transaction.atomic():
        apply(ISSUE_EXAMPLE)
        apply(EVERY_FIELD)
        text = export_text()
        assert changes_of(apply(text)) == []
        hints = [key.secret_hint for key in ApiKey.objects.all()]
        transaction.set_rollback(True)
    assert not any(hidden in text for hidden in ["sk-local", "acme-dev-secret", *hints])
    rebuilt = apply(text)
    assert set(rebuilt.secrets) == {"acme/web/dev", "t2/off/k"}
    assert export_text() == text


def test_a_changed_price_is_a_new_dated_one_and_the_same_rates_are_nothing() -> None:
    apply(ISSUE_EXAMPLE)
    same = ISSUE_EXAMPLE.replace('"0.05"', '"0.0500"')
    assert changes_of(apply(same)) == []
    outcome = apply(ISSUE_EXAMPLE.replace('"0.05"', '"0.06"'))
    assert [(step.action, step.kind) for step in outcome.steps if step.action != "nothing"] == [
        ("add", "price")
    ]
    prices = list(Price.objects.order_by("effective_from"))
    assert [price.rates["input_usd_per_mtok"] for price in prices] == ["0.05", "0.06"]


def test_a_dated_price_with_other_rates_is_refused_because_prices_never_change() -> None:
    dated = ISSUE_EXAMPLE.replace("price: {", "price: {effective_from: 2026-01-01, ")
    apply(dated)
    assert changes_of(apply(dated)) == []
    with pytest.raises(FileError, match=r"deployments\[0\]\.price\.effective_from: a price is never changed"):
        apply(dated.replace('"0.05"', '"0.06"'))


def test_a_changed_field_is_changed_and_an_unmentioned_one_stays() -> None:
    apply(ISSUE_EXAMPLE)
    outcome = apply("deployments: [{name: smollm2@local, region: us}]")
    assert changes_of(outcome) == ['change   deployment smollm2@local  region: "eu" -> "us"']
    assert Deployment.objects.get().upstream_model == "smollm2-135m"


def test_a_changed_policy_is_published_as_the_next_version_naming_the_rules() -> None:
    apply(ISSUE_EXAMPLE)
    outcome = apply(ISSUE_EXAMPLE.replace("> 4000", "> 5000"))
    assert changes_of(outcome) == ["publish  policy     acme/support  v2: ~long prompts"]


def test_a_changed_secret_rotates_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(ISSUE_EXAMPLE)
    monkeypatch.setenv("ACME_DEV_KEY", "another-secret-0123456789")
    assert changes_of(apply(ISSUE_EXAMPLE)) == ["rotate   api_key    acme/web/dev"]
    old, new = ApiKey.objects.order_by("id")
    assert old.revoked_at is not None
    assert is_secret_of(new, "another-secret-0123456789")
    assert changes_of(apply(ISSUE_EXAMPLE)) == []


def test_a_key_without_secret_is_issued_once_and_its_secret_given_once() -> None:
    text = "tenants: [{name: t, projects: [{name: p, keys: [{name: k}]}]}]"
    (name, secret), = apply(text).secrets.items()  # fmt: skip
    assert name == "t/p/k"
    assert is_secret_of(ApiKey.objects.get(), secret)
    assert apply(text).secrets == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("deployments: [{name: d, model: m, provider: p}]", "deployments[0].model: no such model: m"),
        ("deployments: [{name: d, provider: p}]", "deployments[0].model: is missing"),
        ("providers: [{name: p}]", "providers[0].base_url: is missing"),
        (
            "providers: [{name: p, base_url: 'http://10.0.0.1'}]",
            "providers[0].base_url: 10.0.0.1 is a private",
        ),
        ("models: [{name: m}, {name: n, capabilities: [x]}]", "models[1].capabilities: 'x' is not one of"),
        ("tenants: [{name: t, policies: [a/b]}]", "tenants[0].policies: no such policy: a/b"),
        ("tenants: [{name: t, time_zone: X}]", "tenants[0].time_zone: 'X' is not"),
        (
            "tenants: [{name: t, shadow_percent: 5}]",
            "tenants[0].shadow_daily_budget_usd: shadow sampling needs",
        ),
        ("tenants: [{name: t, shadow_daily_budget_usd: 0.001}]", "shadow_daily_budget_usd: an amount in USD"),
        (
            "tenants: [{name: t, projects: [{name: p, keys: [{name: k, secret: 'env:NOT_SET_HERE'}]}]}]",
            "tenants[0].projects[0].keys[0].secret: env:NOT_SET_HERE: the environment variable NOT_SET_HERE",
        ),
        (
            "policies: [{id: a/b, rules: [{name: r, strategy: fixed, deployments: [nowhere]}]}]",
            "policies[0].rules[0].deployments",
        ),
    ],
)
def test_a_refusal_names_the_place_and_nothing_is_changed(text: str, problem: str) -> None:
    with pytest.raises(FileError) as refusal:
        apply(text)
    assert problem in str(refusal.value)
    assert not ChangeEvent.objects.exists()


def test_a_credential_that_cannot_be_read_here_is_a_remark() -> None:
    outcome = apply(
        "providers: [{name: p, base_url: 'https://x.example.com', credential: 'env:NOT_SET_HERE'}]"
    )
    assert outcome.warnings == [
        "providers[0].credential: env:NOT_SET_HERE: the environment variable NOT_SET_HERE is not set"
    ]
    assert Provider.objects.get().credential_reference == "env:NOT_SET_HERE"


def test_nothing_is_removed_without_prune() -> None:
    apply(ISSUE_EXAMPLE)
    assert changes_of(apply("models: []")) == []


def test_prune_removes_what_the_file_owns_and_disables_what_history_needs() -> None:
    make_provider(name="by-hand")
    apply("providers: [{name: by-other-file, base_url: 'https://x.example.com'}]", owner="apply:/other.yaml")
    apply(ISSUE_EXAMPLE)
    apply("providers: [{name: unused, base_url: 'https://x.example.com'}]")
    outcome = apply("tenants: []", with_prune=True)
    done = [(step.action, step.kind, step.name) for step in outcome.steps]
    assert done == [
        ("revoke", "api_key", "acme/web/dev"),
        ("disable", "project", "acme/web"),
        ("disable", "tenant", "acme"),
        ("disable", "policy", "acme/support"),
        ("disable", "deployment", "smollm2@local"),
        ("disable", "model", "smollm2-135m"),
        ("disable", "provider", "local"),
        ("delete", "provider", "unused"),
    ]
    assert changes_of(apply("tenants: []", with_prune=True)) == []
    enabled = Provider.objects.filter(is_enabled=True).values_list("name", flat=True)
    assert sorted(enabled) == ["by-hand", "by-other-file"]


def test_what_prune_disabled_is_enabled_again_when_the_file_names_it_again() -> None:
    apply(ISSUE_EXAMPLE)
    apply("tenants: []", with_prune=True)
    apply(
        ISSUE_EXAMPLE.replace("ACME_DEV_KEY", "LOCAL_KEY").replace('secret: "env:LOCAL_KEY"', 'owner: "ann"')
    )
    assert Provider.objects.get().is_enabled
    assert Tenant.objects.get().is_enabled
    assert Policy.objects.get().is_enabled


def test_what_a_person_disabled_stays_disabled() -> None:
    from policies.cataloguing import change_provider

    apply(ISSUE_EXAMPLE)
    change_provider(provider=Provider.objects.get(), actor="ann", is_enabled=False)
    assert changes_of(apply(ISSUE_EXAMPLE)) == []
    assert not Provider.objects.get().is_enabled


def test_a_file_that_moves_a_provider_brings_its_credential_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVED_KEY", "sk-moved")
    text = "providers: [{{name: p, base_url: 'https://{}.example.com', credential: 'env:MOVED_KEY'}}]"
    apply(text.format("a"))
    apply(text.format("b"))
    assert Provider.objects.get().base_url == "https://b.example.com"
    with pytest.raises(FileError, match="another host"):
        apply("providers: [{name: p, base_url: 'https://c.example.com'}]")


def test_ratings_are_applied_exported_and_refused_where_they_are_none() -> None:
    rated = "{rating: 0.72, rating_source: own evaluation, rating_date: 2026-05-01}"
    apply(f"models: [{{name: m, {rated[1:]}]")
    model = Model.objects.get(name="m")
    assert (model.rating, model.rating_source, str(model.rating_date)) == (
        0.72,
        "own evaluation",
        "2026-05-01",
    )
    assert not apply(export_text()).is_change
    assert changes_of(apply("models: [{name: m, rating: 1}]")) == [
        "change   model      m  rating: 0.72 -> 1.0"
    ]
    for wrong in ("rating: 72", "rating: high", "rating_date: May"):
        with pytest.raises(FileError, match=r"models\[0\].rating"):
            apply(f"models: [{{name: m, {wrong}}}]")


BUDGETS = """
tenants: [{name: acme, budgets: [{window: month, limit_usd: 500}, {window: month, limit_usd: 400, is_hard: false}],
           projects: [{name: web, keys: [{name: dev, budgets: [{window: day, limit_usd: "0.000001",
                                                               may_lower_limit: false}]}]}]}]
"""


def test_budgets_stand_under_whom_they_are_for() -> None:
    assert [line for line in changes_of(apply(BUDGETS)) if "budget" in line] == [
        "create   budget     acme by month  500",
        "create   budget     acme by month  400",
        "create   budget     acme/web/dev by day  0.000001",
    ]
    assert changes_of(apply(BUDGETS)) == []
    assert changes_of(apply(export_text())) == []
    assert changes_of(apply(BUDGETS.replace("500", "600"))) == [
        "change   budget     acme by month  limit_usd: 500 -> 600"
    ]
    without = apply(BUDGETS.replace("{window: month, limit_usd: 500}, ", ""), with_prune=True)
    assert changes_of(without) == ["delete   budget     acme by month"]


DEPLOYMENT_BUDGETS = """
providers: [{name: p, wire_format: openai_chat, base_url: "https://p.test/v1", auth_style: none}]
models: [{name: m}]
deployments: [{name: d, model: m, provider: p, budgets: [{window: month, limit_usd: 500},
                                                         {window: day, limit_usd: 30, is_hard: false}]}]
"""


def test_budgets_of_deployments_stand_there() -> None:
    made = [line for line in changes_of(apply(DEPLOYMENT_BUDGETS)) if "budget" in line]
    assert made == [
        "create   budget     deployment d by month  500",
        "create   budget     deployment d by day  30",
    ]
    assert changes_of(apply(DEPLOYMENT_BUDGETS)) == []
    assert changes_of(apply(export_text())) == []
    assert changes_of(apply(DEPLOYMENT_BUDGETS.replace("500", "600"))) == [
        "change   budget     deployment d by month  limit_usd: 500 -> 600"
    ]
    without = apply(DEPLOYMENT_BUDGETS.replace("{window: month, limit_usd: 500},", ""), with_prune=True)
    assert changes_of(without) == ["delete   budget     deployment d by month"]
    with pytest.raises(FileError) as refusal:
        apply(DEPLOYMENT_BUDGETS.replace("limit_usd: 500", "limit_usd: 500, model: m"))
    assert [one.path for one in refusal.value.problems] == ["deployments[0].budgets[0].model"]


def test_a_budget_that_makes_no_sense_is_refused_with_its_place() -> None:
    for wrong, path in (
        ("{window: month, limit_usd: 0}", "tenants[0].budgets[0].limit_usd"),
        ("{window: year, limit_usd: 1}", "tenants[0].budgets[0].window"),
        ("{window: day, limit_usd: 1}, {window: day, limit_usd: 2}", "tenants[0].budgets[1]"),
    ):
        with pytest.raises(FileError) as refusal:
            apply(f"tenants: [{{name: acme, budgets: [{wrong}]}}]")
        assert [problem.path for problem in refusal.value.problems] == [path]
