"""How does a draft go live, and an older version come back? Publishing, rolling back, canaries, approvals.

Reads: policy, policy_draft, policy_version, publication_request. Writes: nothing itself, calls `policies.publishing`,
`policies.canaries` and `policies.approvals`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from policies import approvals, canaries, publishing
from policies.differences import list_differences
from policies.document_checks import has_errors
from policies.errors import ConfigurationError, InvalidValueError
from policies.models import Policy, PublicationRequest
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import run_and_return
from policies.views.policy_editor import draft_of

EDIT_METHODS = ["GET", "HEAD", "POST"]
DEFAULT_CANARY_PERCENT = 10


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def publish_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """What publishing the draft would change, and whether it can; then publish it, or ask for it."""
    policy = get_object_or_404(Policy, pk=pk)
    refusal = _publish(request, policy) if request.method == "POST" else None
    if request.method == "POST" and refusal is None:
        return redirect("policy", pk=pk)
    policy = Policy.objects.select_related("live_version", "canary_version").get(pk=pk)
    draft = draft_of(policy)
    problems = publishing.list_problems(draft.document, policy=policy)
    live: dict[str, Any] = policy.live_version.document if policy.live_version else {}
    newest = policy.versions.aggregate(newest=Max("number"))["newest"] or 0
    context = {
        "policy": policy,
        "draft": draft,
        "differences": list_differences(live, draft.document),
        "errors": [one for one in problems if one.severity == "error"],
        "warnings": [one for one in problems if one.severity == "warning"],
        "is_sound": not has_errors(problems),
        "has_tenants": policy.tenants.exists(),
        "next_number": newest + 1,
        "pending": approvals.find_pending(policy),
        "refusal": refusal or "",
        "note": request.POST.get("note", ""),
        "percent": request.POST.get("percent", DEFAULT_CANARY_PERCENT),
        "is_canary": request.POST.get("share") == "canary",
    }
    return render(request, "policies/publish.html", context, status=422 if refusal else 200)


@needs(Ability.CONFIGURE)
@require_POST
def roll_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Publish an older version's rules again."""
    policy = get_object_or_404(Policy, pk=pk)
    number = request.POST.get("version", "")
    if not number.isdecimal() or len(number) > 9:
        messages.error(request, "Nothing changed: no version was named.")
        return redirect("policy", pk=pk)
    return run_and_return(
        request,
        lambda: publishing.roll_back(policy=policy, number=int(number), actor=actor_name(request)),
        done=f"{policy} is back to the rules of version {number}, in every worker within 2 seconds.",
        to="policy",
        pk=pk,
    )


@needs(Ability.CONFIGURE)
@require_POST
def change_canary(request: HttpRequest, pk: int) -> HttpResponse:
    """Promote the canary, stop it, or give it another share."""
    policy = get_object_or_404(Policy, pk=pk)
    actor = actor_name(request)
    action = request.POST.get("action")
    if action == "promote":
        return run_and_return(
            request,
            lambda: canaries.promote_canary(policy=policy, actor=actor),
            done=f"The canary of {policy} serves all requests, in every worker within 2 seconds.",
            to="policy",
            pk=pk,
        )
    if action == "stop":
        return run_and_return(
            request,
            lambda: canaries.stop_canary(policy=policy, actor=actor),
            done=f"The live version of {policy} serves all requests again, within 2 seconds.",
            to="policy",
            pk=pk,
        )
    return run_and_return(
        request,
        lambda: canaries.set_canary_percent(policy=policy, percent=_percent(request), actor=actor),
        done="The canary's share is changed, in every worker within 2 seconds.",
        to="policy",
        pk=pk,
    )


@needs(Ability.CONFIGURE)
@require_POST
def decide_on_request(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve or reject what another operator asked to publish."""
    policy = get_object_or_404(Policy, pk=pk)
    number = request.POST.get("request", "")
    pending = PublicationRequest.objects.filter(
        policy=policy, pk=int(number) if number.isdecimal() and len(number) < 16 else 0
    ).first()
    if pending is None:
        messages.error(request, "Nothing changed: there is no such request.")
        return redirect("policy", pk=pk)
    decide = approvals.approve if request.POST.get("action") == "approve" else approvals.reject
    note = request.POST.get("note", "").strip()
    return run_and_return(
        request,
        lambda: decide(request=pending, actor=actor_name(request), note=note),
        done=f"{policy} is published as {pending.requested_by} asked."
        if decide is approvals.approve
        else "The request is rejected; the draft stays as it is.",
        to="policy",
        pk=pk,
    )


def _publish(request: HttpRequest, policy: Policy) -> str | None:
    """Publish what was reviewed, or ask for it, and tell the person. Return why not, None when it is done."""
    actor, note = actor_name(request), request.POST.get("note", "").strip()
    problems = publishing.list_problems(draft_of(policy).document, policy=policy)
    if request.POST.get("warnings_read") != "1" and any(one.severity == "warning" for one in problems):
        return "Read the warnings and tick that you did."
    try:
        percent = _percent(request) if request.POST.get("share") == "canary" else None
        with transaction.atomic():
            # In the order in which publishing locks: two who publish at once wait for each other, never both.
            _, draft = publishing.lock_policy(policy)
            if str(draft.revision) != request.POST.get("revision"):
                who = f" by {draft.edited_by}" if draft.edited_by else ""
                return f"The draft was changed{who} since this page was opened. Below is what it would change now."
            done = _publish_draft(policy, actor=actor, note=note, percent=percent)
    except ConfigurationError as refusal:
        text = str(refusal)
        return text[:1].upper() + text[1:]
    messages.success(request, done)
    return None


def _publish_draft(policy: Policy, *, actor: str, note: str, percent: float | None) -> str:
    if policy.requires_approval:
        approvals.request_publication(policy=policy, actor=actor, note=note, canary_percent=percent)
        return "Another operator is asked to approve it; nothing is live before that."
    if percent is not None:
        version = canaries.start_canary(policy=policy, percent=percent, actor=actor, note=note)
        return f"Version {version.number} of {policy} serves {percent:g} % of the conversations within 2 seconds."
    version = publishing.publish(policy=policy, actor=actor, note=note)
    return f"Version {version.number} of {policy} is live, in every worker within 2 seconds."


def _percent(request: HttpRequest) -> float:
    """The share that was typed. Raises InvalidValueError."""
    try:
        return canaries.check_percent(float(request.POST.get("percent", "")))
    except ValueError:
        raise InvalidValueError({"percent": ["a share above 0 and at most 100 percent"]}) from None
