"""Two months as finance finds them: the first is closed, in the second one key spent twice as much on one model.

Run inside an installation: `manage.py shell -c "from tests.make_finance_months import write; write()"`.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import replace
from pathlib import Path

from django.contrib.auth.models import User
from django.utils import timezone

from billing.closing import close_period
from billing.partitions import add_months
from policies import publishing
from policies.permissions import Role, set_role
from tests import make, make_traffic

PERSON, PASSWORD = "fiona", "a-password-for-tests"
KEY, LATE_TENANT = "reports", "initech"
REQUESTS_A_MONTH = 60


def write() -> None:
    """Record both months, close the first, and let `PERSON` of finance sign in."""
    this_month = timezone.now().date().replace(day=1)
    ended, before = add_months(this_month, -1), add_months(this_month, -2)
    # A hundredfold of the list's rates: a few requests are worth a statement.
    make_traffic.RATES = {
        name: {rate: f"{float(text) * 100:.2f}" for rate, text in rates.items()}
        for name, rates in make_traffic.RATES.items()
    }
    site = make_traffic.site(now=_begin_of(ended))
    site.keys[0].name = KEY
    site.keys[0].save()
    with tempfile.TemporaryDirectory() as folder:
        site.record(Path(folder), REQUESTS_A_MONTH, hours=600, worker="before")
        close_period(month=before, actor="olga", now=timezone.now(), grace_days=0)
        site = replace(site, until=_begin_of(this_month))
        site.record(Path(folder), REQUESTS_A_MONTH, hours=600, worker="ended")
        large = [{"name": "all", "deployments": ["large@a"]}]
        publishing.publish(policy=site.policy, actor="olga", document={"rules": large})
        grown = replace(site, keys=site.keys[:1])
        grown.record(Path(folder), 2 * REQUESTS_A_MONTH, hours=600, worker="grown")
        _record_unpriced(Path(folder), _begin_of(ended) + dt.timedelta(days=9))
    person = User.objects.create_user(PERSON, password=PASSWORD)
    set_role(person=person, role=Role.FINANCE, actor="olga")


def _record_unpriced(folder: Path, at: dt.datetime) -> None:
    """A tenant with one priced request, and two from before anybody entered the price."""
    world = make.world(LATE_TENANT)
    world.tenant.name = LATE_TENANT
    world.tenant.save()
    unpriced = {"price": None, "cost": None, "unpriced": True, "usage": make.usage_line(input=10**9)}
    lines = make.request_lines(world, make.request_id_at(at))
    for _ in range(2):
        lines += make.request_lines(world, make.request_id_at(at), **unpriced)
    make.ingest(folder, lines, worker="unpriced")


def _begin_of(month: dt.date) -> dt.datetime:
    return dt.datetime(month.year, month.month, 1, tzinfo=dt.UTC)
