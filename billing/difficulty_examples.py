"""What do evaluation sets teach about how hard a request is? Their questions, and how each model answered them.

Reads: evaluation cases and answers. The only texts that are kept on purpose are those of evaluation sets, so only from
them can words be learnt; what is learnt are hashed weights (`policies.autorouter.difficulty`).
"""

from __future__ import annotations

from typing import Final

from billing.models import EvaluationAnswer, EvaluationCase
from policies.autorouter.difficulty import DifficultyModel
from policies.autorouter.difficulty_learning import MIN_EXAMPLES, Example, learn_difficulty
from policies.autorouter.request_types import find_type
from policies.autorouter.tables import RouterTables

# The newest answers: a few hundred questions say what there is to say, and the fit holds them all in memory.
MAX_ANSWERS: Final = 50_000


def find_difficulty(tables: RouterTables) -> DifficultyModel | None:
    """Learn difficulty for `tables` from all evaluation sets; with too few answers, return what `tables` hold."""
    examples = list_examples()
    if len(examples) < MIN_EXAMPLES:
        return tables.difficulty
    lesson = learn_difficulty(examples, tables=tables)
    return None if lesson is None else lesson.model


def list_examples() -> list[Example]:
    """Return the questions that several models answered, with each model's newest judgement."""
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
    examples = []
    for case in EvaluationCase.objects.filter(pk__in=compared).order_by("pk").iterator():
        text = str(case.messages[-1]["content"])
        examples.append(Example(text, case.workload, case.task_type or find_type(text), compared[case.pk]))
    return examples
