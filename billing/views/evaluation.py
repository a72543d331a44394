"""How are evaluation sets uploaded, run and read in the browser?

Reads: sets, runs, answers. Writes: nothing itself, calls `evaluation_sets` and `evaluation_runs`. Texts of cases and
answers are shown to those who may configure; numbers to all who may read.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from kombu.exceptions import OperationalError

from billing import evaluation_runs, evaluation_sets, tasks
from billing.evaluation_forms import JudgedRunForm, RunForm, SetForm
from billing.evaluation_results import Result, list_bad_answers, summarise
from billing.models import EvaluationAnswer, EvaluationCase, EvaluationRun, EvaluationSet
from billing.models.evaluation import ACTIVE_STATES
from policies.permissions import Ability, actor_name, may, needs
from policies.views.answering import is_confirmed, posted, run_and_return

CASES_A_PAGE = 20
RUNS_SHOWN = 50

logger = logging.getLogger(__name__)


@needs(Ability.READ)
@require_safe
def list_sets(request: HttpRequest) -> HttpResponse:
    """All sets, each with its newest run."""
    sets = list(EvaluationSet.objects.all())
    newest = {run.set_id: run for run in EvaluationRun.objects.order_by("set_id", "-id").distinct("set_id")}
    rows = [{"set": row, "run": newest.get(row.pk)} for row in sets]
    return render(request, "evaluation/list.html", {"rows": rows})


@needs(Ability.CONFIGURE)
@require_http_methods(["GET", "HEAD", "POST"])
def create_set(request: HttpRequest) -> HttpResponse:
    """Upload a set."""
    form = SetForm(
        posted(request), request.FILES or None, initial={"workload": request.GET.get("workload", "")}
    )
    if request.method == "POST" and form.is_valid():
        made = form.run(
            lambda: evaluation_sets.create_set(
                name=form.cleaned_data["name"],
                description=form.cleaned_data["description"],
                workload=form.cleaned_data["workload"],
                cases=form.cases(),
                actor=actor_name(request),
            )
        )
        if made is not None:
            messages.success(request, f"The set holds {made.case_count:,} cases.")
            return redirect("evaluation", pk=made.pk)
    return render(request, "evaluation/new.html", {"form": form}, status=422 if form.errors else 200)


@needs(Ability.READ)
@require_safe
def show_set(request: HttpRequest, pk: int) -> HttpResponse:
    """A set: its runs, the form for the next one, its cases."""
    row = get_object_or_404(EvaluationSet, pk=pk)
    return _show_set(request, row, _run_form(row, initial=_initial_of(row, request.GET.get("again", ""))))


@needs(Ability.CONFIGURE)
@require_POST
def start_run(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a run, and go to its page."""
    row = get_object_or_404(EvaluationSet, pk=pk)
    form = _run_form(row, data=request.POST)
    if form.is_valid():
        run = form.run(
            lambda: evaluation_runs.start_run(
                evaluation_set=row,
                deployments=list(form.cleaned_data["deployments"]),
                judge=form.cleaned_data.get("judge"),
                budget_nanousd=form.budget_nanousd(),
                max_output_tokens=form.cleaned_data["max_output_tokens"],
                actor=actor_name(request),
            )
        )
        if run is not None:
            transaction.on_commit(lambda: _ask_a_worker(run.pk))
            return redirect("evaluation-run", pk=run.pk)
    return _show_set(request, row, form)


@needs(Ability.CONFIGURE)
@require_POST
def delete_set(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a set with all its texts, after its name was typed."""
    row = get_object_or_404(EvaluationSet, pk=pk)
    if not is_confirmed(request, row.name):
        return redirect("evaluation", pk=pk)
    return run_and_return(
        request,
        lambda: evaluation_sets.delete_set(evaluation_set=row, actor=actor_name(request)),
        done=f"{row.name} is deleted, with its questions, runs and answers.",
        to="evaluations",
    )


@needs(Ability.READ)
@require_safe
def show_run(request: HttpRequest, pk: int) -> HttpResponse:
    """A run: progress while it goes on, results, bad answers. The fragment is what changes while it runs."""
    run = get_object_or_404(EvaluationRun.objects.select_related("set", "judge", "api_key"), pk=pk)
    is_active = run.state in ACTIVE_STATES
    is_fragment = bool(request.headers.get("HX-Request")) and not request.headers.get(
        "HX-History-Restore-Request"
    )
    context: dict[str, Any] = {
        "run": run,
        "is_active": is_active,
        "rows": [_as_row(result) for result in summarise(run)],
        "left_count": run.total_count - run.done_count,
        "seconds": ((run.finished_at or timezone.now()) - run.created_at).total_seconds() * 1000,
    }
    if is_fragment:
        response = render(request, "evaluation/_run.html", context)
        if not is_active:
            # What stands around the fragment (state, buttons, bad answers) has changed too.
            response["HX-Refresh"] = "true"
        return response
    if not is_active and may(request.user, Ability.CONFIGURE):
        context |= _bad_answers(request, run)
    return render(request, "evaluation/run.html", context)


@needs(Ability.CONFIGURE)
@require_POST
def cancel_run(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop a run."""
    run = get_object_or_404(EvaluationRun, pk=pk)
    return run_and_return(
        request,
        lambda: evaluation_runs.cancel_run(run=run, actor=actor_name(request)),
        done="The run makes no further call.",
        to="evaluation-run",
        pk=pk,
    )


def _show_set(request: HttpRequest, row: EvaluationSet, form: RunForm) -> HttpResponse:
    runs = list(row.runs.prefetch_related("deployments")[:RUNS_SHOWN])
    context: dict[str, Any] = {
        "set": row,
        "form": form,
        "runs": runs,
        "is_running": any(run.state in ACTIVE_STATES for run in runs),
        "checkers": _count_checkers(row),
    }
    if may(request.user, Ability.CONFIGURE):
        page = Paginator(row.cases.order_by("number"), CASES_A_PAGE).get_page(request.GET.get("page"))
        context["page"] = page
        context["cases"] = [_as_shown(case) for case in page]
    return render(request, "evaluation/set.html", context, status=422 if form.errors else 200)


def _count_checkers(row: EvaluationSet) -> list[tuple[str, int]]:
    counted = row.cases.order_by("checker").values_list("checker").annotate(count=Count("id"))
    return [(str(EvaluationCase.Checker(checker).label), count) for checker, count in counted]


def _run_form(row: EvaluationSet, **fields: Any) -> RunForm:
    has_judged = row.cases.filter(checker=EvaluationCase.Checker.JUDGE).exists()
    return (JudgedRunForm if has_judged else RunForm)(**fields)


def _initial_of(row: EvaluationSet, again: str) -> dict[str, Any]:
    """The settings of an earlier run of this set, to run it again."""
    run = row.runs.filter(pk=int(again)).first() if again.isdecimal() and len(again) < 18 else None
    if run is None:
        return {}
    budget = f"{run.budget_nanousd // 10**9}.{run.budget_nanousd % 10**9:09d}".rstrip("0").rstrip(".")
    return {
        "deployments": list(run.deployments.values_list("pk", flat=True)),
        "judge": run.judge_id,
        "budget_usd": budget,
        "max_output_tokens": run.max_output_tokens,
    }


def _bad_answers(request: HttpRequest, run: EvaluationRun) -> dict[str, Any]:
    chosen = request.GET.get("deployment", "")
    deployment_id = int(chosen) if chosen.isdecimal() and len(chosen) < 18 else None
    page = Paginator(list_bad_answers(run, deployment_id=deployment_id), CASES_A_PAGE).get_page(
        request.GET.get("page")
    )
    return {"page": page, "bad": [_as_bad(answer) for answer in page], "chosen": deployment_id}


def _as_bad(answer: EvaluationAnswer) -> dict[str, Any]:
    return {"answer": answer, **_as_shown(answer.case)}


def _as_shown(case: EvaluationCase) -> dict[str, Any]:
    """A case for people: the last message stands for it, the others unfold."""
    expected = case.expected
    if case.checker == EvaluationCase.Checker.SCHEMA:
        shown = json.dumps(expected, indent=2, ensure_ascii=False)
    else:
        shown = expected if isinstance(expected, str) else "\n".join(map(str, expected))
    return {"case": case, "question": case.messages[-1]["content"], "expected": shown}


def _as_row(result: Result) -> dict[str, Any]:
    """A result with the places of its error bar, 0 to 100."""
    low, high, place = ((value or 0.0) * 100 for value in (result.low, result.high, result.quality))
    return {
        "result": result,
        "low": low,
        "high": high,
        "width": max(0.6, high - low),
        "place": place,
        "mark": min(98.6, max(0.0, place - 0.7)),
    }


def _ask_a_worker(run_id: int) -> None:
    try:
        tasks.run_evaluation.apply_async(args=[run_id], retry=False)
    except (OperationalError, OSError) as error:
        # Only a hint: the worker looks for waiting runs every minute.
        logger.warning("evaluation run %s waits, the broker cannot be reached: %s", run_id, error)
