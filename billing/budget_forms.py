"""What may be typed into the console's forms over budgets? The verbs check everything again.

Reads: tenants, projects and keys, by their names.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from billing.models import AlertRecipient, Budget
from billing.money import MoneyError, parse_usd
from policies.forms import ConsoleForm
from policies.models import ApiKey, Deployment, Model, Project, Tenant
from policies.name_suggestions import SuggestingInput, list_scope_names, list_tenant_names

LOWER_HELP = (
    "A request that came without an output limit gets the one that still fits. Otherwise it is refused."
)


class BudgetChangeForm(ConsoleForm):
    """What of a budget can change."""

    limit_usd = forms.CharField(
        max_length=30,
        label="Limit, USD",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "num"}),
    )
    may_lower_limit = forms.BooleanField(
        required=False, initial=True, label="Lower output limits near the end", help_text=LOWER_HELP
    )
    is_enabled = forms.BooleanField(
        required=False,
        initial=True,
        label="In force",
        help_text="Switched off, it goes on counting and refuses nothing.",
    )

    def clean_limit_usd(self) -> int:
        try:
            return parse_usd(self.cleaned_data["limit_usd"])
        except MoneyError:
            raise ValidationError("An amount in USD, for example 250 or 12.50.") from None


class BudgetForm(BudgetChangeForm):
    """A new budget."""

    field_order = ["scope", "deployment", "model", "window", "limit_usd", "is_hard", "may_lower_limit"]
    scope = forms.CharField(
        max_length=320,
        required=False,
        label="Whose",
        widget=SuggestingInput(list_scope_names),
        help_text="acme for a tenant, acme/web for a project, acme/web/dev for a key. Empty for a deployment's.",
    )
    deployment = forms.ModelChoiceField(
        queryset=Deployment.objects.order_by("name"),
        required=False,
        empty_label="no deployment",
        help_text="Of what is paid for this deployment, whoever calls it. A hard one that is used up leaves it out, and"
        " other candidates serve.",
    )
    model = forms.ModelChoiceField(
        queryset=Model.objects.all(),
        required=False,
        empty_label="all models",
        help_text="For one model: only its answers count. A hard one that is used up leaves that model out, and other"
        " candidates of a policy serve.",
    )
    window = forms.ChoiceField(
        choices=Budget.Window.choices,
        initial=Budget.Window.MONTH,
        label="Counted",
        help_text="On the calendar of the tenant's time zone; a deployment's on that of UTC. In total: from now on,"
        " without an end.",
    )
    is_hard = forms.TypedChoiceField(
        choices=[("yes", "Hard: what does not fit is refused"), ("no", "Soft: only shown here")],
        coerce=lambda text: text == "yes",
        label="Kind",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["is_enabled"]

    def clean_scope(self) -> dict[str, Tenant | Project | ApiKey]:
        """The rows that the names stand for, {} for none. A name of a key may hold a slash."""
        if not self.cleaned_data["scope"].strip():
            return {}
        names = self.cleaned_data["scope"].strip().split("/", 2)
        tenant = Tenant.objects.filter(name=names[0]).first()
        if tenant is None:
            raise ValidationError(f"There is no tenant {names[0]}.")
        found: dict[str, Tenant | Project | ApiKey] = {"tenant": tenant}
        if len(names) > 1:
            project = Project.objects.filter(tenant=tenant, name=names[1]).first()
            if project is None:
                raise ValidationError(f"{tenant} has no project {names[1]}.")
            found["project"] = project
        if len(names) > 2:
            keys = ApiKey.objects.filter(project=found["project"].pk, name=names[2], revoked_at__isnull=True)
            key = keys.filter(replaced_by__isnull=True).select_related("project__tenant").first()
            if key is None:
                raise ValidationError(f"{'/'.join(names[:2])} has no key {names[2]} in use.")
            found["api_key"] = key
        return found

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if "scope" not in self.errors:
            if not data.get("scope") and not data.get("deployment") and "deployment" not in self.errors:
                self.add_error("scope", "Name a tenant, a project or a key, or choose a deployment.")
            elif data.get("scope") and data.get("deployment"):
                self.add_error("deployment", "Either whose it is, or a deployment.")
            elif data.get("deployment") and data.get("model"):
                self.add_error("model", "A deployment's budget is for the deployment alone.")
        return data


class RecipientForm(ConsoleForm):
    """Who hears of a tenant's budgets, or of deployments'. Of one budget: without the tenant, which is the budget's."""

    tenant = forms.CharField(
        max_length=100,
        required=False,
        label="Budgets of the tenant",
        widget=SuggestingInput(list_tenant_names),
        help_text="All of them, for example acme.",
    )
    is_of_deployments = forms.BooleanField(
        required=False,
        label="Budgets of deployments, instead of a tenant's",
        help_text="What is paid to providers, over all tenants.",
    )
    channel = forms.ChoiceField(
        choices=[("email", "E-mail"), ("webhook", "Webhook, signed")],
        initial=AlertRecipient.Channel.EMAIL,
        label="Told by",
    )
    address = forms.CharField(
        max_length=500,
        help_text="finance@example.com, or https://hooks.example.com/budgets. No secret belongs into an address.",
    )
    allow_private_network = forms.BooleanField(
        required=False,
        label="Allow http and private addresses",
        help_text="For a webhook in this network.",
    )

    def __init__(self, *args: Any, is_of_budget: bool, may_allow_private: bool, **kwargs: Any) -> None:
        # What was sent is checked by the base class already, so a field that is only left out would be believed.
        self._is_of_budget = is_of_budget
        self._may_allow_private = may_allow_private
        super().__init__(*args, **kwargs)
        if is_of_budget:
            del self.fields["tenant"]
            del self.fields["is_of_deployments"]
        if not may_allow_private:
            del self.fields["allow_private_network"]

    def clean_tenant(self) -> Tenant | None:
        name = self.cleaned_data["tenant"].strip()
        if self._is_of_budget or not name:
            return None
        tenant = Tenant.objects.filter(name=name).first()
        if tenant is None:
            raise ValidationError(f"There is no tenant {name}.")
        return tenant

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self._is_of_budget and "tenant" not in self.errors:
            if not data.get("tenant") and not data.get("is_of_deployments"):
                self.add_error("tenant", "Name a tenant.")
            elif data.get("tenant") and data.get("is_of_deployments"):
                self.add_error("is_of_deployments", "Either a tenant's, or those of deployments.")
        return data

    def clean_allow_private_network(self) -> bool:
        return self._may_allow_private and self.cleaned_data["allow_private_network"]


class RecipientChangeForm(ConsoleForm):
    """What of a recipient can change; only webhooks have a network and a secret."""

    address = forms.CharField(max_length=500, help_text="What waits to be sent goes there too.")
    allow_private_network = forms.BooleanField(
        required=False,
        label="Allow http and private addresses",
        help_text="For a webhook in this network.",
    )
    secret = forms.CharField(
        max_length=200,
        required=False,
        label="Another secret",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="whsec_ and 24 to 64 bytes in base64, of the receiver's own: signs from the next message on."
        " Left empty, the secret stays.",
    )

    def __init__(self, *args: Any, is_webhook: bool, may_allow_private: bool, **kwargs: Any) -> None:
        self._left_out = {
            *(() if is_webhook else ("secret",)),
            *(() if is_webhook and may_allow_private else ("allow_private_network",)),
        }
        super().__init__(*args, **kwargs)
        for name in self._left_out:
            del self.fields[name]

    def clean(self) -> dict[str, Any]:
        # What was sent is checked by the base class before fields are left out: what was not shown is not believed.
        data: dict[str, Any] = super().clean() or self.cleaned_data
        return {name: value for name, value in data.items() if name not in self._left_out}
