"""How does a configuration file become rows, changing only what differs?

Writes: through the verb modules alone (cataloguing, pricing, publishing, tenancy_changes, issuing, …), in one
transaction. Reads: the secrets that the file names. The form is gateway/configuration_file/format.py's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from billing import pricing
from billing.models import Price
from gateway.configuration_file.billing_entries import apply_billing, apply_rates
from gateway.configuration_file.budget_entries import Scope, apply_budgets
from gateway.configuration_file.documents import canonical_document, describe_difference
from gateway.configuration_file.format import ConfigurationFile
from gateway.configuration_file.limit_entries import apply_limits
from gateway.configuration_file.outcome import Action, Outcome, Step, at
from gateway.configuration_file.sale_term_entries import apply_sale_terms
from gateway.configuration_file.values import Entry, FileError, Problem, join
from policies import cataloguing, credentials, issuing, publishing, rate_limits, tenancy_changes
from policies.errors import ConfigurationError
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Policy, Project, Provider, Tenant
from policies.provider_addresses import normalise_base_url
from policies.row_changes import json_value


def apply_configuration(
    file: ConfigurationFile, *, owner: str, now: dt.datetime | None = None, is_plan: bool = False
) -> Outcome:
    """Make the database agree with the file and return what was done; with `is_plan` nothing stays done.

    `owner` is the actor of every change ("apply:FILE"). Raises FileError naming the place in the file.
    """
    applier = _Applier(owner=owner, now=now or timezone.now())
    with transaction.atomic():
        for entry in file.providers:
            applier.provider(entry)
        for entry in file.models:
            applier.model(entry)
        for entry in file.deployments:
            applier.deployment(entry)
        for entry in file.policies:
            applier.policy(entry)
        apply_rates(file, owner=owner, note=applier.note, at=at)
        apply_billing(file.issuer, None, owner=owner, note=applier.note, at=at)
        for entry in file.tenants:
            applier.tenant(entry)
        apply_sale_terms(file, owner=owner, note=applier.note, at=at)
        if is_plan:
            transaction.set_rollback(True)
            applier.outcome.secrets.clear()
    return applier.outcome


@dataclass(slots=True)
class _Applier:
    owner: str
    now: dt.datetime
    outcome: Outcome = field(default_factory=Outcome)

    def note(self, action: Action, kind: str, name: str, detail: str = "") -> None:
        self.outcome.steps.append(Step(action, kind, name, detail))

    def upsert(
        self,
        *,
        kind: str,
        name: str,
        row: models.Model | None,
        wanted: Mapping[str, Any],
        create: Callable[..., models.Model],
        change: Callable[..., models.Model],
    ) -> models.Model:
        """Create the row, change what differs, or do nothing; note which."""
        if row is None:
            self.note("create", kind, name)
            return create(actor=self.owner, **wanted)
        different = {key: value for key, value in wanted.items() if getattr(row, key) != value}
        if (
            "is_enabled" not in wanted
            and not getattr(row, "is_enabled", True)
            and self.has_disabled(kind, row)
        ):
            different["is_enabled"] = True
        if not different:
            self.note("nothing", kind, name)
            return row
        parts = [f"{k}: {_show(getattr(row, k))} -> {_show(v)}" for k, v in different.items()]
        self.note("change", kind, name, "; ".join(parts))
        return change(row, actor=self.owner, **different)

    def has_disabled(self, kind: str, row: models.Model) -> bool:
        """Say whether it was this file (by an earlier --prune) that disabled the row, and nobody since."""
        events = ChangeEvent.objects.filter(object_type=kind, object_id=row.pk, after__has_key="is_enabled")
        last = events.order_by("-id").first()
        return last is not None and last.actor == self.owner

    def provider(self, entry: Entry) -> None:
        row = Provider.objects.filter(name=entry["name"]).first()
        wanted = dict(entry.values)
        if row is None and "base_url" not in wanted:
            raise FileError([Problem(join(entry.path, "base_url"), "is missing")])
        if "base_url" in wanted:
            wanted["base_url"] = normalise_base_url(wanted["base_url"])
        if "credential" in wanted:
            wanted["credential_reference"] = wanted.pop("credential")
            self.warn_when_unreadable(wanted["credential_reference"], join(entry.path, "credential"))
        given = {name: wanted[name] for name in ("credential_reference",) if name in wanted}
        with at(entry.path):
            self.upsert(
                kind="provider",
                name=entry["name"],
                row=row,
                wanted=wanted,
                create=cataloguing.create_provider,
                # The file names the credential beside the base URL: it is given for that host.
                change=lambda row, **fields: cataloguing.change_provider(
                    provider=row, **(fields | given if "base_url" in fields else fields)
                ),
            )

    def warn_when_unreadable(self, reference: str, path: str) -> None:
        """The workers read it, maybe with another environment than ours: a remark, not a refusal."""
        try:
            credentials.read_reference(reference)
        except ConfigurationError as problem:
            self.outcome.warnings.append(f"{path}: {problem}")

    def model(self, entry: Entry) -> None:
        wanted = dict(entry.values)
        for name in ("capabilities", "endpoints"):
            if name in wanted:
                wanted[name] = sorted(set(wanted[name]))
        with at(entry.path):
            self.upsert(
                kind="model",
                name=entry["name"],
                row=Model.objects.filter(name=entry["name"]).first(),
                wanted=wanted,
                create=cataloguing.create_model,
                change=lambda row, **fields: cataloguing.change_model(model=row, **fields),
            )

    def deployment(self, entry: Entry) -> None:
        row = Deployment.objects.select_related("model", "provider").filter(name=entry["name"]).first()
        wanted = entry.only("name", "upstream_model", "region", "retention", "is_enabled")
        problems = []
        for name, table in (("model", Model), ("provider", Provider)):
            if name in entry.values:
                wanted[name] = table._default_manager.filter(name=entry[name]).first()
                if wanted[name] is None:
                    problems.append(Problem(join(entry.path, name), f"no such {name}: {entry[name]}"))
            elif row is None:
                problems.append(Problem(join(entry.path, name), "is missing"))
        if problems:
            raise FileError(problems)
        if row is None:
            # A deployment that does not say otherwise is called upstream by its model's name.
            wanted.setdefault("upstream_model", entry["model"])
        with at(entry.path):
            deployment = self.upsert(
                kind="deployment",
                name=entry["name"],
                row=row,
                wanted=wanted,
                create=cataloguing.create_deployment,
                change=lambda row, **fields: cataloguing.change_deployment(deployment=row, **fields),
            )
        assert isinstance(deployment, Deployment)
        self.limits(entry, deployment)
        apply_budgets(entry, Scope(deployment=deployment), owner=self.owner, note=self.note, at=at)
        for price in ([entry["price"]] if "price" in entry.values else []) + list(entry.get("prices", [])):
            self.price(deployment, price)

    def price(self, deployment: Deployment, entry: Entry) -> None:
        """Add a dated price unless the rates are already in force (or begin at the time that the file states)."""
        book, since = entry.get("book", Price.Book.COST.value), entry.get("effective_from")
        with at(entry.path):
            rates = pricing.canonical_rates(entry["rates"])
            if since is None:
                price = pricing.find_price_in_force(deployment=deployment, at=self.now, book=book)
            else:
                price = Price.objects.filter(
                    deployment=deployment, book=book, tenant=None, effective_from=since
                ).first()
            if price is not None and price.rates == rates:
                self.note("nothing", "price", deployment.name)
                return
            if price is not None and since is not None:
                text = "a price is never changed: state a later effective_from for the new rates"
                raise FileError([Problem(join(entry.path, "effective_from"), text)])
            pricing.add_price(
                deployment=deployment,
                rates=rates,
                actor=self.owner,
                effective_from=since or self.now,
                source=entry.get("source", "") or self.owner,
                book=book,
            )
        said = ", ".join(f"{name} {value}" for name, value in rates.items())
        self.note("add", "price", deployment.name, f"{said}; from {(since or self.now).isoformat(timespec='seconds')}"
                  if since else said)  # fmt: skip

    def policy(self, entry: Entry) -> None:
        public_id = entry["id"]
        row = Policy.objects.select_related("live_version").filter(public_id=public_id).first()
        with at(entry.path):
            policy = self.upsert(
                kind="policy",
                name=public_id,
                row=row,
                wanted=entry.only("description", "is_enabled", "requires_approval")
                if row
                else entry.only("description"),
                create=lambda **fields: publishing.create_policy(public_id=public_id, **fields),
                change=lambda row, **fields: publishing.change_policy(policy=row, **fields),
            )
            assert isinstance(policy, Policy)
            if row is None and entry.get("is_enabled") is False:
                policy = publishing.change_policy(policy=policy, actor=self.owner, is_enabled=False)
            if row is None and entry.get("requires_approval"):
                policy = publishing.change_policy(policy=policy, actor=self.owner, requires_approval=True)
            if "rules" not in entry.values:
                return
            rules = [dict(rule.values) for rule in entry["rules"]]
            wanted = canonical_document({**entry.only("baseline", "session_stickiness"), "rules": rules})
            live = canonical_document(policy.live_version.document) if policy.live_version else None
            if wanted == live:
                return
            version = publishing.publish(
                policy=policy,
                actor=self.owner,
                note=self.owner,
                document=wanted,
                # Who applies a file has the server's command line; the file's own review is the second pair of eyes.
                approved_by="configuration file" if policy.requires_approval else "",
            )
        self.note("publish", "policy", public_id, f"v{version.number}: {describe_difference(live, wanted)}")

    def tenant(self, entry: Entry) -> None:
        wanted = entry.only(
            "name",
            "time_zone",
            "allowed_regions",
            "retention_limit",
            "is_enabled",
            "shadow_percent",
            "shadow_daily_budget_usd",
            "reported_tags",
            "reports_end_users",
        )
        if "allowed_regions" in wanted:
            wanted["allowed_regions"] = sorted(set(wanted["allowed_regions"]))
        row = Tenant.objects.filter(name=entry["name"]).first()
        with at(entry.path):
            tenant = self.upsert(
                kind="tenant",
                name=entry["name"],
                row=row,
                wanted=wanted if row else {k: v for k, v in wanted.items() if k != "is_enabled"},
                create=tenancy_changes.create_tenant,
                change=lambda row, **fields: tenancy_changes.change_tenant(tenant=row, **fields),
            )
            assert isinstance(tenant, Tenant)
            if row is None and wanted.get("is_enabled") is False:
                tenant = tenancy_changes.change_tenant(tenant=tenant, actor=self.owner, is_enabled=False)
        if "policies" in entry.values:
            before = sorted(tenant.policies.values_list("public_id", flat=True))
            if before != sorted(set(entry["policies"])):
                self.note(
                    "change",
                    "tenant",
                    tenant.name,
                    f"policies: {_show(before)} -> {_show(entry['policies'])}",
                )
                with at(join(entry.path, "policies")):
                    tenancy_changes.set_tenant_policies(
                        tenant=tenant, public_ids=entry["policies"], actor=self.owner
                    )
        self.bounds(entry, Scope(tenant))
        apply_billing(entry.get("billing"), tenant, owner=self.owner, note=self.note, at=at)
        for project in entry.get("projects", ()):
            self.project(tenant, project)

    def bounds(self, entry: Entry, scope: Scope) -> None:
        apply_budgets(entry, scope, owner=self.owner, note=self.note, at=at)
        limited = scope.api_key or scope.project or scope.tenant
        assert limited is not None
        self.limits(entry, limited)

    def limits(self, entry: Entry, limited: rate_limits.Owner) -> None:
        apply_limits(entry, limited, owner=self.owner, note=self.note, at=at)

    def project(self, tenant: Tenant, entry: Entry) -> None:
        row = Project.objects.filter(tenant=tenant, name=entry["name"]).first()
        wanted = entry.only("is_enabled")
        with at(entry.path):
            project = self.upsert(
                kind="project",
                name=f"{tenant}/{entry['name']}",
                row=row,
                wanted=wanted if row else {"tenant": tenant, "name": entry["name"]},
                create=tenancy_changes.create_project,
                change=lambda row, **fields: tenancy_changes.change_project(project=row, **fields),
            )
            assert isinstance(project, Project)
            if row is None and wanted.get("is_enabled") is False:
                project = tenancy_changes.change_project(project=project, actor=self.owner, is_enabled=False)
        self.bounds(entry, Scope(tenant, project))
        for key in entry.get("keys", ()):
            self.bounds(key, Scope(tenant, project, self.key(project, key)))

    def key(self, project: Project, entry: Entry) -> ApiKey:
        """Issue the key, or replace it when its secret changed, or change its settings."""
        name = f"{project}/{entry['name']}"
        secret: str | None = None
        if "secret" in entry.values:
            with at(join(entry.path, "secret")):
                secret = credentials.read_reference(entry["secret"])
        settings = entry.only("owner", "is_pinned", "allowed_models", "expires_at")
        if "allowed_models" in settings:
            settings["allowed_models"] = sorted(set(settings["allowed_models"]))
        row = ApiKey.objects.filter(
            project=project, name=entry["name"], revoked_at__isnull=True, replaced_by__isnull=True
        ).first()
        with at(entry.path):
            if row is None:
                new, made = issuing.issue_key(
                    project=project, name=entry["name"], actor=self.owner, secret=secret, **settings
                )
                self.note("issue", "api_key", name)
                if secret is None:
                    self.outcome.secrets[name] = made
                return new
            if secret is not None and not issuing.is_secret_of(row, secret):
                overlap = dt.timedelta(seconds=entry.get("overlap_s", 0))
                row, _ = issuing.rotate_key(key=row, overlap=overlap, actor=self.owner, secret=secret)
                self.note("rotate", "api_key", name)
            self.upsert(
                kind="api_key",
                name=name,
                row=row,
                wanted=settings,
                create=_never,
                change=lambda row, **fields: issuing.change_key(key=row, **fields),
            )
        return row


def _never(**fields: Any) -> models.Model:
    raise AssertionError("a key that exists is not created")


def _show(value: Any) -> str:
    """Write a value for the plan: texts in quotes, lists in brackets."""
    value = json_value(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return "[" + ", ".join(_show(item) for item in value) + "]" if isinstance(value, list) else str(value)
