"""How is a policy created and its draft edited? The editor's page and what its script asks for.

Reads: policy, policy_draft, deployment, model. Writes: nothing itself, calls `policies.publishing` and
`policies.tenancy_changes`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies import publishing, tenancy_changes
from policies.condition_rows import FIELDS, OPERATORS
from policies.differences import Difference, list_differences
from policies.document_checks import MAX_ATTEMPTS, MAX_TIMEOUT_S, Problem, has_errors
from policies.editor_form import document_of, form_of
from policies.errors import ConfigurationError
from policies.features import FEATURE_NAMES
from policies.merging import Edit, apply_edits, list_edits, list_overlaps
from policies.models import Deployment, Model, Policy, PolicyDraft
from policies.permissions import Ability, actor_name, needs
from policies.policy_forms import NewPolicyForm, PolicyAboutForm
from policies.publishing import PolicyError, StaleDraftError
from policies.views.answering import (
    edits_a_row,
    is_confirmed,
    posted,
    rows_to_edit,
    run_and_return,
    show_form,
    tell_refusal,
)

EDIT_METHODS = ["GET", "HEAD", "POST"]
STRATEGIES = (
    ("priority", "Priority", "The first that can serve; the next when it fails."),
    ("weighted", "Weighted", "Shared by weight among those that can serve."),
    ("least_cost", "Least cost", "The cheapest for this request first."),
    ("least_latency", "Least latency", "The one that answers fastest of late first."),
    ("fixed", "Fixed", "Exactly one deployment, then the fallbacks."),
    ("auto", "Auto", "The automatic router weighs quality, cost and latency for each kind of work."),
)


class BadForm(Exception):
    """What was sent is not what the page sends."""


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def create_policy(request: HttpRequest) -> HttpResponse:
    """Add a policy and go to its editor."""
    form = NewPolicyForm(posted(request))
    if request.method == "POST" and form.is_valid():
        policy = form.run(lambda: _create(form.cleaned_data, actor_name(request)))
        if policy is not None:
            messages.success(request, f"{policy} is added. It takes requests once it is published.")
            return redirect("policy-edit", pk=policy.pk)
    return show_form(
        request,
        form,
        title="New policy",
        back=("Policies", reverse("policies")),
        submit="Add and edit its rules",
        intro="A policy is a model id of your own: its rules say which deployments serve it.",
    )


@needs(Ability.CONFIGURE)
@edits_a_row
def change_about(request: HttpRequest, pk: int) -> HttpResponse:
    """Change what is not part of the draft, at once: description, tenants, four eyes."""
    policy = get_object_or_404(rows_to_edit(request, Policy.objects.all()), pk=pk)
    tenants = list(policy.tenants.values_list("name", flat=True))
    initial = {
        "description": policy.description,
        "tenants": tenants,
        "requires_approval": policy.requires_approval,
    }
    form = PolicyAboutForm(posted(request), stored=initial)
    if request.method == "POST" and form.is_valid():
        row = form.run(lambda: _change(policy, form.cleaned_data, actor_name(request), tenants=tenants))
        if row is not None:
            messages.success(request, f"{row} is saved and live within 2 seconds.")
            return redirect("policy", pk=pk)
    return show_form(
        request,
        form,
        title=f"About {policy}",
        back=(policy.public_id, reverse("policy", args=[pk])),
        intro="This is in force at once. Rules, baseline and stickiness are edited on the draft.",
    )


@needs(Ability.CONFIGURE)
@require_POST
def switch_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a policy; a disabled one takes no requests."""
    policy = get_object_or_404(Policy, pk=pk)
    is_enabled = request.POST.get("enabled") == "1"
    if not is_enabled and not is_confirmed(request, policy.public_id):
        return redirect("policy", pk=pk)
    return run_and_return(
        request,
        lambda: publishing.change_policy(policy=policy, actor=actor_name(request), is_enabled=is_enabled),
        done=f"{policy} is {'enabled' if is_enabled else 'disabled'}, in every worker within 2 seconds.",
        to="policy",
        pk=pk,
    )


@needs(Ability.CONFIGURE)
@require_POST
def delete_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a policy that was never published."""
    policy = get_object_or_404(Policy, pk=pk)
    try:
        publishing.delete_policy(policy=policy, actor=actor_name(request))
    except ConfigurationError as refusal:
        tell_refusal(request, refusal)
        return redirect("policy", pk=pk)
    messages.success(request, f"{policy} is deleted.")
    return redirect("policies")


@needs(Ability.CONFIGURE)
@require_safe
def edit_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """The editor over the draft, with the test panel beside it."""
    policy = get_object_or_404(Policy.objects.select_related("live_version"), pk=pk)
    draft = draft_of(policy)
    context = {
        "policy": policy,
        "draft": draft,
        "strategies": STRATEGIES,
        "max_attempts": MAX_ATTEMPTS,
        "max_timeout_s": int(MAX_TIMEOUT_S),
        "editor": {
            "form": form_of(draft.document),
            "revision": draft.revision,
            "deployments": _deployments(),
            "models": list(Model.objects.values_list("name", flat=True)),
            "fields": [field._asdict() | {"operators": field.operators} for field in FIELDS],
            "operators": OPERATORS,
            "features": sorted(FEATURE_NAMES),
            "strategies": {name: {"title": title, "about": about} for name, title, about in STRATEGIES},
            "blank": form_of({"rules": [{}]})["rules"][0],
            **_checked(policy, draft.document, []),
        },
    }
    return render(request, "policies/edit.html", context)


@needs(Ability.CONFIGURE)
@require_POST
def check_draft(request: HttpRequest, pk: int) -> HttpResponse:
    """What is wrong with what stands in the form, what it changes, and its conditions in both forms."""
    policy = get_object_or_404(Policy.objects.select_related("live_version"), pk=pk)
    try:
        document, problems = document_of(_object(_sent(request), "form"))
    except BadForm as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    return JsonResponse(_checked(policy, document, problems))


@needs(Ability.CONFIGURE)
@require_POST
def save_draft(request: HttpRequest, pk: int) -> HttpResponse:
    """Save the draft; 409 with both sides when somebody else saved first, 422 for what cannot be saved."""
    policy = get_object_or_404(Policy.objects.select_related("live_version"), pk=pk)
    try:
        sent = _sent(request)
        document, problems = document_of(_object(sent, "form"))
        base, _ = document_of(_object(sent, "base"))
        revision = int(sent.get("revision", 0))
    except (BadForm, TypeError, ValueError) as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    checked = _checked(policy, document, problems)
    if has_errors(problems):
        return JsonResponse(checked, status=422)
    try:
        draft = _save(policy, document, base=base, revision=revision, actor=actor_name(request))
    except StaleDraftError:
        return JsonResponse(_conflict(policy, base, document), status=409)
    except PolicyError as refusal:
        return JsonResponse(_checked(policy, document, refusal.problems), status=422)
    return JsonResponse({"revision": draft.revision, **checked})


@needs(Ability.CONFIGURE)
@require_POST
def merge_draft(request: HttpRequest, pk: int) -> HttpResponse:
    """Put the chosen edits on top of the draft as it is now; nothing is saved yet."""
    policy = get_object_or_404(Policy.objects.select_related("live_version"), pk=pk)
    try:
        sent = _sent(request)
        mine, _ = document_of(_object(sent, "form"))
        base, _ = document_of(_object(sent, "base"))
        chosen = {str(key) for key in sent.get("chosen") or []}
    except (BadForm, TypeError) as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    draft = draft_of(policy)
    merged = apply_edits(base=base, mine=mine, theirs=draft.document, chosen=chosen)
    answer = {
        "form": form_of(merged),
        "base": form_of(draft.document),
        "revision": draft.revision,
        **_checked(policy, merged, []),
    }
    return JsonResponse(answer)


def describe(differences: Collection[Difference]) -> list[dict[str, Any]]:
    """Differences as the page's script and templates show them."""
    return [
        {"kind": difference.kind, "rule": difference.rule, "sentences": list(difference.sentences)}
        for difference in differences
    ]


def _checked(policy: Policy, document: Mapping[str, Any], found: list[Problem]) -> dict[str, Any]:
    places = {problem.path for problem in found}
    problems = [
        *found,
        *(p for p in publishing.list_problems(document, policy=policy) if p.path not in places),
    ]
    live = policy.live_version.document if policy.live_version else {}
    return {
        "problems": [
            {"path": p.path, "message": p.message, "severity": p.severity, "column": p.column}
            for p in problems
        ],
        "conditions": [{"when": rule["when"], "group": rule["group"]} for rule in form_of(document)["rules"]],
        "changes": describe(list_differences(live, document)),
    }


def _save(
    policy: Policy, document: dict[str, Any], *, base: Mapping[str, Any], revision: int, actor: str
) -> PolicyDraft:
    """Save. A draft that was only written out anew since (publishing does that) is no conflict."""
    try:
        return publishing.save_draft(
            policy=policy, document=document, expected_revision=revision, actor=actor
        )
    except StaleDraftError as stale:
        if list_differences(base, draft_of(policy).document):
            raise
        return publishing.save_draft(
            policy=policy, document=document, expected_revision=stale.revision, actor=actor
        )


def _conflict(policy: Policy, base: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    draft = draft_of(policy)
    overlaps = list_overlaps(base, mine, draft.document)
    return {
        "revision": draft.revision,
        "edited_by": draft.edited_by,
        "edited_at": draft.edited_at.isoformat(),
        "their_changes": describe(list_differences(base, draft.document)),
        "my_edits": [
            {
                "key": edit.key,
                "kind": edit.kind,
                "rule": edit.rule,
                "sentences": _sentences_about(edit, base, mine),
                "replaces_theirs": edit.key in overlaps,
            }
            for edit in list_edits(base, mine)
        ],
    }


def _sentences_about(edit: Edit, base: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    if edit.kind == "setting":
        name = edit.key.partition(":")[2]
        told = list_differences({name: base.get(name)}, {name: mine.get(name)})
    elif edit.kind == "order":
        told = [one for one in list_differences(base, mine) if one.kind == "moved"]
    else:
        told = [one for one in list_differences(base, mine) if one.rule == edit.rule and one.kind != "moved"]
    return [sentence for difference in told for sentence in difference.sentences]


def _sent(request: HttpRequest) -> dict[str, Any]:
    try:
        sent = json.loads(request.body)
    except ValueError:
        raise BadForm("what was sent is not JSON") from None
    if not isinstance(sent, dict):
        raise BadForm("what was sent is not an object")
    return sent


def _object(sent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = sent.get(name)
    if not isinstance(value, dict):
        raise BadForm(f"{name} is missing")
    return value


def draft_of(policy: Policy) -> PolicyDraft:
    """The policy's draft; an empty one, not stored, for a policy that came without."""
    draft = PolicyDraft.objects.filter(policy=policy).first()
    return draft or PolicyDraft(policy=policy, document=publishing.EMPTY_DOCUMENT, revision=1)


def _deployments() -> list[dict[str, Any]]:
    rows = Deployment.objects.select_related("model", "provider")
    return [
        {
            "name": row.name,
            "model": row.model.name,
            "provider": row.provider.name,
            "is_enabled": row.is_enabled and row.model.is_enabled and row.provider.is_enabled,
        }
        for row in rows
    ]


@transaction.atomic
def _create(fields: Mapping[str, Any], actor: str) -> Policy:
    policy = publishing.create_policy(
        public_id=fields["public_id"], description=fields["description"], actor=actor
    )
    return _change(policy, fields, actor, tenants=[])


@transaction.atomic
def _change(policy: Policy, fields: Mapping[str, Any], actor: str, *, tenants: Collection[str]) -> Policy:
    row = publishing.change_policy(
        policy=policy,
        actor=actor,
        description=fields["description"],
        requires_approval=fields["requires_approval"],
    )
    # `tenants`: those that the form showed.
    shown, ticked = set(tenants), set(fields["tenants"])
    tenancy_changes.change_tenants_of(policy=row, added=ticked - shown, removed=shown - ticked, actor=actor)
    return row
