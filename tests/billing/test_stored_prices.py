"""Are stored prices read whole where a record names them, and their deployments unpriced where one cannot be read?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.utils import timezone

from billing import pricing, stored_prices
from billing.models import Price
from billing.pricebook import PriceError
from tests import make

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def test_the_newest_price_of_each_deployment_that_has_begun_is_in_force() -> None:
    acme, other = make.world("acme"), make.world("other")
    first = Price.objects.get(deployment=acme.deployment)
    second = pricing.add_price(
        deployment=acme.deployment,
        rates={"input_usd_per_mtok": "7"},
        effective_from=NOW + dt.timedelta(hours=1),
        actor="fiona",
    )
    in_an_hour = second.effective_from
    before = stored_prices.cost_prices_at(in_an_hour - dt.timedelta(seconds=1))
    assert before[acme.deployment.pk].id == first.pk
    assert set(before) == {acme.deployment.pk, other.deployment.pk}
    then = stored_prices.cost_prices_at(in_an_hour, model=acme.deployment.model.name)
    assert then == {acme.deployment.pk: stored_prices.load_price(second.pk)}
    assert then[acme.deployment.pk].rates == {"input_usd_per_mtok": Decimal(7)}
    every = stored_prices.load_cost_prices()[acme.deployment.pk]
    assert [version.id for version in every] == [first.pk, second.pk]
    assert stored_prices.load_prices([second.pk, 0]) == {second.pk: every[1]}


@pytest.mark.parametrize("rates", [{"input_usd_per_mtok": "many"}, ["0.05"], {}])
def test_a_price_that_cannot_be_read_leaves_its_deployment_unpriced_and_is_never_free(rates: object) -> None:
    acme, other = make.world("acme"), make.world("other")
    # As no form or command writes it.
    price = Price.objects.create(deployment=acme.deployment, rates=rates, effective_from=timezone.now())
    assert set(stored_prices.load_cost_prices()) == {other.deployment.pk}
    assert set(stored_prices.cost_prices_at(timezone.now())) == {other.deployment.pk}
    with pytest.raises(PriceError):
        stored_prices.load_price(price.pk)
    with pytest.raises(PriceError):
        stored_prices.load_prices([price.pk])
