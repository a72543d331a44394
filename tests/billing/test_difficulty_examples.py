"""Do evaluation sets teach the router which questions are hard, and nothing where there are too few?"""

from __future__ import annotations

import random

import pytest
from django.utils import timezone

from billing.difficulty_examples import (
    list_examples,
    read_questions,
    teach_difficulty,
    tell_difficulties,
)
from billing.evaluation_lines import Case
from billing.evaluation_runs import start_run
from billing.evaluation_sets import create_set
from billing.models import EvaluationAnswer, EvaluationCase
from policies.autorouter.tables import Rating, RouterTables
from policies.autorouter.words import read_words
from tests import make

pytestmark = pytest.mark.django_db

WORKLOAD = "0123456789abcdef"
WORDS = [f"word{number}" for number in range(50)]


def answer_cases(count: int) -> tuple[str, str]:
    """A set whose questions about theorems the weak model fails; return the names of both models."""
    drawn = random.Random(1)
    texts = [
        " ".join([*drawn.sample(WORDS, 10), "theorem" if number % 2 else "recipe"]) for number in range(count)
    ]
    cases = [Case([{"role": "user", "content": text}], "right", "exact") for text in texts]
    found = create_set(name="both", cases=cases, actor="ann", workload=WORKLOAD)
    weak, strong = make.world().deployment, make.world().deployment
    run = start_run(
        evaluation_set=found,
        deployments=(weak, strong),
        judge=None,
        budget_nanousd=10**9,
        max_output_tokens=10,
        actor="ann",
    )
    EvaluationAnswer.objects.bulk_create(
        EvaluationAnswer(run=run, case=case, deployment=deployment, quality=quality, at=timezone.now())
        for case in found.cases.all()
        for deployment, quality in (
            (weak, 0.0 if "theorem" in case.messages[-1]["content"] else 1.0),
            (strong, 0.9),
        )
    )
    return weak.model.name, strong.model.name


def test_questions_that_several_models_answered_teach_difficulty() -> None:
    weak, strong = answer_cases(240)
    example = list(list_examples().values())[1]
    assert example.workload == WORKLOAD
    assert example.qualities == {weak: 0.0, strong: 0.9}
    tables = RouterTables(ratings={weak: Rating(0.5), strong: Rating(0.9)})
    model = teach_difficulty(tables).model
    assert model is not None
    assert model.difficulty(read_words("word1 theorem")) > 0.5 > model.difficulty(read_words("word1 recipe"))
    assert model.slopes[weak] < 0 < model.slopes[strong]


def test_few_questions_leave_what_was_known() -> None:
    answer_cases(10)
    assert teach_difficulty(RouterTables()).model is None


def test_a_question_is_as_hard_as_it_looked_before_it_was_learnt_from() -> None:
    weak, _ = answer_cases(240)
    taught = teach_difficulty(RouterTables(ratings={weak: Rating(0.5)}))
    run = EvaluationAnswer.objects.values_list("run_id", flat=True)[0]
    cases = {case.number: case for case in EvaluationCase.objects.all()}
    ids = [f"evaluation-{run}-{number}" for number in list(cases)[:2]]
    questions = read_questions([*ids, f"evaluation-{run}-9999", "another request"])
    assert {pair_id: question.text for pair_id, question in questions.items()} == {
        pair_id: case.messages[-1]["content"] for pair_id, case in zip(ids, cases.values(), strict=False)
    }
    found = tell_difficulties(questions, taught.model, taught.unseen)
    assert found == {pair_id: taught.unseen[questions[pair_id].case_id] for pair_id in ids}
    assert taught.model is not None
    assert tell_difficulties(questions, taught.model, {}) == {
        pair_id: round(taught.model.difficulty(read_words(question.text)), 3)
        for pair_id, question in questions.items()
    }
    assert tell_difficulties(questions, None, {}) == {}
