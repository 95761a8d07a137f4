"""How hard a principal may be worked: who waits how long, and how many requests run at once.

Exchange budgets by principal: with impersonation the impersonated mailbox, with delegate access the service account.
What is said to one principal (BackOffMilliseconds, Retry-After) holds for it and for nobody else. The number of
requests at once adapts: halved when the server says that it is busy, one more after a run of good answers. When the
whole server was away, see `circuit`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ews_sync.model import Clock

LONGEST_TOLD = 3600.0
"""Seconds. Exchange asks for minutes; whoever asks for more than an hour has a broken clock or a broken proxy, and
would stop a mailbox for good. One request an hour hurts nobody."""


def doubled(first: float, failures: int, longest: float) -> float:
    """Give `first` (seconds), doubled for each of `failures`, and no more than `longest`."""
    return min(longest, first * 2.0 ** min(max(0, failures), 64))


class LeftAloneError(Exception):
    """The server wants a principal to be left alone for `wait` seconds, longer than the caller has patience for."""

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a principal is allowed: `limit` requests at once, none before `not_before` (monotonic seconds).

    The limit grows by one after `rounds` times as many good answers, up to `ceiling`. Pure decisions, by value.
    """

    limit: int = 8
    ceiling: int = 16
    good: int = 0
    busy: int = 0
    not_before: float = 0.0
    rounds: int = 8

    def after_success(self) -> Allowance:
        """Grow slowly: one more at once after as many good answers as some rounds of the present number."""
        good = self.good + 1
        if good >= self.rounds * self.limit and self.limit < self.ceiling:
            return replace(self, limit=self.limit + 1, good=0, busy=0)
        return replace(self, good=good, busy=0)

    def after_busy(self, now: float, wait: float | None, *, longest: float = 300.0) -> Allowance:
        """Halve, and wait as long as was asked, up to `LONGEST_TOLD`.

        Without a word (or with 0) twice as long each time, up to `longest` seconds. What is said while we wait answers
        a request that was on its way before: it can make the wait longer, and is not counted a second time.
        """
        wait = min(wait or 0.0, LONGEST_TOLD)
        if now < self.not_before:
            return replace(self, good=0, not_before=max(self.not_before, now + wait))
        seconds = wait if wait > 0 else doubled(1.0, self.busy, longest)
        return replace(
            self,
            limit=max(1, self.limit // 2),
            good=0,
            busy=self.busy + 1,
            not_before=max(self.not_before, now + seconds),
        )


class Gate:
    """Lets requests (of one principal, say) through as its allowance says, in the order in which they came."""

    def __init__(self, clock: Clock, allowance: Allowance | None = None) -> None:
        self._clock = clock
        self._active = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.allowance = allowance or Allowance()

    @property
    def wait_left(self) -> float:
        """How many seconds the server still wants to be left alone by this principal."""
        return max(0.0, self.allowance.not_before - self._clock.monotonic())

    @asynccontextmanager
    async def passage(self, patience: float = inf) -> AsyncIterator[None]:
        """Hold one of the places; see `enter`."""
        await self.enter(patience)
        try:
            yield
        finally:
            self.leave()

    def succeeded(self) -> None:
        """Take note of a good answer."""
        self.allowance = self.allowance.after_success()
        self._wake()

    def was_busy(self, retry_after: float | None) -> None:
        """Take note that the server said it was busy."""
        self.allowance = self.allowance.after_busy(self._clock.monotonic(), retry_after)

    def restart(self, limit: int) -> None:
        """Let no more than `limit` requests in at once for a start, for a server that is just back."""
        self.allowance = replace(self.allowance, limit=min(limit, self.allowance.limit), good=0, busy=0)

    async def enter(self, patience: float = inf) -> None:
        """Wait for a place, and until the server may be asked again. The place must be given back with `leave`.

        Raises `LeftAloneError` when the server wants to be left alone for more than `patience` seconds.
        """
        if self._active < self.allowance.limit and not self._waiting:
            self._active += 1
        else:
            await self._wait_for_place()
        try:
            await self._leave_alone(patience)
        except BaseException:
            self.leave()
            raise

    async def _leave_alone(self, patience: float) -> None:
        # Meanwhile it may have asked for more.
        while (wait := self.wait_left) > 0:
            if wait > patience:
                raise LeftAloneError(wait)
            await self._clock.sleep(wait)

    def leave(self) -> None:
        """Give a place back."""
        self._active -= 1
        self._wake()

    async def _wait_for_place(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # The place was given at the very moment at which nobody wanted it any more.
                self.leave()
            else:
                # `_wake` may have passed it by already.
                with suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def _wake(self) -> None:
        while self._waiting and self._active < self.allowance.limit:
            place = self._waiting.pop(0)
            if not place.done():
                self._active += 1
                place.set_result(None)
