"""Do workers share one row of a limit in the database, and who counts for which limit?"""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.dataplane.rate_windows import Amount, Report
from gateway.rate_limit_shares import settle_all
from gateway.snapshots import load_everything
from policies.errors import InvalidValueError
from policies.issuing import rotate_key
from policies.models import RateLimit
from policies.rate_limits import find_rate_limit, set_rate_limit
from tests.make_configuration import make_deployment, make_key

pytestmark = pytest.mark.django_db

ONE = Amount(requests=1)


def test_two_workers_share_a_limit_and_none_gets_more() -> None:
    key, _ = make_key()
    row = set_rate_limit(owner=key, requests_per_minute=10, actor="a test")
    assert row is not None
    served = 0
    for worker in ("v", "w"):
        answer = settle_all({row.pk: Report(worker, needs=(ONE,) * 6)})[row.pk]
        assert answer is not None
        served += len(answer.served)
    assert served == 10
    # A higher limit counts at once; one that is gone is told as such.
    set_rate_limit(owner=key, requests_per_minute=12, actor="a test")
    answer = settle_all({row.pk: Report("x", needs=(ONE,) * 6)})[row.pk]
    assert answer is not None
    assert len(answer.served) == 2
    set_rate_limit(owner=key, actor="a test")
    assert settle_all({row.pk: Report("w", needs=(ONE,))}) == {row.pk: None}


def test_a_grant_names_its_limits_the_narrowest_first() -> None:
    key, _ = make_key()
    deployment = make_deployment(name="d")
    for owner in (key.project.tenant, key.project, key, deployment):
        set_rate_limit(owner=owner, concurrent=5, actor="a test")
    loaded = load_everything()
    (grant,) = loaded.grants.values()
    assert [terms.name.partition(" ")[0] for terms in grant.rate_limits] == ["key", "project", "tenant"]
    found = loaded.routing.deployments["d"].rate_limit
    assert found is not None
    assert found.concurrent == 5


def test_both_secrets_of_a_rotated_key_share_its_limit() -> None:
    key, _ = make_key()
    set_rate_limit(owner=key, requests_per_minute=10, actor="a test")
    new, _ = rotate_key(key=key, overlap=dt.timedelta(hours=1), actor="a test")
    (terms,) = {grant.rate_limits for grant in load_everything().grants.values()}
    assert [one.id for one in terms] == [RateLimit.objects.get().pk]
    assert find_rate_limit(new) == RateLimit.objects.get()
    key.refresh_from_db()
    with pytest.raises(InvalidValueError):
        set_rate_limit(owner=key, requests_per_minute=10, actor="a test")
