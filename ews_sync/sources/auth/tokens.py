"""A token that is there when it is wanted: asked for once at a time, ahead of its end, and off the event loop.

Knows no HTTP: what asks for a token is given to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from ews_sync.errors import Asks, EwsSyncError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_MARGIN = 60.0
"""Seconds before its end from which a token is not used any more: a request can take a while to arrive."""
_LONGEST_PAUSE = 30.0
_PAUSE_FOR_OPERATOR = 60.0
_IN_VAIN = 60.0
"""Seconds in which a token that took a refused one's place is not replaced again."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token as it was issued. Both times are in seconds from then on; `renew_after` is None where nothing is said."""

    token: str = field(repr=False)
    lifetime: float
    renew_after: float | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token in use; the times are those of the monotonic clock. `replaces` when it took a refused one's place."""

    value: str = field(repr=False)
    obtained_at: float
    renew_at: float
    ends_at: float
    replaces: bool = False


class Freshness(Enum):
    """What a token is good for: use; use, while another is asked for; nothing."""

    GOOD = "good"
    AGING = "aging"
    ENDED = "ended"


def token_of(grant: Grant, now: float, *, replaces: bool = False) -> Token:
    """Say until when a token is used, and from when on there should be another: by default after half its life."""
    margin = min(_MARGIN, grant.lifetime / 10)
    wanted = grant.lifetime / 2 if grant.renew_after is None else grant.renew_after
    renew_after = max(0.0, min(wanted, grant.lifetime - margin))
    return Token(grant.token, now, now + renew_after, now + grant.lifetime - margin, replaces)


def freshness(token: Token, now: float) -> Freshness:
    """Say what a token is good for."""
    if now >= token.ends_at:
        return Freshness.ENDED
    return Freshness.AGING if now >= token.renew_at else Freshness.GOOD


def pause(error: EwsSyncError, failures: int) -> float:
    """Give the seconds in which nobody asks again after failure number `failures` (from 1) in a row."""
    if error.retry_after is not None:
        return error.retry_after
    if error.asks is Asks.STOP:
        return _PAUSE_FOR_OPERATOR
    return min(_LONGEST_PAUSE, 2.0 ** min(failures - 1, 16))


def is_in_vain(token: Token, now: float, within: float = _IN_VAIN) -> bool:
    """Tell whether another token would be refused as this one was: it has taken a refused one's place just now."""
    return token.replaces and now - token.obtained_at < within


@dataclass(frozen=True, slots=True)
class _Failure:
    error: EwsSyncError
    until: float


class TokenKeeper:
    """Keeps one token fresh for everybody.

    `fetch` blocks until it has a token, and raises an `EwsSyncError`; it runs in a thread, never twice at a time. While
    a token is still valid, nobody waits for the next one, and nobody notices when it does not come. After a failure
    everybody without a token hears of that failure until it is time to ask again. `taken` hears, with each new token,
    until when it is used.
    """

    def __init__(
        self,
        fetch: Callable[[], Grant],
        *,
        taken: Callable[[float], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], Grant]], Awaitable[Grant]] | None = None,
    ) -> None:
        self._fetch = fetch
        self._taken = taken
        self._monotonic = monotonic
        self._run = run or in_thread
        self._token: Token | None = None
        self._renewal: asyncio.Task[Token] | None = None
        self._failure: _Failure | None = None
        self._failures = 0
        self._replacing = False
        self._told = False
        self._log = structlog.get_logger("ews_sync.auth")

    async def token(self) -> Token:
        """Give the token: at once where there is one, else when it has come. Raises what `fetch` raises."""
        now = self._monotonic()
        token = self._token
        state = Freshness.ENDED if token is None else freshness(token, now)
        paused = self._failure is not None and now < self._failure.until
        if token is not None and state is not Freshness.ENDED:
            if state is Freshness.AGING and not paused:
                self._renew()
            return token
        if self._failure is not None and paused and self._renewal is None:
            raise copy.copy(self._failure.error)
        return await self._awaited()

    def current(self, instead_of: Token) -> Token | None:
        """Give the token that is there by now, if it is not `instead_of` and still good."""
        token = self._token
        if token is None or token.value == instead_of.value:
            return None
        return None if freshness(token, self._monotonic()) is Freshness.ENDED else token

    async def another(self, refused: Token) -> Token:
        """Give a token in place of one that was refused, which the others go on using until it is there.

        The refusal may be one mailbox's alone. When nothing comes, the old one stays; raises what `fetch` raises.
        """
        there = self.current(refused)
        if there is not None:
            return there
        if self._renewal is None:
            if self._failure is not None and self._monotonic() < self._failure.until:
                raise copy.copy(self._failure.error)
            self._replacing = True
        return await self._awaited()

    async def _awaited(self) -> Token:
        try:
            # Who is cancelled while waiting must not take the token away from the others.
            return await asyncio.shield(self._renew())
        except EwsSyncError as error:
            # Each has an error of its own: it is told apart further up by what is added to it.
            raise copy.copy(error) from error

    def _renew(self) -> asyncio.Task[Token]:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renewed(), name="token")
            self._renewal.add_done_callback(_looked_at)
        return self._renewal

    async def _renewed(self) -> Token:
        replaces, self._replacing = self._replacing, False
        try:
            grant = await self._run(self._fetch)
        except EwsSyncError as error:
            self._failed(error)
            raise
        finally:
            self._renewal = None
        self._token = token_of(grant, self._monotonic(), replaces=replaces)
        self._failure, self._failures = None, 0
        if self._taken is not None:
            self._taken(self._token.ends_at)
        if self._told:
            self._told = False
            self._log.info("the access token could be renewed again")
        return self._token

    def _failed(self, error: EwsSyncError) -> None:
        now = self._monotonic()
        self._failures += 1
        self._failure = _Failure(error, now + pause(error, self._failures))
        token = self._token
        if token is None or freshness(token, now) is Freshness.ENDED:
            # Whoever waits for it hears of it.
            return
        minutes = round((token.ends_at - now) / 60)
        if error.asks is not Asks.STOP:
            self._log.debug("the access token could not be renewed yet", problem=error.summary, minutes_left=minutes)
        elif not self._told:
            self._told = True
            self._log.warning(
                "the access token cannot be renewed; mail stops when it ends",
                problem=error.summary,
                hint=error.hint,
                code=error.code,
                request_id=error.request_id,
                minutes_left=minutes,
            )


def _looked_at(task: asyncio.Task[Token]) -> None:
    """Ask for the exception: a renewal in the background has nobody else who does, and asyncio complains."""
    if not task.cancelled():
        task.exception()


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread of its own, which nobody waits for when the process ends.

    The threads of asyncio's executor are waited for: a server that hangs would hold up the end.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[], None]) -> None:
        if not done.done():
            how()

    def run() -> None:
        try:
            how = partial(done.set_result, work())
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
            how = partial(done.set_exception, error)
        # The loop may be closed by now; then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, how)

    threading.Thread(target=run, name="token", daemon=True).start()
    return await done
