"""What do tests build things from? Small builders; every argument has a default that works."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from django.db import connection

from billing.ingesting import Ingester
from billing.models import Price
from billing.pricebook import PriceVersion, parse_rates
from gateway.dataplane.request_ids import make_request_id
from policies.models import ApiKey, Deployment, Model, Policy, PolicyVersion, Project, Provider, Tenant

_numbers = itertools.count(1)
RATES = {"input_usd_per_mtok": "0.05", "cache_read_usd_per_mtok": "0.005", "output_usd_per_mtok": "0.20"}


@dataclass
class World:
    """One tenant with a key, one priced deployment, one published policy: enough to record requests."""

    tenant: Tenant
    project: Project
    key: ApiKey
    deployment: Deployment
    price: Price
    policy: Policy
    version: PolicyVersion


def world(name: str = "acme") -> World:
    """Make one row of everything a request record names."""
    number = next(_numbers)
    tenant = Tenant.objects.create(name=f"{name}-{number}")
    project = Project.objects.create(tenant=tenant, name="web")
    key = ApiKey.objects.create(
        project=project, name="dev", secret_hash=number.to_bytes(32, "big"), secret_hint="pm-…"
    )
    provider = Provider.objects.create(name=f"local-{number}", base_url="http://127.0.0.1:1/v1")
    model = Model.objects.create(name=f"smol-{number}")
    deployment = Deployment.objects.create(
        name=f"smol-{number}@local", model=model, provider=provider, upstream_model="smol"
    )
    price = Price.objects.create(
        deployment=deployment, rates=RATES, effective_from=dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    )
    policy = Policy.objects.create(public_id=f"{name}/auto-{number}")
    version = PolicyVersion.objects.create(policy=policy, number=1, document={"rules": []})
    return World(tenant, project, key, deployment, price, policy, version)


def price_version(price_id: int = 1, **rates: str) -> PriceVersion:
    """A price as `rate` takes it: price_version(input_usd_per_mtok="0.05")."""
    parsed: dict[str, Decimal] = parse_rates(rates or RATES)
    return PriceVersion(id=price_id, deployment_id=1, effective_from_unix_s=0.0, rates=parsed)


def request_id_at(at: dt.datetime) -> str:
    """A request id of that millisecond."""
    return make_request_id(int(at.timestamp() * 1000))


def intent_line(world: World, request_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """An intent line of the journal."""
    return {
        "k": "intent",
        "v": 1,
        "id": request_id or make_request_id(),
        "tenant": world.tenant.pk,
        "project": world.project.pk,
        "key": world.key.pk,
        "endpoint": "chat",
        "model": world.policy.public_id,
        "stream": False,
        "pinned": False,
        "policy": world.policy.pk,
        "version": world.version.pk,
        "rule": "rest",
        "tags": {"team": "a"},
        "features": {"input_tokens": 12},
        "decision": {"candidates": [{"deployment": world.deployment.name, "reasons": ["first by priority"]}]},
        **fields,
    }


def usage_line(**fields: Any) -> dict[str, Any]:
    """The usage of an attempt: 1,000 tokens in (200 from the cache), 500 out."""
    return {
        "kind": "reported",
        "input": 1000,
        "output": 500,
        "cache_read": 200,
        "cache_write": 0,
        "reasoning": 0,
        "audio_in": 0,
        "audio_out": 0,
        "convention": "openai",
        "tier": "",
        "reported_cost": None,
        **fields,
    }


# 800 x 50 + 200 x 5 + 500 x 200 nano-USD: `usage_line` at RATES.
COST_NANOUSD = 141_000


def outcome_line(world: World, request_id: str, **fields: Any) -> dict[str, Any]:
    """An outcome line of the journal: one good attempt, priced."""
    usage = fields.pop("usage", usage_line())
    cost = fields.pop("cost", COST_NANOUSD)
    price = fields.pop("price", world.price.pk)
    attempt = {
        "n": 1,
        "deployment": world.deployment.pk,
        "outcome": "ok",
        "http": 200,
        "error": "",
        "message": "",
        "upstream_id": "chatcmpl-1",
        "at": 0.3,
        "first": 4.5,
        "ms": 12.0,
        "usage": usage,
        "price": price,
        "cost": cost,
    }
    return {
        "k": "outcome",
        "v": 1,
        "id": request_id,
        "status": "ok",
        "http": 200,
        "error": "",
        "deployment": world.deployment.pk,
        "served": "smol-2025",
        "finish": "stop",
        "ms": 12.3,
        "ttft": 4.5,
        "usage": usage,
        "price": price,
        "cost": cost,
        "unpriced": False,
        "attempts": [attempt],
        **fields,
    }


def request_lines(world: World, request_id: str | None = None, **outcome: Any) -> list[dict[str, Any]]:
    """Both lines of one answered request."""
    request_id = request_id or make_request_id()
    return [intent_line(world, request_id), outcome_line(world, request_id, **outcome)]


def segment(
    data_dir: Path, lines: list[Any], *, worker: str = "worker-1", number: int = 1, end: bytes = b"\n"
) -> Path:
    """Write a finished segment with its (free) lock: a dead worker's. Bytes among the lines go in as they are."""
    folder = data_dir / "journal" / worker
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").touch()
    path = folder / f"{number:08d}.jsonl"
    raw = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    path.write_bytes(b"\n".join(raw) + (end if raw else b""))
    return path


def ingest(data_dir: Path, lines: list[Any], *, worker: str = "worker-1") -> None:
    """Make records of these lines, through a journal in `data_dir`."""
    segment(data_dir, lines, worker=worker)
    Ingester(data_dir).ingest_available()
    if connection.in_atomic_block:
        # The ingester has constraints checked at once, which is to end with its transaction: here that is the test's.
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
