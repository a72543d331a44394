"""What may be typed into the console's forms over saved views and their mails? The verbs check everything again.

Pure.
"""

from __future__ import annotations

import re
from zoneinfo import available_timezones

from django import forms
from django.core.exceptions import ValidationError

from billing.models import ScheduledMail
from policies.forms import ConsoleForm

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class ViewForm(ConsoleForm):
    """The name of a view, and who sees it."""

    name = forms.CharField(max_length=100, label="Name", help_text="For example: Acme by model, last month.")
    is_shared = forms.BooleanField(
        required=False,
        label="Shared",
        help_text="Everybody who may read sees it under Saved views. Otherwise only you do.",
    )


class ScheduleForm(ConsoleForm):
    """When a view is sent, to whom, as what."""

    recipients = forms.CharField(
        max_length=6000,
        label="To",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="E-mail addresses, up to 20; they see each other.",
    )
    rhythm = forms.ChoiceField(choices=ScheduledMail.Rhythm.choices, label="How often")
    weekday = forms.TypedChoiceField(
        choices=list(enumerate(WEEKDAYS)), coerce=int, label="On", help_text="Of a weekly mail."
    )
    month_day = forms.IntegerField(
        min_value=1,
        max_value=28,
        initial=1,
        label="Day of the month",
        help_text="Of a monthly mail, 1 to 28.",
    )
    hour = forms.TypedChoiceField(
        choices=[(hour, f"{hour:02d}:00") for hour in range(24)], coerce=int, initial=7, label="At"
    )
    time_zone = forms.CharField(
        max_length=60, initial="UTC", label="Time zone", help_text="For example Europe/Berlin."
    )
    file_format = forms.ChoiceField(choices=[("xlsx", "XLSX"), ("csv", "CSV")], label="Attached as")

    def clean_recipients(self) -> list[str]:
        """Addresses by lines, commas or semicolons."""
        return [text for text in re.split(r"[\s,;]+", self.cleaned_data["recipients"]) if text]

    def clean_time_zone(self) -> str:
        wanted: str = self.cleaned_data["time_zone"]
        if wanted not in available_timezones():
            raise ValidationError("There is no such time zone; write it as Europe/Berlin.")
        return wanted
