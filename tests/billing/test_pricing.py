"""Are prices dated facts: added, never changed, written in one form?"""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from billing.models import Price
from billing.pricing import add_price, canonical_rates, find_price_in_force
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ChangeEvent
from tests.make_configuration import ACTOR, make_deployment, make_price

pytestmark = pytest.mark.django_db


def test_a_price_is_in_force_from_its_time_until_the_next_one() -> None:
    deployment, now = make_deployment(), timezone.now()
    later = now + dt.timedelta(days=1)
    first = make_price(deployment=deployment, effective_from=now)
    second = make_price(deployment=deployment, effective_from=later)
    make_price(deployment=deployment, effective_from=now, book="sale")
    assert find_price_in_force(deployment=deployment, at=now - dt.timedelta(seconds=1)) is None
    assert find_price_in_force(deployment=deployment, at=now) == first
    assert find_price_in_force(deployment=deployment, at=later - dt.timedelta(microseconds=1)) == first
    assert find_price_in_force(deployment=deployment, at=later) == second


def test_without_a_time_a_price_is_in_force_at_once() -> None:
    price = make_price()
    assert find_price_in_force(deployment=price.deployment, at=timezone.now()) == price


def test_rates_are_stored_as_plain_decimal_texts() -> None:
    rates = {"output_usd_per_mtok": "2.50", "input_usd_per_mtok": "5E-2", "usd_per_request": 0}
    assert canonical_rates(rates) == {
        "input_usd_per_mtok": "0.05",
        "output_usd_per_mtok": "2.5",
        "usd_per_request": "0",
    }
    assert canonical_rates({"input_usd_per_mtok": "1E+2"}) == {"input_usd_per_mtok": "100"}


@pytest.mark.parametrize("rate", ["NaN", "-1", "Infinity", "free", 0.1, True, None, "1e7", "1_0", "١٢"])
def test_a_wrong_rate_is_refused_by_name_and_nothing_is_written(rate: object) -> None:
    with pytest.raises(InvalidValueError, match="input_usd_per_mtok"):
        add_price(deployment=make_deployment(), rates={"input_usd_per_mtok": rate}, actor=ACTOR)
    assert not Price.objects.exists()


def test_two_prices_of_a_book_never_begin_at_the_same_moment() -> None:
    price = make_price()
    with pytest.raises(NameTakenError):
        make_price(deployment=price.deployment, effective_from=price.effective_from)


def test_an_unknown_book_and_a_time_without_zone_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="book"):
        make_price(book="comic")
    with pytest.raises(InvalidValueError, match="time zone"):
        make_price(effective_from=dt.datetime(2026, 1, 1))  # noqa: DTZ001


def test_adding_a_price_is_logged() -> None:
    price = make_price(source="the list of May")
    event = ChangeEvent.objects.get(object_type="price")
    assert event.object_id == price.pk
    assert event.after is not None
    assert event.after["source"] == "the list of May"


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ({"input_usd_per_mtok>200000": "2"}, "input_usd_per_mtok is missing"),
        ({"output_usd_per_mtok": "1", "cache_read_usd_per_mtok@flex": "2"}, "is missing"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok>9": "2", "input_usd_per_mtok+8": "3"}, "overlap"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok@default": "2"}, "standard tier"),
        ({"usd_per_request": "1", "usd_per_request+5": "2"}, "no part beyond"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok>0": "2"}, "no such rate"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok>-5": "2"}, "no such rate"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok>5": "-2"}, "outside 0 to"),
    ],
)
def test_limited_rates_that_leave_a_hole_or_overlap_are_refused(rates: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        canonical_rates(rates)
    assert canonical_rates({"input_usd_per_mtok": "1", "input_usd_per_mtok@flex>200000": "2.50"}) == {
        "input_usd_per_mtok": "1",
        "input_usd_per_mtok@flex>200000": "2.5",
    }
