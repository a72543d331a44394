"""What can happen to money in three months? A world drawn from a seed does it, and tells the books beside it.

Requests: `random_traffic`. Everything else is done by the verbs that pages and commands call.
"""

from __future__ import annotations

import datetime as dt
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from billing import credits, invoicing
from billing.billing_profiles import change_profile
from billing.closing import close_period
from billing.credit_notes import write_credit_note
from billing.exchange_rates import add_rate
from billing.models import CreditGrant, Invoice, InvoiceLine, InvoiceState
from billing.partitions import ensure_months
from billing.pricing import add_own_price, add_price
from billing.rerating import Question, rerate
from billing.sale_terms import add_term, end_term
from policies.errors import ConfigurationError
from policies.models import ApiKey, Deployment
from tests import make
from tests.billing.oracle_books import DIGITS, Books, Grant, LineName
from tests.billing.oracle_charges import Price, Term
from tests.billing.random_traffic import RandomTraffic

BEGIN: Final = dt.datetime(2025, 9, 20, tzinfo=dt.UTC)
OPENING: Final = dt.datetime(2025, 10, 1, 9, tzinfo=dt.UTC)
MONTHS: Final = (dt.date(2025, 10, 1), dt.date(2025, 11, 1))
# Dollars a million tokens as high as this make cents of a few thousand tokens.
RATES: Final = (
    {
        "input_usd_per_mtok": "50000.123456789", "cache_read_usd_per_mtok": "5000", "usd_per_request": "0.0001",
        "output_usd_per_mtok": "200000.5", "reasoning_usd_per_mtok": "333333.333333333",
        "usd_per_search": "0.0125", "input_usd_per_mtok>5000": "70000", "output_usd_per_mtok+300": "100000.7",
        "input_usd_per_mtok@flex": "25000", "output_usd_per_mtok~16:30-00:30": "90000.1",
    },
    {
        "input_usd_per_mtok": "1234.5", "output_usd_per_mtok": "0.000001", "cache_write_usd_per_mtok": "62500.3",
        "cache_write_1h_usd_per_mtok": "100000", "audio_input_usd_per_mtok": "0.7", "output_usd_per_mtok@flex": "3",
        "output_usd_per_mtok@flex~00:30-08:00": "2.5", "output_usd_per_mtok@flex~00:30-08:00>900": "2",
    },
    {
        "input_usd_per_mtok": "60000", "input_usd_per_mtok>800": "65000.1", "usd_per_request": "0.5",
        "output_usd_per_mtok": "30000", "usd_per_image": "0.039", "usd_per_image@flex": "0.02",
        "usd_per_audio_hour": "12.34567", "image_input_usd_per_mtok": "70000.07",
    },
    {
        "input_usd_per_mtok": "400", "output_usd_per_mtok": "2500", "image_output_usd_per_mtok": "30000.3",
        "usd_per_image": "0.001", "usd_per_audio_hour": "7", "audio_input_usd_per_mtok": "3",
    },
)  # fmt: skip
FACTORS: Final = ("1.2", "0.9", "0", "1", "1.333333")


class RandomWorld:
    """Four tenants in four currencies, five deployments of four models (one without a price at first)."""

    def __init__(self, seed: int, data_dir: Path, *, step_hours: int, deeds_a_step: int) -> None:
        self.random = random.Random(seed)
        self.step_hours = step_hours
        self.deeds_a_step = deeds_a_step
        self.now = BEGIN
        self.worlds = [make.world() for _ in DIGITS]
        self.tenants = {world.tenant.pk: world.tenant for world in self.worlds}
        first = self.worlds[0]
        more = ApiKey.objects.create(
            project=first.project, name="more", secret_hash=os.urandom(32), secret_hint="pm-…"
        )
        keys = [(world, world.key.pk) for world in self.worlds] + [(first, more.pk)]
        unpriced = Deployment.objects.create(
            name=f"unpriced-{first.deployment.name}", model=first.deployment.model,
            provider=first.deployment.provider, upstream_model="x",
        )  # fmt: skip
        self.deployments = {one.pk: one for one in (*(world.deployment for world in self.worlds), unpriced)}
        self.unpriced = unpriced.pk
        self.books = Books(
            models={one.pk: one.model_id for one in self.deployments.values()},
            names={one.model_id: one.model.name for one in self.deployments.values()},
            currencies=dict(zip(self.tenants, DIGITS, strict=True)),
            tax=dict.fromkeys(self.tenants, Fraction(0)),
        )
        for world in self.worlds:
            price = world.price
            self.books.prices.append(
                Price(price.pk, world.deployment.pk, price.effective_from, dict(price.rates))
            )
        self.traffic = RandomTraffic(self.random, data_dir, self.books, keys=keys, first_at=BEGIN)

    def live(self) -> Iterator[str]:
        """Live through it; say of each step what was done, once it was."""
        ensure_months(dt.date(2025, month, 1) for month in range(9, 13))
        yield self.set_up()
        self.now = OPENING
        to_close = list(MONTHS)
        while to_close:
            month_after = (to_close[0] + dt.timedelta(days=32)).replace(day=1)
            if self.now.date() < month_after + dt.timedelta(days=4):
                yield self._do(self._everyday())
                self.now += dt.timedelta(
                    hours=self.random.randint(self.step_hours // 2, self.step_hours * 3 // 2)
                )
                continue
            self.traffic.settle()
            yield self.close(to_close.pop(0))
            for _ in range(2):
                yield self._do([self.pay, self.void, self.write_credit_note, self.write_credit_note])

    def _do(self, choices: list[Callable[[], str]]) -> str:
        done = []
        for _ in range(self.deeds_a_step):
            self.now += dt.timedelta(seconds=self.random.randint(1, 4000))
            done.append(self.random.choice(choices)())
        return ", ".join(done)

    def make_traffic(self) -> str:
        """Some requests."""
        self.traffic.make(self.now)
        return "traffic"

    def _everyday(self) -> list[Callable[[], str]]:
        return [
            *[self.make_traffic] * 6, self.add_term, self.add_term, self.end_term, self.add_own_price, self.add_price,
            self.rerate, self.rerate, self.grant, self.refund, self.add_rate, self.draft, self.expire,
            self.write_credit_note,
        ]  # fmt: skip

    # Before anything is used

    def set_up(self) -> str:
        """Currencies, tax, prices, rates of exchange and some credit."""
        for tenant, ratio in zip(self.tenants, ("0", "0.1", "0.05", "0.19"), strict=True):
            self.books.tax[tenant] = Fraction(ratio)
            change_profile(
                tenant=self.tenants[tenant],
                actor="f",
                currency=self.books.currencies[tenant],
                tax_ratio=ratio,
            )
        for currency in DIGITS:
            self._add_rate(currency, dt.date(2025, 1, 1))
        for deployment in self.deployments:
            if deployment != self.unpriced:
                self._add_price(deployment, BEGIN)
        for _ in range(8):
            self.grant()
        return "set up"

    # Prices and terms

    def add_price(self) -> str:
        """A new price, now or dated back; now and then the first one of what had none."""
        deployment = self.random.choice([self.unpriced, self.unpriced, *self.deployments])
        self._add_price(deployment, self.now - dt.timedelta(days=self.random.choice((0, 0, 3, 20))))
        return "add a price"

    def _add_price(self, deployment: int, begins: dt.datetime) -> None:
        rates = self.random.choice(RATES)
        row = add_price(
            deployment=self.deployments[deployment], rates=rates, actor="f", effective_from=begins
        )
        self.books.prices.append(Price(row.pk, deployment, begins, rates))

    def add_term(self) -> str:
        """A factor for some or all."""
        tenant, model, deployment = self._scope()
        meter = self.random.choice(("", "", "input", "output", "request"))
        factor = self.random.choice(FACTORS)
        begins = self.now + dt.timedelta(hours=self.random.choice((0, 0, 30)))
        with suppress(ConfigurationError):  # another one begins at that very moment
            row = add_term(
                factor=Decimal(factor), actor="f", tenant=self.tenants.get(tenant or 0), meter=meter,
                model=self._model(model), deployment=self.deployments.get(deployment or 0), effective_from=begins,
            )  # fmt: skip
            self.books.terms.append(Term(row.pk, tenant, model, deployment, meter, begins, Fraction(factor)))
        return "add a term"

    def end_term(self) -> str:
        """The end of a scope's terms or own price."""
        if not self.books.terms:
            return "nothing to end"
        one = self.random.choice(self.books.terms)
        with suppress(ConfigurationError):  # they ended before, or begin later
            end_term(
                actor="f", tenant=self.tenants.get(one.tenant or 0), model=self._model(one.model),
                deployment=self.deployments.get(one.deployment or 0), meter=one.meter, effective_from=self.now,
            )  # fmt: skip
            self.books.terms.append(one._replace(begins=self.now, factor=None, own=None))
        return "end a term"

    def add_own_price(self) -> str:
        """A price of its own for one tenant, or all."""
        tenant, deployment = (
            self.random.choice([None, *self.tenants]),
            self.random.choice(list(self.deployments)),
        )
        rates = self.random.choice(RATES)
        row = add_own_price(
            deployment=self.deployments[deployment],
            tenant=self.tenants.get(tenant or 0),
            rates=rates,
            actor="f",
        )
        self.books.terms.append(Term(row.pk, tenant, None, deployment, "", self.now, own=rates))
        return "add an own price"

    def _scope(self) -> tuple[int | None, int | None, int | None]:
        tenant = self.random.choice([None, *self.tenants])
        kind = self.random.randint(0, 2)
        model = self.random.choice(list(self.books.names)) if kind == 1 else None
        return tenant, model, self.random.choice(list(self.deployments)) if kind == 2 else None

    def _model(self, model: int | None) -> Any:
        return next((one.model for one in self.deployments.values() if one.model_id == model), None)

    def rerate(self) -> str:
        """Give a price to what has none."""
        first = self.now.date() - dt.timedelta(days=self.random.choice((2, 20, 70)))
        takes_later = self.random.random() < 0.5
        run = rerate(
            Question(first, self.now.date(), takes_later_price=takes_later),
            actor="f",
            reason="x",
            now=self.now,
        )
        expected = self.books.rerate(first, self.now.date(), takes_later=takes_later)
        assert run.request_count == expected
        return "re-rate"

    # Credit

    def grant(self) -> str:
        """Credit of some kind, order, end and models."""
        tenant = self.random.choice(list(self.tenants))
        currency = self.books.currencies[tenant]
        minor = self.random.randint(1, 300_000)
        models = self.random.choice(([], self.random.sample(list(self.books.names), 2)))
        row = credits.grant_credit(
            tenant=self.tenants[tenant], kind=self.random.choice(("paid", "promotional")), actor="f", at=self.now,
            amount_nano=minor * self.books.unit_nano(tenant), currency=currency,
            priority=self.random.choice((10, 100)), model_names=[self.books.names[model] for model in models],
            expires_at=self.random.choice((None, self.now + dt.timedelta(days=self.random.randint(1, 60)))),
        )  # fmt: skip
        is_paid = row.kind == CreditGrant.Kind.PAID
        self.books.grant(
            Grant(row.pk, tenant, is_paid, minor, row.priority, row.expires_at, self.now, frozenset(models))
        )
        return "grant credit"

    def refund(self) -> str:
        """Pay back a part of what is left."""
        with_some = [one for one in self.books.grants.values() if one.is_paid and one.left]
        if not with_some:
            return "nothing to refund"
        grant = self.random.choice(with_some)
        minor = self.random.randint(1, grant.left)
        nano = minor * self.books.unit_nano(grant.tenant)
        row = CreditGrant.objects.get(pk=grant.id)
        credits.refund(grant=row, actor="f", note="x", amount_nano=nano, at=self.now)
        self.books.take(grant.id, minor, into="cash")
        return "refund"

    def expire(self) -> str:
        """End the credit whose time has passed."""
        credits.expire_due(now=self.now)
        self.books.expire(self.now)
        return "expire credit"

    def add_rate(self) -> str:
        """A rate of exchange from some day of a month on; it may correct an earlier one."""
        first = self.now.date().replace(day=self.random.choice((1, 15, 28)))
        self._add_rate(self.random.choice(list(DIGITS)), first)
        return "add a rate of exchange"

    def _add_rate(self, currency: str, first: dt.date) -> None:
        middle = {"JPY": "15{}.{}", "KWD": "0.3{}{}", "EUR": "0.9137{}{}00001"}.get(currency)
        if middle is not None:
            rate = middle.format(self.random.randint(0, 9), self.random.randint(1, 9))
            add_rate(currency=currency, rate=rate, first_day=first, source="a test", actor="f")
            self.books.rates.append((currency, first, Fraction(rate)))

    # Statements

    def draft(self) -> str:
        """Write the draft of a month that is open, and compare its lines."""
        tenant = self.random.choice(list(self.tenants))
        month = self.now.date().replace(day=1)
        row = invoicing.draft(tenant=self.tenants[tenant], month=month, actor="f", now=self.now)
        stated = {} if row is None else stated_lines(row)
        assert stated == self.books.statement_lines(tenant, month)
        return "draft"

    def close(self, month: dt.date) -> str:
        """Close a month, and bill it in the books."""
        done = close_period(month=month, actor="f", now=self.now)
        assert (done.state, done.error, done.left) == ("done", "", [])
        self.books.closed_until = (month + dt.timedelta(days=32)).replace(day=1)
        for tenant in self.tenants:
            row = Invoice.objects.filter(tenant=tenant, month=month, kind="invoice").first()
            assert (row is not None) == bool(self.books.statement_lines(tenant, month))
            if row is not None:
                self._bill(row)
        return "close a month"

    def _bill(self, row: Invoice) -> None:
        bill = self.books.bill(row.pk, row.tenant_id, row.month, self.now)
        assert stated_lines(row) == {name: (units, nanousd) for name, units, nanousd, _ in bill.lines}
        assert {line.amount_minor for line in row.lines.all()} == {line[3] for line in bill.lines}
        assert (row.subtotal_minor, row.tax_minor, row.total_minor) == (bill.net, bill.tax, bill.total)
        assert (row.credits_minor, row.due_minor) == (sum(bill.drawn.values()), bill.due)

    def pay(self) -> str:
        """Pay an invoice."""
        row = self._some_invoice(InvoiceState.ISSUED)
        if row is None:
            return "nothing to pay"
        invoicing.mark_paid(invoice=row, actor="f", now=self.now)
        self.books.pay(row.pk)
        return "pay"

    def void(self) -> str:
        """Take an invoice back and write it anew."""
        row = self._some_invoice(InvoiceState.ISSUED)
        if row is None or self.books.bills[row.pk].credited:
            return "nothing to take back"
        invoicing.void(invoice=row, actor="f", now=self.now, reason="x")
        self.books.void(row.pk)
        again = invoicing.draft(tenant=row.tenant, month=row.month, actor="f", now=self.now)
        assert again is not None
        again = invoicing.review(invoice=again, actor="f", now=self.now)
        self._bill(invoicing.issue(invoice=again, actor="f", now=self.now))
        return "void and write anew"

    def write_credit_note(self) -> str:
        """Credit some lines of an invoice."""
        row = self._some_invoice(InvoiceState.ISSUED, InvoiceState.PAID)
        bill = None if row is None else self.books.bills[row.pk]
        if row is None or bill is None or len(bill.credited) == len(bill.lines):
            return "nothing to credit"
        left = [place for place in range(len(bill.lines)) if place not in bill.credited]
        places = self.random.sample(left, self.random.randint(1, len(left)))
        positions = {_name_of(line): line.position for line in row.lines.all()}
        note = write_credit_note(
            invoice=row, actor="f", now=self.now, reason="x",
            positions=[positions[name] for name, *_ in (bill.lines[place] for place in places)],
        )  # fmt: skip
        net, tax, given = self.books.credit(row.pk, places)
        assert (note.subtotal_minor, note.tax_minor, note.credits_minor) == (-net, -tax, -given)
        return "credit note"

    def _some_invoice(self, *states: str) -> Invoice | None:
        rows = Invoice.objects.filter(kind="invoice", state__in=states, tenant__in=self.tenants).order_by(
            "pk"
        )
        return self.random.choice(list(rows)) if rows else None


def stated_lines(invoice: Invoice) -> dict[LineName, tuple[int, int]]:
    """What the lines of a statement say: units and nano-USD."""
    lines = {_name_of(line): (int(line.quantity), int(line.amount_nanousd)) for line in invoice.lines.all()}
    assert len(lines) == invoice.lines.count()
    return lines


def _name_of(line: InvoiceLine) -> LineName:
    assert line.deployment_id is not None and line.price_id is not None
    sold_by = ("price", line.sale_price_id) if line.sale_price_id else ("factor", line.sale_term_id or 0)
    return LineName(
        line.deployment_id, line.price_id, sold_by, line.meter, line.service_tier, Fraction(line.unit_usd),
        line.late_of, line.kind == "correction",
    )  # fmt: skip
