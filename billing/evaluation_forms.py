"""What may be typed into the forms of evaluation sets? The verbs check everything again.

Reads: deployments for choices.
"""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from billing.evaluation_lines import MAX_FILE_BYTES, Case, read_cases
from billing.evaluation_runs import MAX_BUDGET_NANOUSD, MAX_OUTPUT_TOKENS, list_usable_deployments
from billing.money import NANOUSD_PER_USD
from policies.forms import ConsoleForm

_WORKLOAD = re.compile(r"[0-9a-f]{16}\Z")


class SetForm(ConsoleForm):
    """A new set: its cases come as a file or as text."""

    name = forms.CharField(max_length=100, help_text="What it tests: invoice fields, tone of replies.")
    description = forms.CharField(
        max_length=500, required=False, help_text="Where the questions come from, and what counts as right."
    )
    workload = forms.CharField(
        max_length=16,
        required=False,
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
        help_text="The 16 digits of a workload on the Auto router page: results are evidence for it. Empty: for"
        " requests in general. A line of the file may name its own.",
    )
    file = forms.FileField(
        required=False,
        label="JSONL file",
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.ndjson,.json,.txt"}),
        help_text="One JSON object a line, at most 2 MB and 2,000 lines.",
    )
    text = forms.CharField(
        required=False,
        label="Or paste the lines",
        strip=False,
        widget=forms.Textarea(
            attrs={
                "rows": 8,
                "class": "mono",
                "spellcheck": "false",
                "placeholder": '{"prompt": "Capital of France?", "expected": "Paris", "checker": "contains"}',
            }
        ),
    )

    def clean_workload(self) -> str:
        text = str(self.cleaned_data["workload"]).strip()
        if text and not _WORKLOAD.match(text):
            raise forms.ValidationError("16 hexadecimal digits, as the Auto router page shows them.")
        return text

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        file, text = data.get("file"), data.get("text", "")
        if bool(file) == bool(text.strip()):
            self.add_error("file", "Choose a file or paste the lines, one of the two.")
            return data
        name = "file" if file else "text"
        content = self._content_of(file) if isinstance(file, UploadedFile) else text
        if content is None:
            return data
        cases, problems = read_cases(content)
        for problem in problems:
            self.add_error(name, str(problem))
        data["cases"] = cases
        return data

    def cases(self) -> list[Case]:
        found: list[Case] = self.cleaned_data["cases"]
        return found

    def _content_of(self, file: UploadedFile[Any]) -> str | None:
        if file.size is None or file.size > MAX_FILE_BYTES:
            self.add_error("file", f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
            return None
        try:
            return str(file.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            self.add_error("file", f"The file is not UTF-8 (byte {error.start:,}).")
            return None


class RunForm(ConsoleForm):
    """Which deployments answer the cases of a set, and what that may cost."""

    deployments = forms.ModelMultipleChoiceField(
        queryset=list_usable_deployments(),
        widget=forms.CheckboxSelectMultiple(attrs={"data-scroll": ""}),
        help_text="Enabled ones for chat with a price. Two or more can be compared with each other.",
    )
    budget_usd = forms.DecimalField(
        label="Budget, USD",
        min_value=0,
        max_value=MAX_BUDGET_NANOUSD // NANOUSD_PER_USD,
        max_digits=13,
        decimal_places=9,
        initial="1",
        help_text="No call is made that could overspend it, the judge's included.",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "num"}),
    )
    max_output_tokens = forms.IntegerField(
        label="Longest answer, tokens",
        min_value=1,
        max_value=MAX_OUTPUT_TOKENS,
        initial=1_000,
        help_text="Models that think before they answer need more.",
    )

    def budget_nanousd(self) -> int:
        return int(self.cleaned_data["budget_usd"] * NANOUSD_PER_USD)


class JudgedRunForm(RunForm):
    """The same for a set with answers that a model judges."""

    field_order = ("deployments", "judge")

    judge = forms.ModelChoiceField(
        queryset=list_usable_deployments(),
        empty_label="choose one",
        help_text="Grades the answers of cases with the checker “judge”. Choose one better than what it grades.",
    )
