"""Which runs of evaluation sets are there, who works on them, and what has come of them?

Writes: evaluation_run, evaluation_answer, evidence, change_event; the API key of each run, in the tenant `pointsman`,
project `evaluations` (both are made when missing). The only writer of the first two.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from django.db import IntegrityError, models, transaction
from django.db.models import F, Q, Sum
from django.db.models.functions import Now
from django.utils import timezone

from billing.evaluation_lines import CHECKERS
from billing.evidence import Judgement, record_evidence
from billing.models import (
    EvaluationAnswer,
    EvaluationCase,
    EvaluationRun,
    EvaluationSet,
    EvaluationState,
    Evidence,
    Price,
    UsageByDay,
)
from billing.models.evaluation import ACTIVE_STATES
from policies import changes, credentials, issuing, tenancy_changes
from policies.errors import ConfigurationError, InUseError, InvalidValueError
from policies.models import ApiKey, Deployment, Project, Tenant

TENANT = "pointsman"
PROJECT = "evaluations"
ACTOR = "evaluation"
MAX_DEPLOYMENTS = 20
MAX_BUDGET_NANOUSD = 1_000 * 10**9
MAX_OUTPUT_TOKENS = 32_000
MAX_ANSWER_CHARACTERS = 4_000
LEASE = dt.timedelta(seconds=90)
KEY_LIFE = dt.timedelta(hours=24)
KEY_RENEWAL = dt.timedelta(hours=1)


@transaction.atomic
def start_run(
    *,
    evaluation_set: EvaluationSet,
    deployments: Collection[Deployment],
    judge: Deployment | None,
    budget_nanousd: int,
    max_output_tokens: int,
    actor: str,
) -> EvaluationRun:
    """Ask for a run; a worker takes it. Raises ConfigurationError naming what is wrong."""
    problems = {
        "deployments": _problems_of_deployments(deployments),
        "judge": _problems_of_judge(evaluation_set, judge),
        "budget": []
        if 0 < budget_nanousd <= MAX_BUDGET_NANOUSD
        else [f"more than 0 and at most {MAX_BUDGET_NANOUSD // 10**9:,} USD"],
        "max_output_tokens": []
        if 0 < max_output_tokens <= MAX_OUTPUT_TOKENS
        else [f"from 1 to {MAX_OUTPUT_TOKENS:,}"],
    }
    if any(problems.values()):
        raise InvalidValueError({name: texts for name, texts in problems.items() if texts})
    try:
        with transaction.atomic():
            run = EvaluationRun.objects.create(
                set=evaluation_set,
                judge=judge,
                budget_nanousd=budget_nanousd,
                max_output_tokens=max_output_tokens,
                total_count=evaluation_set.case_count * len(deployments),
                started_by=actor[:150],
            )
    except IntegrityError:
        raise InUseError(f"{evaluation_set} is being run already: wait for that run or cancel it") from None
    run.deployments.set(deployments)
    after = {"deployments": sorted(d.name for d in deployments), "budget_nanousd": budget_nanousd}
    _record(run, actor=actor, action="start", after=after)
    return run


def _problems_of_deployments(deployments: Collection[Deployment]) -> list[str]:
    if not 0 < len(deployments) <= MAX_DEPLOYMENTS:
        return [f"choose 1 to {MAX_DEPLOYMENTS} deployments"]
    return [text for deployment in deployments if (text := _problem_of(deployment))]


def _problems_of_judge(evaluation_set: EvaluationSet, judge: Deployment | None) -> list[str]:
    if judge is None:
        has_judged = evaluation_set.cases.filter(checker=CHECKERS[3]).exists()
        return ["this set has cases that a model judges: choose which"] if has_judged else []
    problem = _problem_of(judge)
    return [problem] if problem else []


def _problem_of(deployment: Deployment) -> str:
    if not list_usable_deployments().filter(pk=deployment.pk).exists():
        return (
            f"{deployment} is switched off, takes no chat requests or has no price: no budget could hold it"
        )
    return ""


def list_usable_deployments() -> models.QuerySet[Deployment]:
    """Deployments that a run may call: switched on, for chat, with a price in force."""
    priced = Price.objects.filter(book=Price.Book.COST, tenant__isnull=True, effective_from__lte=Now())
    return Deployment.objects.filter(
        Q(model__endpoints=[]) | Q(model__endpoints__contains=["chat"]),
        is_enabled=True,
        model__is_enabled=True,
        provider__is_enabled=True,
        pk__in=priced.values("deployment_id"),
    ).order_by("name")


@transaction.atomic
def cancel_run(*, run: EvaluationRun, actor: str) -> None:
    """Ask a run to stop: no further call is made. One that nobody works on is cancelled at once."""
    row = EvaluationRun.objects.select_for_update().get(pk=run.pk)
    if row.state not in ACTIVE_STATES or row.is_cancel_wanted:
        return
    row.is_cancel_wanted = True
    row.save(update_fields=["is_cancel_wanted"])
    _record(row, actor=actor, action="cancel", after=None)
    if row.leased_until is None or row.leased_until < timezone.now():
        finish_run(row, EvaluationState.CANCELLED)


def claim_run(run_id: int, *, now: dt.datetime) -> EvaluationRun | None:
    """Take the lease of a run that is not over and that nobody else works on; None: there is nothing to do."""
    taken = EvaluationRun.objects.filter(
        Q(leased_until__isnull=True) | Q(leased_until__lt=now), pk=run_id, state__in=ACTIVE_STATES
    ).update(leased_until=now + LEASE, state=EvaluationState.RUNNING)
    if not taken:
        return None
    return EvaluationRun.objects.select_related("set", "judge__model", "api_key").get(pk=run_id)


def renew_lease(run: EvaluationRun, *, now: dt.datetime) -> bool:
    """Keep the lease, and say whether the run is still wanted."""
    EvaluationRun.objects.filter(pk=run.pk).update(leased_until=now + LEASE)
    return not EvaluationRun.objects.filter(pk=run.pk, is_cancel_wanted=True).exists()


def release_run(run: EvaluationRun) -> None:
    """Let go of the lease: the next task goes on."""
    EvaluationRun.objects.filter(pk=run.pk).update(leased_until=None)


def list_forsaken_runs(now: dt.datetime) -> list[int]:
    """Runs that are not over and that nobody works on: their task was lost, or its process died."""
    rows = EvaluationRun.objects.filter(
        Q(leased_until__isnull=True) | Q(leased_until__lt=now), state__in=ACTIVE_STATES
    )
    return list(rows.values_list("pk", flat=True))


@transaction.atomic
def record_answer(answer: EvaluationAnswer, *, case: EvaluationCase, spent_nanousd: int) -> None:
    """Keep one answer, count it and what it took from the budget, and make evidence of its quality.

    `spent_nanousd` is the cost, or the most that it can be where nobody said.
    """
    answer.answer = answer.answer[:MAX_ANSWER_CHARACTERS].replace("\x00", "")
    answer.save(force_insert=True)
    EvaluationRun.objects.filter(pk=answer.run_id).update(
        done_count=F("done_count") + 1, cost_nanousd=F("cost_nanousd") + spent_nanousd
    )
    if answer.quality is None:
        return
    record_evidence(
        [
            Judgement(
                source=Evidence.Source.EVALUATION,
                model_id=answer.deployment.model_id,
                quality=answer.quality,
                at=answer.at,
                workload=case.workload,
                task_type=case.task_type,
                request_id=answer.request_id,
                pair_id=f"evaluation-{answer.run_id}-{case.number}",
                detail=case.checker,
                output_tokens=answer.output_tokens,
                latency_ms=answer.duration_ms,
                cost_nanousd=answer.cost_nanousd or 0,
            )
        ]
    )


def finish_run(run: EvaluationRun, state: EvaluationState, *, error: str = "", detail: str = "") -> None:
    """End a run and revoke its key."""
    key = run.api_key
    EvaluationRun.objects.filter(pk=run.pk).update(
        state=state,
        error=error[:500],
        error_detail=detail,
        finished_at=timezone.now(),
        leased_until=None,
        key_ciphertext="",
    )
    if key is not None and key.revoked_at is None:
        issuing.revoke_key(key=key, actor=ACTOR)


@transaction.atomic
def open_key(run: EvaluationRun, *, now: dt.datetime) -> str:
    """The secret of the run's own key, which may call the run's models and is pinned. Raises ConfigurationError."""
    key = run.api_key
    if key is not None and run.key_ciphertext and key.revoked_at is None:
        if key.expires_at is None or key.expires_at > now + KEY_RENEWAL:
            return credentials.decrypt_credential(run.key_ciphertext)
        issuing.revoke_key(key=key, actor=ACTOR)
    name = _key_name(run)
    project = _find_project()
    for forgotten in ApiKey.objects.filter(project=project, name=name, revoked_at__isnull=True):
        issuing.revoke_key(key=forgotten, actor=ACTOR)
    called = set(run.deployments.values_list("model__name", flat=True))
    if run.judge is not None:
        called.add(run.judge.model.name)
    run.api_key, secret = issuing.issue_key(
        project=project,
        name=name,
        actor=ACTOR,
        owner=run.started_by,
        is_pinned=True,
        allowed_models=sorted(called),
        expires_at=now + KEY_LIFE,
    )
    run.key_ciphertext = credentials.encrypt_credential(secret)
    run.save(update_fields=["api_key", "key_ciphertext"])
    return secret


def recorded_cost_nanousd(run: EvaluationRun) -> int:
    """What the requests of the run's keys cost, as far as they are recorded."""
    own = UsageByDay.objects.filter(
        api_key__name=_key_name(run), project__name=PROJECT, tenant__name=TENANT
    ).aggregate(total=Sum("cost_nanousd"))
    return int(own["total"] or 0)


def _key_name(run: EvaluationRun) -> str:
    return f"evaluation run {run.pk}"


def _find_project() -> Project:
    tenant = Tenant.objects.filter(name=TENANT).first()
    if tenant is None:
        tenant = tenancy_changes.create_tenant(name=TENANT, actor=ACTOR)
    project = Project.objects.filter(tenant=tenant, name=PROJECT).first()
    if project is None:
        project = tenancy_changes.create_project(tenant=tenant, name=PROJECT, actor=ACTOR)
    if not (tenant.is_enabled and project.is_enabled):
        raise ConfigurationError(
            f"the tenant {TENANT} or its project {PROJECT} is disabled, and runs are its requests"
        )
    return project


def _record(run: EvaluationRun, *, actor: str, action: str, after: dict[str, object] | None) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="evaluation_run",
        object_id=run.pk,
        object_name=run.set.name,
        after=after,
    )
