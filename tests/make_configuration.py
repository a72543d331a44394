"""Builders of configuration: rows with sensible values, made by the verb modules. Name what a test is about."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from billing import pricing
from billing.models import Price
from policies import cataloguing, issuing, tenancy_changes
from policies.models import ApiKey, Deployment, Model, Project, Provider, Tenant

ACTOR = "a test"
_numbers = itertools.count(1)


def make_provider(**fields: Any) -> Provider:
    fields = {"name": f"provider-{next(_numbers)}", "base_url": "https://api.example.com/v1", **fields}
    return cataloguing.create_provider(actor=ACTOR, **fields)


def make_model(**fields: Any) -> Model:
    return cataloguing.create_model(actor=ACTOR, **{"name": f"model-{next(_numbers)}", **fields})


def make_deployment(**fields: Any) -> Deployment:
    fields.setdefault("name", f"deployment-{next(_numbers)}")
    fields["model"] = fields.get("model") or make_model()
    fields["provider"] = fields.get("provider") or make_provider()
    return cataloguing.create_deployment(actor=ACTOR, **{"upstream_model": fields["model"].name, **fields})


def make_price(
    *, deployment: Deployment | None = None, rates: Mapping[str, str] | None = None, **fields: Any
) -> Price:
    return pricing.add_price(
        deployment=deployment or make_deployment(),
        rates=rates or {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"},
        actor=ACTOR,
        **fields,
    )


def make_tenant(**fields: Any) -> Tenant:
    return tenancy_changes.create_tenant(actor=ACTOR, **{"name": f"tenant-{next(_numbers)}", **fields})


def make_project(**fields: Any) -> Project:
    fields["tenant"] = fields.get("tenant") or make_tenant()
    return tenancy_changes.create_project(actor=ACTOR, **{"name": f"project-{next(_numbers)}", **fields})


def make_key(**fields: Any) -> tuple[ApiKey, str]:
    fields["project"] = fields.get("project") or make_project()
    return issuing.issue_key(actor=ACTOR, **{"name": f"key-{next(_numbers)}", **fields})
