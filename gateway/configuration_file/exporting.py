"""What would a configuration file say that describes this installation as it is?

Reads: tenants, keys (never secrets), catalog, policies, prices. Applying the result changes nothing.
"""

from __future__ import annotations

from typing import Any

import yaml
from django.db.models import Q
from django.utils import timezone

from billing.models import Price
from gateway.configuration_file.billing_entries import stated_billing, stated_rates
from gateway.configuration_file.budget_entries import Scope, list_stated
from gateway.configuration_file.documents import canonical_document
from gateway.configuration_file.limit_entries import stated_limits
from gateway.configuration_file.sale_term_entries import stated_sale_terms
from policies.models import ApiKey, Deployment, Model, Policy, Project, Provider, Tenant


class _Dumper(yaml.SafeDumper):
    """Writes the same lists out again instead of naming them with YAML anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def export_text() -> str:
    """Return the configuration as YAML; stored credentials and key secrets are named in comments, never shown."""
    hidden = Provider.objects.exclude(credential_ciphertext="").values_list("name", flat=True)
    comments = ["# Pointsman configuration. Put it back with: manage.py apply -f FILE"]
    comments += [
        f"# The credential of provider {name} is stored encrypted and is not in this file." for name in hidden
    ]
    if ApiKey.objects.filter(_current_keys()).exists():
        comments.append('# Keys are listed without secrets: on another installation give secret: "env:NAME",')
        comments.append("# or new ones are issued and printed once.")
    body = yaml.dump(export_document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return "\n".join(comments) + "\n" + body


def export_document() -> dict[str, Any]:
    """Return the configuration as the mapping that `read_document` takes; defaults are left out."""
    document = {
        "providers": [_provider(row) for row in Provider.objects.order_by("name")],
        "models": [_model(row) for row in Model.objects.order_by("name")],
        "deployments": [
            _deployment(row)
            for row in Deployment.objects.select_related("model", "provider").order_by("name")
        ],
        "policies": [
            _policy(row) for row in Policy.objects.select_related("live_version").order_by("public_id")
        ],
        "issuer": stated_billing(None),
        "exchange_rates": stated_rates(),
        "tenants": [_tenant(row) for row in Tenant.objects.order_by("name")],
        "sale_terms": stated_sale_terms(),
    }
    return {section: entries for section, entries in document.items() if entries}


def _with_changes(row: Any, always: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """The named fields of a row, leaving out those of `names` that have their default."""
    entry = {name: getattr(row, name) for name in always}
    for name in names:
        if getattr(row, name) != row._meta.get_field(name).get_default():
            entry[name] = getattr(row, name)
    return entry


def _provider(row: Provider) -> dict[str, Any]:
    names = (
        "addressing",
        "auth_style",
        "api_version",
        "extra_headers",
        "allow_private_network",
        "takes_stream_options",
        "is_enabled",
    )
    entry = _with_changes(row, ("name", "wire_format", "base_url"), names)
    if row.credential_reference:
        entry["credential"] = row.credential_reference
    return entry


def _model(row: Model) -> dict[str, Any]:
    names = ("description", "context_tokens", "max_output_tokens", "capabilities", "endpoints")
    more = ("output_limit_parameter", "rating", "rating_source", "rating_date", "is_enabled")
    return _with_changes(row, ("name",), (*names, *more))


def _deployment(row: Deployment) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": row.name, "model": row.model.name, "provider": row.provider.name}
    entry |= _with_changes(row, ("upstream_model",), ("region", "retention", "is_enabled"))
    prices = [_price(price) for price in row.prices.filter(tenant=None).order_by("book", "effective_from")]
    if len(prices) == 1:
        entry["price"] = prices[0]
    elif prices:
        entry["prices"] = prices
    if budgets := list_stated(Scope(deployment=row)):
        entry["budgets"] = budgets
    if limits := stated_limits(row):
        entry["limits"] = limits
    return entry


def _price(row: Price) -> dict[str, Any]:
    entry: dict[str, Any] = dict(row.rates)
    if row.book != Price.Book.COST:
        entry["book"] = row.book
    entry["effective_from"] = row.effective_from.isoformat()
    if row.source:
        entry["source"] = row.source
    return entry


def _policy(row: Policy) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": row.public_id}
    entry |= _with_changes(row, (), ("description", "is_enabled", "requires_approval"))
    if row.live_version is not None:
        document = canonical_document(row.live_version.document)
        entry |= {
            name: document[name] for name in ("baseline", "session_stickiness", "rules") if name in document
        }
    return entry


def _tenant(row: Tenant) -> dict[str, Any]:
    entry = _with_changes(
        row,
        ("name", "time_zone"),
        (
            "allowed_regions",
            "retention_limit",
            "is_enabled",
            "shadow_percent",
            "reported_tags",
            "reports_end_users",
        ),
    )
    if row.shadow_daily_budget_usd:
        entry["shadow_daily_budget_usd"] = str(row.shadow_daily_budget_usd)
    if policies := sorted(row.policies.values_list("public_id", flat=True)):
        entry["policies"] = policies
    if budgets := list_stated(Scope(row)):
        entry["budgets"] = budgets
    if limits := stated_limits(row):
        entry["limits"] = limits
    if billing := stated_billing(row):
        entry["billing"] = billing
    if projects := [_project(project) for project in row.projects.order_by("name")]:
        entry["projects"] = projects
    return entry


def _project(row: Project) -> dict[str, Any]:
    entry = _with_changes(row, ("name",), ("is_enabled",))
    if budgets := list_stated(Scope(row.tenant, row)):
        entry["budgets"] = budgets
    if limits := stated_limits(row):
        entry["limits"] = limits
    if keys := [_key(key) for key in row.api_keys.filter(_current_keys()).order_by("name")]:
        entry["keys"] = keys
    return entry


def _key(row: ApiKey) -> dict[str, Any]:
    entry = _with_changes(row, ("name",), ("owner", "is_pinned", "allowed_models"))
    if row.expires_at is not None:
        entry["expires_at"] = row.expires_at.isoformat()
    if budgets := list_stated(Scope(row.project.tenant, row.project, row)):
        entry["budgets"] = budgets
    if limits := stated_limits(row):
        entry["limits"] = limits
    return entry


def _current_keys() -> Q:
    """Keys that a client can still use and that have no successor."""
    is_alive = Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())
    return Q(revoked_at__isnull=True, replaced_by__isnull=True) & is_alive
