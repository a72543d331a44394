"""How do tenants and projects come to be, change and go?

Writes: tenant (with the policies it may use), project, change_event. The only writer of the first two.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

from django.db import transaction

from policies import changes
from policies.errors import InvalidValueError, NotFoundError
from policies.models import Policy, Project, Tenant
from policies.row_changes import delete_row, held, save_checked, set_fields

TENANT_FIELDS = (
    "name", "time_zone", "is_enabled", "allowed_regions", "retention_limit", "shadow_percent",
    "shadow_daily_budget_usd", "reported_tags", "reports_end_users",
)  # fmt: skip
MAX_REPORTED_TAGS = 10
NO_BUDGET = Decimal(0)
PROJECT_FIELDS = ("name", "is_enabled")


@transaction.atomic
def create_tenant(
    *,
    name: str,
    actor: str,
    time_zone: str = "UTC",
    allowed_regions: Sequence[str] = (),
    retention_limit: str = "",
    shadow_percent: float = 0.0,
    shadow_daily_budget_usd: Decimal = NO_BUDGET,
    reported_tags: Sequence[str] = (),
    reports_end_users: bool = False,
) -> Tenant:
    """Create a tenant. Raises ConfigurationError."""
    fields = {
        "name": name,
        "time_zone": time_zone,
        "allowed_regions": allowed_regions,
        "retention_limit": retention_limit,
        "shadow_percent": shadow_percent,
        "shadow_daily_budget_usd": shadow_daily_budget_usd,
        "reported_tags": reported_tags,
        "reports_end_users": reports_end_users,
    }
    return _write_tenant(Tenant(), actor=actor, action="create", fields=fields)


@transaction.atomic
def change_tenant(*, tenant: Tenant, actor: str, **changed_fields: Any) -> Tenant:
    """Change what `TENANT_FIELDS` names of a tenant.

    Raises ConfigurationError.
    """
    row = held(Tenant.objects.all()).get(pk=tenant.pk)
    return _write_tenant(row, actor=actor, action="change", fields=changed_fields)


@transaction.atomic
def set_tenant_policies(*, tenant: Tenant, public_ids: Collection[str], actor: str) -> Tenant:
    """Allow a tenant exactly these policies. Raises NotFoundError naming the ids that do not exist."""
    row = held(Tenant.objects.all()).get(pk=tenant.pk)
    wanted = {policy.public_id: policy for policy in Policy.objects.filter(public_id__in=list(public_ids))}
    missing = sorted(set(public_ids) - set(wanted))
    if missing:
        raise NotFoundError(f"no such policy: {', '.join(missing)}")
    before = sorted(row.policies.values_list("public_id", flat=True))
    if before == sorted(wanted):
        return row
    row.policies.set(wanted.values())
    _record(
        row, actor=actor, action="change", before={"policies": before}, after={"policies": sorted(wanted)}
    )
    return row


@transaction.atomic
def change_tenants_of(
    *, policy: Policy, added: Collection[str], removed: Collection[str], actor: str
) -> None:
    """Let some tenants use a policy, and others no longer, by name; what others do to the rest stays as it is."""
    for tenant in held(Tenant.objects.filter(name__in=[*added, *removed]).order_by("pk")):
        public_ids = set(tenant.policies.values_list("public_id", flat=True)) - {policy.public_id}
        if tenant.name in added:
            public_ids.add(policy.public_id)
        set_tenant_policies(tenant=tenant, public_ids=public_ids, actor=actor)


@transaction.atomic
def delete_tenant(*, tenant: Tenant, actor: str) -> None:
    """Delete a tenant without projects or history. Raises InUseError."""
    _delete(Tenant.objects.select_for_update().get(pk=tenant.pk), actor=actor)


@transaction.atomic
def create_project(*, tenant: Tenant, name: str, actor: str) -> Project:
    """Create a project of a tenant. Raises ConfigurationError."""
    row = Project(tenant=tenant, name=name)
    save_checked(row)
    _record(row, actor=actor, action="create", before=None, after={"tenant": tenant.name, "name": name})
    return row


@transaction.atomic
def change_project(*, project: Project, actor: str, **changed_fields: Any) -> Project:
    """Change name or is_enabled of a project. Raises ConfigurationError."""
    row = held(Project.objects.select_related("tenant")).get(pk=project.pk)
    before, after = set_fields(row, changed_fields, allowed=PROJECT_FIELDS)
    if after:
        save_checked(row)
        _record(row, actor=actor, action="change", before=before, after=after)
    return row


@transaction.atomic
def delete_project(*, project: Project, actor: str) -> None:
    """Delete a project without keys or history. Raises InUseError."""
    row = Project.objects.select_related("tenant").select_for_update(of=("self",)).get(pk=project.pk)
    _delete(row, actor=actor)


def _write_tenant(row: Tenant, *, actor: str, action: str, fields: dict[str, Any]) -> Tenant:
    values = dict(fields)
    if "time_zone" in values and values["time_zone"] not in available_timezones():
        raise InvalidValueError({"time_zone": [f"{values['time_zone']!r} is not an IANA time zone name"]})
    if "allowed_regions" in values:
        regions = values["allowed_regions"]
        if isinstance(regions, str) or not all(
            isinstance(region, str) and region.strip() for region in regions
        ):
            raise InvalidValueError({"allowed_regions": ["a list of region names is needed"]})
        values["allowed_regions"] = sorted({region.strip() for region in regions})
    if "reported_tags" in values:
        values["reported_tags"] = _check_tags(values["reported_tags"])
    if "shadow_percent" in values:
        values["shadow_percent"] = float(values["shadow_percent"])
    before, after = set_fields(row, values, allowed=TENANT_FIELDS)
    if row.shadow_percent > 0 and not row.shadow_daily_budget_usd:
        raise InvalidValueError(
            {
                "shadow_daily_budget_usd": [
                    "shadow sampling needs a daily budget above 0; or set its share to 0"
                ]
            }
        )
    if action == "change" and not after:
        return row
    save_checked(row)
    _record(row, actor=actor, action=action, before=before if action == "change" else None, after=after)
    return row


def _check_tags(names: Any) -> list[str]:
    """In the order given, each once."""
    if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names):
        raise InvalidValueError({"reported_tags": ["a list of tag names is needed"]})
    checked = list(dict.fromkeys(name.strip() for name in names))
    if len(checked) > MAX_REPORTED_TAGS:
        raise InvalidValueError({"reported_tags": [f"at most {MAX_REPORTED_TAGS} tags can be reported"]})
    return checked


def _record(
    row: Tenant | Project,
    *,
    actor: str,
    action: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="tenant" if isinstance(row, Tenant) else "project",
        object_id=row.pk,
        object_name=str(row),
        before=before,
        after=after,
    )


def _delete(row: Tenant | Project, *, actor: str) -> None:
    object_type = "tenant" if isinstance(row, Tenant) else "project"
    object_id, name = row.pk, str(row)
    delete_row(row)
    changes.record_change(
        actor=actor, action="delete", object_type=object_type, object_id=object_id, object_name=name
    )
