"""How does a database get millions of requests that nobody made, to measure with?

Writes: tenants, projects, keys, a catalog, a policy, labels; request and attempt records with every rollup, by the
statement that ingests journals (`rollups.insert_new`), so that `verify_usage` holds, and the sums that are made of
days that are over; change_event (one).
PostgreSQL makes the rows itself. The same seed and the same end make the same rows: what a row is follows from a hash
of its number. No key of these can be used: nobody has a secret that hashes to theirs.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from django.db import connection, transaction

from billing.label_days import list_due_days, sum_day
from billing.models import Label, LabelName, LabelUse, Price, RequestRecord
from billing.partitions import add_months, ensure_months, month_of
from billing.periods import hold_open_period
from billing.rollups import CREATE_TEMPORARY, EMPTY_TEMPORARY, insert_new
from policies import changes
from policies.errors import InvalidValueError
from policies.models import ApiKey, Deployment, Model, Policy, PolicyVersion, Project, Provider, Tenant

BATCH: Final = 50_000
DAYS_A_MONTH: Final = 30
DAY: Final = dt.timedelta(days=1)
NAME: Final = "seeded"
TEAMS: Final = 12
RULES: Final = ("short", "long", "rest")
# Whole nano-USD a token, so that SQL rates as `rating` does: input, cache read, output.
NANOUSD_A_TOKEN: Final = ((150, 75, 600), (2_500, 1_250, 10_000), (50, 5, 200), (3_000, 300, 15_000))


class Plan(NamedTuple):
    """What to make: requests spread evenly over months of 30 days that end at `ends_at`."""

    request_count: int
    month_count: int
    ends_at: dt.datetime
    tenant_count: int = 50
    key_count: int = 500
    seed: int = 1

    @property
    def begins_at(self) -> dt.datetime:
        return self.ends_at - dt.timedelta(days=DAYS_A_MONTH * self.month_count)


class _World(NamedTuple):
    """The first ids of rows that were made in order."""

    keys: list[int]
    deployments: list[int]
    prices: list[int]
    policy: int
    version: int
    rule_labels: list[int]
    team_labels: list[int]


def has_traffic() -> bool:
    """Whether any request is recorded."""
    return RequestRecord.objects.exists()


def seed_traffic(plan: Plan, *, actor: str) -> Iterator[int]:
    """Make all of it; tells after every batch how many requests there are. Raises InvalidValueError."""
    if not 1 <= plan.tenant_count <= plan.key_count:
        raise InvalidValueError({"keys": ["every tenant needs a key: at least as many keys as tenants"]})
    if plan.request_count < 1 or not 1 <= plan.month_count <= 120:
        raise InvalidValueError({"requests": ["at least one, over 1 to 120 months"]})
    first, months = month_of(plan.begins_at), []
    while first <= month_of(plan.ends_at):
        months.append(first)
        first = add_months(first, 1)
    ensure_months(months)
    with transaction.atomic():
        world = _make_world(plan)
        changes.record_change(
            actor=actor,
            action="create",
            object_type="tenant",
            object_id=0,
            object_name=f"{plan.tenant_count} tenants named {NAME}-…",
            after={"requests": plan.request_count, "keys": plan.key_count, "seed": plan.seed},
        )
    for begin in range(0, plan.request_count, BATCH):
        end = min(begin + BATCH, plan.request_count)
        _insert(plan, world, begin, end)
        yield end
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE billing_requestrecord, billing_attemptrecord, billing_usagebyday")
        cursor.execute("ANALYZE billing_usagebykeyday, billing_usagebylabelday, billing_usagebyhour")
        cursor.execute("ANALYZE billing_usagebylabelsetday, billing_usagebykeylabelsetday")
        cursor.execute("ANALYZE billing_attemptsbyday")
    for day in list_due_days(today=plan.ends_at.date()):
        sum_day(day)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE billing_usagebykeylabelday, billing_usagebykeysetday, billing_labelset")


def _make_world(plan: Plan) -> _World:
    """Made once for a seed: more requests of it are of the same keys."""
    run = f"{NAME}-{plan.seed}"
    if policy := Policy.objects.filter(public_id=f"{run}/auto").first():
        return _find_world(plan, policy, run)
    tenants = Tenant.objects.bulk_create(
        [Tenant(name=f"{run}-{number:04}") for number in range(plan.tenant_count)]
    )
    projects = Project.objects.bulk_create([Project(tenant=tenant, name="web") for tenant in tenants])
    keys = ApiKey.objects.bulk_create(
        [
            ApiKey(
                project=projects[number % len(projects)],
                name=f"key-{number:05}",
                owner=f"team-{number % 97}",
                secret_hash=hashlib.sha256(f"{run} {number}".encode()).digest(),
                secret_hint="pm-…",  # noqa: S106  (shown in its place)
            )
            for number in range(plan.key_count)
        ]
    )
    provider = Provider.objects.create(name=run, base_url="http://127.0.0.1:9/v1")
    deployments, prices = [], []
    for number, (taken, cached, given) in enumerate(NANOUSD_A_TOKEN):
        model = Model.objects.create(name=f"{run}-model-{number}")
        deployment = Deployment.objects.create(
            name=f"{model.name}@{run}", model=model, provider=provider, upstream_model=f"model-{number}"
        )
        rates = {
            "input_usd_per_mtok": str(taken / 1000),
            "cache_read_usd_per_mtok": str(cached / 1000),
            "output_usd_per_mtok": str(given / 1000),
        }
        price = Price.objects.create(deployment=deployment, rates=rates, effective_from=plan.begins_at - DAY)
        deployments.append(deployment.pk)
        prices.append(price.pk)
    policy = Policy.objects.create(public_id=f"{run}/auto")
    version = PolicyVersion.objects.create(policy=policy, number=1, document={"rules": []})
    rules = _make_labels(tenants, "rule", "", list(RULES))
    teams = _make_labels(tenants, "tag", "team", [f"team-{number}" for number in range(TEAMS)])
    return _World([key.pk for key in keys], deployments, prices, policy.pk, version.pk, rules, teams)


def _find_world(plan: Plan, policy: Policy, run: str) -> _World:
    keys = ApiKey.objects.filter(project__tenant__name__startswith=f"{run}-").order_by("pk")
    if len(keys) != plan.key_count:
        raise InvalidValueError({"keys": [f"this seed has {len(keys)} keys here already: ask for as many"]})
    prices = Price.objects.filter(deployment__provider__name=run).order_by("pk")
    rules = {label.value: label.pk for label in Label.objects.filter(kind="rule", value__in=RULES)}
    teams = {label.value: label.pk for label in Label.objects.filter(kind="tag", name="team")}
    return _World(
        keys=[key.pk for key in keys],
        deployments=[price.deployment_id for price in prices],
        prices=[price.pk for price in prices],
        policy=policy.pk,
        version=policy.versions.get().pk,
        rule_labels=[rules[rule] for rule in RULES],
        team_labels=[teams[f"team-{number}"] for number in range(TEAMS)],
    )


def _make_labels(tenants: list[Tenant], kind: str, name: str, values: list[str]) -> list[int]:
    labels = [Label.objects.get_or_create(kind=kind, name=name, value=value)[0] for value in values]
    LabelName.objects.bulk_create(
        [LabelName(tenant=tenant, kind=kind, name=name, value_count=len(values)) for tenant in tenants]
    )
    LabelUse.objects.bulk_create(
        [LabelUse(tenant=tenant, label=label) for tenant in tenants for label in labels]
    )
    return [label.pk for label in labels]


# What a request is, from its number: `h(k)` is a number below a million that depends on it, k and the seed alone.
# Keys are asked unevenly: the first tenth asks a third. One in fifty fails, one in two hundred has no price, one in a
# hundred is counted here; one in five has no tag.
_MAKE = """
CREATE TEMPORARY TABLE IF NOT EXISTS seeded_request (
    id uuid, attempt_id uuid, started_at timestamptz, key_place int, place int, rule text, rule_label int, team text,
    team_label int, input bigint, cached bigint, output bigint, status text, is_unpriced boolean, kind text,
    duration float8
) ON COMMIT DELETE ROWS;
"""
_FILL = """
WITH numbers AS (
    SELECT n, %(begins)s::timestamptz + n * (%(span_ms)s::float8 / %(count)s) * interval '1 millisecond' AS at,
        ARRAY(SELECT abs(hashint8extended(n, %(seed)s * 100 + k)) %% 1000000 FROM generate_series(1, 10) k) AS h,
        md5(%(seed)s || ' ' || n) AS noise
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
), timed AS (
    SELECT *, floor(extract(epoch FROM at) * 1000)::bigint AS ms FROM numbers
), named AS (
    SELECT *, lpad(to_hex(ms), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 13) AS stem FROM timed
)
INSERT INTO seeded_request
SELECT (stem || '00')::uuid, (stem || '01')::uuid, to_timestamp(ms / 1000) + (ms %% 1000) * interval '1 millisecond',
    floor(%(keys)s * power(h[1] / 1e6, 2))::int + 1, h[2] %% %(places)s + 1,
    (%(rules)s::text[])[h[3] %% 3 + 1], (%(rule_labels)s::int[])[h[3] %% 3 + 1],
    CASE WHEN h[4] >= 200000 THEN 'team-' || h[4] %% %(teams)s END,
    CASE WHEN h[4] >= 200000 THEN (%(team_labels)s::int[])[h[4] %% %(teams)s + 1] END,
    CASE WHEN h[5] >= 20000 THEN 50 + h[6] %% 6000 ELSE 0 END,
    CASE WHEN h[5] >= 20000 AND h[7] < 300000 THEN (50 + h[6] %% 6000) / 2 ELSE 0 END,
    CASE WHEN h[5] >= 20000 THEN 1 + h[8] %% 900 ELSE 0 END,
    CASE WHEN h[5] >= 20000 THEN 'ok' ELSE 'error' END,
    h[5] >= 20000 AND h[9] < 5000,
    CASE WHEN h[5] >= 20000 AND h[9] >= 990000 THEN 'estimated' ELSE 'reported' END,
    200 + h[10] %% 9000
FROM named
"""
_RATED = """
SELECT s.*, k.id AS key_id, k.project_id, p.tenant_id,
    (%(deployments)s::bigint[])[place] AS deployment_id,
    CASE WHEN NOT is_unpriced AND status = 'ok' THEN (%(prices)s::bigint[])[place] END AS price_id,
    CASE WHEN is_unpriced THEN NULL ELSE (input - cached) * (%(input_rates)s::bigint[])[place]
        + cached * (%(cached_rates)s::bigint[])[place] + output * (%(output_rates)s::bigint[])[place] END AS cost
FROM seeded_request s
JOIN policies_apikey k ON k.id = (%(key_ids)s::bigint[])[key_place]
JOIN policies_project p ON p.id = k.project_id
"""
_TO_REQUESTS = f"""
INSERT INTO new_request (id, started_at, tenant_id, project_id, api_key_id, endpoint, requested_model, is_stream,
    is_pinned, status, http_status, error_code, policy_id, policy_version_id, rule, deployment_id, served_model,
    finish_reason, attempt_count, duration_ms, first_token_ms, usage_kind, usage_convention, input_tokens,
    output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_detail, service_tier, price_id,
    cost_nanousd, charge_nanousd, is_unpriced, tags, features, decision, label_ids)
SELECT id, started_at, tenant_id, project_id, key_id, 'chat', %(public_id)s, place %% 2 = 0, false, status,
    CASE WHEN status = 'ok' THEN 200 ELSE 502 END, CASE WHEN status = 'ok' THEN '' ELSE 'upstream_error' END,
    %(policy)s, %(version)s, rule, deployment_id, 'model-' || place - 1,
    CASE WHEN status = 'ok' THEN 'stop' ELSE '' END,
    1, duration, CASE WHEN status = 'ok' THEN duration / 4 END, kind, 'openai', input, output, cached, 0, 0, '{{}}', '',
    price_id, cost, NULL, is_unpriced,
    CASE WHEN team IS NULL THEN '{{}}'::jsonb ELSE jsonb_build_object('team', team) END,
    jsonb_build_object('input_tokens', input, 'message_count', 3, 'turn', 2),
    jsonb_build_object('candidates', jsonb_build_array(jsonb_build_object(
        'deployment', 'model-' || place - 1, 'reasons', jsonb_build_array('first by priority')))),
    array_remove(ARRAY[rule_label, team_label], NULL)
FROM ({_RATED}) rated
"""  # noqa: S608  (constants of this file)
_TO_ATTEMPTS = f"""
INSERT INTO new_attempt (id, request_id, started_at, number, deployment_id, outcome, http_status, error_code,
    error_message, upstream_request_id, offset_ms, first_byte_ms, duration_ms, usage, price_id, cost_nanousd)
SELECT attempt_id, id, started_at, 1, deployment_id, CASE WHEN status = 'ok' THEN 'ok' ELSE 'error' END,
    CASE WHEN status = 'ok' THEN 200 ELSE 502 END, CASE WHEN status = 'ok' THEN '' ELSE 'upstream_error' END, '', '',
    0.3, CASE WHEN status = 'ok' THEN duration / 4 END, duration - 0.3,
    CASE WHEN status = 'ok' THEN jsonb_strip_nulls(jsonb_build_object('kind', kind, 'convention', 'openai',
        'input_tokens', input, 'output_tokens', output, 'cache_read_tokens', nullif(cached, 0))) ELSE '{{}}'::jsonb END,
    price_id, CASE WHEN status = 'ok' THEN cost END
FROM ({_RATED}) rated
"""  # noqa: S608  (constants of this file)


def _insert(plan: Plan, world: _World, begin: int, end: int) -> None:
    """Requests number `begin` to `end`, without the last, in one transaction."""
    span_ms = (plan.ends_at - plan.begins_at) / dt.timedelta(milliseconds=1)
    taken, cached, given = (list(rates) for rates in zip(*NANOUSD_A_TOKEN, strict=True))
    values: dict[str, Any] = {
        "begins": plan.begins_at, "span_ms": span_ms, "count": plan.request_count, "seed": plan.seed,
        "first": begin, "last": end - 1, "keys": plan.key_count, "places": len(NANOUSD_A_TOKEN),
        "rules": list(RULES), "rule_labels": world.rule_labels, "teams": TEAMS, "team_labels": world.team_labels,
        "deployments": world.deployments, "prices": world.prices, "key_ids": world.keys,
        "input_rates": taken, "cached_rates": cached, "output_rates": given,
        "policy": world.policy, "version": world.version, "public_id": f"{NAME}-{plan.seed}/auto",
    }  # fmt: skip
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(CREATE_TEMPORARY)
        cursor.execute(EMPTY_TEMPORARY)
        cursor.execute(_MAKE)
        cursor.execute("DELETE FROM seeded_request")
        cursor.execute(_FILL, values)
        cursor.execute("ANALYZE seeded_request")
        cursor.execute(_TO_REQUESTS, values)
        cursor.execute(_TO_ATTEMPTS, values)
        hold_open_period()
        insert_new()
