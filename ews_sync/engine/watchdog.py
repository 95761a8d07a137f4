"""Noticing work that hangs: it is cancelled, so that whoever began it begins again; what cannot be cancelled is told.

Requests have their own time limits, and what waits for a server or a disk that is away is not stuck. This is for what
should never happen: an await that nothing will ever end. So the limit lies beyond the longest wait that honest work can
have between two signs of life: a request may take half an hour, and is sent four times.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import structlog

from ews_sync.errors import EwsSyncError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ews_sync.telemetry.health import Health

PATIENCE = 7200.0
"""Seconds without a sign of life after which work is given up."""
SIGN_EVERY = 600.0
"""Seconds between two signs of life of work that waits longer, and knows for what."""
_TO_END = 60.0
"""Seconds that cancelled work has to come to its end."""
_BACK_IN = 300.0


class StuckError(EwsSyncError):
    """Work did not move for too long and was cancelled."""

    def __init__(self, doing: str, seconds: float) -> None:
        super().__init__(
            f"{doing}: nothing has moved for {seconds / 60:.0f} minutes, so it was given up",
            code="Stuck",
            hint="it is begun again; if this comes back, report it with the log",
            retry_after=_BACK_IN,
        )


class Watched:
    """A piece of work under watch. Whoever does it says with `sign` that it moves."""

    def __init__(self, doing: str, dog: Watchdog, timeout: asyncio.Timeout | None) -> None:
        self._doing = doing
        self._dog = dog
        self._timeout = timeout
        """What cancels the work; None where that would do harm."""
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._timer = self._loop.call_later(dog.patience, self._look)
        self._stuck = False

    def sign(self) -> None:
        """Take note that the work moves."""
        self._moved_at = self._loop.time()

    def end(self) -> None:
        """Watch no longer: the work has come to its end."""
        self._timer.cancel()
        if self._stuck:
            self._dog.freed(self._doing)

    def _look(self) -> None:
        if self._dog.excused():
            self.sign()
        left = self._moved_at + self._dog.patience - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif self._timeout is None:
            self._give_up()
        else:
            self._timeout.reschedule(self._loop.time())
            self._timer = self._loop.call_later(_TO_END, self._give_up)

    def _give_up(self) -> None:
        self._stuck = True
        self._dog.stuck(self._doing)


class Watchdog:
    """Watches over work. `excused` tells whether everybody may well stand still, because of something known.

    `patience` is in seconds. What does not even end when it is cancelled is told to `health`.
    """

    def __init__(self, health: Health, excused: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        self.patience = patience
        self.excused = excused
        self._health = health
        self._log = structlog.get_logger("ews_sync.watchdog")

    @asynccontextmanager
    async def over(self, doing: str) -> AsyncIterator[Watched]:
        """Watch over what is done inside; `doing` says it in words. Raises `StuckError` once it has been cancelled."""
        timeout = asyncio.timeout(None)
        watched = Watched(doing, self, timeout)
        try:
            async with timeout:
                yield watched
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise StuckError(doing, self.patience) from error
        finally:
            watched.end()

    @contextmanager
    def over_the_end(self, doing: str) -> Iterator[None]:
        """Watch over what must come to its end by itself: giving up work that must not be left half given up."""
        watched = Watched(doing, self, None)
        try:
            yield
        finally:
            watched.end()

    def stuck(self, doing: str) -> None:
        """Tell of work that does not end although it was cancelled: only a new process gets rid of it."""
        self._log.error(
            "work is stuck and cannot be cancelled; /healthz says so",
            doing=doing,
            hint="restart this process if nothing else does; report this with the log",
        )
        self._health.stuck(doing)

    def freed(self, doing: str) -> None:
        """Tell that it ended after all."""
        self._log.info("what was stuck has ended", doing=doing)
        self._health.freed(doing)
