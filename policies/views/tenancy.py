"""Who is billed, and for which projects? Pages over tenants and projects.

Reads: tenant, project, api_key counts. Writes: nothing itself, calls `policies.tenancy_changes`.
"""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies import tenancy_changes
from policies.access_forms import ProjectForm, TenantForm
from policies.forms import initial_of
from policies.models import Project, Tenant
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import (
    edits_a_row,
    is_confirmed,
    posted,
    rows_to_edit,
    run_and_return,
    show_form,
)

LIVE_KEYS = Q(projects__api_keys__revoked_at__isnull=True, projects__api_keys__isnull=False)
EDIT_METHODS = ["GET", "HEAD", "POST"]


@needs(Ability.READ)
@require_safe
def list_tenants(request: HttpRequest) -> HttpResponse:
    """All tenants."""
    tenants = Tenant.objects.annotate(
        project_count=Count("projects", distinct=True),
        key_count=Count("projects__api_keys", filter=LIVE_KEYS, distinct=True),
    ).prefetch_related("policies")
    return render(request, "tenants/list.html", {"tenants": tenants})


@needs(Ability.READ)
@require_safe
def show_tenant(request: HttpRequest, pk: int) -> HttpResponse:
    """One tenant with its projects."""
    tenant = get_object_or_404(Tenant.objects.prefetch_related("policies"), pk=pk)
    projects = tenant.projects.annotate(
        key_count=Count("api_keys", filter=Q(api_keys__revoked_at__isnull=True))
    )
    context = {
        "tenant": tenant,
        "projects": list(projects),
        "project_form": ProjectForm(),
        "key_count": sum(project.key_count for project in projects),
    }
    return render(request, "tenants/detail.html", context)


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def create_tenant(request: HttpRequest) -> HttpResponse:
    """Add a tenant with the policies it may use."""
    form = TenantForm(posted(request))
    if request.method == "POST" and form.is_valid():
        tenant = form.run(lambda: _create(form, actor_name(request)))
        if tenant is not None:
            messages.success(request, f"{tenant} is added. Its keys belong to projects: add one.")
            return redirect("tenant", pk=tenant.pk)
    return show_form(
        request, form, title="New tenant", back=("Tenants", reverse("tenants")), submit="Add tenant"
    )


@needs(Ability.CONFIGURE)
@edits_a_row
def edit_tenant(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a tenant."""
    tenant = get_object_or_404(rows_to_edit(request, Tenant.objects.all()), pk=pk)
    form = TenantForm(posted(request), stored=initial_of(tenant, TenantForm))
    if request.method == "POST" and form.is_valid():
        row = form.run(lambda: _change(tenant, form, actor_name(request)))
        if row is not None:
            messages.success(request, f"{row} is saved and live within 2 seconds.")
            return redirect("tenant", pk=pk)
    return show_form(request, form, title=f"Edit {tenant}", back=(tenant.name, reverse("tenant", args=[pk])))


@needs(Ability.CONFIGURE)
@require_POST
def switch_tenant(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a tenant."""
    tenant = get_object_or_404(Tenant, pk=pk)
    is_enabled = request.POST.get("enabled") == "1"
    if not is_enabled and not is_confirmed(request, tenant.name):
        return redirect("tenant", pk=pk)
    return run_and_return(
        request,
        lambda: tenancy_changes.change_tenant(
            tenant=tenant, actor=actor_name(request), is_enabled=is_enabled
        ),
        done=f"{tenant} is {'enabled' if is_enabled else 'disabled'}, in every worker within 2 seconds.",
        to="tenant",
        pk=pk,
    )


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def create_project(request: HttpRequest, pk: int) -> HttpResponse:
    """Add a project to a tenant."""
    tenant = get_object_or_404(Tenant, pk=pk)
    form = ProjectForm(posted(request))
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        row = form.run(
            lambda: tenancy_changes.create_project(tenant=tenant, name=name, actor=actor_name(request))
        )
        if row is not None:
            messages.success(request, f"{row} is added. Issue a key for it next.")
            return redirect("tenant", pk=pk)
    return show_form(
        request,
        form,
        title=f"New project of {tenant}",
        back=(tenant.name, reverse("tenant", args=[pk])),
        submit="Add project",
    )


@needs(Ability.CONFIGURE)
@edits_a_row
def edit_project(request: HttpRequest, pk: int) -> HttpResponse:
    """Rename a project."""
    project = get_object_or_404(rows_to_edit(request, Project.objects.select_related("tenant")), pk=pk)
    form = ProjectForm(posted(request), stored={"name": project.name})
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        row = form.run(
            lambda: tenancy_changes.change_project(project=project, actor=actor_name(request), name=name)
        )
        if row is not None:
            messages.success(request, f"{row} is saved.")
            return redirect("tenant", pk=project.tenant_id)
    back = (project.tenant.name, reverse("tenant", args=[project.tenant_id]))
    return show_form(request, form, title=f"Edit {project}", back=back)


@needs(Ability.CONFIGURE)
@require_POST
def switch_project(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a project."""
    project = get_object_or_404(Project.objects.select_related("tenant"), pk=pk)
    is_enabled = request.POST.get("enabled") == "1"
    if not is_enabled and not is_confirmed(request, project.name):
        return redirect("tenant", pk=project.tenant_id)
    return run_and_return(
        request,
        lambda: tenancy_changes.change_project(
            project=project, actor=actor_name(request), is_enabled=is_enabled
        ),
        done=f"{project} is {'enabled' if is_enabled else 'disabled'}, in every worker within 2 seconds.",
        to="tenant",
        pk=project.tenant_id,
    )


@transaction.atomic
def _create(form: TenantForm, actor: str) -> Tenant:
    fields = dict(form.cleaned_data)
    public_ids = fields.pop("policies")
    tenant = tenancy_changes.create_tenant(actor=actor, **fields)
    return tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=public_ids, actor=actor)


@transaction.atomic
def _change(tenant: Tenant, form: TenantForm, actor: str) -> Tenant:
    fields = dict(form.cleaned_data)
    public_ids = fields.pop("policies")
    row = tenancy_changes.change_tenant(tenant=tenant, actor=actor, **fields)
    return tenancy_changes.set_tenant_policies(tenant=row, public_ids=public_ids, actor=actor)
