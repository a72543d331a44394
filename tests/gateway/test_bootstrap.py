"""What does a new installation begin with, and does doing it again leave everything alone?"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, User

from billing.models import Price
from gateway.bootstrap import bootstrap, build_auto_policy, find_name_to_try
from gateway.known_providers import KNOWN_PROVIDERS, SIMULATED_MODELS
from policies.cataloguing import delete_deployment
from policies.document_checks import check_document, has_errors
from policies.issuing import is_secret_of
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Policy, Provider, Tenant
from policies.publishing import publish
from tests.make_configuration import make_tenant

pytestmark = pytest.mark.django_db


def deployments_of_rule(name: str) -> tuple[list[str], list[str]]:
    version = Policy.objects.get(public_id="pointsman/auto").live_version
    assert version is not None
    (rule,) = [rule for rule in version.document["rules"] if rule["name"] == name]
    return [choice["name"] for choice in rule["deployments"]], rule["fallbacks"]


def test_the_first_start_makes_a_login_and_the_demo() -> None:
    news = bootstrap(environment={}, with_demo=True)
    user = authenticate(username="operator", password=news["password"])
    assert user is not None
    assert [group.name for group in user.groups.all()] == ["operator"]
    assert set(Group.objects.values_list("name", flat=True)) >= {"operator", "finance", "viewer"}
    keys = {str(key): key for key in ApiKey.objects.all()}
    assert is_secret_of(keys["demo/playground/demo"], news["api_key"])
    assert len(keys) == 9
    provider = Provider.objects.get()
    assert (provider.name, provider.base_url, provider.auth_style) == ("simulated", "simulated:", "none")
    assert set(Model.objects.values_list("name", flat=True)) == {model.name for model in SIMULATED_MODELS}
    assert Price.objects.count() == len(SIMULATED_MODELS)
    assert [policy.public_id for policy in Tenant.objects.get().policies.all()] == ["pointsman/auto"]


def test_the_request_that_is_shown_first_names_what_is_there() -> None:
    assert find_name_to_try() == ""
    bootstrap(environment={}, with_demo=True)
    assert find_name_to_try() == "pointsman/auto"
    Tenant.objects.get().policies.clear()  # nobody may name it any more
    Model.objects.filter(name="sim-code").update(endpoints=["embeddings"])
    Model.objects.filter(name="sim-large").update(endpoints=[])
    assert find_name_to_try() == "sim-large"


def test_a_second_start_changes_nothing() -> None:
    bootstrap(environment={}, with_demo=True)
    events = ChangeEvent.objects.count()
    assert bootstrap(environment={}, with_demo=True) == {}
    assert ChangeEvent.objects.count() == events
    assert User.objects.count() == 1


def test_without_the_demo_there_is_a_login_and_nothing_else() -> None:
    assert set(bootstrap(environment={"OPENAI_API_KEY": "sk-x"}, with_demo=False)) == {"password"}
    assert not Provider.objects.exists()
    assert not Tenant.objects.exists()


def test_an_installation_that_somebody_set_up_is_left_alone() -> None:
    make_tenant()
    bootstrap(environment={"OPENAI_API_KEY": "sk-x"}, with_demo=True)
    assert not Provider.objects.exists()


def test_keys_in_the_environment_become_providers_before_the_simulated_one() -> None:
    environment = {provider.key_variable: "sk-secret" for provider in KNOWN_PROVIDERS}
    bootstrap(environment=environment, with_demo=True)
    assert set(Provider.objects.values_list("name", "credential_reference")) == {
        ("openai", "env:OPENAI_API_KEY"),
        ("anthropic", "env:ANTHROPIC_API_KEY"),
        ("gemini", "env:GEMINI_API_KEY"),
        ("openrouter", "env:OPENROUTER_API_KEY"),
        ("simulated", ""),
    }
    chosen, fallbacks = deployments_of_rule("pictures")
    assert "gpt-5-mini@openai" in chosen
    assert "claude-haiku-4-5@anthropic" in chosen
    assert not any(name.endswith("@simulated") for name in chosen)
    assert fallbacks == ["sim-large@simulated"]
    assert "text-embedding-3-small@openai" not in deployments_of_rule("everything else")[0]
    # One model, two providers.
    assert Deployment.objects.filter(model__name="gpt-5-mini").count() == 2
    assert "sk-secret" not in json.dumps(list(ChangeEvent.objects.values_list("after", flat=True)))


def test_a_key_that_appears_later_joins_and_a_provider_that_was_deleted_does_not_come_back() -> None:
    bootstrap(environment={}, with_demo=True)
    environment = {"GEMINI_API_KEY": "sk-x"}
    bootstrap(environment=environment, with_demo=True)
    assert deployments_of_rule("pictures") == (
        ["gemini-2.5-flash@gemini", "gemini-2.5-pro@gemini"],
        ["sim-large@simulated"],
    )
    policy = Policy.objects.get()
    rule = {"name": "mine", "strategy": "fixed", "deployments": [{"name": "sim-small@simulated"}]}
    publish(policy=policy, actor="ann", document={"rules": [rule]})
    for deployment in Deployment.objects.filter(provider__name="gemini"):
        delete_deployment(deployment=deployment, actor="ann")
    Provider.objects.get(name="gemini").delete()
    bootstrap(environment={**environment, "OPENAI_API_KEY": "sk-y"}, with_demo=True)
    assert set(Provider.objects.values_list("name", flat=True)) == {"simulated", "openai"}
    # A policy that a person edited is theirs.
    assert deployments_of_rule("mine") == (["sim-small@simulated"], [])


def test_a_price_stands_only_where_its_source_is_named() -> None:
    environment = {provider.key_variable: "sk-x" for provider in KNOWN_PROVIDERS}
    bootstrap(environment=environment, with_demo=True)
    assert not Price.objects.filter(source="").exists()
    assert not Price.objects.filter(deployment__provider__name__in=["gemini", "openrouter"]).exists()
    assert (
        Price.objects.filter(deployment__name="gpt-5-mini@openai").get().rates["output_usd_per_mtok"] == "2"
    )


def test_every_combination_of_real_and_simulated_gives_a_sound_policy() -> None:
    simulated = [(f"{m.name}@simulated", m) for m in SIMULATED_MODELS]
    for provider in KNOWN_PROVIDERS:
        real = [(f"{m.name}@{provider.name}", m) for m in provider.models]
        for chosen, last in ((real, simulated), (real, []), ([], simulated)):
            policy = build_auto_policy(chosen, last)
            names = {name for name, _ in [*chosen, *last]}
            document = {"rules": policy["rules"]}
            problems = check_document(document, deployment_names=names, model_names=set())
            assert not has_errors(problems), problems


@pytest.fixture
def local_server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"object": "list", "data": [{"id": "smollm2-135m"}]}).encode()
            is_right = self.path == "/v1/models" and self.headers["Authorization"] == "Bearer sk-local"
            self.send_response(200 if is_right else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_local_server_is_asked_for_its_models(local_server: str) -> None:
    environment = {"OPENAI_BASE_URL": local_server + "/", "OPENAI_API_KEY": "sk-local"}
    bootstrap(environment=environment, with_demo=True)
    provider = Provider.objects.get(name="local")
    assert (provider.base_url, provider.allow_private_network) == (local_server, True)
    assert provider.credential_reference == "env:OPENAI_API_KEY"
    assert deployments_of_rule("everything else")[0] == ["smollm2-135m@local"]
    # The key is that server's, not OpenAI's.
    assert not Provider.objects.filter(name="openai").exists()


def test_a_local_server_that_does_not_answer_is_left_out_with_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    news = bootstrap(environment={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, with_demo=True)
    assert "api_key" in news
    assert not Provider.objects.filter(name="local").exists()
    assert "OPENAI_BASE_URL does not list its models (ConnectError)" in caplog.text
