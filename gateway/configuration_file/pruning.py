"""Which objects did a file create that it no longer names, and what becomes of them?

Writes: through the verb modules. What a file owns is what the audit log says it created (actor "apply:FILE").
What history or another object needs is disabled instead of deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import models, transaction

from gateway.configuration_file.budget_entries import prune_budgets
from gateway.configuration_file.format import ConfigurationFile
from gateway.configuration_file.limit_entries import prune_limits
from gateway.configuration_file.outcome import Outcome, Step
from gateway.configuration_file.sale_term_entries import prune_sale_terms
from policies import cataloguing, issuing, publishing, tenancy_changes
from policies.errors import InUseError
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Policy, Project, Provider, Tenant

MAX_ACTOR_CHARACTERS = 150


def owner_of(path: Path) -> str:
    """Return the actor under which a file's changes are logged. Long paths keep their end and a digest."""
    owner = f"apply:{path.resolve()}"
    if len(owner) <= MAX_ACTOR_CHARACTERS:
        return owner
    digest = hashlib.sha256(owner.encode()).hexdigest()[:12]
    return f"apply:{digest}…{owner[-(MAX_ACTOR_CHARACTERS - 20) :]}"


def prune(file: ConfigurationFile, *, owner: str, outcome: Outcome) -> None:
    """Remove what `owner` created and the file does not name. Call inside the applying transaction."""
    named_projects = {(t["name"], p["name"]) for t in file.tenants for p in t.get("projects", ())}
    named_keys = {
        (t["name"], p["name"], k["name"])
        for t in file.tenants
        for p in t.get("projects", ())
        for k in p.get("keys", ())
    }
    prune_budgets(file, owner=owner, note=lambda *step: outcome.steps.append(Step(*step)))
    prune_sale_terms(file, owner=owner, note=lambda *step: outcome.steps.append(Step(*step)))
    prune_limits(file, owner=owner, note=lambda *step: outcome.steps.append(Step(*step)))
    for key in _owned(ApiKey, owner, "api_key", "issue").select_related("project__tenant"):
        is_current = key.revoked_at is None and key.replaced_by_id is None
        if is_current and (key.project.tenant.name, key.project.name, key.name) not in named_keys:
            issuing.revoke_key(key=key, actor=owner)
            outcome.steps.append(Step("revoke", "api_key", str(key)))
    names = {
        "deployment": {entry["name"] for entry in file.deployments},
        "model": {entry["name"] for entry in file.models},
        "provider": {entry["name"] for entry in file.providers},
        "tenant": {entry["name"] for entry in file.tenants},
        "policy": {entry["id"] for entry in file.policies},
    }
    for project in _owned(Project, owner, "project", "create").select_related("tenant"):
        if (project.tenant.name, project.name) not in named_projects:
            _remove(
                project,
                "project",
                tenancy_changes.delete_project,
                tenancy_changes.change_project,
                owner,
                outcome,
            )
    rows: list[tuple[type[models.Model], str, Callable[..., Any], Callable[..., Any]]] = [
        (Tenant, "tenant", tenancy_changes.delete_tenant, tenancy_changes.change_tenant),
        # Tenants before policies before deployments: what uses something goes first.
        (Policy, "policy", publishing.delete_policy, publishing.change_policy),
        (Deployment, "deployment", cataloguing.delete_deployment, cataloguing.change_deployment),
        (Model, "model", cataloguing.delete_model, cataloguing.change_model),
        (Provider, "provider", cataloguing.delete_provider, cataloguing.change_provider),
    ]
    for table, kind, delete, change in rows:
        for row in _owned(table, owner, kind, "create"):
            if str(row) not in names[kind]:
                _remove(row, kind, delete, change, owner, outcome)


def _owned(table: type[models.Model], owner: str, kind: str, action: str) -> models.QuerySet[Any]:
    created = ChangeEvent.objects.filter(actor=owner, object_type=kind, action=action)
    return table._default_manager.filter(pk__in=created.values("object_id"))


def _remove(
    row: Any, kind: str, delete: Callable[..., Any], change: Callable[..., Any], owner: str, outcome: Outcome
) -> None:
    try:
        with transaction.atomic():
            delete(**{kind: row}, actor=owner)
        outcome.steps.append(Step("delete", kind, str(row)))
    except InUseError as refusal:
        if row.is_enabled:
            change(**{kind: row}, actor=owner, is_enabled=False)
            outcome.steps.append(Step("disable", kind, str(row), str(refusal)))
