"""Does a run of an evaluation set ask what it should, stay within its budget, and survive what interrupts it?"""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.utils import timezone

from billing import evaluation_runs
from billing.evaluation_calls import Said, most_nanousd, read_answer
from billing.evaluation_lines import Case
from billing.evaluation_results import summarise
from billing.evaluation_running import run_slice, work_on
from billing.evaluation_sets import create_set, delete_set
from billing.models import EvaluationRun, EvaluationSet, EvaluationState, Evidence
from policies.errors import ConfigurationError, InUseError, InvalidValueError, NameTakenError
from policies.models import ApiKey, ChangeEvent, Deployment, Tenant
from tests import make

pytestmark = pytest.mark.django_db
USD = 10**9


class Answers:
    """A caller that answers as told and remembers what it was asked."""

    def __init__(self, answer: Callable[[str, str], Said | str], *, cost_nanousd: int | None = 1000) -> None:
        self._answer = answer
        self._cost_nanousd = cost_nanousd
        self._lock = threading.Lock()
        self.asked: list[tuple[str, str]] = []

    def ask(self, deployment: str, messages: list[dict[str, str]], max_output_tokens: int) -> Said:
        text = messages[-1]["content"]
        with self._lock:
            self.asked.append((deployment, text))
        said = self._answer(deployment, text)
        if isinstance(said, Said):
            return said
        return Said(said, "", uuid.uuid4(), self._cost_nanousd, 12.5, 3)


def make_set(*cases: Case, name: str = "capitals") -> EvaluationSet:
    chosen = cases or tuple(Case([{"role": "user", "content": f"q{n}"}], "right", "exact") for n in range(6))
    return create_set(name=name, cases=chosen, actor="ann", workload="0123456789abcdef")


def start(evaluation_set: EvaluationSet, *deployments: Deployment, **fields: Any) -> EvaluationRun:
    values = {"judge": None, "budget_nanousd": USD, "max_output_tokens": 100, "actor": "ann", **fields}
    run = evaluation_runs.start_run(evaluation_set=evaluation_set, deployments=deployments, **values)
    claimed = evaluation_runs.claim_run(run.pk, now=timezone.now())
    assert claimed is not None
    return claimed


def work(run: EvaluationRun, caller: Answers, *, seconds: float = 60) -> EvaluationState | None:
    return work_on(run, caller, until_s=time.monotonic() + seconds)


def test_every_case_is_asked_of_every_deployment_and_becomes_paired_evidence() -> None:
    good, bad = make.world().deployment, make.world().deployment
    run = start(make_set(), good, bad)
    caller = Answers(lambda deployment, text: "right" if deployment == good.name else "wrong")
    assert work(run, caller) is EvaluationState.DONE
    assert sorted(caller.asked) == sorted((d.name, f"q{n}") for d in (good, bad) for n in range(6))
    run.refresh_from_db()
    assert (run.done_count, run.total_count, run.cost_nanousd) == (12, 12, 12_000)
    evidence = Evidence.objects.filter(source="evaluation")
    assert {(e.model_id, e.quality, e.workload) for e in evidence} == {
        (good.model_id, 1.0, "0123456789abcdef"),
        (bad.model_id, 0.0, "0123456789abcdef"),
    }
    assert len({e.pair_id for e in evidence}) == 6
    first, second = summarise(run)
    assert (first.deployment, first.quality, first.answer_count, first.cost_nanousd) == (good, 1.0, 6, 6000)
    assert (second.quality, second.low) == (0.0, 0.0)
    assert second.high is not None and 0.2 < second.high < 0.5


@pytest.mark.parametrize("knows_cost", [True, False])
def test_the_budget_is_never_overspent_even_when_nobody_knows_what_a_call_cost(knows_cost: bool) -> None:
    world = make.world()
    evaluation_set = make_set(*[Case([{"role": "user", "content": "q"}], "a", "exact")] * 40)
    price = make.price_version(world.price.pk)
    most = most_nanousd([{"role": "user", "content": "q"}], 100, price)
    run = start(evaluation_set, world.deployment, budget_nanousd=10 * most + most // 2)
    caller = Answers(lambda *_: "a", cost_nanousd=most if knows_cost else None)
    assert work(run, caller) is EvaluationState.OUT_OF_BUDGET
    run.refresh_from_db()
    assert run.done_count == len(caller.asked) == 10
    assert run.cost_nanousd == 10 * most <= run.budget_nanousd


def test_calls_of_a_killed_process_count_against_the_budget(tmp_path: Path) -> None:
    world = make.world()
    run = start(make_set(), world.deployment, budget_nanousd=make.COST_NANOUSD + 1)
    evaluation_runs.open_key(run, now=timezone.now())
    assert run.api_key is not None
    project = run.api_key.project
    own = replace(world, tenant=project.tenant, project=project, key=run.api_key)
    make.ingest(tmp_path, make.request_lines(own))
    assert evaluation_runs.recorded_cost_nanousd(run) == make.COST_NANOUSD
    caller = Answers(lambda *_: "right")
    assert work(run, caller) is EvaluationState.OUT_OF_BUDGET
    assert caller.asked == []


def test_what_can_be_charged_at_most_bounds_what_is_charged() -> None:
    price = make.price_version(
        7, input_usd_per_mtok="1", cache_write_usd_per_mtok="2", output_usd_per_mtok="3"
    )
    messages = [{"role": "user", "content": "äöü"}]
    assert most_nanousd(messages, 10, price) == (64 + 32 + 6) * 2000 + 10 * 3000


def test_a_slice_that_ran_out_of_time_is_gone_on_with_and_asks_nothing_twice() -> None:
    run = start(make_set(), make.world().deployment)
    caller = Answers(lambda *_: "right")
    assert work(run, caller, seconds=-1) is None
    assert caller.asked == []
    assert work(run, caller) is EvaluationState.DONE
    assert work(run, caller) is EvaluationState.DONE
    assert len(caller.asked) == 6


def test_a_cancelled_run_makes_no_further_call_and_gives_its_key_back() -> None:
    run = start(
        make_set(*[Case([{"role": "user", "content": "q"}], "a", "exact")] * 30), make.world().deployment
    )
    secret = evaluation_runs.open_key(run, now=timezone.now())
    assert evaluation_runs.open_key(run, now=timezone.now()) == secret
    caller = Answers(lambda *_: "a")
    evaluation_runs.cancel_run(run=run, actor="ann")
    assert work(run, caller) is EvaluationState.CANCELLED
    assert len(caller.asked) <= 4
    evaluation_runs.finish_run(run, EvaluationState.CANCELLED)
    key = ApiKey.objects.get(name=f"evaluation run {run.pk}")
    assert (str(key.project), key.is_pinned, key.revoked_at is not None) == (
        "pointsman/evaluations",
        True,
        True,
    )
    assert key.allowed_models == [run.deployments.get().model.name]
    run.refresh_from_db()
    assert run.key_ciphertext == ""


def test_one_process_at_a_time_works_on_a_run_until_its_lease_is_over() -> None:
    run = start(make_set(), make.world().deployment)
    now = timezone.now()
    assert evaluation_runs.claim_run(run.pk, now=now) is None
    assert evaluation_runs.list_forsaken_runs(now) == []
    later = now + dt.timedelta(minutes=5)
    assert evaluation_runs.list_forsaken_runs(later) == [run.pk]
    assert evaluation_runs.claim_run(run.pk, now=later) is not None


def test_a_failed_call_is_no_judgement_and_an_empty_answer_is_a_bad_one() -> None:
    cases = [Case([{"role": "user", "content": name}], "x", "exact") for name in ("down", "empty")]
    run = start(make_set(*cases), make.world().deployment)
    failures = {"down": Said("", "http_503", None, None), "empty": Said("", "empty_answer", uuid.uuid4(), 5)}
    assert work(run, Answers(lambda _, text: failures[text])) is EvaluationState.DONE
    assert dict(run.answers.values_list("case__number", "quality")) == {1: None, 2: 0.0}
    assert Evidence.objects.filter(source="evaluation").count() == 1
    (result,) = summarise(run)
    assert (result.answer_count, result.failed_count, result.unknown_cost_count) == (1, 1, 1)


def test_a_judge_is_asked_with_the_answer_and_its_cost_counts() -> None:
    answering, judging = make.world().deployment, make.world().deployment
    evaluation_set = make_set(Case([{"role": "user", "content": "Be kind"}], "It is kind.", "judge"))
    with pytest.raises(InvalidValueError, match="a model judges"):
        start(evaluation_set, answering)
    run = start(evaluation_set, answering, judge=judging)
    caller = Answers(lambda name, _: "Thank you!" if name == answering.name else "Kind enough.\nGRADE: 9")
    assert work(run, caller) is EvaluationState.DONE
    assert "Thank you!" in caller.asked[1][1]
    answer = run.answers.get()
    assert (answer.quality, answer.cost_nanousd) == (0.9, 2000)


def test_what_cannot_be_run_is_refused() -> None:
    world = make.world()
    evaluation_set = make_set()
    for fields, text in (
        ({"budget_nanousd": 0}, "budget"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ):
        with pytest.raises(InvalidValueError, match=text):
            start(evaluation_set, world.deployment, **fields)
    unpriced = Deployment.objects.create(
        name="unpriced", model=world.deployment.model, provider=world.deployment.provider, upstream_model="u"
    )
    with pytest.raises(InvalidValueError, match="no price"):
        start(evaluation_set, unpriced)
    with pytest.raises(InvalidValueError, match="choose 1 to 20"):
        start(evaluation_set)
    run = start(evaluation_set, world.deployment)
    with pytest.raises(InUseError, match="being run already"):
        start(evaluation_set, world.deployment)
    with pytest.raises(InUseError, match="cancel the run first"):
        delete_set(evaluation_set=evaluation_set, actor="ann")
    with pytest.raises(NameTakenError):
        make_set()
    evaluation_runs.finish_run(run, EvaluationState.DONE)
    Tenant.objects.create(name="pointsman", is_enabled=False)
    again = start(evaluation_set, world.deployment)
    with pytest.raises(ConfigurationError, match="disabled"):
        evaluation_runs.open_key(again, now=timezone.now())


def test_deleting_a_set_leaves_no_text_behind_and_the_evidence_there() -> None:
    run = start(make_set(), make.world().deployment)
    work(run, Answers(lambda *_: "right"))
    evaluation_runs.finish_run(run, EvaluationState.DONE)
    delete_set(evaluation_set=run.set, actor="ann")
    assert not EvaluationRun.objects.exists()
    assert Evidence.objects.count() == 6
    told = str(list(ChangeEvent.objects.values_list("after", flat=True)))
    assert "q1" not in told and "right" not in told


def test_the_gateways_answers_are_read_with_their_cost() -> None:
    headers = {"x-pointsman-request-id": str(uuid.UUID(int=7)), "x-pointsman-cost-usd": "0.000123456"}
    payload = {"choices": [{"message": {"content": "hi"}}], "usage": {"completion_tokens": 2}}
    assert read_answer(200, headers, payload, 5.0) == Said("hi", "", uuid.UUID(int=7), 123_456, 5.0, 2)
    assert read_answer(200, headers, {}, 5.0).problem == "empty_answer"
    refused = read_answer(404, {}, {"error": {"code": "model_not_found"}}, 5.0)
    assert (refused.problem, refused.cost_nanousd) == ("model_not_found", 0)
    assert read_answer(502, {}, {}, 5.0).cost_nanousd is None


class EndpointHandler(BaseHTTPRequestHandler):
    """The parts of the gateway's endpoint that a run calls; the key becomes known at the second look."""

    looks: ClassVar[list[str]] = []
    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self.looks.append(self.headers["Authorization"])
        self._answer(200 if len(self.looks) > 1 else 401, {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body | {"path": self.path, "title": self.headers["X-Title"]})
        if body["messages"][-1]["content"] == "q3":
            self._answer(503, {"error": {"code": "no_candidate"}})
            return
        usage = {"completion_tokens": 4}
        self._answer(200, {"choices": [{"message": {"content": "right"}}], "usage": usage})

    def _answer(self, status: int, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-pointsman-request-id", str(uuid.uuid4()))
        if status == 200:
            self.send_header("x-pointsman-cost-usd", "0.000000250")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_slice_calls_the_gateways_endpoint_with_a_key_of_its_own_and_ends_the_run() -> None:
    deployment = make.world().deployment
    run = start(make_set(), deployment)
    evaluation_runs.release_run(run)
    server = ThreadingHTTPServer(("127.0.0.1", 0), EndpointHandler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert run_slice(run.pk, seconds=0, base_url=url) is True
        assert run_slice(run.pk, base_url=url) is False
    finally:
        server.shutdown()
        server.server_close()
    run.refresh_from_db()
    assert (run.state, run.done_count, run.answers.filter(quality=1.0).count()) == ("done", 6, 5)
    failed = run.answers.get(quality=None)
    assert (failed.detail, failed.cost_nanousd) == ("no_candidate", None)
    assert run.cost_nanousd > 5 * 250, "the call of unknown cost took its most from the budget"
    assert {body["model"] for body in EndpointHandler.bodies} == {deployment.name}
    assert {(body["path"], body["max_tokens"], body["title"]) for body in EndpointHandler.bodies} == {
        ("/v1/chat/completions", 100, "Evaluation sets")
    }
    assert len(set(EndpointHandler.looks)) == 1, "both slices used the same key"
    assert ApiKey.objects.get(name=f"evaluation run {run.pk}").revoked_at is not None


def test_a_run_without_a_gateway_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(make_set(), make.world().deployment)
    evaluation_runs.release_run(run)
    monkeypatch.setattr("billing.evaluation_calls.KEY_WAIT_S", 0.0)
    assert run_slice(run.pk, base_url="http://127.0.0.1:9") is False
    run.refresh_from_db()
    assert run.state == EvaluationState.FAILED
    assert "does not answer" in run.error
