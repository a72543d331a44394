"""What may be sent to compare a provider's bill? The reader checks everything again.

Reads: providers, the uploaded file.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms

from billing.money import NANOUSD_PER_USD
from billing.provider_bills.files import MAX_FILE_BYTES
from billing.provider_bills.mapped_csv import NAMES
from billing.provider_bills.reading import TITLES
from billing.reconciling import Tolerance
from policies.forms import ConsoleForm
from policies.models import Provider


class BillForm(ConsoleForm):
    """Whose file it is and how it is to be read."""

    provider = forms.ModelChoiceField(queryset=Provider.objects.all(), empty_label=None)
    file_format = forms.ChoiceField(choices=list(TITLES.items()), label="What file it is")
    file = forms.FileField(
        label="File",
        widget=forms.FileInput(attrs={"accept": ".json,.csv,.txt"}),
        help_text="JSON as the provider's API answers, or CSV as its console exports; at most 20 MB.",
    )
    account = forms.CharField(
        max_length=300,
        required=False,
        label="Only this project, workspace or key",
        help_text="As the file names it, where others than this gateway use the same account. Empty: all of the file.",
    )
    columns = forms.CharField(
        max_length=2_000,
        required=False,
        label="Columns, for a CSV of another provider",
        widget=forms.Textarea(
            attrs={"rows": 2, "class": "mono", "spellcheck": "false", "placeholder": "day=Date\ncost=Amount"}
        ),
        help_text=f"One a line, OURS=THEIRS. Ours are {', '.join(NAMES)}; what is called so needs no line.",
    )
    tolerance_percent = forms.DecimalField(
        min_value=0, max_value=Decimal("99.9999"), initial=Decimal("0.5"), label="Let pass, percent",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "num"}),
    )  # fmt: skip
    tolerance_usd = forms.DecimalField(
        min_value=0, max_value=1_000_000, max_digits=15, decimal_places=9, initial=Decimal("0.01"),
        label="Let pass, USD a model and day",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "num"}),
        help_text="The larger of both. Where a file rounds its lines to cents, that is let pass too.",
    )  # fmt: skip

    def clean_columns(self) -> dict[str, str]:
        return read_columns(str(self.cleaned_data["columns"]).splitlines())

    def raw(self) -> bytes:
        """The file; one that is too large is not read into memory to be told so."""
        return bytes(self.cleaned_data["file"].read(MAX_FILE_BYTES + 1))

    def tolerance(self) -> Tolerance:
        data: dict[str, Any] = self.cleaned_data
        return Tolerance(data["tolerance_percent"] / 100, int(data["tolerance_usd"] * NANOUSD_PER_USD))


class NameForm(ConsoleForm):
    """Which of our upstream models the provider's bills mean by a name."""

    name = forms.CharField(max_length=300, widget=forms.HiddenInput)
    upstream_model = forms.CharField(max_length=300, required=False)


def read_columns(lines: list[str]) -> dict[str, str]:
    """Read lines of `cost=Amount`. Raises ValidationError."""
    columns = {}
    for line in filter(None, map(str.strip, lines)):
        name, _, column = line.partition("=")
        if not column.strip() or name.strip() in columns:
            raise forms.ValidationError(f"{line[:80]}: write each column once, as OURS=THEIRS: cost=Amount")
        columns[name.strip()] = column.strip()
    return columns
