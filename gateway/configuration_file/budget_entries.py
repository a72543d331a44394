"""Which budgets does a configuration file state, and does the database agree?

Writes: through `billing.budgets`. Reads: budget. They stand under the tenant, project, key or deployment that they are
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from billing import budgets
from billing.models import Budget
from billing.money import usd_text
from gateway.configuration_file.format import ConfigurationFile
from gateway.configuration_file.values import Entry
from policies.errors import NotFoundError
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Project, Tenant


class Scope(NamedTuple):
    """Whose budget it is: a tenant's, project's or key's (which names the ones above it), or a deployment's alone."""

    tenant: Tenant | None = None
    project: Project | None = None
    api_key: ApiKey | None = None
    deployment: Deployment | None = None

    def __str__(self) -> str:
        if self.deployment is not None:
            return f"deployment {self.deployment}"
        return str(self.api_key or self.project or self.tenant)


def apply_budgets(
    entry: Entry,
    scope: Scope,
    *,
    owner: str,
    note: Callable[..., None],
    at: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Create or change the budgets that an entry of the file states for its scope."""
    for stated in entry.get("budgets", ()):
        window, is_hard = stated["window"], stated.get("is_hard", True)
        limit = stated["limit_usd"]
        settings = stated.only("may_lower_limit", "is_enabled")
        name = _name(str(scope), stated.get("model", ""), window)
        with at(stated.path):
            model = _model(stated.get("model", ""))
            row = _of(scope).filter(window=window, is_hard=is_hard, model=model).first()
            if row is None:
                row = budgets.create_budget(
                    **scope._asdict(),
                    model=model,
                    window=window,
                    is_hard=is_hard,
                    limit_nanousd=limit,
                    actor=owner,
                )
                note("create", "budget", name, usd_text(limit))
                if settings:
                    budgets.change_budget(budget=row, actor=owner, **settings)
                continue
            wanted = {"limit_nanousd": limit, **settings}
            different = {key: value for key, value in wanted.items() if getattr(row, key) != value}
            if not different:
                note("nothing", "budget", name)
                continue
            said = [
                f"limit_usd: {usd_text(row.limit_nanousd)} -> {usd_text(limit)}"
                if key == "limit_nanousd"
                else f"{key}: {str(not value).lower()} -> {str(value).lower()}"
                for key, value in different.items()
            ]
            note("change", "budget", name, "; ".join(said))
            budgets.change_budget(budget=row, actor=owner, **different)


def list_stated(scope: Scope) -> list[dict[str, Any]]:
    """The budgets of a scope as the file states them; defaults are left out."""
    stated = []
    for row in _of(scope):
        entry: dict[str, Any] = {"window": row.window, "limit_usd": usd_text(row.limit_nanousd)}
        if row.model is not None:
            entry["model"] = row.model.name
        for name in ("is_hard", "may_lower_limit", "is_enabled"):
            if not getattr(row, name):
                entry[name] = False
        stated.append(entry)
    return stated


def prune_budgets(file: ConfigurationFile, *, owner: str, note: Callable[..., None]) -> None:
    """Delete the budgets that this file made and states no more."""
    named = set(_named(file))
    created = ChangeEvent.objects.filter(actor=owner, object_type="budget", action="create")
    rows = Budget.objects.filter(pk__in=created.values("object_id"))
    for row in rows.select_related("tenant", "project", "api_key", "model", "deployment"):
        place = (
            row.deployment.name if row.deployment is not None else "",
            row.tenant.name if row.tenant is not None else "",
            row.project.name if row.project is not None else "",
            row.api_key.name if row.api_key is not None else "",
            row.window,
            row.is_hard,
            row.model.name if row.model is not None else "",
        )
        if place not in named:
            note("delete", "budget", f"{row.scope()} by {row.window}")
            budgets.delete_budget(budget=row, actor=owner)


def _named(file: ConfigurationFile) -> Iterator[tuple[str, str, str, str, str, bool, str]]:
    for deployment in file.deployments:
        for stated in deployment.get("budgets", ()):
            yield deployment["name"], "", "", "", stated["window"], stated.get("is_hard", True), ""
    for tenant in file.tenants:
        scopes = [(tenant, "", "")]
        for project in tenant.get("projects", ()):
            scopes.append((project, project["name"], ""))
            scopes += [(key, project["name"], key["name"]) for key in project.get("keys", ())]
        for entry, project_name, key_name in scopes:
            for stated in entry.get("budgets", ()):
                kind = (stated["window"], stated.get("is_hard", True), stated.get("model", ""))
                yield "", tenant["name"], project_name, key_name, *kind


def _name(scope: str, model: str, window: str) -> str:
    return f"{scope} ({model}) by {window}" if model else f"{scope} by {window}"


def _model(name: str) -> Model | None:
    """The model a budget is for; None: all. Raises NotFoundError."""
    if not name:
        return None
    found = Model.objects.filter(name=name).first()
    if found is None:
        raise NotFoundError(f"there is no model {name}")
    return found


def _of(scope: Scope) -> Any:
    # A key that was rotated keeps the budget that its predecessor got.
    if scope.api_key is None:
        return Budget.objects.select_related("model").filter(**scope._asdict())
    return (
        Budget.objects.select_related("model")
        .filter(tenant=scope.tenant, project=scope.project, api_key__name=scope.api_key.name)
        .order_by("window", "-is_hard")
    )
