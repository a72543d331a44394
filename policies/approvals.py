"""Who else has to agree before a draft goes live? Four eyes: one operator asks, another approves.

Writes: publication_request, change_event, and through `publishing` and `canaries` the policy. For policies with
`requires_approval`. A draft that changes after it was asked for makes the request stale.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policies import canaries, publishing
from policies.errors import ConfigurationError
from policies.management_tokens import person_behind
from policies.models import Policy, PolicyVersion, PublicationRequest
from policies.publishing import CanaryRunningError

Status = PublicationRequest.Status


class RequestClosedError(ConfigurationError):
    """The request was decided already, or its draft has changed since."""


class OwnRequestError(ConfigurationError):
    """Nobody approves what they asked for themselves."""


@transaction.atomic
def request_publication(
    *, policy: Policy, actor: str, note: str = "", canary_percent: float | None = None
) -> PublicationRequest:
    """Ask for the draft to be published, or to serve `canary_percent` of the conversations.

    Raises PolicyError when the draft has errors, NothingToPublishError when it is what is live, CanaryRunningError
    beside a canary, ConfigurationError when another request is pending, or the policy wants no approval.
    """
    share = None if canary_percent is None else canaries.check_percent(canary_percent)
    row, draft = publishing.lock_policy(policy)
    if not row.requires_approval:
        raise ConfigurationError(f"{row} is published without approval: publish it")
    sound = publishing.check_publishable(draft.document, row)
    publishing.refuse_what_is_live(row, sound, "the draft is what is live: there is nothing to publish")
    if row.canary_version is not None:
        raise CanaryRunningError(
            f"version {row.canary_version.number} of {row} is a canary: promote it or stop it first"
        )
    if share is not None and row.live_version is None:
        raise ConfigurationError(f"{row} has no live version to compare a canary with")
    pending = PublicationRequest.objects.filter(policy=row, status=Status.PENDING).first()
    if pending is not None:
        raise ConfigurationError(f"{pending.requested_by} asked for this already")
    request = PublicationRequest.objects.create(
        policy=row, document=draft.document, canary_percent=share, note=note, requested_by=actor
    )
    after = {"request": request.pk, "note": note, "canary_percent": share}
    publishing.record_policy_change(row, actor=actor, action="request_publication", after=after)
    return request


@transaction.atomic
def approve(*, request: PublicationRequest, actor: str, note: str = "") -> PolicyVersion:
    """Publish what was asked for, in the name of who asked. Returns the version.

    Raises OwnRequestError, RequestClosedError, and what publishing raises when the catalog has changed since.
    """
    row, draft = publishing.lock_policy(request.policy)
    asked = _lock_pending(request)
    # A token is no second person beside the one who issued it.
    if person_behind(actor) == person_behind(asked.requested_by):
        raise OwnRequestError("you asked for this yourself: another operator approves it")
    if draft.document != asked.document:
        raise RequestClosedError("the draft has changed since this was asked for: ask again")
    publishing.record_policy_change(
        row,
        actor=actor,
        action="approve_publication",
        after={"request": asked.pk, "requested_by": asked.requested_by, "note": note},
    )
    if asked.canary_percent is None:
        version = publishing.publish(policy=row, actor=asked.requested_by, note=asked.note, approved_by=actor)
    else:
        version = canaries.start_canary(
            policy=row,
            percent=asked.canary_percent,
            actor=asked.requested_by,
            note=asked.note,
            approved_by=actor,
        )
    _close(asked, Status.APPROVED, actor=actor, note=note, version=version)
    return version


@transaction.atomic
def reject(*, request: PublicationRequest, actor: str, note: str = "") -> PublicationRequest:
    """Refuse what was asked for; who asked may do it too, to take the request back. Raises RequestClosedError."""
    row, _ = publishing.lock_policy(request.policy)
    asked = _lock_pending(request)
    _close(asked, Status.REJECTED, actor=actor, note=note)
    publishing.record_policy_change(
        row,
        actor=actor,
        action="reject_publication",
        after={"request": asked.pk, "requested_by": asked.requested_by, "note": note},
    )
    return asked


def list_pending() -> QuerySet[PublicationRequest]:
    """All requests that wait for a decision, with their policies, oldest first."""
    return PublicationRequest.objects.filter(status=Status.PENDING).select_related("policy").order_by("pk")


def find_pending(policy: Policy) -> PublicationRequest | None:
    """The request that waits for a decision."""
    return PublicationRequest.objects.filter(policy=policy, status=Status.PENDING).first()


def _lock_pending(request: PublicationRequest) -> PublicationRequest:
    asked = PublicationRequest.objects.select_for_update().get(pk=request.pk)
    if asked.status == Status.STALE:
        raise RequestClosedError("the draft has changed since this was asked for: ask again")
    if asked.status != Status.PENDING:
        raise RequestClosedError(f"this was {asked.status} by {asked.decided_by} already")
    return asked


def _close(
    asked: PublicationRequest,
    status: PublicationRequest.Status,
    *,
    actor: str,
    note: str,
    version: PolicyVersion | None = None,
) -> None:
    asked.status, asked.decided_at, asked.decided_by = status, timezone.now(), actor
    asked.decision_note, asked.version = note, version
    asked.save(update_fields=["status", "decided_at", "decided_by", "decision_note", "version"])
