"""Which page over configuration answers which path?"""

from django.urls import path

from policies.views import (
    audit,
    catalog,
    keys,
    management_tokens,
    people,
    policy_editor,
    policy_publishing,
    tenancy,
)

urlpatterns = [
    path("policies/new", policy_editor.create_policy, name="policy-new"),
    path("policies/<int:pk>/about", policy_editor.change_about, name="policy-about"),
    path("policies/<int:pk>/enabled", policy_editor.switch_policy, name="policy-enabled"),
    path("policies/<int:pk>/delete", policy_editor.delete_policy, name="policy-delete"),
    path("policies/<int:pk>/edit", policy_editor.edit_policy, name="policy-edit"),
    path("policies/<int:pk>/check", policy_editor.check_draft, name="policy-check"),
    path("policies/<int:pk>/save", policy_editor.save_draft, name="policy-save"),
    path("policies/<int:pk>/merge", policy_editor.merge_draft, name="policy-merge"),
    path("policies/<int:pk>/publish", policy_publishing.publish_policy, name="policy-publish"),
    path("policies/<int:pk>/roll-back", policy_publishing.roll_back, name="policy-roll-back"),
    path("policies/<int:pk>/canary", policy_publishing.change_canary, name="policy-canary"),
    path("policies/<int:pk>/approval", policy_publishing.decide_on_request, name="policy-approval"),
    path("providers/new", catalog.create_provider, name="provider-new"),
    path("providers/<int:pk>/edit", catalog.edit_provider, name="provider-edit"),
    path("providers/<int:pk>/credential", catalog.replace_credential, name="provider-credential"),
    path("providers/<int:pk>/enabled", catalog.switch_provider, name="provider-enabled"),
    path("providers/<int:pk>/test", catalog.test_provider, name="provider-test"),
    path("models/new", catalog.create_model, name="model-new"),
    path("models/<int:pk>/edit", catalog.edit_model, name="model-edit"),
    path("models/<int:pk>/enabled", catalog.switch_model, name="model-enabled"),
    path("deployments/new", catalog.create_deployment, name="deployment-new"),
    path("deployments/<int:pk>/edit", catalog.edit_deployment, name="deployment-edit"),
    path("deployments/<int:pk>/enabled", catalog.switch_deployment, name="deployment-enabled"),
    *(
        path(f"{kind}s/<int:pk>/delete", catalog.delete_catalog_row, {"kind": kind}, name=f"{kind}-delete")
        for kind in ("provider", "model", "deployment")
    ),
    path("tenants", tenancy.list_tenants, name="tenants"),
    path("tenants/new", tenancy.create_tenant, name="tenant-new"),
    path("tenants/<int:pk>", tenancy.show_tenant, name="tenant"),
    path("tenants/<int:pk>/edit", tenancy.edit_tenant, name="tenant-edit"),
    path("tenants/<int:pk>/enabled", tenancy.switch_tenant, name="tenant-enabled"),
    path("tenants/<int:pk>/projects/new", tenancy.create_project, name="project-new"),
    path("projects/<int:pk>/edit", tenancy.edit_project, name="project-edit"),
    path("projects/<int:pk>/enabled", tenancy.switch_project, name="project-enabled"),
    path("keys/new", keys.issue, name="key-new"),
    path("keys/<int:pk>/rotate", keys.rotate, name="key-rotate"),
    path("keys/<int:pk>/revoke", keys.revoke, name="key-revoke"),
    path("management-tokens", management_tokens.list_tokens, name="management-tokens"),
    path("management-tokens/new", management_tokens.issue, name="management-token-new"),
    path("management-tokens/<int:pk>/revoke", management_tokens.revoke, name="management-token-revoke"),
    path("people", people.list_people, name="people"),
    path("people/new", people.add_person, name="person-new"),
    path("people/<int:pk>/role", people.change_role, name="person-role"),
    path("people/<int:pk>/enabled", people.switch_person, name="person-enabled"),
    path("people/<int:pk>/password", people.reset_password, name="person-password"),
    path("audit", audit.list_changes, name="audit"),
]
