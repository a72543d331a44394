"""What may be typed into the forms about a policy, beside its rules? The verbs check everything again.

Reads: tenants for choices.
"""

from __future__ import annotations

from django import forms

from policies.forms import ConsoleForm
from policies.models import Tenant


class PolicyAboutForm(ConsoleForm):
    description = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 3}), help_text="What it is for, for colleagues."
    )
    tenants = forms.MultipleChoiceField(
        choices=lambda: [(name, name) for name in Tenant.objects.values_list("name", flat=True)],
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"data-scroll": "1"}),
        help_text="Their keys may ask for it. None ticked: nobody may.",
    )
    requires_approval = forms.BooleanField(
        required=False,
        label="Four eyes: publishing needs another operator's approval",
        help_text="Rolling back does not: it must be quick.",
    )


class NewPolicyForm(PolicyAboutForm):
    public_id = forms.CharField(
        max_length=200,
        label="Public id",
        help_text="What clients write into “model”: acme/support.",
        widget=forms.TextInput(attrs={"autocapitalize": "none", "spellcheck": "false"}),
    )
    field_order = ("public_id", "description", "tenants", "requires_approval")
