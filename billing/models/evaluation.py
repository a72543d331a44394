"""How well do models do on questions whose answers an operator knows? Tables: evaluation_set, _case, _run, _answer.

Cases and answers are texts: an operator uploads the questions on purpose, and deletes them with the set.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class EvaluationState(models.TextChoices):
    WAITING = "waiting", "waits for a worker"
    RUNNING = "running", "running"
    DONE = "done", "done"
    OUT_OF_BUDGET = "out_of_budget", "stopped at its budget"
    CANCELLED = "cancelled", "cancelled"
    FAILED = "failed", "failed"


ACTIVE_STATES = (EvaluationState.WAITING, EvaluationState.RUNNING)


class EvaluationSet(models.Model):
    """A named list of cases. `workload` is the one that its results speak about, "" for requests in general."""

    name = models.CharField(max_length=100, unique=True)
    description = models.CharField(max_length=500, blank=True, default="")
    workload = models.CharField(max_length=16, blank=True, default="")
    case_count = models.PositiveIntegerField()
    made_by = models.CharField(max_length=150)
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class EvaluationCase(models.Model):
    """One question. `expected`: a text, a list of texts, or a JSON schema, after `checker`."""

    class Checker(models.TextChoices):
        EXACT = "exact", "is exactly"
        CONTAINS = "contains", "contains"
        SCHEMA = "schema", "fits the schema"
        JUDGE = "judge", "judged by a model"

    set = models.ForeignKey(EvaluationSet, on_delete=models.CASCADE, related_name="cases")
    number = models.PositiveIntegerField()
    messages = models.JSONField()
    expected = models.JSONField()
    checker = models.CharField(max_length=10, choices=Checker.choices)
    workload = models.CharField(max_length=16, blank=True, default="")
    task_type = models.CharField(max_length=40, blank=True, default="")
    tags = models.JSONField(default=list)

    class Meta:
        ordering = ["set_id", "number"]
        constraints = [models.UniqueConstraint(fields=["set", "number"], name="evaluation_case_number_once")]

    def __str__(self) -> str:
        return f"{self.set_id} #{self.number}"


class EvaluationRun(models.Model):
    """One run of a set over deployments. The row is the truth, a task only a hint: who has the lease works on it.

    `cost_nanousd` is what its calls cost so far, the judge's included; it never exceeds `budget_nanousd`.
    `key_ciphertext` is the encrypted secret of the run's own API key, while it runs.
    """

    set = models.ForeignKey(EvaluationSet, on_delete=models.CASCADE, related_name="runs")
    deployments = models.ManyToManyField("policies.Deployment", related_name="+")
    judge = models.ForeignKey(
        "policies.Deployment", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    budget_nanousd = models.BigIntegerField()
    max_output_tokens = models.PositiveIntegerField()
    state = models.CharField(max_length=14, choices=EvaluationState.choices, default=EvaluationState.WAITING)
    is_cancel_wanted = models.BooleanField(default=False)
    total_count = models.PositiveIntegerField()
    done_count = models.PositiveIntegerField(default=0)
    cost_nanousd = models.BigIntegerField(default=0)
    api_key = models.ForeignKey(
        "policies.ApiKey", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    key_ciphertext = models.TextField(blank=True, default="")
    error = models.CharField(max_length=500, blank=True, default="")
    error_detail = models.TextField(blank=True, default="", db_default="")
    started_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    leased_until = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["set"], condition=Q(state__in=ACTIVE_STATES), name="evaluation_run_one_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(budget_nanousd__gt=0) & Q(cost_nanousd__gte=0), name="evaluation_run_amounts"
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.set}"


class EvaluationAnswer(models.Model):
    """What one deployment answered to one case. `quality` null: it gave no answer, `detail` says why.

    `answer` is its beginning. `cost_nanousd` includes the judge's call; null: nobody knows.
    """

    run = models.ForeignKey(EvaluationRun, on_delete=models.CASCADE, related_name="answers")
    case = models.ForeignKey(EvaluationCase, on_delete=models.CASCADE, related_name="+")
    deployment = models.ForeignKey("policies.Deployment", on_delete=models.CASCADE, related_name="+")
    quality = models.FloatField(null=True)
    detail = models.CharField(max_length=200, blank=True, default="")
    answer = models.TextField(blank=True, default="")
    request_id = models.UUIDField(null=True)
    cost_nanousd = models.BigIntegerField(null=True)
    duration_ms = models.FloatField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    at = models.DateTimeField()

    class Meta:
        ordering = ["run_id", "case_id", "deployment_id"]
        constraints = [
            models.UniqueConstraint(fields=["run", "case", "deployment"], name="evaluation_answer_once"),
            models.CheckConstraint(
                condition=Q(quality__isnull=True) | (Q(quality__gte=0) & Q(quality__lte=1)),
                name="evaluation_answer_quality",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.run_id}: {self.case_id}, {self.deployment_id}"
