"""What may be typed into the console's forms over money? The verbs check everything again.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from django import forms

from billing.pricebook import is_limited_rate
from policies.forms import ConsoleForm

LABELS = {
    "input_usd_per_mtok": ("Input", "USD per million tokens"),
    "output_usd_per_mtok": ("Output", "USD per million tokens"),
    "cache_read_usd_per_mtok": ("Cached input, read", "Empty: charged as input"),
    "cache_write_usd_per_mtok": ("Cached input, written", "Empty: charged as input"),
    "cache_write_1h_usd_per_mtok": ("Cached input, written for an hour", "Empty: charged as written"),
    "reasoning_usd_per_mtok": ("Reasoning", "Empty: charged as output"),
    "audio_input_usd_per_mtok": ("Audio input", "Empty: charged as input"),
    "audio_output_usd_per_mtok": ("Audio output", "Empty: charged as output"),
    "image_input_usd_per_mtok": ("Image input", "Empty: charged as input"),
    "image_output_usd_per_mtok": ("Image output", "Empty: charged as output"),
    "usd_per_request": ("Each request", "USD a request, besides its tokens"),
    "usd_per_search": ("Each search", "USD a search that the provider reports"),
    "usd_per_image": ("Each image", "USD an image in the answer"),
    "usd_per_audio_hour": ("An hour of audio", "USD; charged by the second that the provider reports"),
}


class PriceForm(ConsoleForm):
    """The rates of a new price. A rate left empty is not stated, which is not the same as 0."""

    has_columns = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        since = self.fields["effective_from"]
        since.widget.attrs["max"] = "9999-12-31T23:59"

    limited = forms.CharField(
        max_length=10_000,
        required=False,
        label="Rates for large inputs, service tiers or hours",
        widget=forms.Textarea(
            attrs={
                "rows": 3,
                "class": "mono",
                "spellcheck": "false",
                "placeholder": "input_usd_per_mtok>200000 2.50\noutput_usd_per_mtok~16:30-00:30 0.55",
            }
        ),
        help_text="One a line: a rate's name, where it holds, the amount. >200000: the whole request, when its input is"
        " larger. +200000: only the tokens beyond. @batch: answers of that service tier. ~16:30-00:30: requests that"
        " begin in these hours (UTC).",
    )
    effective_from = forms.DateTimeField(
        required=False,
        label="In force from (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Empty: now. Requests that are already recorded keep the price they were rated with.",
    )
    source = forms.CharField(
        max_length=200, required=False, help_text="Where these numbers come from: a price list, a contract."
    )

    def rates(self) -> dict[str, str]:
        typed = {name: text for name in LABELS if (text := self.cleaned_data[name].strip())}
        return {**typed, **_read_limited(self.cleaned_data["limited"])}

    @staticmethod
    def initial_of(rates: Mapping[str, str]) -> dict[str, str]:
        """What the fields begin with, from the rates in force."""
        limited = [f"{name} {text}" for name, text in rates.items() if name not in LABELS]
        return {**rates, "limited": "\n".join(limited)}

    def clean_limited(self) -> str:
        text = str(self.cleaned_data["limited"])
        _read_limited(text)
        return text

    def since(self) -> dt.datetime | None:
        at: dt.datetime | None = self.cleaned_data["effective_from"]
        return at

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not any(data.get(name) for name in LABELS):
            self.add_error(None, "State at least one rate; for most models input and output.")
        return data


def _read_limited(text: str) -> dict[str, str]:
    """Read lines of `input_usd_per_mtok>200000 2.50`. Raises ValidationError naming the line."""
    rates: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, number = line.partition(" ")
        if not number.strip() or not is_limited_rate(name) or name in rates:
            raise forms.ValidationError(
                f"{line[:80]}: write each limited rate once, as NAME and number: input_usd_per_mtok>200000 2.50"
            )
        rates[name] = number.strip()
    return rates


_rate_fields = {
    name: forms.CharField(
        max_length=30,
        required=False,
        label=label,
        help_text=help_text,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "num"}),
    )
    for name, (label, help_text) in LABELS.items()
}
PriceForm.base_fields = {**_rate_fields, **PriceForm.base_fields}
