"""What does the back office (Django's admin) show and change of the configuration?

Writes: nothing itself: saving and deleting call the verb modules. What has no verb for it here is read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import admin as _auth_admin  # noqa: F401  (registers what is unregistered here)
from django.contrib.auth.models import Group, User
from django.db.models import Model as Table
from django.http import HttpRequest
from django.shortcuts import redirect

from policies import cataloguing, tenancy_changes
from policies.errors import ConfigurationError
from policies.models import (
    ApiKey,
    ChangeEvent,
    Deployment,
    ManagementToken,
    Model,
    Policy,
    PolicyDraft,
    PolicyVersion,
    Project,
    Provider,
    PublicationRequest,
    RouterTable,
    Tenant,
)
from policies.permissions import Ability, may
from policies.row_changes import held
from policies.seen_values import list_changed, marks_of

admin.site.site_header = "Pointsman back office"
admin.site.site_title = "Pointsman"
admin.site.index_title = "Everything that is kept"
admin.site.site_url = "/"


# Generic for the type checker only: the class itself takes no parameter at run time.
if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[Any]
    BaseForm = forms.ModelForm[Any]
else:
    BaseAdmin = admin.ModelAdmin
    BaseForm = forms.ModelForm


class RoleAdmin(BaseAdmin):
    """Asks for the console's roles instead of Django's permissions by table."""

    list_per_page = 50
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may(request.user, Ability.READ)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Ability.READ)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may(request.user, Ability.CONFIGURE)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Ability.CONFIGURE)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Ability.CONFIGURE)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}  # "Delete selected" would pass the verbs by.


class ReadOnlyAdmin(RoleAdmin):
    """For what is append-only, or what only the console can write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MarkedForm(BaseForm):
    """Says once when somebody else has changed the row since it was opened, as the console's forms do."""

    @property
    def marks(self) -> str:
        """The marks of what the row holds now."""
        return marks_of(self._stored)

    @property
    def _stored(self) -> dict[str, Any]:
        if self.instance.pk is None:
            return {}  # there is no row yet
        return {name: value for name, value in self.initial.items() if name in self.fields}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        changed = list_changed(self.data.get("seen", ""), self._stored)
        if changed:
            now = "; ".join(f"{self[name].label}: {self._shown(name)}" for name in changed)
            self.add_error(
                None,
                f"Somebody changed this since you opened it. It is now {now}. Below stands what you typed:"
                " save again to put it in place of that.",
            )
        return cleaned

    def _shown(self, name: str) -> str:
        value = self._stored[name]
        return (", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)) or "empty"


class VerbAdmin(RoleAdmin):
    """Saves and deletes by verbs. `create_row`, `change_row` and `delete_row` call them."""

    form = MarkedForm
    change_form_template = "admin/change_form_with_marks.html"

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        # Of the row as it is now: sent again, the form has seen what it says.
        form = context["adminform"].form
        context = {**context, "seen": getattr(form, "marks", "")}
        return super().render_change_form(request, context, *args, **kwargs)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The row; held for what is sent, so that it is saved as it was compared (Django has begun a transaction)."""
        row = super().get_object(request, object_id, from_field)
        if row is None or request.method != "POST":
            return row
        return held(type(row)._default_manager.all()).filter(pk=row.pk).first()

    def create_row(self, actor: str, fields: dict[str, Any]) -> Table:
        raise NotImplementedError

    def change_row(self, row: Any, actor: str, fields: dict[str, Any]) -> Table:
        raise NotImplementedError

    def delete_row(self, row: Any, actor: str) -> None:
        raise NotImplementedError

    def save_model(self, request: HttpRequest, obj: Any, form: BaseForm, change: bool) -> None:
        """Call the verb with the fields of the form; a refusal is a message and changes nothing."""
        fields = {name: form.cleaned_data[name] for name in (form.changed_data if change else form.fields)}
        actor = request.user.get_username()
        try:
            if change:
                row = self.change_row(type(obj)._default_manager.get(pk=obj.pk), actor, fields)
            else:
                row = self.create_row(actor, fields)
        except ConfigurationError as refusal:
            self._refuse(request, str(refusal))
            return
        obj.pk = row.pk
        obj._state.adding = False

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing: the verbs have written what belongs to the row."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        try:
            self.delete_row(obj, request.user.get_username())
        except ConfigurationError as refusal:
            self._refuse(request, str(refusal))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> Any:
        return self._back_when_refused(request) or super().response_add(request, obj, post_url_continue)

    def response_change(self, request: HttpRequest, obj: Any) -> Any:
        return self._back_when_refused(request) or super().response_change(request, obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> Any:
        return self._back_when_refused(request) or super().response_delete(request, obj_display, obj_id)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Nothing: the verbs write the audit log."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Nothing: the verbs write the audit log."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Nothing: the verbs write the audit log."""

    def _refuse(self, request: HttpRequest, text: str) -> None:
        messages.error(request, f"Nothing changed: {text}")
        request.META["pointsman.refused"] = True

    def _back_when_refused(self, request: HttpRequest) -> Any:
        if not request.META.get("pointsman.refused"):
            return None
        return redirect(request.get_full_path().removesuffix("delete/") or "/admin/")


@admin.register(Tenant)
class TenantAdmin(VerbAdmin):
    list_display = ("name", "time_zone", "is_enabled", "created_at")
    search_fields = ("name",)
    fields = (
        "name", "time_zone", "is_enabled", "allowed_regions", "retention_limit",
        "shadow_percent", "shadow_daily_budget_usd", "reported_tags", "reports_end_users", "policies",
    )  # fmt: skip

    def create_row(self, actor: str, fields: dict[str, Any]) -> Tenant:
        policies = fields.pop("policies")
        is_enabled = fields.pop("is_enabled")
        row = tenancy_changes.create_tenant(actor=actor, **fields)
        if not is_enabled:
            tenancy_changes.change_tenant(tenant=row, actor=actor, is_enabled=False)
        return self._set_policies(row, actor, policies)

    def change_row(self, row: Tenant, actor: str, fields: dict[str, Any]) -> Tenant:
        policies = fields.pop("policies", None)
        row = tenancy_changes.change_tenant(tenant=row, actor=actor, **fields)
        return row if policies is None else self._set_policies(row, actor, policies)

    def delete_row(self, row: Tenant, actor: str) -> None:
        tenancy_changes.delete_tenant(tenant=row, actor=actor)

    def _set_policies(self, row: Tenant, actor: str, policies: Any) -> Tenant:
        public_ids = [policy.public_id for policy in policies]
        return tenancy_changes.set_tenant_policies(tenant=row, public_ids=public_ids, actor=actor)


@admin.register(Project)
class ProjectAdmin(VerbAdmin):
    list_display = ("__str__", "is_enabled", "created_at")
    list_select_related = ("tenant",)
    search_fields = ("name", "tenant__name")
    fields = ("tenant", "name", "is_enabled")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("tenant",) if obj else ("is_enabled",)

    def create_row(self, actor: str, fields: dict[str, Any]) -> Project:
        return tenancy_changes.create_project(actor=actor, **fields)

    def change_row(self, row: Project, actor: str, fields: dict[str, Any]) -> Project:
        return tenancy_changes.change_project(project=row, actor=actor, **fields)

    def delete_row(self, row: Project, actor: str) -> None:
        tenancy_changes.delete_project(project=row, actor=actor)


@admin.register(Provider)
class ProviderAdmin(VerbAdmin):
    list_display = ("name", "base_url", "auth_style", "is_enabled")
    search_fields = ("name", "base_url")
    fields = cataloguing.PROVIDER_FIELDS

    def create_row(self, actor: str, fields: dict[str, Any]) -> Provider:
        return cataloguing.create_provider(actor=actor, **fields)

    def change_row(self, row: Provider, actor: str, fields: dict[str, Any]) -> Provider:
        return cataloguing.change_provider(provider=row, actor=actor, **fields)

    def delete_row(self, row: Provider, actor: str) -> None:
        cataloguing.delete_provider(provider=row, actor=actor)


@admin.register(Model)
class CatalogModelAdmin(VerbAdmin):
    list_display = ("name", "context_tokens", "is_enabled")
    search_fields = ("name", "description")
    fields = cataloguing.MODEL_FIELDS

    def create_row(self, actor: str, fields: dict[str, Any]) -> Model:
        return cataloguing.create_model(actor=actor, **fields)

    def change_row(self, row: Model, actor: str, fields: dict[str, Any]) -> Model:
        return cataloguing.change_model(model=row, actor=actor, **fields)

    def delete_row(self, row: Model, actor: str) -> None:
        cataloguing.delete_model(model=row, actor=actor)


@admin.register(Deployment)
class DeploymentAdmin(VerbAdmin):
    list_display = ("name", "model", "provider", "upstream_model", "region", "is_enabled")
    list_select_related = ("model", "provider")
    search_fields = ("name", "upstream_model")
    fields = cataloguing.DEPLOYMENT_FIELDS

    def create_row(self, actor: str, fields: dict[str, Any]) -> Deployment:
        return cataloguing.create_deployment(actor=actor, **fields)

    def change_row(self, row: Deployment, actor: str, fields: dict[str, Any]) -> Deployment:
        return cataloguing.change_deployment(deployment=row, actor=actor, **fields)

    def delete_row(self, row: Deployment, actor: str) -> None:
        cataloguing.delete_deployment(deployment=row, actor=actor)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """Issued, rotated and revoked in the console: a secret must be shown once."""

    list_display = ("__str__", "owner", "secret_hint", "created_at", "expires_at", "revoked_at")
    list_select_related = ("project__tenant",)
    search_fields = ("name", "owner", "secret_hint")
    exclude = ("secret_hash",)


@admin.register(ManagementToken)
class ManagementTokenAdmin(ReadOnlyAdmin):
    """Issued and revoked in the console: a secret must be shown once."""

    list_display = ("name", "scopes", "secret_hint", "created_by", "expires_at", "revoked_at", "last_used_at")
    exclude = ("secret_hash",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Ability.ISSUE_TOKENS)


@admin.register(Policy)
class PolicyAdmin(ReadOnlyAdmin):
    list_display = (
        "public_id",
        "is_enabled",
        "live_version",
        "canary_version",
        "canary_percent",
        "requires_approval",
    )
    list_select_related = ("live_version__policy", "canary_version__policy")


@admin.register(PolicyDraft)
class PolicyDraftAdmin(ReadOnlyAdmin):
    list_display = ("policy", "revision", "edited_at", "edited_by")
    list_select_related = ("policy",)


@admin.register(PolicyVersion)
class PolicyVersionAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "published_at", "published_by", "approved_by", "note")
    list_select_related = ("policy",)


@admin.register(PublicationRequest)
class PublicationRequestAdmin(ReadOnlyAdmin):
    list_display = ("policy", "status", "requested_by", "requested_at", "decided_by", "decided_at")
    list_filter = ("status",)
    list_select_related = ("policy",)


@admin.register(RouterTable)
class RouterTableAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "state", "note", "made_at", "made_by", "activated_at")
    list_filter = ("state",)


# People are changed in the console, where every change is in the audit log.
admin.site.unregister((User, Group))


@admin.register(User)
class PersonAdmin(ReadOnlyAdmin):
    list_display = ("username", "email", "is_active", "last_login")
    search_fields = ("username", "email")
    fields = ("username", "email", "groups", "is_active", "is_superuser", "last_login", "date_joined")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Ability.MANAGE_PEOPLE)


@admin.register(ChangeEvent)
class ChangeEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "object_type", "object_name")
    list_filter = ("object_type",)
    search_fields = ("object_name", "actor")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Ability.SEE_AUDIT)
