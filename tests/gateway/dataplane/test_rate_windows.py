"""Is more ever let in than a rate limit allows? Workers that die, lose answers and have clocks set, all made up."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dataplane.rate_limits import ShareBook
from gateway.dataplane.rate_shares import Hold, Share
from gateway.dataplane.rate_windows import (
    WINDOW_S,
    Answer,
    Limits,
    Report,
    Window,
    settle,
)
from policies.snapshot import RateTerms

LIMIT, AT_ONCE = 12, 4
PER_MINUTE = RateTerms(1, "key acme/web/dev", LIMIT)
CONCURRENT = RateTerms(1, "key acme/web/dev", concurrent=AT_ONCE)


class Database:
    """One row, and a clock that somebody may set."""

    def __init__(self, terms: RateTerms) -> None:
        self.limits = Limits(*terms[2:])
        self.state = "{}"
        self.offset_s = 1_700_000_000.25

    def settle(self, report: Report, at_s: float) -> Answer:
        window = Window.of(json.loads(self.state))
        answer = settle(window, report, self.limits, now_s=at_s + self.offset_s)
        self.state = json.dumps(window.as_json())
        return answer


class Machine:
    """Some workers on one limit. `now_s` is true time; what was let in is written down with it."""

    def __init__(self, terms: RateTerms, worker_count: int) -> None:
        self.terms = terms
        self.now_s = 0.0
        self.database = Database(terms)
        self.let_in: list[float] = []
        self.running: dict[str, int] = {}
        self.count = 0
        self.was_unheard = False
        self.books: list[ShareBook] = []
        self.sent: list[dict[int, Report]] = []
        self.holds: list[list[Hold]] = []
        for _ in range(worker_count):
            self.start()

    def start(self, place: int | None = None) -> None:
        self.count += 1
        # Each worker has a clock of its own, which says anything.
        skew_s = 1_000.0 * self.count
        now_s = lambda: self.now_s + skew_s  # noqa: E731
        book = ShareBook(worker=f"w{self.count}", send=self.sent.append, now_s=now_s)
        book._is_flushing = True  # no loop here: what it asks of itself is asked by the next exchange
        place = len(self.books) if place is None else place
        self.books[place : place + 1] = [book]
        self.holds[place : place + 1] = [[]]
        self.running[book._worker] = 0

    def share(self, place: int) -> Share:
        shares = self.books[place].shares
        return shares.get(self.terms.id) or shares.setdefault(self.terms.id, Share(self.terms))

    def request(self, place: int) -> bool:
        """A request that fits into what the worker holds; one that does not waits for the next exchange."""
        book = self.books[place]
        part = self.share(place).take(1, book.now_s())
        if part is None:
            return False
        hold = Hold([part])
        self.holds[place].append(hold)
        self.let_in.append(self.now_s)
        self.running[book._worker] += 1
        self.check()
        return True

    def use_up(self, place: int) -> None:
        while self.request(place):
            pass

    def finish(self, place: int, count: int) -> None:
        book, holds = self.books[place], self.holds[place]
        for hold in holds[:count]:
            book.settle(hold, 1)
            self.running[book._worker] -= 1
        del holds[:count]

    def exchange(self, place: int, needs: int = 0, *, is_lost: bool = False) -> None:
        """Tell and ask, and take what was asked for."""
        book, share = self.books[place], self.share(place)
        report = book.make_report(share)._replace(needs=(share.need_for(1),) * needs)
        sent_at_s = book.now_s()
        answer = self.database.settle(report, self.now_s)
        # Whoever is not served hears why.
        assert len(answer.served) == needs or (answer.short and answer.soonest_s >= 0)
        if is_lost:
            book.receive_nothing([self.terms.id])
            return
        book.receive({self.terms.id: answer}, sent_at_s)
        for _ in answer.served:
            self.request(place)

    def give_back(self, place: int) -> None:
        self.share(place).give_up()

    def wait(self, wait_s: float) -> None:
        """Who lives tells and renews meanwhile, as the tick does."""
        while wait_s > 0:
            self.now_s += min(3.0, wait_s)
            wait_s -= 3.0
            for place in range(len(self.books)):
                self.exchange(place)

    def silence(self, wait_s: float) -> None:
        self.now_s += wait_s
        self.was_unheard = True

    def set_clock(self, by_s: float) -> None:
        self.database.offset_s += by_s

    def die(self, place: int) -> None:
        # For its requests nobody is there any more; the others hear of that when its lease has ended.
        del self.running[self.books[place]._worker]
        self.start(place)

    def check(self) -> None:
        since_s = self.now_s - WINDOW_S
        self.let_in = [at_s for at_s in self.let_in if at_s > since_s]
        if self.terms is PER_MINUTE:
            assert len(self.let_in) <= LIMIT, (self.now_s, self.let_in)
            return
        # What a worker runs while nobody hears of it for the length of a lease is nobody's to stop.
        assert sum(self.running.values()) <= AT_ONCE or self.was_unheard


PLACES = st.integers(0, 2)
EXCHANGE = st.tuples(st.just("exchange"), PLACES, st.sampled_from([0, 1, 2, 5, 12]))
COMMON = [
    EXCHANGE,
    st.tuples(st.just("use_up"), PLACES),
    st.tuples(st.just("lose"), PLACES, st.sampled_from([0, 1, 12])),
    st.tuples(st.just("finish"), PLACES, st.integers(1, 12)),
    st.tuples(st.just("give_back"), PLACES),
    st.tuples(st.just("silence"), st.sampled_from([1.0, 8.0, 11.0, 30.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.7, 20.0, 44.0, 59.4, 60.2])),
]
DIE = st.tuples(st.just("die"), PLACES)
SET_CLOCK = st.tuples(st.just("set_clock"), st.sampled_from([-4_000.0, -70.0, -3.0, 30.0, 4_000.0]))


def run(machine: Machine, steps: list[tuple[Any, ...]]) -> None:
    for place in range(3):
        machine.exchange(place)
    for name, *values in steps:
        if name == "lose":
            machine.exchange(*values, is_lost=True)
        else:
            getattr(machine, name)(*values)
        machine.check()


# A worker that nobody heard of for longer than its lease uses nothing of it.
UNHEARD = [("exchange", 0, 1), ("silence", 80.0), ("exchange", 1, 12), ("use_up", 0)]


@settings(max_examples=40, deadline=None)
@example(steps=UNHEARD)
@given(steps=st.lists(st.one_of(*COMMON, EXCHANGE, DIE), min_size=8, max_size=30))
def test_no_minute_holds_more_requests_than_the_limit(steps: list[tuple[Any, ...]]) -> None:
    run(Machine(PER_MINUTE, 3), steps)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.one_of(*COMMON, EXCHANGE, SET_CLOCK), min_size=8, max_size=30))
def test_whoever_sets_the_clock_of_the_database_frees_nothing(steps: list[tuple[Any, ...]]) -> None:
    # Of workers that have counted seconds themselves; one that begins later can only believe the clock.
    run(Machine(PER_MINUTE, 3), steps)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.one_of(*COMMON, EXCHANGE, DIE), min_size=8, max_size=30))
def test_no_more_requests_run_at_once_than_the_limit(steps: list[tuple[Any, ...]]) -> None:
    run(Machine(CONCURRENT, 3), steps)
