"""What does the configuration say, as the data plane reads it? Rows -> frozen snapshots.

Reads: catalog, policies, router tables, tenants, keys, prices, rate limits, the change feed's newest id. After changes
only what they touch is read again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Max, Q
from django.utils import timezone

from billing.budget_scopes import load_deployment_budgets, load_scopes
from billing.pricebook import PriceVersion, price_at
from billing.stored_prices import load_cost_prices
from policies.autorouter.tables import RouterTables, empty_tables
from policies.conditions import ConditionError
from policies.credentials import resolve_credential
from policies.documents import build_policy
from policies.errors import CredentialError
from policies.model_ratings import RatedModel, cheapest_usd_per_mtok, with_catalog_ratings
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Policy, PolicyVersion, Provider, Tenant
from policies.rate_limit_scopes import load_rate_limits
from policies.router_tables import ActiveTables, read_active
from policies.snapshot import (
    DeploymentSnapshot,
    KeyGrant,
    ModelSnapshot,
    PolicySnapshot,
    ProviderSnapshot,
    RoutingSnapshot,
    TenantSnapshot,
)

logger = logging.getLogger(__name__)

KEY_CHUNK = 2000
# Changed so many keys at once, reading all of them is no slower.
MAX_KEYS_ONE_BY_ONE = 500

Grants = dict[bytes, KeyGrant]
Prices = Mapping[int, Sequence[PriceVersion]]


@dataclass(slots=True)
class Loaded:
    """Everything of one revision. `grants` by key hash; `hash_by_key_id` finds the entry of a changed key."""

    routing: RoutingSnapshot
    prices: Prices
    grants: Grants
    tenants: Mapping[int, TenantSnapshot]
    hash_by_key_id: dict[int, bytes] = field(default_factory=dict)


def load_snapshot() -> RoutingSnapshot:
    """Load routing as it is now, for a process that serves no requests (console, commands)."""
    revision = read_revision()
    return _load_routing(revision, load_cost_prices())


def load_everything() -> Loaded:
    """Load routing, prices and keys as they are now."""
    revision = read_revision()
    prices = load_cost_prices()
    routing = _load_routing(revision, prices)
    tenants = _load_tenants()
    grants, hash_by_key_id = _load_grants(tenants)
    return Loaded(routing, prices, grants, tenants, hash_by_key_id)


def read_revision() -> int:
    """The newest change's id, 0 before the first."""
    return ChangeEvent.objects.aggregate(newest=Max("id"))["newest"] or 0


# What workers never look at.
BOOKKEEPING = frozenset(
    {
        "alert_recipient",
        "billing_profile",
        "credit",
        "exchange_rate",
        "export",
        "period",
        "provider_bill",
        "saved_view",
        "scheduled_mail",
        "statement",
    }
)


def load_changes(loaded: Loaded, revision: int, changed: Iterable[tuple[str, int]]) -> Loaded:
    """What is in force after these changes. Rows are read after the revision, so they are as new or newer."""
    changed = list(changed)
    types = {object_type for object_type, _ in changed}
    if types == {"api_key"} and len(changed) <= MAX_KEYS_ONE_BY_ONE:
        grants = _change_grants(loaded, [object_id for _, object_id in changed])
        return Loaded(
            _with_revision(loaded.routing, revision),
            loaded.prices,
            grants,
            loaded.tenants,
            loaded.hash_by_key_id,
        )
    is_access = types & {"api_key", "tenant", "project", "budget", "rate_limit", "policy"}
    if types <= {"api_key", "tenant", "project", "budget"} | BOOKKEEPING:
        routing, prices = _with_revision(loaded.routing, revision), loaded.prices
        if "budget" in types:
            routing = replace(routing, deployment_budgets=load_deployment_budgets())
    else:
        prices = load_cost_prices()
        routing = _load_routing(revision, prices, loaded.routing)
    if not is_access:
        return Loaded(routing, prices, loaded.grants, loaded.tenants, loaded.hash_by_key_id)
    tenants = _load_tenants()
    if types & {"api_key", "tenant", "project", "budget", "rate_limit"} or tenants != loaded.tenants:
        grants, hash_by_key_id = _load_grants(tenants)
    else:
        grants, hash_by_key_id = loaded.grants, loaded.hash_by_key_id
    return Loaded(routing, prices, grants, tenants, hash_by_key_id)


def load_prices_again(loaded: Loaded) -> Loaded:
    """The same, with the prices that have begun, and the hours of prices, by now."""
    prices = load_cost_prices()
    routing = _load_routing(loaded.routing.revision, prices, loaded.routing)
    return replace(loaded, routing=routing, prices=prices)


def _with_revision(routing: RoutingSnapshot, revision: int) -> RoutingSnapshot:
    return replace(routing, revision=revision)


def _load_routing(revision: int, prices: Prices, previous: RoutingSnapshot | None = None) -> RoutingSnapshot:
    """Build routing from enabled rows. A policy that cannot be built keeps its previous form."""
    providers = {row.pk: _build_provider(row) for row in Provider.objects.filter(is_enabled=True)}
    model_rows = list(Model.objects.filter(is_enabled=True))
    models = {row.pk: _build_model(row) for row in model_rows}
    deployments: dict[str, DeploymentSnapshot] = {}
    by_model: dict[str, list[DeploymentSnapshot]] = {}
    now_unix_s = time.time()
    limits = load_rate_limits().by_deployment
    for row in Deployment.objects.filter(is_enabled=True).order_by("name"):
        model, provider = models.get(row.model_id), providers.get(row.provider_id)
        if model is None or provider is None:
            continue
        price = price_at(prices.get(row.pk, ()), now_unix_s)
        deployment = DeploymentSnapshot(
            id=row.pk,
            name=row.name,
            model=model,
            provider=provider,
            upstream_model=row.upstream_model,
            region=row.region,
            retention=row.retention,
            input_nanousd_per_mtok=_rate_nanousd(price, "input_usd_per_mtok"),
            output_nanousd_per_mtok=_rate_nanousd(price, "output_usd_per_mtok"),
            rate_limit=limits.get(row.pk),
        )
        deployments[row.name] = deployment
        by_model.setdefault(model.name, []).append(deployment)
    policies: dict[str, PolicySnapshot] = {}
    for policy in Policy.objects.filter(is_enabled=True, live_version__isnull=False).select_related(
        "live_version", "canary_version"
    ):
        try:
            policies[policy.public_id] = _build_policy(policy, deployments)
        except (ConditionError, KeyError, TypeError, ValueError, AttributeError) as error:
            logger.error("policy %s cannot be used as published: %s", policy.public_id, error)
            kept = previous.policies.get(policy.public_id) if previous is not None else None
            if kept is not None:
                policies[policy.public_id] = kept
    return RoutingSnapshot(
        revision=revision,
        deployments=deployments,
        deployments_by_model={name: tuple(rows) for name, rows in by_model.items()},
        policies=policies,
        router=_load_router(model_rows, by_model, previous),
        deployment_budgets=load_deployment_budgets(),
    )


_active_tables: ActiveTables | None = None


def _load_router(
    models: Iterable[Model],
    by_model: Mapping[str, Sequence[DeploymentSnapshot]],
    previous: RoutingSnapshot | None,
) -> RouterTables:
    """The tables in force with the catalog's ratings over theirs. Tables that cannot be read stay as they were."""
    global _active_tables  # a version never changes: read once, whoever asks
    try:
        _active_tables = read_active(_active_tables)
        tables = _active_tables.tables
    except ValueError as error:
        logger.error("the router's tables in force cannot be used: %s", error)
        tables = previous.router if previous is not None else empty_tables()
    rated = [
        RatedModel(
            model.name,
            model.rating,
            model.rating_source,
            model.rating_date,
            cheapest_usd_per_mtok(
                (deployment.input_nanousd_per_mtok, deployment.output_nanousd_per_mtok)
                for deployment in by_model.get(model.name, ())
            ),
        )
        for model in models
    ]
    return with_catalog_ratings(tables, rated)


def _build_provider(row: Provider) -> ProviderSnapshot:
    try:
        secret = resolve_credential(row)
    except CredentialError as error:
        # Calls then fail as the provider says; the gateway must serve its other providers all the same.
        logger.error("the credential of provider %s cannot be used: %s", row.name, error)
        secret = None
    return ProviderSnapshot(
        id=row.pk,
        name=row.name,
        wire_format=row.wire_format,
        base_url=row.base_url,
        addressing=row.addressing,
        auth_style=row.auth_style,
        api_version=row.api_version,
        extra_headers=tuple((str(name), str(value)) for name, value in row.extra_headers.items()),
        secret=secret,
        credential_revision=row.credential_revision,
        allow_private_network=row.allow_private_network,
        takes_stream_options=row.takes_stream_options,
    )


def _build_model(row: Model) -> ModelSnapshot:
    return ModelSnapshot(
        id=row.pk,
        name=row.name,
        context_tokens=row.context_tokens,
        max_output_tokens=row.max_output_tokens,
        capabilities=frozenset(row.capabilities),
        endpoints=frozenset(row.endpoints or ("chat", "completions")),
        output_limit_parameter=row.output_limit_parameter,
        created_unix_s=int(row.created_at.timestamp()),
    )


def _build_policy(row: Policy, deployments: Mapping[str, DeploymentSnapshot]) -> PolicySnapshot:
    version = row.live_version
    assert version is not None
    canary = None
    if row.canary_version is not None and row.canary_percent:
        canary = _build_version(row, row.canary_version, deployments)
    return _build_version(row, version, deployments, canary=canary)


def _build_version(
    row: Policy,
    version: PolicyVersion,
    deployments: Mapping[str, DeploymentSnapshot],
    *,
    canary: PolicySnapshot | None = None,
) -> PolicySnapshot:
    return build_policy(
        version.document,
        deployments,
        policy_id=row.pk,
        public_id=row.public_id,
        version_id=version.pk,
        version_number=version.number,
        created_unix_s=int(row.created_at.timestamp()),
        canary=canary,
        canary_percent=float(row.canary_percent) if canary is not None else 0.0,
    )


def _rate_nanousd(price: PriceVersion | None, name: str) -> int | None:
    """A rate for comparing deployments. A price that does not state it charges nothing for it."""
    return None if price is None else int(price.rates.get(name, Decimal(0)) * 1_000_000_000)


def _load_tenants() -> dict[int, TenantSnapshot]:
    rows = Tenant.objects.filter(is_enabled=True).prefetch_related("policies")
    return {
        row.pk: TenantSnapshot(
            id=row.pk,
            name=row.name,
            time_zone=row.time_zone,
            policy_ids=frozenset(policy.public_id for policy in row.policies.all()),
            allowed_regions=frozenset(row.allowed_regions),
            retention_limit=row.retention_limit,
            shadow_percent=row.shadow_percent,
            reports_end_users=row.reports_end_users,
        )
        for row in rows
    }


_KEY_COLUMNS = (
    "id",
    "secret_hash",
    "name",
    "project_id",
    "project__name",
    "project__tenant_id",
    "is_pinned",
    "expires_at",
    "allowed_models",
)


def _usable_keys() -> Any:
    """Keys that are neither revoked nor long expired, of enabled projects and tenants.

    A key that expires while it is loaded stays: `expires_unix_s` says so to each request.
    """
    return ApiKey.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now() - timedelta(days=1)),
        revoked_at__isnull=True,
        project__is_enabled=True,
        project__tenant__is_enabled=True,
    ).order_by()


def _load_grants(tenants: Mapping[int, TenantSnapshot]) -> tuple[Grants, dict[int, bytes]]:
    grants: Grants = {}
    hash_by_key_id: dict[int, bytes] = {}
    builder = _GrantBuilder(tenants)
    for row in _usable_keys().values_list(*_KEY_COLUMNS).iterator(chunk_size=KEY_CHUNK):
        grant = builder.build(row)
        if grant is not None:
            secret_hash = bytes(row[1])
            grants[secret_hash] = grant
            hash_by_key_id[grant.key_id] = secret_hash
    return grants, hash_by_key_id


def _change_grants(loaded: Loaded, key_ids: Sequence[int]) -> Grants:
    """The grants with these keys read anew; those that are no longer usable are gone."""
    grants = dict(loaded.grants)
    for key_id in key_ids:
        secret_hash = loaded.hash_by_key_id.pop(key_id, None)
        if secret_hash is not None:
            grants.pop(secret_hash, None)
    builder = _GrantBuilder(loaded.tenants)
    for row in _usable_keys().filter(pk__in=key_ids).values_list(*_KEY_COLUMNS):
        grant = builder.build(row)
        if grant is not None:
            grants[bytes(row[1])] = grant
            loaded.hash_by_key_id[grant.key_id] = bytes(row[1])
    return grants


class _GrantBuilder:
    """Builds grants that share what is equal: a hundred thousand keys have few tenants, projects and lists."""

    def __init__(self, tenants: Mapping[int, TenantSnapshot]) -> None:
        self._tenants = tenants
        self._budgets = load_scopes(only_in_force=True)
        self._rate_limits = load_rate_limits()
        self._shared: dict[Any, Any] = {}

    def build(self, row: Sequence[Any]) -> KeyGrant | None:
        key_id, _, name, project_id, project_name, tenant_id, is_pinned, expires_at, allowed = row
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return None
        models = frozenset(allowed)
        found = self._budgets.find(tenant_id, project_id, key_id)
        budgets = tuple(terms for terms in found if terms.model_id is None) if found else ()
        of_models = tuple(terms for terms in found if terms.model_id is not None) if found else ()
        rate_limits = self._rate_limits.find(tenant_id, project_id, key_id)
        return KeyGrant(
            key_id=key_id,
            key_name=self._shared.setdefault(name, name),
            project_id=self._shared.setdefault(project_id, project_id),
            project_name=self._shared.setdefault(project_name, project_name),
            tenant=tenant,
            is_pinned=is_pinned,
            expires_unix_s=expires_at.timestamp() if expires_at is not None else None,
            allowed_models=self._shared.setdefault(models, models),
            budgets=self._shared.setdefault(budgets, budgets),
            rate_limits=self._shared.setdefault(rate_limits, rate_limits),
            model_budgets=self._shared.setdefault(of_models, of_models),
        )
