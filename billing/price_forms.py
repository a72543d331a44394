"""What may be sent to make a proposal of prices? The sources check everything again.

Reads: deployments, the uploaded file.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from billing.price_sources import csv_file, genai, litellm
from billing.price_sources.listing import Source, SourceError
from policies.forms import ConsoleForm
from policies.models import Deployment

KINDS = (
    (genai.KIND, "genai-prices: list prices of some 40 providers, installed with this program; no network"),
    (litellm.KIND, "LiteLLM's price file (model_prices_and_context_window.json)"),
    (csv_file.KIND, "CSV: a contract, a list of your own"),
)
LARGEST = {litellm.KIND: litellm.MAX_FILE_BYTES, csv_file.KIND: csv_file.MAX_FILE_BYTES}


class ProposalForm(ConsoleForm):
    """Where the prices come from."""

    kind = forms.ChoiceField(choices=KINDS, widget=forms.RadioSelect, initial=genai.KIND, label="Source")
    file = forms.FileField(
        required=False,
        allow_empty_file=True,
        label="File",
        widget=forms.FileInput(attrs={"accept": ".json,.csv,.txt"}),
        help_text="For the two files. CSV in UTF-8, at most 2 MB; LiteLLM's at most 20 MB.",
    )
    # Not `matches`: a control of that name would hide the form's own function, and htmx calls it.
    match_list = forms.CharField(
        required=False,
        max_length=10_000,
        label="Entries to take for deployments whose entry cannot be told",
        widget=forms.Textarea(
            attrs={
                "rows": 2,
                "class": "mono",
                "spellcheck": "false",
                "placeholder": "gpt-5@proxy=openai/gpt-5",
            }
        ),
        help_text="genai-prices only, one a line: DEPLOYMENT=PROVIDER/MODEL.",
    )
    _source: Source

    def source(self) -> Source:
        return self._source

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors:
            try:
                self._source = self._read(data["kind"], data.get("file"), data["match_list"])
            except SourceError as refusal:
                about = "match_list" if data["kind"] == genai.KIND else "file"
                self.add_error(about, str(refusal).split("\n"))
        return data

    def _read(self, kind: str, file: UploadedFile[bytes] | None, matches: str) -> Source:
        if kind == genai.KIND:
            return genai.GenaiPrices(_read_matches(matches))
        if file is None:
            raise SourceError("Choose the file.")
        # A file that is too large is not read into memory to be told so.
        raw = file.read(LARGEST[kind] + 1)
        name = str(file.name)
        if kind == litellm.KIND:
            return litellm.read_file(raw, name=name)
        names = set(Deployment.objects.values_list("name", flat=True))
        return csv_file.read_file(raw, name=name, deployments=names)


def _read_matches(text: str) -> dict[str, str]:
    chosen = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, entry = line.partition("=")
        if not entry or not Deployment.objects.filter(name=name).exists():
            raise SourceError(f"{line[:80]}: write DEPLOYMENT=PROVIDER/MODEL, with a deployment that exists")
        chosen[name] = entry
    return chosen
