"""Is a charge the cost under the terms, to the nano-USD, and do the most specific terms win?"""

from __future__ import annotations

import datetime as dt
from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.charging import FACTOR_SCALE, SaleTerms, charge, charge_nanousd
from billing.pricebook import PriceVersion
from billing.rating import A_MILLION, METERS, PIECES, Line, rate
from billing.sale_book import SaleBook, SaleEntry, SaleScope
from billing.usage import Usage
from tests import make
from tests.billing.test_rating import prices, usages

ALL = SaleScope(None, None, None)
ACME = ALL._replace(tenant_id=1)
at_once = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@at_once
@given(usages(), prices)
def test_without_terms_and_at_a_factor_of_one_the_charge_is_the_cost_line_by_line(
    usage: Usage, price: PriceVersion
) -> None:
    cost = rate(usage, price)
    for terms in (None, SaleTerms(), SaleTerms(None, FACTOR_SCALE, dict.fromkeys(METERS, FACTOR_SCALE))):
        assert charge(usage, price, terms) == cost
        assert charge_nanousd(usage, price, terms) == cost.total_nanousd


@at_once
@given(
    usages(),
    prices,
    st.integers(0, 100 * FACTOR_SCALE),
    st.dictionaries(st.sampled_from(METERS), st.integers(0, 100 * FACTOR_SCALE), max_size=4),
)
def test_a_charge_is_the_exact_product_rounded_half_up_once_and_its_lines_sum_to_it(
    usage: Usage, price: PriceVersion, default: int, by_meter: dict[str, int]
) -> None:
    charged = charge(usage, price, SaleTerms(None, default, by_meter))
    exact = sum(
        (
            Fraction(line.usd_per_mtok) * line.quantity * unit_of(line)
            * Fraction(by_meter.get(line.meter, default), FACTOR_SCALE)
            for line in rate(usage, price).lines
        ),
        Fraction(0),
    )  # fmt: skip
    assert charged.total_nanousd == int(exact + Fraction(1, 2))
    assert charge_nanousd(usage, price, SaleTerms(None, default, by_meter)) == charged.total_nanousd
    assert sum(line.nanousd for line in charged.lines) == charged.total_nanousd
    for line in charged.lines:  # the rate that a statement shows makes the amount that it shows
        assert abs(line.nanousd - Fraction(line.usd_per_mtok) * line.quantity * unit_of(line)) < 1


def unit_of(line: Line) -> Fraction:
    """Nano-USD of one unit at a rate of 1 USD."""
    return Fraction(10**9, PIECES.get(line.meter, A_MILLION))


def test_an_own_price_rates_the_usage_itself() -> None:
    usage = Usage("reported", 1000, 500, 200)
    own = make.price_version(9, input_usd_per_mtok="1", output_usd_per_mtok="2")
    assert charge(usage, make.price_version(), SaleTerms(own)) == rate(usage, own)
    assert charge_nanousd(usage, make.price_version(), SaleTerms(own)) == 2_000_000


def entry(scope: SaleScope, factor: float | None, begins: float = 0) -> SaleEntry:
    return SaleEntry(scope, begins, None if factor is None else int(factor * FACTOR_SCALE))


def find(*entries: SaleEntry, at: float = 100, tenant: int = 1, deployment: int = 7) -> SaleTerms | None:
    book = SaleBook(entries, {7: 70, 8: 70, 9: 90})
    return book.find(tenant_id=tenant, deployment_id=deployment, at=dt.datetime.fromtimestamp(at, tz=dt.UTC))


def test_the_most_specific_terms_win_then_the_newest() -> None:
    scopes = [
        ALL,
        ALL._replace(model_id=70),
        ALL._replace(deployment_id=7),
        ACME,
        ACME._replace(model_id=70),
        ACME._replace(deployment_id=7),
    ]
    entries = [entry(scope, 1 + number) for number, scope in enumerate(scopes)]
    for count in range(1, len(entries) + 1):
        terms = find(*reversed(entries[:count]))
        assert terms is not None
        assert terms.factor_millionths == count * FACTOR_SCALE
    assert find(*entries, tenant=2).factor_millionths == 3 * FACTOR_SCALE  # type: ignore[union-attr]
    assert find(*entries, deployment=8).factor_millionths == 5 * FACTOR_SCALE  # type: ignore[union-attr]
    assert find(*entries, deployment=9).factor_millionths == 4 * FACTOR_SCALE  # type: ignore[union-attr]
    assert find(entry(ACME, 2), tenant=2) is None
    timed = [entry(ALL, 2, 10), entry(ALL, 3, 20)]
    assert [terms and terms.factor_millionths for terms in (find(*timed, at=at) for at in (9.9, 10, 20))] == [
        None, 2 * FACTOR_SCALE, 3 * FACTOR_SCALE,
    ]  # fmt: skip


def test_what_ends_leaves_the_choice_to_the_next_scope() -> None:
    terms = find(entry(ALL, 1.5), entry(ACME, 2), entry(ACME, None, 50))
    assert terms is not None
    assert terms.factor_millionths == 1.5 * FACTOR_SCALE
    assert find(entry(ACME, 2), entry(ACME, None, 50)) is None


def test_a_meter_has_its_own_factor_unless_more_specific_terms_are_of_all_meters() -> None:
    cached = ALL._replace(meter="cache_read")
    own = SaleTerms(None, 2 * FACTOR_SCALE, {"cache_read": FACTOR_SCALE // 2})
    assert find(entry(ALL, 2), entry(cached, 0.5)) == own
    assert find(entry(cached, 0.5)) == SaleTerms(None, FACTOR_SCALE, {"cache_read": FACTOR_SCALE // 2})
    assert find(entry(ACME, 3), entry(cached, 0.5)) == SaleTerms(None, 3 * FACTOR_SCALE, {})


def test_an_own_price_stands_until_its_end_or_newer_terms_of_its_scope() -> None:
    scope = ACME._replace(deployment_id=7)
    price = make.price_version(5)
    own = SaleEntry(scope, 10, None, price)
    assert find(own, entry(ACME, 3)) == SaleTerms(price)
    assert find(own, entry(scope, 2, 20)) == SaleTerms(None, 2 * FACTOR_SCALE, {})
    assert find(own, entry(scope, None, 10), entry(ACME, 3)) == SaleTerms(None, 3 * FACTOR_SCALE, {})
