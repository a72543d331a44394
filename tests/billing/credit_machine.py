"""Credit under everything that can happen to it, in any order, committed, with two statements at once.

A model beside it keeps plain numbers. After every step the ledger must say the same, and sum to zero.
"""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from dataclasses import dataclass, field

from django.db import connection
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from billing import credits, ledger
from billing.models import CreditGrant, LedgerEntry
from policies.models import Tenant

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
CENT = 10**7
PLACE = st.integers(0, 59)
_numbers = itertools.count(1)


@dataclass
class Modelled:
    """What the model knows of a grant."""

    row: CreditGrant
    left: int
    order: tuple[int, float, int]
    expires_day: int | None


@dataclass
class Drawn:
    """What one statement drew, in the order of drawing: grant -> amount, and what of it went back."""

    reference: str
    parts: dict[int, int]
    back: dict[int, int] = field(default_factory=dict)


class CreditMachine(RuleBasedStateMachine):
    """One tenant, one currency."""

    def __init__(self) -> None:
        super().__init__()
        self.number = next(_numbers)
        self.tenant = Tenant.objects.create(name=f"machine-{self.number}")
        self.day = 0
        self.grants: dict[int, Modelled] = {}
        self.draws: list[Drawn] = []
        self.references = itertools.count(1)

    @property
    def now(self) -> dt.datetime:
        return START + self.day * DAY

    def name(self, kind: str) -> str:
        return f"{self.number} {kind} {next(self.references)}"

    @rule(
        cents=st.integers(1, 50),
        kind=st.sampled_from(["paid", "promotional"]),
        priority=st.integers(0, 2),
        days=st.one_of(st.none(), st.integers(1, 4)),
    )
    def grant(self, cents: int, kind: str, priority: int, days: int | None) -> None:
        row = credits.grant_credit(
            tenant=self.tenant, kind=kind, amount_nano=cents * CENT, currency="USD", priority=priority,
            expires_at=None if days is None else self.now + days * DAY, at=self.now, actor="machine",
        )  # fmt: skip
        expires = None if days is None else self.day + days
        order = (priority, float("inf") if expires is None else expires, row.pk)
        self.grants[row.pk] = Modelled(row, cents, order, expires)

    def expected(self, cents: int) -> dict[int, int]:
        """What a draw of so much takes from whom."""
        parts = {}
        for pk, one in sorted(self.grants.items(), key=lambda item: item[1].order):
            is_open = one.expires_day is None or one.expires_day > self.day
            if is_open and (amount := min(one.left, cents)):
                parts[pk] = amount
                cents -= amount
        return parts

    def take(self, reference: str, parts: dict[int, int]) -> None:
        for pk, amount in parts.items():
            self.grants[pk].left -= amount
        if parts:
            self.draws.append(Drawn(reference, parts))

    def draw_now(self, reference: str, cents: int) -> dict[int, int]:
        drawn = credits.draw(
            tenant=self.tenant, currency="USD", wanted_nano=cents * CENT, reference=reference, at=self.now,
            actor="machine",
        )  # fmt: skip
        return {one.grant.pk: one.amount_nano // CENT for one in drawn}

    @rule(cents=st.integers(0, 80), is_repeated=st.booleans())
    def draw(self, cents: int, is_repeated: bool) -> None:
        reference, expected = self.name("invoice"), self.expected(cents)
        drawn = self.draw_now(reference, cents)
        assert list(drawn.items()) == list(expected.items())
        self.take(reference, expected)
        if is_repeated and expected:
            assert self.draw_now(reference, cents) == expected

    @precondition(lambda self: len(self.grants) > 1)
    @rule(amounts=st.tuples(st.integers(1, 60), st.integers(1, 60)))
    def draw_at_once(self, amounts: tuple[int, int]) -> None:
        """Two statements at the same time: what comes out is one after the other, in one of the two orders."""
        names = [self.name("invoice"), self.name("invoice")]
        found: dict[str, dict[int, int]] = {}

        def issue(name: str, cents: int) -> None:
            try:
                found[name] = self.draw_now(name, cents)
            finally:
                connection.close()

        threads = [threading.Thread(target=issue, args=pair) for pair in zip(names, amounts, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert set(found) == set(names), "a draw failed"
        pairs = list(zip(names, amounts, strict=True))
        first = pairs[0] if found[names[0]] == self.expected(amounts[0]) else pairs[1]
        for name, cents in (first, next(pair for pair in pairs if pair != first)):
            assert found[name] == self.expected(cents)
            self.take(name, found[name])

    # Which of two statements came first is chance. So nothing that is drawn may depend on what is there: places in
    # lists are taken modulo their length.
    @rule(place=PLACE, cents=st.one_of(st.none(), st.integers(0, 60)), is_repeated=st.booleans())
    def give_back(self, place: int, cents: int | None, is_repeated: bool) -> None:
        if not self.draws:
            return
        drawn = self.draws[place % len(self.draws)]
        expected, wanted = {}, cents
        for pk, amount in reversed(drawn.parts.items()):
            remaining = amount - drawn.back.get(pk, 0)
            part = remaining if wanted is None else min(remaining, wanted)
            wanted = None if wanted is None else wanted - part
            if part:
                expected[pk] = part
        reference = self.name("credit note")
        for _ in range(2 if is_repeated and expected else 1):
            backs = credits.give_back(
                draw_reference=drawn.reference, reference=reference, at=self.now, actor="machine",
                amount_nano=None if cents is None else cents * CENT,
            )  # fmt: skip
            assert {one.grant.pk: one.amount_nano // CENT for one in backs} == expected
        for pk, part in expected.items():
            self.grants[pk].left += part
            drawn.back[pk] = drawn.back.get(pk, 0) + part

    @rule(days=st.integers(1, 3))
    def pass_days_and_expire(self, days: int) -> None:
        self.day += days
        credits.expire_due(now=self.now)
        for one in self.grants.values():
            if one.expires_day is not None and one.expires_day <= self.day:
                one.left = 0

    @rule(place=PLACE, cents=st.integers(1, 50))
    def refund(self, place: int, cents: int) -> None:
        paid = [one for one in self.grants.values() if one.row.kind == "paid" and one.left]
        if not paid:
            return
        one = paid[place % len(paid)]
        cents = min(cents, one.left)
        credits.refund(grant=one.row, actor="machine", note="asked", amount_nano=cents * CENT, at=self.now)
        one.left -= cents

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        rows = LedgerEntry.objects.filter(tenant=self.tenant).values_list(
            "grant_id", "account", "amount_nano"
        )
        signed: dict[int, int] = dict.fromkeys(self.grants, 0)
        for grant_id, _, amount in rows:
            if grant_id is not None:
                signed[grant_id] += amount
        assert sum(amount for _, _, amount in rows) == 0
        assert {pk: -amount // CENT for pk, amount in signed.items()} == {
            pk: one.left for pk, one in self.grants.items()
        }
        assert all(0 <= one.left * CENT <= one.row.amount_nano for one in self.grants.values())

    def teardown(self) -> None:
        """What the accounts say in the end: all that was ever granted is somewhere."""
        owed = sum(
            amount - drawn.back.get(pk, 0) for drawn in self.draws for pk, amount in drawn.parts.items()
        )
        balance = ledger.find_balance(tenant=self.tenant, account="receivable", currency="USD")
        assert balance == -owed * CENT
