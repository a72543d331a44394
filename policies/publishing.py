"""How does a policy come to be, get edited, go live and go back?

Writes: policy, policy_draft, policy_version, change_event; with `approvals` and `canaries`, which publish through this
module, the only writer of the first three. A version is never changed: rolling back publishes an older document
again, as a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from policies import changes
from policies.cataloguing import problems_of_public_name
from policies.document_checks import Problem, has_errors
from policies.documents import normalise_document
from policies.draft_checks import list_condition_problems, list_places
from policies.draft_checks import list_problems as list_problems  # what others ask before they publish
from policies.errors import ConfigurationError, InUseError, NameTakenError, NotFoundError
from policies.models import (
    ChangeEvent,
    Deployment,
    Model,
    Policy,
    PolicyDraft,
    PolicyVersion,
    PublicationRequest,
    Tenant,
)
from policies.row_changes import held, save_checked, set_fields

POLICY_FIELDS = ("description", "is_enabled", "requires_approval")
EMPTY_DOCUMENT: dict[str, Any] = {"baseline": "", "session_stickiness": False, "rules": []}
MAX_DOCUMENT_DEPTH = 6


class PolicyError(ConfigurationError):
    """A document that cannot be published or stored. `problems` says where and why, warnings included."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        errors = [problem for problem in problems if problem.severity == "error"]
        super().__init__(
            "; ".join(
                f"{problem.path}: {problem.message}" if problem.path else problem.message
                for problem in errors
            )
        )


class StaleDraftError(PolicyError):
    """Somebody else saved the draft since it was read. `revision` is the one in force."""

    def __init__(self, revision: int, edited_by: str) -> None:
        self.revision = revision
        who = f" by {edited_by}" if edited_by else ""
        super().__init__([Problem("", f"the draft was changed{who} in the meantime (revision {revision})")])


class ApprovalNeededError(ConfigurationError):
    """This policy is published only with the approval of somebody else."""


class CanaryRunningError(ConfigurationError):
    """A canary of this policy is running, and has to be promoted or stopped first."""


class NothingToPublishError(ConfigurationError):
    """What should go live is what is live: a version that changes nothing, a new note alone, is not made."""


class NeverLiveError(ConfigurationError):
    """Nobody ever let this version serve all requests: it was tried as a canary."""


@transaction.atomic
def create_policy(*, public_id: str, actor: str, description: str = "") -> Policy:
    """Create a policy with an empty draft; it takes requests once a version is published.

    Raises ConfigurationError; NameTakenError also when a model has this name.
    """
    if problem := _problem_of_public_id(public_id):
        raise PolicyError([Problem("id", problem)])
    if Model.objects.filter(name=public_id).exists():
        raise NameTakenError(f"there is a model named {public_id}: clients could not tell the two apart")
    policy = Policy(public_id=public_id, description=description)
    save_checked(policy)
    PolicyDraft.objects.create(policy=policy, document=EMPTY_DOCUMENT, edited_by=actor)
    record_policy_change(policy, actor=actor, action="create", after={"description": description})
    return policy


@transaction.atomic
def change_policy(*, policy: Policy, actor: str, **fields: Any) -> Policy:
    """Change description, is_enabled (a disabled policy takes no requests) or requires_approval.

    Raises ConfigurationError.
    """
    row = held(Policy.objects.all()).get(pk=policy.pk)
    before, after = set_fields(row, fields, allowed=POLICY_FIELDS)
    if after:
        save_checked(row)
        record_policy_change(row, actor=actor, action="change", before=before, after=after)
    return row


@transaction.atomic
def delete_policy(*, policy: Policy, actor: str) -> None:
    """Delete a policy that was never published and that no tenant uses. Raises InUseError."""
    row = Policy.objects.select_for_update().get(pk=policy.pk)
    if PolicyVersion.objects.filter(policy=row).exists():
        raise InUseError(f"{row} has been published and stays for its history: disable it instead")
    if Tenant.objects.filter(policies=row).exists():
        raise InUseError(f"{row} is used by tenants: take it from them first")
    policy_id, name = row.pk, row.public_id
    row.delete()
    changes.record_change(
        actor=actor, action="delete", object_type="policy", object_id=policy_id, object_name=name
    )


@transaction.atomic
def save_draft(
    *, policy: Policy, document: Mapping[str, Any], expected_revision: int, actor: str
) -> PolicyDraft:
    """Store a draft, and return it with its new revision. Equal documents change nothing.

    It may be unfinished, but for conditions: one that does not compile cannot be saved. Raises StaleDraftError when
    the draft is no longer at `expected_revision`, PolicyError for such a condition and what cannot be stored.
    """
    _check_storable(document)
    if problems := list_condition_problems(document):
        raise PolicyError(problems)
    draft = _lock_draft(policy)
    if draft.revision != expected_revision:
        raise StaleDraftError(draft.revision, draft.edited_by)
    if draft.document == dict(document):
        return draft
    _write_draft(draft, dict(document), actor)
    record_policy_change(
        policy,
        actor=actor,
        action="save_draft",
        before={"revision": expected_revision},
        after={"revision": draft.revision},
    )
    return draft


@transaction.atomic
def publish(
    *,
    policy: Policy,
    actor: str,
    note: str = "",
    document: Mapping[str, Any] | None = None,
    approved_by: str = "",
) -> PolicyVersion:
    """Publish the draft (or `document`, which then becomes the draft) as a new version and make it live.

    Raises PolicyError when the document has errors, NothingToPublishError when it is what is live,
    ApprovalNeededError when the policy wants another person's approval, CanaryRunningError beside a canary.
    """
    row, draft = lock_policy(policy)
    sound = check_publishable(draft.document if document is None else document, row)
    if row.canary_version_id is None:
        refuse_what_is_live(row, sound, "the draft is what is live: there is nothing to publish")
    refuse_unapproved(row, actor=actor, approved_by=approved_by)
    if row.canary_version is not None:
        raise CanaryRunningError(
            f"version {row.canary_version.number} of {row} serves a share as a canary: promote it or stop it first"
        )
    if draft.document != sound:
        _write_draft(draft, sound, actor)
    version = add_version(row, sound, actor=actor, note=note, approved_by=approved_by)
    make_live(row, version, actor=actor, action="publish")
    return version


@transaction.atomic
def roll_back(*, policy: Policy, number: int, actor: str) -> PolicyVersion:
    """Publish the document of version `number` again, as a new version; the draft follows it, a canary stops.

    Needs no approval: it is the way out of trouble, to what was published before. Raises NotFoundError when there is
    no such version, NeverLiveError when it was a canary alone, PolicyError when its document is no longer sound,
    NothingToPublishError when its rules are live and no canary runs beside them.
    """
    row, draft = lock_policy(policy)
    older = PolicyVersion.objects.filter(policy=row, number=number).first()
    if older is None:
        raise NotFoundError(f"{row} has no version {number}")
    if number in list_never_live(row):
        raise NeverLiveError(
            f"version {number} of {row} was never live: nobody decided that it serves all requests. Promote it while it"
            " is the canary, or publish its rules as a draft"
        )
    sound = check_publishable(older.document, row)
    if row.canary_version_id is None:
        refuse_what_is_live(
            row, sound, f"the rules of version {number} are live: there is nothing to roll back"
        )
    if draft.document != sound:
        _write_draft(draft, sound, actor)
    version = add_version(
        row, sound, actor=actor, note=f"rolled back to version {number}", approved_by=older.approved_by
    )
    make_live(row, version, actor=actor, action="roll_back")
    return version


def list_never_live(policy: Policy) -> set[int]:
    """The numbers of the versions that began as canaries and were not promoted, as the audit log tells."""
    events = ChangeEvent.objects.filter(
        object_type="policy", object_id=policy.pk, action__in=("start_canary", "promote_canary")
    )
    begun: set[int] = set()
    promoted: set[int] = set()
    for action, after in events.values_list("action", "after"):
        if not after:
            continue
        if action == "start_canary":
            begun.add(after["canary_version"])
        else:
            promoted.add(after["version"])
    return begun - promoted


def lock_policy(policy: Policy) -> tuple[Policy, PolicyDraft]:
    """The policy and its draft, for changing. Call inside a transaction."""
    row = Policy.objects.select_for_update().get(pk=policy.pk)
    return row, _lock_draft(row)


def check_publishable(document: Mapping[str, Any], row: Policy) -> dict[str, Any]:
    """The document written out. Raises PolicyError when it has errors. Call inside a transaction.

    What it names can be neither deleted nor renamed before the transaction ends.
    """
    names = {place.name for place in list_places(document)}
    list(held(Deployment.objects.filter(name__in=names).order_by("pk")).values_list("pk"))
    problems = list_problems(document, policy=row)
    if has_errors(problems):
        raise PolicyError(problems)
    return normalise_document(document)


def refuse_unapproved(row: Policy, *, actor: str, approved_by: str) -> None:
    """Raise ApprovalNeededError when the policy wants four eyes and there are only two."""
    if row.requires_approval and approved_by in ("", actor):
        raise ApprovalNeededError(
            f"{row} is published only with the approval of another operator: ask for it instead"
        )


def refuse_what_is_live(row: Policy, sound: Mapping[str, Any], text: str) -> None:
    """Raise NothingToPublishError with `text` when the document is that of the live version."""
    if row.live_version is not None and row.live_version.document == sound:
        raise NothingToPublishError(text)


def add_version(
    row: Policy, document: dict[str, Any], *, actor: str, note: str, approved_by: str
) -> PolicyVersion:
    """Append a version that nothing serves yet. Call with the policy locked."""
    newest = PolicyVersion.objects.filter(policy=row).aggregate(newest=Max("number"))["newest"] or 0
    return PolicyVersion.objects.create(
        policy=row,
        number=newest + 1,
        document=document,
        note=note,
        published_by=actor,
        approved_by=approved_by,
    )


def make_live(row: Policy, version: PolicyVersion, *, actor: str, action: str) -> None:
    """Let a version serve all requests, and end a canary. Call with the policy locked."""
    before = {"version": row.live_version.number if row.live_version is not None else None}
    after: dict[str, Any] = {"version": version.number, "note": version.note}
    if version.approved_by:
        after["approved_by"] = version.approved_by
    if row.canary_version is not None:
        before["canary_version"] = row.canary_version.number
        after["canary_version"] = None
    row.live_version = version
    row.canary_version, row.canary_percent, row.canary_started_at = None, 0.0, None
    row.save(update_fields=["live_version", "canary_version", "canary_percent", "canary_started_at"])
    record_policy_change(row, actor=actor, action=action, before=before, after=after)


def _lock_draft(policy: Policy) -> PolicyDraft:
    draft = PolicyDraft.objects.select_for_update().filter(policy=policy).first()
    return draft or PolicyDraft.objects.create(policy=policy, document=EMPTY_DOCUMENT)


def _write_draft(draft: PolicyDraft, document: dict[str, Any], actor: str) -> None:
    draft.document = document
    draft.revision += 1
    draft.edited_by = actor
    draft.save()
    # What was asked for is no longer what stands in the draft: nobody should approve the one for the other.
    PublicationRequest.objects.filter(
        policy_id=draft.policy_id, status=PublicationRequest.Status.PENDING
    ).update(status=PublicationRequest.Status.STALE, decided_at=timezone.now())


def _problem_of_public_id(public_id: str) -> str | None:
    if len(public_id) > 200:
        return "an id has at most 200 characters"
    return "; ".join(problems_of_public_name(public_id)) or None


def _check_storable(document: object) -> None:
    """Raise PolicyError for what a JSON column cannot hold: NUL, lone surrogates, NaN, other types, great depth."""
    if not isinstance(document, Mapping):
        raise PolicyError([Problem("", "a policy document is an object")])
    if problem := _storing_problem(document, depth=0):
        raise PolicyError([Problem("", problem)])


def _storing_problem(value: object, *, depth: int) -> str | None:
    if depth > MAX_DOCUMENT_DEPTH:
        return "the document is nested too deeply"
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            return "a NUL character or a lone surrogate cannot be stored"
        return None
    if value is None or isinstance(value, (bool, int)):
        return None
    if isinstance(value, float):
        return None if abs(value) < float("inf") else "a number that is not finite cannot be stored"
    parts: list[object]
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
        if not all(isinstance(key, str) for key in value):
            return "names of settings are texts"
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    else:
        return f"a {type(value).__name__} cannot be stored"
    problems = (_storing_problem(part, depth=depth + 1) for part in parts)
    return next((problem for problem in problems if problem), None)


def record_policy_change(
    policy: Policy,
    *,
    actor: str,
    action: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Write one audit entry about a policy."""
    changes.record_row(
        "policy",
        policy,
        actor=actor,
        action=action,
        before=before,
        after=after,
    )
