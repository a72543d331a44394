"""What does the automatic router know, since when, and who let it know? Tables: router_table, router_setting."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class RouterTable(models.Model):
    """One version of the router's tables. Number and document never change, a trigger says so too.

    `policies.router_tables` is the only writer. `gate` holds the numbers of the offline evaluation that the version
    had to pass: {"passes", "is_thin", "reasons", "numbers", "newest_evidence_id"}; null: none was needed (a pin, an
    import by hand).
    """

    class State(models.TextChoices):
        CANDIDATE = "candidate", "waits for an operator"
        ACTIVE = "active", "in force"
        RETIRED = "retired", "was in force"
        REJECTED = "rejected", "failed its evaluation"

    number = models.PositiveIntegerField(unique=True)
    document = models.JSONField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.CANDIDATE)
    gate = models.JSONField(null=True, blank=True)
    based_on = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    note = models.TextField(blank=True, default="")
    made_by = models.CharField(max_length=150, blank=True, default="")
    made_at = models.DateTimeField(auto_now_add=True)
    activated_by = models.CharField(max_length=150, blank=True, default="")
    activated_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.CheckConstraint(condition=Q(number__gte=1), name="router_table_number_positive"),
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="active"), name="router_table_one_active"
            ),
        ]

    def __str__(self) -> str:
        return f"router tables v{self.number}"


class RouterSetting(models.Model):
    """How the router learns: one row, id 1; missing means the defaults."""

    activates_itself = models.BooleanField(
        default=False, help_text="A version that passes its evaluation goes into force without an operator."
    )

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="router_setting_one_row")]

    def __str__(self) -> str:
        return "router settings"
