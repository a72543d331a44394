"""What may be typed into the form that issues a management token? The verb checks everything again.

Pure.
"""

from __future__ import annotations

from django import forms

from policies.forms import ConsoleForm
from policies.management_tokens import SCOPE_DESCRIPTIONS


class IssueTokenForm(ConsoleForm):
    name = forms.SlugField(
        max_length=100,
        help_text="Stands in the audit log as token:NAME, and is never given twice: terraform, onboarding.",
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope.value, f"{scope}: {text}") for scope, text in SCOPE_DESCRIPTIONS.items()],
        widget=forms.CheckboxSelectMultiple(attrs={"data-column": "1"}),
        label="What it may do",
        help_text="None includes another: a token that shall also read needs read.",
    )
    expires_at = forms.DateTimeField(
        required=False,
        label="Expires (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Empty: never.",
    )
