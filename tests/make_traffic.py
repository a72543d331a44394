"""What does recorded traffic of a policy look like? Requests decided and recorded as workers do, without a provider."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from billing.models import Price
from gateway.dataplane.recording import features_as_line
from gateway.dataplane.request_ids import make_request_id
from gateway.snapshots import Loaded, load_everything
from policies import publishing
from policies.asks import Ask
from policies.decision import decide
from policies.explaining import decision_record
from policies.features import Features
from policies.models import ApiKey, Deployment, Model, Policy, Project, Provider, Tenant
from policies.snapshot import DeploymentSnapshot
from tests import make
from tests.make_routing import FakeHealth

_numbers = itertools.count(1)
# Mean answer of each model, in tokens, and the time of its first token.
ANSWERS = {"small": (100, 80.0), "large": (400, 300.0)}
RULES = [
    {"name": "pictures", "when": "has_images", "deployments": ["large@a"]},
    {"name": "long", "when": "input_tokens > 2000 && tags.team == 'x'", "deployments": ["large@a"]},
    {
        "name": "rest",
        "strategy": "weighted",
        "deployments": [{"name": "small@a", "weight": 3}, {"name": "large@a", "weight": 1}],
        "fallbacks": ["small@b"],
    },
]
RATES = {
    "small@a": {"input_usd_per_mtok": "0.10", "output_usd_per_mtok": "0.40"},
    "small@b": {"input_usd_per_mtok": "0.20", "output_usd_per_mtok": "0.80"},
    "large@a": {"input_usd_per_mtok": "2.00", "output_usd_per_mtok": "8.00"},
}


@dataclass
class Site:
    """A policy with two tenants that use it."""

    policy: Policy
    keys: list[ApiKey]
    until: dt.datetime
    conversations: int = 0  # how many run beside each other; 0: none is recorded

    def record(self, data_dir: Any, count: int, *, worker: str = "worker-1", hours: float = 24) -> None:
        """Record `count` requests, evenly over the hours before `until`."""
        make.ingest(data_dir, list(self.lines(count, hours=hours)), worker=worker)

    def lines(self, count: int, *, hours: float = 24) -> Iterator[dict[str, Any]]:
        """Both journal lines of each request, decided over what is published now."""
        loaded, dice = load_everything(), random.Random(7)
        grants = {grant.key_id: grant for grant in loaded.grants.values()}
        price_ids = {deployment_id: listed[-1].id for deployment_id, listed in loaded.prices.items()}
        served_last: dict[str, str] = {}
        for number in range(count):
            key = self.keys[number % len(self.keys)]
            grant = grants[key.pk]
            at = self.until - dt.timedelta(hours=hours * (count - number - 0.5) / count)
            features = Features(
                requested_model=self.policy.public_id,
                tenant=grant.tenant.name,
                project=grant.project_name,
                key=grant.key_name,
                tags={"team": dice.choice("xyz")} if number % 2 else {},
                input_tokens=int(dice.lognormvariate(6, 1.2)),
                message_count=dice.randint(1, 9),
                has_images=dice.random() < 0.1,
            )
            ask = Ask(self.policy.public_id)
            if self.conversations:
                conversation = f"{number % self.conversations:016x}"
                features = features._replace(
                    workload=f"{number % 3:016x}", task_type="question", conversation=conversation
                )
                ask = ask._replace(conversation_deployment=served_last.get(conversation, ""))
            health = FakeHealth({"small@a": "ejected"} if dice.random() < 0.05 else {})
            decision = decide(ask, features, loaded.routing, grant, health, draw=dice.random())
            served = decision.candidates[0] if decision.candidates else None
            if served is not None:
                served_last[features.conversation] = served.name
            request_id = make_request_id(int(at.timestamp() * 1000), noise=dice.getrandbits(74))
            assert decision.policy is not None
            yield {
                "k": "intent", "v": 1, "id": request_id, "tenant": grant.tenant.id, "project": grant.project_id,
                "key": grant.key_id, "endpoint": "chat", "model": ask.requested_model, "stream": False,
                "pinned": False, "policy": decision.policy.id, "version": decision.policy.version_id,
                "rule": decision.rule.name if decision.rule else "", "tags": dict(features.tags),
                "features": features_as_line(features, ask), "decision": decision_record(decision),
            }  # fmt: skip
            yield _outcome(request_id, features, served, loaded, price_ids, dice)


def _outcome(
    request_id: str,
    features: Features,
    served: DeploymentSnapshot | None,
    loaded: Loaded,
    price_ids: Mapping[int, int],
    dice: random.Random,
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "k": "outcome", "v": 1, "id": request_id, "status": "refused", "http": 400, "error": "no_capable_deployment",
        "deployment": None, "served": "", "finish": "", "ms": 1.0, "ttft": None, "price": None, "cost": 0,
        "usage": make.usage_line(input=0, output=0, cache_read=0), "unpriced": False, "attempts": [],
    }  # fmt: skip
    if served is None:
        return line
    mean, first_ms = ANSWERS[served.model.name.partition("-")[0]]
    usage = make.usage_line(
        input=features.input_tokens, output=max(1, int(dice.gauss(mean, mean / 10))), cache_read=0
    )
    assert served.input_nanousd_per_mtok is not None and served.output_nanousd_per_mtok is not None
    cost = (
        usage["input"] * served.input_nanousd_per_mtok + usage["output"] * served.output_nanousd_per_mtok
    ) // 1_000_000
    price = price_ids[served.id]
    duration = first_ms + usage["output"]
    attempt = {
        "n": 1, "deployment": served.id, "outcome": "ok", "http": 200, "error": "", "message": "", "upstream_id": "",
        "at": 0.3, "first": first_ms, "ms": duration, "usage": usage, "price": price, "cost": cost,
    }  # fmt: skip
    return {
        **line, "status": "ok", "http": 200, "error": "", "deployment": served.id, "served": served.model.name,
        "finish": "stop", "ms": duration, "ttft": first_ms, "usage": usage, "price": price, "cost": cost,
        "attempts": [attempt],
    }  # fmt: skip


def site(
    *, rules: list[dict[str, Any]] | None = None, now: dt.datetime, conversations: int = 0, **document: Any
) -> Site:
    """Two models, three priced deployments, a published policy and two tenants that may use it."""
    provider = Provider.objects.create(name="local", base_url="http://127.0.0.1:1/v1")
    for name in ("small", "large"):
        Model.objects.create(
            name=name, context_tokens=100_000, capabilities=["vision"] if name == "large" else ["tools"]
        )
    for name, rates in RATES.items():
        deployment = Deployment.objects.create(
            name=name,
            model=Model.objects.get(name=name.partition("@")[0]),
            provider=provider,
            upstream_model="u",
        )
        Price.objects.create(
            deployment=deployment, rates=rates, effective_from=dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
        )
    policy = publishing.create_policy(public_id="acme/auto", actor="ada")
    publishing.publish(policy=policy, actor="ada", document={"rules": rules or RULES, **document})
    keys = []
    for name in ("acme", "globex"):
        tenant = Tenant.objects.create(name=name)
        tenant.policies.add(policy)
        project = Project.objects.create(tenant=tenant, name="web")
        number = next(_numbers)
        keys.append(
            ApiKey.objects.create(
                project=project,
                name="dev",
                secret_hash=(9000 + number).to_bytes(32, "big"),
                secret_hint="pm-…",
            )
        )
    policy.refresh_from_db()
    return Site(policy, keys, now, conversations)
