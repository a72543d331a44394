"""Does the bench of pages ask for the real pages, as somebody who may see them, and leave nothing behind?"""

from __future__ import annotations

import datetime as dt
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from billing.models import Label
from billing.seeding_traffic import Plan, seed_traffic
from gateway.bench.pages import list_addresses, measure_pages
from policies.models import ApiKey, Tenant

pytestmark = pytest.mark.django_db


def test_every_page_is_measured_with_the_records_that_there_are() -> None:
    User.objects.create_superuser("ada", password="x")
    Session.objects.all().delete()
    for _ in seed_traffic(Plan(500, 1, timezone.now() - dt.timedelta(minutes=1)), actor="ada"):
        pass
    out = StringIO()
    call_command("bench_pages", rounds=1, stdout=out)
    head, names, *rows = out.getvalue().splitlines()
    assert head.startswith("500 requests")
    assert names.split() == ["page", "median", "p95", "wanted", "CPU"]
    assert [row.split()[0] for row in rows] == list_addresses()
    tenant, key = Tenant.objects.order_by("pk")[0], ApiKey.objects.order_by("pk")[0]
    label = Label.objects.filter(kind="tag").order_by("pk")[0]
    assert {f"/requests?tenant={tenant.pk}", f"/requests?key={key.pk}", f"/requests?label={label.pk}"} < {
        row.split()[0] for row in rows
    }
    assert all(float(row.split()[1]) > 0 for row in rows)
    assert not Session.objects.exists()


def test_a_page_that_is_refused_is_no_fast_page() -> None:
    with pytest.raises(AssertionError, match="answered 302"):
        list(measure_pages(Client(), rounds=1))


def test_without_an_operator_the_command_says_what_to_do() -> None:
    with pytest.raises(CommandError, match="nobody can sign in yet"):
        call_command("bench_pages")
