"""Which rate limits does a configuration file state, and does the database agree?

Writes: through `policies.rate_limits`. Reads: rate_limit. They stand as `limits` under the tenant, project, key or
deployment that they are for: exactly those then hold, and `limits: {}` means none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from gateway.configuration_file.format import ConfigurationFile
from gateway.configuration_file.values import Entry, join
from policies.models import ChangeEvent, RateLimit
from policies.rate_limits import LIMIT_FIELDS, Owner, describe, find_rate_limit, set_rate_limit


def apply_limits(
    entry: Entry,
    limited: Owner,
    *,
    owner: str,
    note: Callable[..., None],
    at: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Set the limits that an entry of the file states; one that states none leaves them as they are."""
    if "limits" not in entry.values:
        return
    stated = entry["limits"]
    wanted = stated.only(*LIMIT_FIELDS)
    before = describe(find_rate_limit(limited))
    if before == wanted:
        if wanted:
            note("nothing", "rate_limit", str(limited))
        return
    with at(join(entry.path, "limits")):
        set_rate_limit(owner=limited, actor=owner, **wanted)
    verb = "delete" if not wanted else "change" if before else "create"
    note(verb, "rate_limit", str(limited), ", ".join(f"{name} {value}" for name, value in wanted.items()))


def stated_limits(limited: Owner) -> dict[str, Any]:
    """The limits of an owner as the file states them, empty for none."""
    return describe(find_rate_limit(limited))


def prune_limits(file: ConfigurationFile, *, owner: str, note: Callable[..., None]) -> None:
    """Take back the limits that this file made and states no more."""
    named = set(_named(file))
    created = ChangeEvent.objects.filter(actor=owner, object_type="rate_limit", action="create")
    rows = RateLimit.objects.filter(pk__in=created.values("object_id"))
    for row in rows.select_related("tenant", "project__tenant", "api_key__project__tenant", "deployment"):
        limited = row.owner()
        if (row.kind(), str(limited)) not in named:
            note("delete", "rate_limit", str(limited))
            set_rate_limit(owner=limited, actor=owner)


def _named(file: ConfigurationFile) -> Iterator[tuple[str, str]]:
    for deployment in file.deployments:
        if deployment.get("limits"):
            yield "deployment", deployment["name"]
    for tenant in file.tenants:
        if tenant.get("limits"):
            yield "tenant", tenant["name"]
        for project in tenant.get("projects", ()):
            name = f"{tenant['name']}/{project['name']}"
            if project.get("limits"):
                yield "project", name
            for key in project.get("keys", ()):
                if key.get("limits"):
                    yield "key", f"{name}/{key['name']}"
