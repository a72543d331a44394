"""Does a price with hours of the day charge what holds when the request begins, everywhere it is charged?"""

from __future__ import annotations

import datetime as dt
import pickle
import uuid
from pathlib import Path

import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from billing.charge_lines import charge_lines
from billing.evaluation_calls import most_nanousd
from billing.models import Adjustment, Price
from billing.price_sources import csv_file, genai
from billing.price_sources.listing import Called
from billing.pricebook import PriceError, PriceVersion, Window, parse_rates, price_at, read_rate_key
from billing.rate_changes import list_changes
from billing.rating import rate, total_nanousd
from billing.request_view import find_request
from billing.rerating import Question, rerate
from billing.usage import Usage
from billing.verifying import verify
from gateway.dataplane.request_ids import make_request_id
from gateway.templatetags.console import rate_name
from policies.permissions import Role
from tests import make
from tests.console_people import client_of

DAY = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
OFF_PEAK = {
    "input_usd_per_mtok": "2",
    "output_usd_per_mtok": "4",
    "input_usd_per_mtok~16:30-00:30": "1",
    "output_usd_per_mtok~16:30-00:30": "3",
}
USAGE = Usage("reported", 1_000, 100)


def price(**rates: str) -> PriceVersion:
    return PriceVersion(7, 1, 0.0, parse_rates(rates or OFF_PEAK))


def at(hour: int, minute: int = 0, second: int = 0) -> float:
    return DAY.replace(hour=hour, minute=minute, second=second).timestamp()


@pytest.mark.parametrize(
    ("moment", "nanousd"),
    [
        (at(0, 29, 59), 1_300_000),
        (at(0, 30), 2_400_000),
        (at(12), 2_400_000),
        (at(16, 29, 59), 2_400_000),
        (at(16, 30), 1_300_000),
        (at(23, 59, 59), 1_300_000),
        (at(0), 1_300_000),
    ],
)
def test_a_window_across_midnight_holds_from_its_first_minute_to_the_one_before_its_last(
    moment: float, nanousd: int
) -> None:
    chosen = price_at([price()], moment)
    assert chosen is not None
    assert total_nanousd(USAGE, chosen) == rate(USAGE, chosen).total_nanousd == nanousd


def test_hours_do_not_take_each_others_place_and_an_unresolved_price_is_charged_as_without_windows() -> None:
    version = price()
    night, noon = version.at(at(20)), version.at(at(12))
    assert [total_nanousd(USAGE, one) for one in (night, noon, night, version, noon)] == [
        1_300_000, 2_400_000, 1_300_000, 2_400_000, 2_400_000,
    ]  # fmt: skip
    assert version.at(at(20)) is night
    assert night.id == noon.id == version.id


def test_a_price_without_windows_is_itself_at_every_moment() -> None:
    plain = price(input_usd_per_mtok="2")
    assert plain.at(at(3)) is plain
    assert plain.every_hour() == (plain,)
    assert plain.changes_at(at(3)) == float("inf")


def test_windows_go_together_with_tiers_and_sizes_and_a_hole_falls_back() -> None:
    version = price(
        **{
            "input_usd_per_mtok": "2",
            "input_usd_per_mtok>1000": "3",
            "input_usd_per_mtok@flex": "1",
            "input_usd_per_mtok~01:00-02:00": "5",
            "input_usd_per_mtok~03:00-04:00>1000": "7",
            "input_usd_per_mtok@flex~01:00-02:00": "0.5",
        }
    )

    def charged(hour: int, tokens: int, tier: str = "") -> int:
        return total_nanousd(Usage("reported", tokens, 0, service_tier=tier), version.at(at(hour)))

    assert (charged(0, 1000), charged(0, 2000)) == (2_000_000, 6_000_000)
    # The window states one rate for every size; below the size of the other window the rate without one stands.
    assert (charged(1, 1000), charged(1, 2000)) == (5_000_000, 10_000_000)
    assert (charged(3, 1000), charged(3, 2000)) == (2_000_000, 14_000_000)
    assert (charged(1, 1000, "flex"), charged(0, 1000, "flex"), charged(3, 2000, "flex")) == (
        500_000, 1_000_000, 2_000_000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ({"input_usd_per_mtok~01:00-02:00": "1"}, "input_usd_per_mtok is missing"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok~01:00-01:00": "1"}, "ends where it begins"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok~24:00-01:00": "1"}, "no time of day"),
        ({"input_usd_per_mtok": "1", "input_usd_per_mtok~1:00-2:00": "1"}, "no such rate"),
        (
            {
                "input_usd_per_mtok": "1",
                "input_usd_per_mtok~22:00-02:00": "1",
                "input_usd_per_mtok~01:59-03:00": "2",
            },
            "the windows 22:00-02:00 and 01:59-03:00 overlap",
        ),
        (
            {
                "input_usd_per_mtok": "1",
                "input_usd_per_mtok~01:00-02:00>5": "1",
                "input_usd_per_mtok~01:00-02:00+5": "2",
            },
            "state one kind of them",
        ),
    ],
)
def test_holes_overlaps_and_times_that_are_none_are_refused(rates: dict[str, str], reason: str) -> None:
    with pytest.raises(PriceError, match=reason):
        parse_rates(rates)


def test_windows_that_touch_do_not_overlap() -> None:
    parse_rates({**OFF_PEAK, "input_usd_per_mtok~00:30-16:30": "9"})


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_a_minute_is_in_a_window_or_in_the_rest_of_the_day(start: int, end: int, minute: int) -> None:
    if start != end:
        assert Window(start, end).holds(minute) != Window(end, start).holds(minute)
        assert not Window(start, end).overlaps(Window(end, start))


def test_names_of_rates_survive_being_taken_apart_and_prices_being_kept() -> None:
    text = "input_usd_per_mtok@flex~16:30-00:30>200000"
    assert str(read_rate_key(text)) == text
    assert rate_name(text) == "input / Mtok, flex tier, 16:30-00:30 UTC, above 200,000 tokens in"
    assert [change.name for change in list_changes(None, OFF_PEAK)] == [
        "input_usd_per_mtok", "input_usd_per_mtok~16:30-00:30",
        "output_usd_per_mtok", "output_usd_per_mtok~16:30-00:30",
    ]  # fmt: skip
    version = price()
    kept = pickle.loads(pickle.dumps(version))
    assert total_nanousd(USAGE, kept.at(at(20))) == 1_300_000


def test_workers_build_routing_anew_when_other_hours_begin() -> None:
    assert price().changes_at(at(12)) == at(16, 30)
    assert price().changes_at(at(16, 30)) == at(0, 30) + 86_400
    night = price(**{"input_usd_per_mtok": "2", "input_usd_per_mtok~00:00-06:00": "1"})
    assert (night.changes_at(at(6)), night.changes_at(at(5))) == (at(0) + 86_400, at(6))
    assert total_nanousd(USAGE, night.at(at(0))) == 1_000_000


def test_evaluations_reserve_what_the_dearest_hour_costs() -> None:
    dear = price(**{"input_usd_per_mtok": "1", "input_usd_per_mtok~01:00-02:00": "50"})
    plain = price(input_usd_per_mtok="50")
    said = [{"role": "user", "content": "x" * 1000}]
    assert most_nanousd(said, 10, dear) == most_nanousd(said, 10, plain)


def test_the_list_of_deepseek_is_read_with_its_hours_and_csv_files_state_them_too() -> None:
    called = Called("deepseek", "https://api.deepseek.com/v1", "deepseek-reasoner")
    answer = genai.GenaiPrices({"deepseek": "deepseek/deepseek-reasoner"}).find(called, now=DAY)
    assert answer.finding == "listed"
    assert any("~" in name for name in answer.listings[0].rates)
    text = "deployment,input_usd_per_mtok,input_usd_per_mtok~16:30-00:30\nd,2,1\n"
    read = csv_file.read_file(text.encode(), name="x.csv", deployments={"d"})
    assert "input_usd_per_mtok~16:30-00:30" in read.rows["d"][0].listing.rates


@pytest.mark.django_db
def test_the_form_the_request_page_rerating_and_verification_know_the_hours(tmp_path: Path) -> None:
    world = make.world()
    finance = client_of(Role.FINANCE)
    typed = {
        "input_usd_per_mtok": "2", "output_usd_per_mtok": "4", "effective_from": "2026-11-01T00:00",
        "limited": "input_usd_per_mtok~16:30-00:30 1\noutput_usd_per_mtok~16:30-00:30 3",
    }  # fmt: skip
    assert finance.post(reverse("price-new", args=[world.deployment.pk]), typed).status_code == 302
    row = Price.objects.latest("id")
    assert row.rates == OFF_PEAK
    night = DAY.replace(hour=20)
    request_id = make_request_id(int(night.timestamp() * 1000))
    usage = make.usage_line(input=1_000, output=100, cache_read=0)
    lines = make.request_lines(world, request_id=request_id, usage=usage, price=row.pk, cost=1_300_000)
    unpriced = make.request_lines(
        world, request_id=make_request_id(int(night.timestamp() * 1000) + 1), usage=usage,
        price=None, cost=None, unpriced=True,
    )  # fmt: skip
    make.ingest(tmp_path, [*lines, *unpriced])
    record = find_request(uuid.UUID(request_id), key_id=None)
    assert record is not None
    (charge,) = charge_lines(record["attempts"], at=night)
    assert (charge.is_same, charge.hours) == (True, "16:30-00:30")
    assert "its rates of 16:30-00:30 UTC" in finance.get(reverse("request", args=[request_id])).text
    (charge_at_noon,) = charge_lines(record["attempts"], at=DAY.replace(hour=12))
    assert (charge_at_noon.is_same, charge_at_noon.hours) == (False, "")
    assert charge.total_nanousd == 1_300_000
    rerate(Question(DAY.date(), DAY.date(), False), actor="fin", reason="late", now=DAY)
    assert Adjustment.objects.get(number=2).cost_nanousd == 1_300_000
    assert verify(now=DAY).differences == ()
