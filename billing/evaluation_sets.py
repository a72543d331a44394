"""How does an evaluation set come to be, and go?

Writes: evaluation_set, evaluation_case, change_event. The only writer of the first two. The audit log gets a set's name
and size, never a text of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import IntegrityError, transaction

from billing.evaluation_lines import Case
from billing.models import EvaluationCase, EvaluationSet
from billing.models.evaluation import ACTIVE_STATES
from policies import changes
from policies.errors import InUseError, InvalidValueError, NameTakenError


@transaction.atomic
def create_set(
    *, name: str, cases: Sequence[Case], actor: str, description: str = "", workload: str = ""
) -> EvaluationSet:
    """Keep a set. Cases begin as `evaluation_lines.read_cases` returns them. Raises ConfigurationError."""
    if not name.strip() or len(name) > 100:
        raise InvalidValueError({"name": ["a name of at most 100 characters is needed"]})
    if not cases:
        raise InvalidValueError({"cases": ["a set has at least one case"]})
    try:
        with transaction.atomic():
            row = EvaluationSet.objects.create(
                name=name.strip(),
                description=description.strip()[:500],
                workload=workload,
                case_count=len(cases),
                made_by=actor[:150],
            )
    except IntegrityError:
        raise NameTakenError(f"there is already a set named {name.strip()}") from None
    EvaluationCase.objects.bulk_create(
        [
            EvaluationCase(
                set=row,
                number=number,
                messages=case.messages,
                expected=case.expected,
                checker=case.checker,
                workload=case.workload or workload,
                task_type=case.task_type,
                tags=list(case.tags),
            )
            for number, case in enumerate(cases, start=1)
        ],
        batch_size=500,
    )
    _record(row, actor=actor, action="create", cases=len(cases))
    return row


@transaction.atomic
def delete_set(*, evaluation_set: EvaluationSet, actor: str) -> None:
    """Delete a set with its cases, runs and answers. What its runs taught (evidence, numbers only) stays.

    Raises InUseError while a run is under way.
    """
    row = EvaluationSet.objects.select_for_update().get(pk=evaluation_set.pk)
    if row.runs.filter(state__in=ACTIVE_STATES).exists():
        raise InUseError(f"{row} is being run: cancel the run first")
    _record(row, actor=actor, action="delete", cases=row.case_count)
    row.delete()


def _record(row: EvaluationSet, *, actor: str, action: str, cases: int) -> None:
    changes.record_row(
        "evaluation_set",
        row,
        actor=actor,
        action=action,
        after={"cases": cases},
    )
