"""How does a new version serve a share of the conversations before it serves all of them?

Writes: policy, policy_version, policy_draft, change_event (through `publishing`). A canary is a version like any other
that is not live: `gateway` gives it `canary_percent` of the conversations. Its numbers beside those of the live version
are read by `billing.policy_traffic`.
"""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from policies import publishing
from policies.errors import ConfigurationError, InvalidValueError
from policies.management_tokens import person_behind
from policies.models import Policy, PolicyVersion
from policies.publishing import CanaryRunningError


class OwnCanaryError(ConfigurationError):
    """Under four eyes, who asked for a canary does not decide alone that more requests take it."""


class NoCanaryError(ConfigurationError):
    """There is no canary to change, promote or stop."""


@transaction.atomic
def start_canary(
    *, policy: Policy, percent: float, actor: str, note: str = "", approved_by: str = ""
) -> PolicyVersion:
    """Publish the draft as a version that serves `percent` of the conversations, and return it.

    Raises PolicyError when the draft has errors, ApprovalNeededError when the policy wants another person's approval,
    CanaryRunningError beside another canary, NothingToPublishError when the draft is what is live, ConfigurationError
    when there is no live version to compare with.
    """
    share = check_percent(percent)
    row, draft = publishing.lock_policy(policy)
    sound = publishing.check_publishable(draft.document, row)
    if row.live_version is None:
        raise ConfigurationError(f"{row} has no live version to compare a canary with: publish it instead")
    publishing.refuse_what_is_live(row, sound, "the draft is what is live: there is nothing to try")
    if row.canary_version is not None:
        raise CanaryRunningError(
            f"version {row.canary_version.number} of {row} is a canary already: promote it or stop it first"
        )
    publishing.refuse_unapproved(row, actor=actor, approved_by=approved_by)
    version = publishing.add_version(row, sound, actor=actor, note=note, approved_by=approved_by)
    row.canary_version, row.canary_percent, row.canary_started_at = version, share, timezone.now()
    row.save(update_fields=["canary_version", "canary_percent", "canary_started_at"])
    after = {"canary_version": version.number, "canary_percent": share, "note": note}
    if approved_by:
        after["approved_by"] = approved_by
    publishing.record_policy_change(row, actor=actor, action="start_canary", after=after)
    return version


@transaction.atomic
def set_canary_percent(*, policy: Policy, percent: float, actor: str) -> Policy:
    """Give the running canary another share. Raises NoCanaryError, InvalidValueError, OwnCanaryError."""
    share = check_percent(percent)
    row, _ = publishing.lock_policy(policy)
    version = _canary_of(row)
    if share > row.canary_percent:
        _refuse_own(row, version, actor)
    if row.canary_percent != share:
        before = {"canary_percent": row.canary_percent}
        row.canary_percent = share
        row.save(update_fields=["canary_percent"])
        publishing.record_policy_change(
            row, actor=actor, action="change_canary", before=before, after={"canary_percent": share}
        )
    return row


@transaction.atomic
def promote_canary(*, policy: Policy, actor: str) -> PolicyVersion:
    """Let the canary serve all requests: it becomes the live version. Raises NoCanaryError, OwnCanaryError."""
    row, _ = publishing.lock_policy(policy)
    version = _canary_of(row)
    _refuse_own(row, version, actor)
    publishing.make_live(row, version, actor=actor, action="promote_canary")
    return version


@transaction.atomic
def stop_canary(*, policy: Policy, actor: str) -> Policy:
    """Give its share back to the live version; the canary stays among the versions. Raises NoCanaryError."""
    row, _ = publishing.lock_policy(policy)
    version = _canary_of(row)
    before = {"canary_version": version.number, "canary_percent": row.canary_percent}
    row.canary_version, row.canary_percent, row.canary_started_at = None, 0.0, None
    row.save(update_fields=["canary_version", "canary_percent", "canary_started_at"])
    publishing.record_policy_change(
        row, actor=actor, action="stop_canary", before=before, after={"canary_version": None}
    )
    return row


def check_percent(percent: float) -> float:
    """The share as a number above 0 and at most 100. Raises InvalidValueError."""
    if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 < percent <= 100:
        raise InvalidValueError({"percent": ["a share above 0 and at most 100 percent"]})
    return float(percent)


def _refuse_own(row: Policy, version: PolicyVersion, actor: str) -> None:
    # A token is no second person beside the one who issued it.
    if row.requires_approval and person_behind(actor) == person_behind(version.published_by):
        raise OwnCanaryError(
            "you asked for this canary yourself: another operator widens or promotes it; you may narrow or stop it"
        )


def _canary_of(row: Policy) -> PolicyVersion:
    if row.canary_version is None:
        raise NoCanaryError(f"{row} has no canary")
    return row.canary_version
