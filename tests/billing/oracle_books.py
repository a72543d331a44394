"""What does everything that happened come to? Sums, statements, credit and ledger, worked out a second time for tests.

Pure, like `oracle_charges`. The books are told what happened, in the order in which it did; amounts of a currency are
whole minor units, or fractions of it in the ledger.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple

from tests.billing.oracle_charges import (
    Line,
    Price,
    Term,
    charge_lines,
    cost_lines,
    find_first_price,
    find_price,
    half_up,
)

DIGITS: Final = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}


class Attempt(NamedTuple):
    """One call of a provider. `usage` in the journal's words; None: it used nothing. `price`: what the gateway knew."""

    deployment: int
    usage: Mapping[str, Any] | None
    price: Price | None

    @property
    def is_measured(self) -> bool:
        return self.usage is not None and self.usage["kind"] != "unknown"


class Request(NamedTuple):
    """All that the journal says of a request. No attempts: its worker died, nobody knows what it used."""

    id: str
    tenant: int
    key: int
    at: dt.datetime
    attempts: tuple[Attempt, ...]

    @property
    def is_unknown(self) -> bool:
        return not self.attempts or not self.attempts[-1].is_measured

    @property
    def is_unpriced(self) -> bool:
        return any(one.is_measured and one.price is None for one in self.attempts)


class LineName(NamedTuple):
    """What a line of a statement is of."""

    deployment: int
    price: int
    sold_by: tuple[str, int]
    meter: str
    tier: str
    rate: Fraction
    late_of: dt.date | None
    is_correction: bool


@dataclass
class Posted:
    """A request (or its price, given afterwards) in the sums of a day."""

    request: Request
    day: dt.date
    counts: tuple[int, int, int]  # requests, unpriced, unknown
    cost: int
    lines: list[tuple[LineName, Line]]


@dataclass
class Grant:
    """Credit: what is left of it, in minor units."""

    id: int
    tenant: int
    is_paid: bool
    left: int
    priority: int
    expires: dt.datetime | None
    at: dt.datetime
    models: frozenset[int]


@dataclass
class Bill:
    """A statement as it was issued. `drawn`: grant -> minor units, in the order of drawing."""

    tenant: int
    month: dt.date
    digits: int
    lines: list[tuple[LineName | None, int, int, int]]  # units, nano-USD, minor units
    fx: Fraction
    tax_ratio: Fraction
    net: int
    tax: int
    drawn: dict[int, int] = field(default_factory=dict)
    back: Counter[int] = field(default_factory=Counter)
    due: int = 0
    is_open: bool = True
    credited: set[int] = field(default_factory=set)
    tax_back: int = 0
    net_back: int = 0

    @property
    def total(self) -> int:
        return self.net + self.tax

    @property
    def exact(self) -> int:
        """Billionths of the currency, line by line."""
        return self.exact_of(range(len(self.lines)))

    def exact_of(self, places: Iterable[int]) -> int:
        return sum(half_up(self.lines[place][2] * self.fx) for place in places)


@dataclass
class Books:
    """All that is known. `models`: deployment -> model; `names`: of models; `currencies`, `tax`: of each tenant."""

    models: dict[int, int]
    names: dict[int, str]
    currencies: dict[int, str]
    tax: dict[int, Fraction]
    prices: list[Price] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    rates: list[tuple[str, dt.date, Fraction]] = field(default_factory=list)
    closed_until: dt.date | None = None
    posted: list[Posted] = field(default_factory=list)
    unpriced: list[Request] = field(default_factory=list)
    grants: dict[int, Grant] = field(default_factory=dict)
    bills: dict[int, Bill] = field(default_factory=dict)
    accounts: Counter[tuple[int, str]] = field(default_factory=Counter)  # (tenant, account) -> billionths

    # Usage

    def record(self, request: Request) -> None:
        """Count a request that was stored just now."""
        counts = (1, int(request.is_unpriced), int(request.is_unknown))
        if request.is_unpriced:
            self.unpriced.append(request)
        is_counted = not request.is_unpriced and not request.is_unknown
        priced = [(one, one.price) for one in request.attempts if one.is_measured and one.price]
        self._post(request, counts, priced if is_counted else [], is_correction=False)

    def rerate(self, first: dt.date, last: dt.date, *, takes_later: bool) -> int:
        """Give requests of these days a price that have none; return how many got one."""
        count = 0
        for request in list(self.unpriced):
            if not first <= request.at.date() <= last or request.is_unknown:
                continue
            priced = []
            for one in request.attempts:
                if one.is_measured:
                    price = one.price or find_price(self.prices, one.deployment, request.at)
                    if price is None and takes_later:
                        price = find_first_price(self.prices, one.deployment)
                    priced.append((one, price))
            if all(price is not None for _, price in priced):
                self.unpriced.remove(request)
                self._post(request, (0, -1, 0), priced, is_correction=True)
                count += 1
        return count

    def _post(
        self,
        request: Request,
        counts: tuple[int, int, int],
        priced: Iterable[tuple[Attempt, Price | None]],
        *,
        is_correction: bool,
    ) -> None:
        own = request.at.date()
        is_late = self.closed_until is not None and own < self.closed_until
        day = self.closed_until if is_late and self.closed_until is not None else own
        late_of = own.replace(day=1) if is_late else None
        cost, lines = 0, []
        for one, price in priced:
            assert price is not None and one.usage is not None
            place = self.models[one.deployment]
            cost += sum(line.nanousd for line in cost_lines(one.usage, price.rates, request.at))
            for line in charge_lines(
                one.usage, price.rates, request.at, self.terms,
                tenant=request.tenant, model=place, deployment=one.deployment,
            ):  # fmt: skip
                name = LineName(
                    request.attempts[-1].deployment, price.id, line.sold_by, line.meter, one.usage["tier"], line.rate,
                    late_of, is_correction and is_late,
                )  # fmt: skip
                lines.append((name, line))
        self.posted.append(Posted(request, day, counts, cost, lines))

    def sums(self) -> dict[tuple[int, int, dt.date], list[int]]:
        """(tenant, key, day) -> requests, unpriced, unknown, cost, charge."""
        sums: dict[tuple[int, int, dt.date], list[int]] = defaultdict(lambda: [0] * 5)
        for one in self.posted:
            charge = sum(line.nanousd for _, line in one.lines)
            found = sums[one.request.tenant, one.request.key, one.day]
            for place, amount in enumerate((*one.counts, one.cost, charge)):
                found[place] += amount
        return {place: found for place, found in sums.items() if any(found)}

    def statement_lines(self, tenant: int, month: dt.date) -> dict[LineName, tuple[int, int]]:
        """What a month is charged: units and nano-USD by line; empty where there is nothing to charge."""
        sums: dict[LineName, list[int]] = defaultdict(lambda: [0, 0])
        for one in self.posted:
            if one.request.tenant == tenant and one.day.replace(day=1) == month:
                for name, line in one.lines:
                    sums[name][0] += line.units
                    sums[name][1] += line.nanousd
        if not any(charge for _, charge in sums.values()):
            return {}
        return {name: (units, charge) for name, (units, charge) in sums.items() if units or charge}

    # Statements and credit

    def exchange_rate(self, currency: str, month: dt.date) -> Fraction:
        """What was in force on the month's last day; of several with one first day the last that was said."""
        last = (month + dt.timedelta(days=32)).replace(day=1) - dt.timedelta(days=1)
        begun = [(first, place) for place, (code, first, _) in enumerate(self.rates)
                 if code == currency and first <= last]  # fmt: skip
        return Fraction(1) if currency == "USD" else self.rates[max(begun)[1]][2]

    def bill(self, number: int, tenant: int, month: dt.date, now: dt.datetime) -> Bill:
        """Issue a month: round each line, tax the sum, draw credit."""
        currency = self.currencies[tenant]
        fx, digits = self.exchange_rate(currency, month), DIGITS[currency]
        lines: list[tuple[LineName | None, int, int, int]] = []
        for name, (units, charge) in self.statement_lines(tenant, month).items():
            lines.append((name, units, charge, half_up(charge * fx / 10 ** (9 - digits))))
        net = sum(minor for _, _, _, minor in lines)
        tax_ratio = self.tax[tenant]
        made = Bill(tenant, month, digits, lines, fx, tax_ratio, net, half_up(net * tax_ratio))
        self._draw(made, now)
        made.due = made.total - sum(made.drawn.values())
        self.bills[number] = made
        self._book_total(made, 1)
        return made

    def _draw(self, bill: Bill, now: dt.datetime) -> None:
        open_minor: Counter[int | None] = Counter()
        for name, _, _, minor in bill.lines:
            assert name is not None
            open_minor[self.models[name.deployment]] += minor
        open_minor[None] = bill.tax
        usable = [
            one for one in self.grants.values()
            if one.tenant == bill.tenant and one.left and (one.expires is None or one.expires > now)
        ]  # fmt: skip
        usable.sort(key=lambda one: (one.priority, one.expires is None, one.expires, one.at, one.id))
        for place, grant in enumerate(usable):
            rivals = Counter(model for later in usable[place + 1 :] for model in later.models)
            payable = [model for model in open_minor if not grant.models or model in grant.models]
            # First what the fewest later ones could pay; of equal ones by name, and what is for no model before all.
            for model in sorted(payable, key=lambda one: (rivals[one], self.names[one]) if one else (0, "")):
                amount = min(grant.left, open_minor[model])
                if amount > 0:
                    open_minor[model] -= amount
                    grant.left -= amount
                    bill.drawn[grant.id] = bill.drawn.get(grant.id, 0) + amount
                    self._book(bill.tenant, amount, self._account(grant), "receivable")

    def pay(self, number: int) -> None:
        """Pay what is due."""
        bill = self.bills[number]
        if bill.due > 0:
            self._book(bill.tenant, bill.due, "cash", "receivable")
        bill.due, bill.is_open = 0, False

    def void(self, number: int) -> None:
        """Take a bill back, with all credit that it drew."""
        bill = self.bills.pop(number)
        self._give_back(bill, sum(bill.drawn.values()))
        self._book_total(bill, -1)

    def credit(self, number: int, places: Collection[int]) -> tuple[int, int, int]:
        """Credit lines of a bill; return net, tax and what goes back to credit, all above 0."""
        bill = self.bills[number]
        net = sum(bill.lines[place][3] for place in places)
        bill.net_back += net
        tax = half_up(bill.net_back * bill.tax_ratio) - bill.tax_back
        bill.tax_back += tax
        bill.credited |= set(places)
        owed = max(0, bill.due) if bill.is_open else 0
        given = self._give_back(bill, max(0, net + tax - owed))
        if bill.is_open:
            bill.due -= net + tax - given
        self._book_sides(bill, net=-net, tax=-tax, exact=-bill.exact_of(places))
        return net, tax, given

    def _give_back(self, bill: Bill, wanted: int) -> int:
        given = 0
        for number, drawn in reversed(bill.drawn.items()):
            amount = min(drawn - bill.back[number], wanted - given)
            if amount > 0:
                bill.back[number] += amount
                self.grants[number].left += amount
                given += amount
                self._book(bill.tenant, amount, "receivable", self._account(self.grants[number]))
        return given

    def grant(self, grant: Grant) -> None:
        """Grant credit."""
        self.grants[grant.id] = grant
        source = "cash" if grant.is_paid else "promotion"
        self._book(grant.tenant, grant.left, source, self._account(grant))

    def take(self, number: int, amount: int, *, into: str) -> None:
        """Take from a grant: a refund in cash, or what expired."""
        grant = self.grants[number]
        grant.left -= amount
        self._book(grant.tenant, amount, self._account(grant), into)

    def expire(self, now: dt.datetime) -> None:
        """End the credit whose time has passed."""
        for grant in self.grants.values():
            if grant.expires is not None and grant.expires <= now:
                self.take(grant.id, grant.left, into="breakage" if grant.is_paid else "promotion")

    def _account(self, grant: Grant) -> str:
        return "credit_paid" if grant.is_paid else "credit_promotional"

    def unit_nano(self, tenant: int) -> int:
        """How many billionths the smallest unit of a tenant's currency is."""
        unit: int = 10 ** (9 - DIGITS[self.currencies[tenant]])
        return unit

    def _book(self, tenant: int, minor: int, debit: str, credit: str) -> None:
        amount = minor * self.unit_nano(tenant)
        self.accounts[tenant, debit] += amount
        self.accounts[tenant, credit] -= amount

    def _book_total(self, bill: Bill, sign: int) -> None:
        self._book_sides(bill, net=sign * bill.net, tax=sign * bill.tax, exact=sign * bill.exact)

    def _book_sides(self, bill: Bill, *, net: int, tax: int, exact: int) -> None:
        """The tenant owes net and tax; revenue is exact, the rest is rounding."""
        unit = self.unit_nano(bill.tenant)
        self.accounts[bill.tenant, "receivable"] += (net + tax) * unit
        self.accounts[bill.tenant, "tax"] -= tax * unit
        self.accounts[bill.tenant, "revenue"] -= exact
        self.accounts[bill.tenant, "rounding"] -= net * unit - exact
