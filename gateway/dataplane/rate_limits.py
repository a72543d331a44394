"""What of its shares of rate limits does this worker still have, and who waits for more? The `RateLimits` port.

Pure but for the event loop, on which all of it lives: nothing here locks, blocks or queries. A request that fits into
a share asks nobody. What does not fit is asked of the database, all that waits for a limit at once, by
`gateway/rate_limit_shares.py` on a thread of its own; what was taken is told once a second.

While the database does not answer, a worker uses what it holds until that expires, and then its part of the limit
(the limit divided by the workers, at least 1), counted over its own last minute: requests go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gateway.dataplane.budgets import is_answered
from gateway.dataplane.rate_shares import Hold, Part, RateLimitedError, Share, Standing, Want
from gateway.dataplane.rate_windows import COUNTS_S, LEASE_S, Amount, Answer, Report, Taken
from policies.snapshot import RateTerms

TICK_S: Final = 1.0
IDLE_S: Final = 2.0
RENEW_S: Final = 3.0
# Earlier than the database lets it end: the clocks do not tick alike.
VALID_S: Final = LEASE_S - 5.0
# A request waits so long for an answer before it is decided here.
ANSWER_WAIT_S: Final = 2.0
# And so long for other workers to give back what they do not use.
OTHERS_WAIT_S: Final = 1.5
HURRY_S: Final = 0.1
# How long somebody waits who only looks.
LOOK_S: Final = 0.3
# After the database did not answer, nobody waits for it for so long.
AWAY_S: Final = 1.0
# How long it is taken as said that there is no room for another request at once.
FULL_S: Final = 0.1
# And of the other kinds: whatever is full, a worker asks again, as others give back tokens that answers did not take.
FULL_WINDOW_S: Final = 1.0


class ShareBook:
    """One worker's shares. `send` hands reports to the thread that asks the database; answers come to `receive`."""

    def __init__(
        self,
        *,
        worker: str,
        send: Callable[[dict[int, Report]], None],
        worker_count: int = 1,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shares: dict[int, Share] = {}
        self.now_s = now_s
        self._worker = worker
        self._worker_count = worker_count
        self._send = send
        self._away_until_s = 0.0
        self._outbox: dict[int, Report] = {}
        self._is_flushing = False
        self._timer: asyncio.TimerHandle | None = None

    # For requests

    async def hold(
        self, limits: tuple[RateTerms, ...], tokens: int, /, *, patience_s: float = OTHERS_WAIT_S
    ) -> Hold:
        """Let a request in, at all of these limits or none. Raises RateLimitedError."""
        hold = Hold()
        now_s = self.now_s()
        try:
            for terms in limits:
                share = self.shares.get(terms.id)
                if share is None:
                    share = self._open(terms)
                elif share.terms is not terms:
                    share.change(terms)
                part = None if share.wants else share.take(tokens, now_s)
                hold.parts.append(part or await self._ask(share, tokens, patience_s))
        except BaseException:
            self.refuse(hold)
            raise
        return hold

    def settle(self, hold: Hold, tokens: int | None, /) -> None:
        """End a request: it runs no more, and took so many tokens; None: nobody knows, what was held counts."""
        now_s = self.now_s()
        for share, second, held, is_running in hold.parts:
            if is_running:
                share.running -= 1
                if now_s < share.valid_until_s:
                    share.free_concurrent += 1
                    if share.full_kind == "concurrent":
                        share.full_until_s = 0.0
            if tokens is None or share.terms.tokens_per_minute is None:
                continue
            if tokens > held:  # it took more, as is known from now on
                share.second_at(now_s).tokens += tokens - held
            elif tokens < held:
                second.tokens -= held - tokens
                if share.full_kind == "tokens":
                    share.full_until_s = min(share.full_until_s, now_s + FULL_S)
        hold.parts.clear()

    def refuse(self, hold: Hold, /) -> None:
        """Give back all of a hold: the request was not let in after all."""
        now_s = self.now_s()
        for share, second, tokens, is_running in hold.parts:
            has_requests = share.terms.requests_per_minute is not None
            second.requests -= has_requests
            second.tokens -= tokens
            share.running -= is_running
            if now_s < share.valid_until_s:
                share.free_requests += has_requests
                share.free_tokens += tokens
                share.free_concurrent += is_running
        hold.parts.clear()

    def room_in_s(self, terms: RateTerms, tokens: int = 1, /) -> float:
        """In how many seconds there may be room for such a request; 0 where nothing is known against it."""
        share = self.shares.get(terms.id)
        if share is None or not share.full_until_s:
            return 0.0
        if share.terms is not terms:
            share.change(terms)
        now_s = self.now_s()
        # That a large request found too few tokens says nothing about small ones.
        if now_s >= share.full_until_s or (share.full_kind == "tokens" and tokens < share.full_need):
            return 0.0
        return max(0.0, share.room_at_s - now_s)

    async def look(self, limits: Iterable[RateTerms], /) -> None:
        """Hear how these limits stand, and take nothing of them. Waits a moment at most."""
        began_s, left_s = self.now_s(), LOOK_S
        shares = [self.shares.get(terms.id) or self._open(terms) for terms in limits]
        for share in shares:
            self.ask(share)
        while left_s > 0 and any(share.is_asking or share.answered_at_s < began_s for share in shares):
            left_s -= HURRY_S / 10
            await asyncio.sleep(HURRY_S / 10)

    def standings(self, limits: tuple[RateTerms, ...], /) -> tuple[Standing | None, Standing | None]:
        """Requests and tokens: of several limits the one of which the least is left."""
        now_s = self.now_s()
        requests: Standing | None = None
        tokens: Standing | None = None
        for terms in limits:
            share = self.shares.get(terms.id)
            if share is None or share.answer is None:
                continue
            room, resets_s = share.answer.room, share.answer.resets_s
            ago_s = now_s - share.answered_at_s
            own_s = COUNTS_S - 1.0 - (now_s - share.used_at_s)
            if terms.requests_per_minute is not None:
                left = min(terms.requests_per_minute, max(0, share.free_requests) + room.requests)
                if requests is None or left < requests.remaining:
                    wait_s = max(resets_s[0] - ago_s, own_s, 0.0)
                    requests = Standing(terms.requests_per_minute, left, wait_s)
            if terms.tokens_per_minute is not None:
                left = min(terms.tokens_per_minute, max(0, share.free_tokens) + room.tokens)
                if tokens is None or left < tokens.remaining:
                    wait_s = max(resets_s[1] - ago_s, own_s, 0.0)
                    tokens = Standing(terms.tokens_per_minute, left, wait_s)
        return requests, tokens

    def _open(self, terms: RateTerms) -> Share:
        share = self.shares[terms.id] = Share(terms)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._on_timer)
        return share

    async def _ask(self, share: Share, tokens: int, patience_s: float) -> Part:
        terms, now_s = share.terms, self.now_s()
        need = share.need_for(tokens)
        if terms.tokens_per_minute is not None and tokens > terms.tokens_per_minute:
            raise RateLimitedError(terms, "tokens", tokens, None)
        if now_s < share.full_until_s and getattr(need, share.full_kind) >= share.full_need:
            raise self._refusal(share, share.full_kind, need, now_s)
        # A question that was not answered in time says that the next one waits for nothing, too.
        is_silent = share.is_asking and now_s - share.question_at_s > max(0.0, ANSWER_WAIT_S)
        if is_silent or now_s < self._away_until_s:
            return self._take_own_part(share, tokens, now_s)
        want = Want(need, now_s, patience_s, asyncio.get_running_loop().create_future())
        share.wants.append(want)
        self.ask(share)
        try:
            async with asyncio.timeout(ANSWER_WAIT_S + patience_s):
                return await want.future
        except asyncio.CancelledError:
            if is_answered(want.future):  # the answer came as the client left
                self.refuse(Hold([want.future.result()]))
            raise
        except TimeoutError:
            if want.future.done() and not want.future.cancelled():  # in the last moment
                return want.future.result()
            if want in share.wants:
                share.wants.remove(want)
            now_s = self.now_s()
            self._away_until_s = now_s + AWAY_S
            return self._take_own_part(share, tokens, now_s)

    def _refusal(self, share: Share, kind: str, need: Amount, now_s: float) -> RateLimitedError:
        wait_s = max(0.0, share.room_at_s - now_s)
        return RateLimitedError(share.terms, kind, getattr(need, kind), wait_s)

    def _take_own_part(self, share: Share, tokens: int, now_s: float) -> Part:
        """Nobody can say what other workers took: a part of the limit, over one's own last minute."""
        found = share.take(tokens, now_s)
        if found is not None:
            return found
        terms = share.terms
        requests, used_tokens = share.own_used(now_s)
        need = share.need_for(tokens)
        heard_of = 1 if share.answer is None else share.answer.worker_count
        workers = max(heard_of, self._worker_count)
        for kind, limit, taken in (
            ("requests", terms.requests_per_minute, requests),
            ("tokens", terms.tokens_per_minute, used_tokens),
            ("concurrent", terms.concurrent, share.running),
        ):
            if limit is not None and taken + getattr(need, kind) > max(1, limit // workers):
                raise RateLimitedError(terms, kind, getattr(need, kind), 5.0)
        if now_s >= share.valid_until_s:
            share.give_up()
        return share.note(tokens, now_s)

    # Between the loop and the thread

    def ask(self, share: Share) -> None:
        """Tell the database what this worker took and needs of a limit. One question at a time."""
        if share.is_asking:
            return
        share.is_asking, share.question_at_s = True, self.now_s()
        self._outbox[share.terms.id] = self.make_report(share)
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def make_report(self, share: Share) -> Report:
        """What there is to tell and to ask of one limit."""
        now_s = self.now_s()
        if now_s >= share.valid_until_s:
            share.give_up()
        told = []
        for second in share.seconds:
            requests, tokens = second.requests - second.told_requests, second.tokens - second.told_tokens
            if requests or tokens:
                told.append((second, requests, tokens))
        share.told, share.asked = tuple(told), tuple(share.wants)
        return Report(
            self._worker,
            tuple(Taken(second.second, requests, tokens) for second, requests, tokens in told),
            Amount(share.free_requests, share.free_tokens, share.free_concurrent),
            share.running,
            tuple(want.need for want in share.asked),
            0.0 if share.answer is None else share.answer.now_s + now_s - share.answered_at_s,
        )

    def _flush(self) -> None:
        self._is_flushing = False
        outbox, self._outbox = self._outbox, {}
        if outbox:
            self._send(outbox)

    def receive(self, answers: dict[int, Answer | None], sent_at_s: float) -> None:
        """What the database says: None for a limit that is gone."""
        for limit_id, answer in answers.items():
            share = self.shares.get(limit_id)
            if share is None:
                continue
            share.is_asking = False
            if answer is None:
                self._end(share)
            else:
                self._apply(share, answer, sent_at_s)

    def receive_nothing(self, limit_ids: Iterable[int]) -> None:
        """The database did not answer. Whether it has heard is not known: all is told again."""
        now_s = self.now_s()
        self._away_until_s = now_s + AWAY_S
        for limit_id in limit_ids:
            share = self.shares.get(limit_id)
            if share is None:
                continue
            share.is_asking = False
            wants, share.wants = share.wants, deque()
            for want in wants:
                if want.future.done():
                    continue
                try:
                    want.future.set_result(self._take_own_part(share, want.need.tokens, now_s))
                except RateLimitedError as error:
                    want.future.set_exception(error)

    def _end(self, share: Share) -> None:
        """There is no such limit any more: who waits for it need not."""
        del self.shares[share.terms.id]
        now_s = self.now_s()
        for want in share.wants:
            if not want.future.done():
                want.future.set_result(share.note(want.need.tokens, now_s))

    def _apply(self, share: Share, answer: Answer, sent_at_s: float) -> None:
        now_s = self.now_s()
        if share.answer is None:  # what was let in before stands at seconds of this worker's own clock
            for second in share.seconds:
                second.second += int(answer.now_s - sent_at_s)
            share.told = ()
        for second, requests, tokens in share.told:
            second.told_requests += requests
            second.told_tokens += tokens
        share.told = ()
        share.answer = answer
        share.asked_at_s, share.answered_at_s = sent_at_s, now_s
        share.valid_until_s = sent_at_s + VALID_S
        share.free_requests += answer.grown.requests
        share.free_tokens += answer.grown.tokens
        share.free_concurrent += answer.grown.concurrent
        share.forget_old(now_s)
        asked, share.asked = share.asked, ()
        for place, want in enumerate(asked):
            if want not in share.wants:  # nobody waits any more
                continue
            if want.future.done():
                share.wants.remove(want)
            elif place in answer.served:
                part = share.take(want.need.tokens, now_s)
                if part is not None:
                    share.wants.remove(want)
                    want.future.set_result(part)
            elif not answer.others_hold or now_s - want.asked_at_s >= want.patience_s:
                share.wants.remove(want)
                self._note_full(share, answer, want.need, now_s)
                want.future.set_exception(self._refusal(share, answer.short, want.need, now_s))
        if share.wants:
            loop = asyncio.get_running_loop()
            loop.call_later(HURRY_S if answer.others_hold else 0, self._ask_again, share)
        elif answer.is_wanted and (share.free_requests or share.free_tokens or share.free_concurrent):
            share.give_up()
            self.ask(share)

    def _note_full(self, share: Share, answer: Answer, need: Amount, now_s: float) -> None:
        """Remember that there is no room, so that who is refused next is refused here."""
        wait_s = answer.soonest_s
        if answer.short == "concurrent" or answer.others_hold:
            wait_s = min(wait_s, FULL_S)
        share.room_at_s = now_s + wait_s
        share.full_until_s = now_s + min(wait_s, FULL_WINDOW_S)
        share.full_kind = answer.short
        share.full_need = getattr(need, answer.short)

    def _ask_again(self, share: Share) -> None:
        if share.wants:
            self.ask(share)

    # Once a second

    def _on_timer(self) -> None:
        self._timer = None
        self.tick()
        if self.shares:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._on_timer)

    def tick(self) -> None:
        """Tell what was taken, renew what is held, give back what is not used, forget what nobody uses."""
        now_s = self.now_s()
        for limit_id, share in list(self.shares.items()):
            has_free = bool(share.free_requests or share.free_tokens or share.free_concurrent)
            is_idle = now_s - share.used_at_s >= IDLE_S
            if is_idle and has_free:
                share.give_up()
            has_untold = any(
                second.requests != second.told_requests or second.tokens != second.told_tokens
                for second in share.seconds
            )
            is_due = bool(share.running) and now_s - share.answered_at_s >= RENEW_S
            if has_untold or has_free or is_due:
                self.ask(share)
            elif is_idle and not share.running and not share.wants and not share.is_asking:
                share.forget_old(now_s)
                if not share.seconds:
                    del self.shares[limit_id]

    def close(self) -> dict[int, Report]:
        """Give up all shares: the last reports, to be sent by whoever ends this worker."""
        if self._timer is not None:
            self._timer.cancel()
        self._outbox = {}
        self._is_flushing = True  # what is asked now leaves with the last reports
        for share in self.shares.values():
            share.give_up()
            share.is_asking = False
            share.wants.clear()
            self.ask(share)
        return self._outbox
