"""What does a new installation begin with? Groups, a login, the demo, and providers found in the environment.

Writes: groups and the first user; what the demo's traffic is billed by (demo_books); everything else as a configuration
document through gateway/configuration_file/applying.py. Reads: environment. Calls: GET /models of OPENAI_BASE_URL.
Doing it again changes nothing: what an operator changed or deleted stays so.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from gateway import demo_books, demo_edition
from gateway.configuration_file.applying import apply_configuration
from gateway.configuration_file.format import read_document
from gateway.demo_workloads import WORKLOADS
from gateway.known_providers import KNOWN_PROVIDERS, SIMULATED_MODELS, KnownModel
from policies.models import ChangeEvent, Deployment, Model, Policy, Provider, Tenant
from policies.provider_addresses import SIMULATED, is_private_host

ACTOR = "bootstrap"
GROUPS = ("operator", "finance", "viewer")
AUTO_POLICY = "pointsman/auto"
LOCAL_MODELS_TIMEOUT_S = 2.0
MAX_LOCAL_MODELS = 50
LONG_PROMPT_TOKENS = 24_000
# The invented prices are older than the demo's week, so that its requests have a cost.
DEMO_PRICES_FROM = "2025-01-01"
DEMO_BASELINE = "sim-large"

logger = logging.getLogger(__name__)
Document = dict[str, Any]


def bootstrap(*, environment: Mapping[str, str], with_demo: bool, with_books: bool = False) -> dict[str, str]:
    """Make what is missing and return what is new, to be shown once: `password`, `api_key`.

    `with_books`: with the demo comes what its invented traffic needs to be billed.
    """
    found = list_found_providers(environment) if with_demo else []
    news: dict[str, str] = {}
    # One transaction: when the demo fails, the password that nobody saw is not kept either.
    with transaction.atomic():
        for name in GROUPS:
            Group.objects.get_or_create(name=name)
        if password := create_first_login():
            news["password"] = password
        if with_demo and (key := create_demo(found, with_books=with_books)):
            news["api_key"] = key
    return news


def find_name_to_try() -> str:
    """The policy or model that a first request may name, "" while nothing is set up. Policies of tenants go first."""
    policies = Policy.objects.filter(is_enabled=True, live_version__isnull=False, tenants__isnull=False)
    names = sorted(
        set(policies.values_list("public_id", flat=True)), key=lambda name: (name != AUTO_POLICY, name)
    )
    deployments = Deployment.objects.filter(
        Q(model__endpoints=[]) | Q(model__endpoints__contains=["chat"]),
        is_enabled=True,
        model__is_enabled=True,
        provider__is_enabled=True,
    )
    names += deployments.order_by("model__name").values_list("model__name", flat=True)[:1]
    return names[0] if names else ""


def create_demo(found: Sequence[Document], *, with_books: bool) -> str | None:
    """Set up the demo on an empty database, and found providers beside a demo; return a key's secret if issued."""
    is_empty = not Tenant.objects.exists() and not Provider.objects.exists()
    if not is_empty and not ChangeEvent.objects.filter(actor=ACTOR, object_type="tenant").exists():
        # Somebody set this installation up without the demo: nothing appears in it unasked.
        return None
    if not is_empty and not found:
        return None
    document = build_document(found, is_first=is_empty)
    outcome = apply_configuration(read_document(document, folder=Path.cwd()), owner=ACTOR)
    if is_empty and not found:
        # Beside real providers there is no invented traffic, hence nothing to bill.
        tenant = Tenant.objects.get(name="demo")
        demo_edition.note_edition(tenant_id=tenant.pk, actor=ACTOR)
        if with_books:
            demo_books.set_up(tenant=tenant, now=timezone.now())
    return outcome.secrets.get("demo/playground/demo")


def create_first_login() -> str | None:
    """Create the user `operator` when there is no user at all; return the password made for it."""
    users = get_user_model()
    if users.objects.exists():
        return None
    password = secrets.token_urlsafe(12)
    user = users.objects.create_superuser("operator", password=password)
    user.groups.add(Group.objects.get(name="operator"))
    return password


def list_found_providers(environment: Mapping[str, str]) -> list[Document]:
    """Return {"provider", "models", "price_source"} for each provider of the environment not set up before.

    A provider that bootstrap made once and an operator deleted does not come back.
    """
    known = set(ChangeEvent.objects.filter(object_type="provider").values_list("object_name", flat=True))
    known |= set(Provider.objects.values_list("name", flat=True))
    found: list[Document] = []
    local_url = environment.get("OPENAI_BASE_URL", "").strip()
    if local_url and "local" not in known and (local := ask_local_server(local_url, environment)):
        found.append(local)
    for provider in KNOWN_PROVIDERS:
        # With OPENAI_BASE_URL the key is meant for that server, not for OpenAI.
        if local_url and provider.key_variable == "OPENAI_API_KEY":
            continue
        if environment.get(provider.key_variable, "").strip() and provider.name not in known:
            row = {"name": provider.name, "base_url": provider.base_url}
            row["credential"] = f"env:{provider.key_variable}"
            found.append({"provider": row, "models": provider.models, "price_source": provider.price_source})
    return found


def ask_local_server(base_url: str, environment: Mapping[str, str]) -> Document | None:
    """Ask an OpenAI-compatible server which models it has; None (and a log line) when it does not say."""
    key = environment.get("OPENAI_API_KEY", "").strip()
    row: Document = {"name": "local", "base_url": base_url.rstrip("/")}
    row |= {"credential": "env:OPENAI_API_KEY"} if key else {"auth_style": "none"}
    try:
        host = httpx.URL(base_url).host
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = httpx.get(f"{row['base_url']}/models", headers=headers, timeout=LOCAL_MODELS_TIMEOUT_S)
        names = [str(item["id"]) for item in answer.raise_for_status().json()["data"]][:MAX_LOCAL_MODELS]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as failure:
        logger.warning("OPENAI_BASE_URL does not list its models (%s): not set up", type(failure).__name__)
        return None
    row["allow_private_network"] = is_private_host(host)
    models = [KnownModel(name, name, capabilities=("json_schema", "tools")) for name in names]
    return {"provider": row, "models": models, "price_source": ""}


def build_document(found: Sequence[Document], *, is_first: bool) -> Document:
    """Return the configuration document: found providers, and on the first start the demo around them."""
    document: Document = {"providers": [], "models": [], "deployments": [], "policies": []}
    has_model = set(Model.objects.values_list("name", flat=True)) | set(
        Policy.objects.values_list("public_id", flat=True)
    )
    real: list[tuple[str, KnownModel]] = []
    for item in found:
        document["providers"].append(item["provider"])
        real += _add_models(
            document, item["provider"]["name"], item["models"], item["price_source"], has_model
        )
    simulated: list[tuple[str, KnownModel]] = []
    if is_first:
        document["providers"].append({"name": "simulated", "base_url": SIMULATED, "auth_style": "none"})
        simulated = _add_models(document, "simulated", SIMULATED_MODELS, "invented for the demo", has_model)
        for deployment in document["deployments"]:
            if deployment["provider"] == "simulated":
                deployment["price"]["effective_from"] = DEMO_PRICES_FROM
        tenant: Document = {"name": "demo", "policies": [AUTO_POLICY], "projects": list_demo_projects()}
        document["tenants"] = [tenant]
    else:
        has_simulated = set(
            Deployment.objects.filter(provider__name="simulated").values_list("name", flat=True)
        )
        simulated = [
            (f"{m.name}@simulated", m) for m in SIMULATED_MODELS if f"{m.name}@simulated" in has_simulated
        ]
        earlier = Policy.objects.filter(public_id=AUTO_POLICY).select_related("live_version").first()
        if earlier is None or earlier.live_version is None or earlier.live_version.published_by != ACTOR:
            return document
        real = _list_real_deployments() + real
    document["policies"].append(build_auto_policy(real, simulated))
    return document


def list_demo_projects() -> list[Document]:
    """Return the demo tenant's projects with their keys: one to try, and those of the demo's week. Pure."""
    keys: dict[str, list[Document]] = {
        "playground": [{"name": "demo", "owner": "whoever started this gateway"}]
    }
    for workload in WORKLOADS:
        listed = keys.setdefault(workload.project, [])
        if all(key["name"] != workload.key for key in listed):
            listed.append({"name": workload.key, "owner": "invented for the demo"})
    return [{"name": project, "keys": listed} for project, listed in keys.items()]


def build_auto_policy(
    real: Sequence[tuple[str, KnownModel]], simulated: Sequence[tuple[str, KnownModel]]
) -> Document:
    """Return `pointsman/auto`: four rules by what a request needs. Simulated answers are the last resort. Pure."""

    def rule(
        name: str, when: str, needs: set[str], min_context_tokens: int = 0, strategy: str = "least_cost"
    ) -> Document:
        def able(candidates: Sequence[tuple[str, KnownModel]]) -> list[str]:
            return [
                deployment
                for deployment, model in candidates
                if needs <= set(model.capabilities)
                and "embeddings" not in model.endpoints
                and (not min_context_tokens or (model.context_tokens or 0) >= min_context_tokens)
            ]

        first, last = able(real), able(simulated)
        made: Document = {"name": name, "strategy": strategy, "deployments": first or last}
        if when:
            made["when"] = when
        if first and last:
            made["fallbacks"] = last
        return made

    rules = [
        rule("pictures", "has_images", {"vision"}),
        rule("tools and schemas", "has_tools || has_schema", {"tools", "json_schema"}),
        rule("long prompts", f"input_tokens > {LONG_PROMPT_TOKENS}", set(), 100_000),
        rule("everything else", "", set(), strategy="auto"),
    ]
    description = (
        "Needs first: pictures, tools, long prompts. The rest is weighed by quality, cost and speed."
    )
    made: Document = {"id": AUTO_POLICY, "description": description}
    if not real and any(model.name == DEMO_BASELINE for _, model in simulated):
        made["baseline"] = DEMO_BASELINE
    return made | {"rules": [r for r in rules if r["deployments"]]}


def _add_models(
    document: Document, provider: str, models: Sequence[KnownModel], price_source: str, has_model: set[str]
) -> list[tuple[str, KnownModel]]:
    """Add models (unless they exist) and their deployments to the document; return the deployments."""
    added = []
    for model in models:
        if model.name not in has_model:
            entry: Document = {"name": model.name, "capabilities": list(model.capabilities)}
            entry |= {"endpoints": list(model.endpoints)} if model.endpoints else {}
            for name in ("context_tokens", "max_output_tokens", "output_limit_parameter"):
                if getattr(model, name):
                    entry[name] = getattr(model, name)
            if model.rating is not None:
                entry |= {"rating": model.rating, "rating_source": price_source}
            document["models"].append(entry)
            has_model.add(model.name)
        deployment: Document = {"name": f"{model.name}@{provider}", "model": model.name, "provider": provider}
        deployment["upstream_model"] = model.upstream_model
        if model.price and price_source:
            deployment["price"] = {**model.price, "source": price_source}
        document["deployments"].append(deployment)
        added.append((deployment["name"], model))
    return added


def _list_real_deployments() -> list[tuple[str, KnownModel]]:
    rows = Deployment.objects.select_related("model").exclude(provider__name="simulated")
    return [
        (
            row.name,
            KnownModel(
                row.model.name,
                row.upstream_model,
                row.model.context_tokens,
                row.model.max_output_tokens,
                tuple(row.model.capabilities),
                tuple(row.model.endpoints),
            ),
        )
        for row in rows.order_by("id")
        if row.is_enabled
    ]
