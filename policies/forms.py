"""How do the forms of the console behave? Their looks, changes by others, refusals of a verb at their field (`run`).

Reads: a tenant's policies, to begin an edit with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django import forms

from policies.errors import ConfigurationError, InvalidValueError, NameTakenError
from policies.models import Deployment, Model, Provider, Tenant
from policies.seen_values import list_changed, marks_of

T = TypeVar("T")
SHOWN_LENGTH = 80


class ConsoleForm(forms.Form):
    """A form in Tabler's clothes.

    `stored` are the values of the row that it changes: they stand in the fields when it is opened, and when somebody
    else has changed them by the time it is sent, it says so once instead of putting the old ones back.
    """

    def __init__(self, *args: Any, stored: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._stored = stored
        if stored is not None:
            kwargs["initial"] = dict(stored)
        super().__init__(*args, **kwargs)
        if stored is not None:
            self.fields["seen"] = forms.CharField(
                required=False, widget=forms.HiddenInput, initial=marks_of(stored)
            )
        for name, field in self.fields.items():
            widget = field.widget
            if isinstance(field, forms.SlugField):
                field.error_messages["invalid"] = "Letters, digits, hyphens and underscores alone: no spaces."
            if isinstance(widget, (forms.CheckboxInput, forms.CheckboxSelectMultiple, forms.RadioSelect)):
                css = "form-check-input"
            elif isinstance(widget, forms.Select):
                css = "form-select"
            else:
                css = "form-control"
            widget.attrs["class"] = f"{widget.attrs.get('class', '')} {css}".strip()
            if self.is_bound and name in self.errors:
                widget.attrs["class"] += " is-invalid"
            if not isinstance(widget, (forms.CheckboxInput, forms.Select)):
                widget.attrs.setdefault("autocomplete", "off")

    def full_clean(self) -> None:
        """Check the fields as ever, then whether the row is still as it was when the form was opened."""
        super().full_clean()
        if self._stored is None or not self.is_bound:
            return
        changed = list_changed(self.cleaned_data.pop("seen", ""), self._stored)
        changed = [name for name in changed if name in self.fields]
        if not changed:
            return
        # Sent again, it has seen what is said here.
        data: Any = self.data
        self.data = data = data.copy()
        data[self.add_prefix("seen")] = marks_of(self._stored)
        now = "; ".join(f"{self[name].label}: {self._shown(name)}" for name in changed)
        self.add_error(
            None,
            f"Somebody changed this since you opened it. It is now {now}. Below stands what you typed:"
            " save again to put it in place of that, or cancel.",
        )

    def _shown(self, name: str) -> str:
        value = (self._stored or {})[name]
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (list, tuple)):
            return ", ".join(map(str, value)) or "none"
        if isinstance(value, Mapping):
            value = json.dumps(value) if value else ""
        choices = dict(getattr(self.fields[name], "choices", ()))
        text = "empty" if value in (None, "") else str(choices.get(value, value))
        return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"

    def run(self, verb: Callable[[], T]) -> T | None:
        """Call a verb; when it refuses, put its sentences at the fields and return None."""
        try:
            return verb()
        except InvalidValueError as refusal:
            for name, texts in refusal.problems.items():
                self.add_error(name if name in self.fields else None, [_sentence(text) for text in texts])
        except NameTakenError as refusal:
            self.add_error("name" if "name" in self.fields else None, _sentence(str(refusal)))
        except ConfigurationError as refusal:
            self.add_error(None, _sentence(str(refusal)))
        return None


class ListField(forms.CharField):
    """Names separated by commas or white space."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, (list, tuple)) else value

    def clean(self, value: Any) -> list[str]:
        return str(super().clean(value)).replace(",", " ").split()


def initial_of(row: Model | Provider | Deployment | Tenant, form: type[ConsoleForm]) -> dict[str, Any]:
    """The row's values for the fields of a form, to begin an edit with."""
    # A credential is never shown, and its reference is typed again when it shall go to another host.
    left_out = ("policies", "credential", "credential_reference")
    values = {name: getattr(row, name) for name in form.base_fields if name not in left_out}
    if isinstance(row, Tenant):
        values["policies"] = list(row.policies.values_list("public_id", flat=True))
    return values


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
