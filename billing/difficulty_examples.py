"""What do evaluation sets teach about how hard a request is? Their questions, and how each model answered them.

Reads: evaluation cases and answers. The only texts that are kept on purpose are those of evaluation sets, so only from
them can words be learnt; what is learnt are hashed weights (`policies.autorouter.difficulty`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from billing.models import EvaluationAnswer, EvaluationCase
from policies.autorouter.difficulty import DifficultyModel
from policies.autorouter.difficulty_learning import MIN_EXAMPLES, Example, learn_difficulty
from policies.autorouter.request_types import find_type
from policies.autorouter.tables import RouterTables
from policies.autorouter.words import read_words

# The newest answers: a few hundred questions say what there is to say, and the fit holds them all in memory.
MAX_ANSWERS: Final = 50_000


class Taught(NamedTuple):
    """A model of difficulty, and how hard it would have taken each case to be had it not learnt from that."""

    model: DifficultyModel | None
    unseen: Mapping[int, float]


def teach_difficulty(tables: RouterTables) -> Taught:
    """Learn difficulty for `tables` from all evaluation sets; with too few answers, keep what `tables` hold."""
    examples = list_examples()
    if len(examples) < MIN_EXAMPLES:
        return Taught(tables.difficulty, {})
    lesson = learn_difficulty(list(examples.values()), tables=tables)
    if lesson is None:
        return Taught(None, {})
    return Taught(lesson.model, dict(zip(examples, lesson.unseen, strict=True)))


def list_examples() -> dict[int, Example]:
    """Return the questions that several models answered, by case, with each model's newest judgement."""
    newest = (
        EvaluationAnswer.objects.filter(quality__isnull=False)
        .order_by("-id")
        .values_list("case_id", "deployment__model__name", "quality")[:MAX_ANSWERS]
    )
    qualities: dict[int, dict[str, float]] = {}
    for case_id, model, quality in newest:
        if quality is not None:
            qualities.setdefault(case_id, {}).setdefault(model, quality)
    compared = {case_id: found for case_id, found in qualities.items() if len(found) > 1}
    examples = {}
    for case in EvaluationCase.objects.filter(pk__in=compared).order_by("pk").iterator():
        text = _text_of(case)
        examples[case.pk] = Example(text, case.workload, case.task_type or find_type(text), compared[case.pk])
    return examples


class Question(NamedTuple):
    """A case that evidence came from."""

    case_id: int
    text: str


def read_questions(pair_ids: Iterable[str]) -> dict[str, Question]:
    """Return the question of each pair id that an evaluation gave (`evaluation_runs.record_answer`)."""
    wanted = {pair_id for pair_id in pair_ids if pair_id.startswith("evaluation-")}
    runs = {int(pair_id.split("-")[1]) for pair_id in wanted}
    asked = (
        EvaluationAnswer.objects.filter(run_id__in=runs)
        .order_by()
        .values_list("run_id", "case__number", "case_id")
        .distinct()
    )
    cases = {f"evaluation-{run}-{number}": case_id for run, number, case_id in asked}
    texts = {
        case.pk: _text_of(case) for case in EvaluationCase.objects.filter(pk__in=cases.values()).iterator()
    }
    return {
        pair_id: Question(case_id, texts[case_id]) for pair_id, case_id in cases.items() if pair_id in wanted
    }


def tell_difficulties(
    questions: Mapping[str, Question], model: DifficultyModel | None, unseen: Mapping[int, float]
) -> dict[str, float]:
    """Return how hard a model takes these questions to be, by pair id: as if unseen, where that is known."""
    if model is None:
        return {}
    return {
        pair_id: unseen[question.case_id]
        if question.case_id in unseen
        else round(model.difficulty(read_words(question.text)), 3)
        for pair_id, question in questions.items()
    }


def _text_of(case: EvaluationCase) -> str:
    return str(case.messages[-1]["content"])
