"""What is wrong for everybody at once: told once, then at intervals, then once when it is over; shown all the while.

A server that is away, or a disk that is full, is one trouble, and not one for each of a thousand mailboxes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.backoff import TELL_EVERY
from ews_sync.telemetry.status import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from structlog.typing import FilteringBoundLogger

    from ews_sync.errors import EwsSyncError
    from ews_sync.model import Clock
    from ews_sync.telemetry.status import Status


class Outage:
    """One thing that can be away for everybody. `show` puts the failure on /status, or None when it is over.

    `away` and `back` are the words of the log for its beginning and its end. It lasts until something goes well while
    nobody of those who met it is still trying.
    """

    def __init__(
        self, clock: Clock, log: FilteringBoundLogger, show: Callable[[Failure | None], None], *, away: str, back: str
    ) -> None:
        self._clock = clock
        self._log = log
        self._show = show
        self._away = away
        self._back = back
        self.over = asyncio.Event()
        """Set whenever something has just gone well, for those who wait for that."""
        self._failure: Failure | None = None
        self._is_told = False
        self._told: dict[str, float] = {}
        """When each reason was last told: several can take turns."""
        self._struggling: set[Hashable] = set()

    def met(self, who: Hashable, error: EwsSyncError, wait: float) -> None:
        """Take note that somebody met it, and tries again in `wait` seconds."""
        self._struggling.add(who)
        self.over.clear()
        before, now = self._failure, self._clock.monotonic()
        self._told = {reason: at for reason, at in self._told.items() if now - at < TELL_EVERY}
        if error.summary not in self._told:
            self._told[error.summary] = now
            self._is_told = True
            self._log.error(
                self._away,
                problem=error.summary,
                hint=error.hint,
                code=error.code,
                request_id=error.request_id,
                next_try_in=round(wait),
            )
        self._failure = Failure.of(error, self._clock.now() if before is None else before.since)
        self._show(self._failure)

    def left(self, who: Hashable) -> None:
        """Take note that somebody tries no longer, and so will not hear whether it is over.

        When he was the last, nobody knows any more: the next one who meets it will say so.
        """
        self._struggling.discard(who)
        if not self._struggling:
            self._forget()

    def well(self, who: Hashable, *, for_all: bool = False) -> None:
        """Take note that it went well for somebody.

        `for_all`: had he met it, then it is over for the others, too, who only do not know yet.
        """
        if for_all and who in self._struggling:
            self._struggling.clear()
        self._struggling.discard(who)
        if self._struggling:
            return
        self._forget()
        if self._is_told:
            self._is_told = False
            self._told.clear()
            self._log.info(self._back)
        self.over.set()

    def _forget(self) -> None:
        if self._failure is not None:
            self._failure = None
            self._show(None)


def source_outage(clock: Clock, status: Status) -> Outage:
    """Give what keeps every mailbox from being read, shown as `source_failure`; at first nothing does."""

    def show(failure: Failure | None) -> None:
        status.source_failure = failure

    show(None)
    log = structlog.get_logger("ews_sync.mailbox")
    return Outage(
        clock, log, show, away="no mail can be read; trying again until it can", back="mail can be read again"
    )


def sink_outage(clock: Clock, status: Status) -> Outage:
    """Give what keeps all mail from being stored, shown as `sink_failure`; at first nothing does."""

    def show(failure: Failure | None) -> None:
        status.sink_failure = failure

    show(None)
    log = structlog.get_logger("ews_sync.upload")
    return Outage(
        clock, log, show, away="mail cannot be stored; trying again until it can", back="mail can be stored again"
    )
