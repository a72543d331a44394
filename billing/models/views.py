"""Which views of spend does somebody come back to, and who gets them by mail?

Tables: saved_view, scheduled_mail, mail_delivery.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q


class SavedView(models.Model):
    """A name for an address: the page and its query string, read again each time by that page's own reader.

    `deleted_at` is set for as long as deleting it can be undone.
    """

    class Page(models.TextChoices):
        SPEND = "spend", "Spend"
        KEYS = "spend-keys", "Spend of API keys"

    name = models.CharField(max_length=100)
    page = models.CharField(max_length=12, choices=Page.choices)
    query = models.CharField(max_length=1000, blank=True, default="")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    is_shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "name"],
                condition=Q(deleted_at__isnull=True),
                name="saved_view_name_unique",
            )
        ]

    def __str__(self) -> str:
        return self.name


class ScheduledMail(models.Model):
    """Who gets a view by mail, and when: at `hour` of `time_zone`, daily, on a weekday or on a day of the month.

    `owner` made it, and is asked at every sending whether they may still see the view.
    """

    class Rhythm(models.TextChoices):
        DAILY = "daily", "every day"
        WEEKLY = "weekly", "every week"
        MONTHLY = "monthly", "every month"

    view = models.ForeignKey(SavedView, on_delete=models.CASCADE, related_name="mails")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    rhythm = models.CharField(max_length=8, choices=Rhythm.choices)
    weekday = models.PositiveSmallIntegerField(default=0, help_text="0 is Monday; of weekly ones.")
    month_day = models.PositiveSmallIntegerField(default=1, help_text="1 to 28; of monthly ones.")
    hour = models.PositiveSmallIntegerField(default=7)
    time_zone = models.CharField(max_length=60, default="UTC")
    recipients = models.JSONField(default=list)
    file_format = models.CharField(max_length=8, default="xlsx")
    is_enabled = models.BooleanField(default=True)
    # What was due before this moment is not sent: the schedule did not exist, or was another one.
    since = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["view__name", "id"]

    def __str__(self) -> str:
        return f"{self.view} by mail, {self.get_rhythm_display()}"


class DeliveryState(models.TextChoices):
    WAITING = "waiting", "waits for a worker"
    BUILDING = "building", "the table is read"
    SENDING = "sending", "is handed to the mail server"
    SENT = "sent", "sent"
    FAILED = "failed", "failed"


class MailDelivery(models.Model):
    """One mail of a schedule. One row for a due time, whoever finds first that it is due; whoever claims it sends it.

    From SENDING on it is not sent again by itself: of a process that died there, nobody knows whether it went out.
    """

    schedule = models.ForeignKey(ScheduledMail, on_delete=models.CASCADE, related_name="deliveries")
    due_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=DeliveryState.choices, default=DeliveryState.WAITING)
    claim_count = models.PositiveSmallIntegerField(default=0)
    claimed_at = models.DateTimeField(null=True)
    try_again_at = models.DateTimeField(null=True)
    recipients = models.JSONField(default=list)
    asked_by = models.CharField(max_length=150, blank=True, default="", help_text="Empty: the clock.")
    error = models.TextField(blank=True, default="")
    error_detail = models.TextField(blank=True, default="", db_default="")
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-due_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["schedule", "due_at"], name="mail_delivery_once_a_due_time")
        ]

    def __str__(self) -> str:
        return f"{self.schedule}, due {self.due_at:%Y-%m-%d %H:%M} UTC"
