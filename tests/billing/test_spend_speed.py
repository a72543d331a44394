"""How long do the pages of spend take on the rollups of ten million requests?

5,000 keys of 50 tenants over 90 days: every tenth asks three of 20 deployments a day, the others one on two days of
three. That makes 405,000 rows of the rollup by day for 10 million requests.
`python -m pytest tests/billing/test_spend_speed.py -m nightly -s` prints the times,
and the CPU time of both processes, which says what they are on a machine that does nothing else.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from billing.storing import DAY_SUMS
from policies.models import ApiKey, Deployment, Model, Project, Tenant
from tests import make
from tests.console_people import operator

pytestmark = [pytest.mark.django_db, pytest.mark.nightly]

KEYS, TENANTS, DEPLOYMENTS, DAYS = int(os.environ.get("SPEND_KEYS", "5000")), 50, 20, 90
LIMIT_MS = float(os.environ.get("SPEND_LIMIT_MS", "300"))
ROUNDS = 7


def seed() -> make.World:
    """Rows as the ingester would leave them, by one INSERT."""
    world = make.world()
    tenants = Tenant.objects.bulk_create([Tenant(name=f"tenant-{n:03}") for n in range(TENANTS)])
    projects = Project.objects.bulk_create([Project(tenant=tenant, name="web") for tenant in tenants])
    keys = ApiKey.objects.bulk_create(
        [
            ApiKey(
                project=projects[n % TENANTS],
                name=f"key-{n:05}",
                owner=f"team-{n % 97}",
                secret_hash=n.to_bytes(32, "little"),
                secret_hint=f"pm-{n}",
            )
            for n in range(KEYS)
        ]
    )
    models = Model.objects.bulk_create([Model(name=f"model-{n}") for n in range(DEPLOYMENTS)])
    deployments = Deployment.objects.bulk_create(
        [
            Deployment(name=f"d-{n}", model=models[n], provider=world.deployment.provider, upstream_model="m")
            for n in range(DEPLOYMENTS)
        ]
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO billing_usagebyday (day, tenant_id, project_id, api_key_id, deployment_id, price_id, policy_id,
                request_count, error_count, unpriced_count, estimated_count, unknown_count, input_tokens,
                output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_nanousd,
                charge_nanousd)
            SELECT %(today)s::date - day, p.tenant_id, p.id, k.id,
                %(deployment)s + (k.id * 7 + d * 3) %% %(deployments)s, %(price)s, %(policy)s,
                25, 0, 0, 1, 0, 25000, 9000, 5000, 0, 0, 100000 + (k.id * 7919 + day * 31) %% 900000,
                100000 + (k.id * 7919 + day * 31) %% 900000
            FROM policies_apikey k JOIN policies_project p ON p.id = k.project_id,
                generate_series(0, %(days)s - 1) day, generate_series(0, 2) d
            WHERE k.id >= %(key)s AND (k.id %% 10 = 0 OR (d = 0 AND (k.id + day) %% 3 < 2))
            ORDER BY 1
            """,
            {
                "today": timezone.now().date(), "deployment": deployments[0].pk, "deployments": DEPLOYMENTS,
                "price": world.price.pk, "policy": world.policy.pk, "days": DAYS, "key": keys[0].pk,
            },
        )  # fmt: skip
        names = ", ".join(name for name, _ in DAY_SUMS)
        sums = ", ".join(f"sum({name})" for name, _ in DAY_SUMS)
        cursor.execute(
            f"INSERT INTO billing_usagebykeyday (day, tenant_id, project_id, api_key_id, {names})"
            f" SELECT day, tenant_id, project_id, api_key_id, {sums} FROM billing_usagebyday"
            " GROUP BY 1, 2, 3, 4 ORDER BY 1"
        )
        cursor.execute("ANALYZE")
    return replace(world, tenant=tenants[7], key=keys[7])


def cpu_seconds() -> float:
    """Of this process and its database process: what a page takes, however busy the machine is."""
    with connection.cursor() as cursor:
        cursor.execute("SET max_parallel_workers_per_gather = 0")
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_pages_of_spend_answer_in_less_than_300_ms_on_the_rollups_of_ten_million_requests() -> None:
    world = seed()
    client = operator()
    slow = []
    for address in (
        "/spend?period=30d&by=tenant", "/spend?period=30d&by=key", "/spend?period=30d&by=model",
        "/spend?period=30d&by=day", "/spend?period=7d&by=key", f"/spend?period=30d&by=key&tenant={world.tenant.pk}",
        f"/spend?period=30d&by=model&key={world.key.pk}", "/spend/keys?period=30d", "/spend/keys?period=this-month",
        "/spend/savings?period=30d", "/spend/export.csv?by=key", "/spend/keys/export.xlsx",
    ):  # fmt: skip
        client.get(address)
        times, cpu_s = [], cpu_seconds()
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            assert client.get(address).status_code == 200
            times.append((time.perf_counter() - begun) * 1000)
        cpu_ms = (cpu_seconds() - cpu_s) * 1000 / ROUNDS
        print(
            f"{address:45} median {statistics.median(times):5.0f} ms, worst {max(times):5.0f} ms, CPU {cpu_ms:5.0f} ms"
        )
        if "export" not in address and statistics.median(times) > LIMIT_MS:
            slow.append(address)
    assert not slow
