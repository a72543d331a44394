"""Who may use the console, as what?

Reads: auth_user with groups. Writes: nothing itself, calls `policies.people`.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies import people
from policies.access_forms import PersonForm, RoleForm
from policies.permissions import ROLE_DESCRIPTIONS, Ability, Role, actor_name, needs
from policies.views.answering import is_confirmed, posted, run_and_return, show_form


@needs(Ability.MANAGE_PEOPLE)
@require_safe
def list_people(request: HttpRequest) -> HttpResponse:
    """Everybody with their role."""
    rows: list[dict[str, Any]] = []
    for person in User.objects.prefetch_related("groups").order_by("username"):
        names = {group.name for group in person.groups.all()}
        role = next((r for r in Role if r in names), None)
        rows.append({"person": person, "role": Role.OPERATOR if person.is_superuser else role})
    descriptions = [(role.value, text) for role, text in ROLE_DESCRIPTIONS.items()]
    return render(
        request, "people/list.html", {"rows": rows, "roles": list(Role), "descriptions": descriptions}
    )


@needs(Ability.MANAGE_PEOPLE)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def add_person(request: HttpRequest) -> HttpResponse:
    """Add a person and show the password, this once."""
    form = PersonForm(posted(request))
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        added = form.run(
            lambda: people.add_person(
                username=data["username"],
                email=data["email"],
                role=Role(data["role"]),
                actor=actor_name(request),
            )
        )
        if added is not None:
            context = {"person": added[0], "password": added[1], "title": "The person is added"}
            return render(request, "people/password.html", context)
    return show_form(
        request, form, title="Add a person", back=("People", reverse("people")), submit="Add person"
    )


@needs(Ability.MANAGE_PEOPLE)
@require_POST
def change_role(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a person another role."""
    person = get_object_or_404(User, pk=pk)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return redirect("people")
    role = Role(form.cleaned_data["role"])
    return run_and_return(
        request,
        lambda: people.change_role(person=person, role=role, actor=actor_name(request)),
        done=f"{person.username} is now {role}.",
        to="people",
    )


@needs(Ability.MANAGE_PEOPLE)
@require_POST
def switch_person(request: HttpRequest, pk: int) -> HttpResponse:
    """Disable a person, or let a disabled one in again."""
    person = get_object_or_404(User, pk=pk)
    if request.POST.get("enabled") == "1":
        return run_and_return(
            request,
            lambda: people.enable_person(person=person, actor=actor_name(request)),
            done=f"{person.username} may sign in again.",
            to="people",
        )
    if not is_confirmed(request, person.username):
        return redirect("people")
    return run_and_return(
        request,
        lambda: people.disable_person(person=person, actor=actor_name(request)),
        done=f"{person.username} is signed out everywhere and may not sign in.",
        to="people",
    )


@needs(Ability.MANAGE_PEOPLE)
@never_cache
@require_POST
def reset_password(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a new password and show it, this once."""
    person = get_object_or_404(User, pk=pk)
    password = people.reset_password(person=person, actor=actor_name(request))
    context = {"person": person, "password": password, "title": "The password is replaced"}
    return render(request, "people/password.html", context)
