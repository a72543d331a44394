"""How does a run of an evaluation set go on? A slice of it: calls, checks, answers, until its time or budget is over.

Writes: through `evaluation_runs`. Calls: the gateway, from a few threads; the database from this one alone.
A slice ends after some seconds, so that other tasks of the same worker have their turn; answers that are there are not
asked for again, so a lost task or a killed process costs the calls that were in flight.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from django.conf import settings
from django.utils import timezone

from billing import evaluation_runs
from billing.evaluation_calls import GatewayCaller, Said, most_nanousd
from billing.evaluation_checks import (
    JUDGE_MAX_TOKENS,
    Checked,
    check_contains,
    check_exact,
    check_schema,
    judge_messages,
    read_grade,
)
from billing.job_failures import explain_failure, let_go_of_a_broken_connection
from billing.models import EvaluationAnswer, EvaluationCase, EvaluationRun, EvaluationState
from billing.pricebook import PriceVersion
from billing.pricing import find_price_in_force
from billing.stored_prices import read_price
from policies.autorouter.request_types import find_type
from policies.errors import ConfigurationError
from policies.models import Deployment

logger = logging.getLogger(__name__)

SLICE_S = 10.0
RENEWAL_S = 20.0
# Of an answer the judge reads so many bytes for each token that it might have: more than words have.
JUDGED_BYTES_A_TOKEN = 8
PARALLEL_CALLS = 4
GATEWAY_SILENT = (
    "The gateway does not answer, or does not know the run's key. See that POINTSMAN_GATEWAY_URL is its address, and "
    "run it again."
)


class Caller(Protocol):
    """Who asks deployments."""

    def ask(self, deployment: str, messages: list[dict[str, str]], max_output_tokens: int) -> Said: ...


class Job(NamedTuple):
    """One case for one deployment. `most_nanousd`: what it can cost, the judge's call included."""

    case: EvaluationCase
    deployment: Deployment
    most_nanousd: int


class Done(NamedTuple):
    """What came of a job. `cost_nanousd` None: one of its calls has a cost that nobody knows."""

    said: Said
    checked: Checked
    cost_nanousd: int | None


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in force when the slice began, and how far an answer may go."""

    by_deployment: Mapping[int, PriceVersion]
    judge: Deployment | None
    max_output_tokens: int

    def most_nanousd(self, case: EvaluationCase, deployment: Deployment) -> int | None:
        """What a job can cost at most; None: a price is missing."""
        price = self.by_deployment.get(deployment.pk)
        if price is None:
            return None
        most = most_nanousd(case.messages, self.max_output_tokens, price)
        if case.checker != "judge" or self.judge is None:
            return most
        judge_price = self.by_deployment.get(self.judge.pk)
        if judge_price is None:
            return None
        longest = judge_messages(case.messages, str(case.expected), "x" * (self.judged_bytes() * 10 // 9))
        return most + most_nanousd(longest, self.judge_tokens(), judge_price)

    def judged_bytes(self) -> int:
        """How much of an answer the judge reads (marks in it grow by a ninth, see `judge_messages`)."""
        return JUDGED_BYTES_A_TOKEN * self.max_output_tokens

    def judge_tokens(self) -> int:
        """How much the judge may say: thinking counts."""
        return max(JUDGE_MAX_TOKENS, self.max_output_tokens)


def run_slice(run_id: int, *, seconds: float = SLICE_S, base_url: str = "") -> bool:
    """Work on a run for a while; say whether there is more to do (by a new task)."""
    run = evaluation_runs.claim_run(run_id, now=timezone.now())
    if run is None:
        return False
    try:
        secret = evaluation_runs.open_key(run, now=timezone.now())
    except ConfigurationError as refusal:
        evaluation_runs.finish_run(run, EvaluationState.FAILED, error=explain_failure(refusal).text)
        return False
    caller = GatewayCaller(base_url or settings.POINTSMAN_GATEWAY_URL, secret)
    try:
        if not caller.wait_until_known():
            evaluation_runs.finish_run(run, EvaluationState.FAILED, error=GATEWAY_SILENT)
            return False
        state = work_on(run, caller, until_s=time.monotonic() + seconds)
    except Exception as failure:  # an edge: a run that fails for ever must not be taken up for ever
        logger.exception("evaluation run %s failed", run_id)
        let_go_of_a_broken_connection()
        told = explain_failure(failure)
        evaluation_runs.finish_run(run, EvaluationState.FAILED, error=told.text, detail=told.detail)
        return False
    finally:
        caller.close()
    if state is None:
        evaluation_runs.release_run(run)
        return True
    evaluation_runs.finish_run(run, state)
    return False


def work_on(run: EvaluationRun, caller: Caller, *, until_s: float) -> EvaluationState | None:
    """Make the run's calls, a few at a time; return how it ended, None when only the time did."""
    deployments = list(run.deployments.select_related("model").order_by("pk"))
    prices = _prices_of(run, deployments)
    jobs = _list_jobs(run, deployments, prices)
    # What a killed process had called and not written down stands in the requests' own records.
    spent, reserved = max(run.cost_nanousd, evaluation_runs.recorded_cost_nanousd(run)), 0
    waiting: dict[Future[Done], Job] = {}
    state: EvaluationState | None = None
    job = next(jobs, None)
    with ThreadPoolExecutor(PARALLEL_CALLS) as pool:
        while True:
            is_open = state is None and time.monotonic() < until_s
            while is_open and job is not None and len(waiting) < PARALLEL_CALLS:
                if spent + reserved + job.most_nanousd > run.budget_nanousd:
                    # What is in flight may turn out cheaper than it could have been.
                    state = None if waiting else EvaluationState.OUT_OF_BUDGET
                    break
                reserved += job.most_nanousd
                waiting[pool.submit(_do, job, caller, prices)] = job
                job = next(jobs, None)
            if not waiting:
                break
            for future in wait(waiting, timeout=RENEWAL_S, return_when=FIRST_COMPLETED).done:
                finished = waiting.pop(future)
                reserved -= finished.most_nanousd
                spent += _keep(run, finished, future.result())
            if not evaluation_runs.renew_lease(run, now=timezone.now()):
                state = EvaluationState.CANCELLED
    if state is None and job is None:
        return EvaluationState.DONE
    return state


def _keep(run: EvaluationRun, job: Job, done: Done) -> int:
    """Record what came of a job; return what it took from the budget: its cost, or the most that it can be."""
    spent = job.most_nanousd if done.cost_nanousd is None else done.cost_nanousd
    said = done.said
    evaluation_runs.record_answer(
        EvaluationAnswer(
            run=run,
            case=job.case,
            deployment=job.deployment,
            quality=done.checked.quality,
            detail=done.checked.detail[:200],
            answer=said.text,
            request_id=said.request_id,
            cost_nanousd=done.cost_nanousd,
            duration_ms=said.duration_ms,
            output_tokens=said.output_tokens,
            at=timezone.now(),
        ),
        case=job.case,
        spent_nanousd=spent,
    )
    return spent


def _do(job: Job, caller: Caller, prices: Prices) -> Done:
    """Call, check, and ask the judge where the case says so. Runs in a thread: no database here."""
    said = caller.ask(job.deployment.name, job.case.messages, prices.max_output_tokens)
    # An empty answer is an answer, and a bad one; a failed call says nothing about the model.
    if said.problem == "empty_answer":
        return Done(said, Checked(0.0, "empty answer"), said.cost_nanousd)
    if said.problem:
        return Done(said, Checked(None, said.problem), said.cost_nanousd)
    case = job.case
    if case.checker == "exact":
        return Done(said, check_exact(said.text, case.expected), said.cost_nanousd)
    if case.checker == "contains":
        return Done(said, check_contains(said.text, case.expected), said.cost_nanousd)
    if case.checker == "schema":
        return Done(said, check_schema(said.text, case.expected), said.cost_nanousd)
    if prices.judge is None:
        return Done(said, Checked(None, "no judge was chosen"), said.cost_nanousd)
    answer = said.text.encode("utf-8", "replace")[: prices.judged_bytes()].decode("utf-8", "ignore")
    judged = caller.ask(
        prices.judge.name, judge_messages(case.messages, case.expected, answer), prices.judge_tokens()
    )
    checked = Checked(None, f"judge: {judged.problem}") if judged.problem else read_grade(judged.text)
    costs = (said.cost_nanousd, judged.cost_nanousd)
    return Done(said, checked, None if None in costs else sum(cost or 0 for cost in costs))


def _prices_of(run: EvaluationRun, deployments: list[Deployment]) -> Prices:
    now = timezone.now()
    versions: dict[int, PriceVersion] = {}
    for deployment in [*deployments, *([run.judge] if run.judge is not None else [])]:
        row = find_price_in_force(deployment=deployment, at=now)
        if row is not None:
            versions[deployment.pk] = read_price(row)
    return Prices(versions, run.judge, run.max_output_tokens)


def _list_jobs(run: EvaluationRun, deployments: list[Deployment], prices: Prices) -> Iterator[Job]:
    """What is not answered yet, case by case: a run that ends early has asked the same of all deployments."""
    answered = set(run.answers.values_list("case_id", "deployment_id"))
    for case in run.set.cases.order_by("number"):
        if not case.task_type:
            case.task_type = _type_of(case)
        for deployment in deployments:
            if (case.pk, deployment.pk) in answered:
                continue
            most = prices.most_nanousd(case, deployment)
            if most is not None:
                yield Job(case, deployment, most)


def _type_of(case: EvaluationCase) -> str:
    """The type that the router would read out of the same request."""
    last_user = case.messages[-1]["content"]
    size = sum(len(message["content"]) for message in case.messages)
    return find_type(
        last_user,
        has_images=False,
        has_tools=False,
        is_tool_result=False,
        message_count=len(case.messages),
        input_tokens=size // 4,
        extra_types={},
    )
