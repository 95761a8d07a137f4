"""Keeping checkpoints: often enough that a crash repeats little, seldom enough that it costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.backoff import TELL_EVERY, Backoff
from ews_sync.engine.tasks import all_of
from ews_sync.engine.watchdog import StuckError
from ews_sync.errors import Asks, Scope, SinkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ews_sync.engine.watchdog import Watchdog
    from ews_sync.errors import EwsSyncError
    from ews_sync.model import CheckpointStore, Clock, Mailbox, MailboxCheckpoint
    from ews_sync.telemetry.status import Status

    _Save = Callable[[Mailbox, MailboxCheckpoint], Awaitable[None]]

_AT_ONCE = 8
_GATHERING = 1.0
"""Seconds in which other moves of the same mailbox, and other mailboxes, may come along."""


class CheckpointKeeper:
    """Saves the checkpoints that moved, at most every `store.interval` seconds, and at the end all that are left.

    What cannot be saved stays due and is tried again after a while: the mail itself is stored, so nothing is lost but
    time. `status` shows it meanwhile.
    """

    def __init__(
        self,
        store: CheckpointStore,
        clock: Clock,
        status: Status,
        watchdog: Watchdog,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._status = status
        self._watchdog = watchdog
        self._jitter = jitter
        self._due: dict[str, tuple[Mailbox, MailboxCheckpoint]] = {}
        self._wake = asyncio.Event()
        self._saving = asyncio.Lock()
        self._troubles: dict[str, _Trouble] = {}
        self._refused: dict[str, SinkError] = {}
        self._warning = ""
        self._log = structlog.get_logger("ews_sync.checkpoint")

    def moved(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Have the checkpoint saved soon."""
        self._due[mailbox.address] = (mailbox, checkpoint)
        self._wake.set()

    def forget(self, mailbox: Mailbox) -> None:
        """Have a checkpoint not saved that is due: it no longer holds."""
        self._due.pop(mailbox.address, None)
        self._refused.pop(mailbox.address, None)

    def check(self, mailbox: Mailbox) -> None:
        """Raise the `SinkError` by which the store said that a checkpoint no longer holds, until it is forgotten."""
        if mailbox.address in self._refused:
            raise self._refused[mailbox.address]

    async def run(self) -> None:
        """Save what is due, until cancelled. Raises what asks for the whole process to stop."""
        while True:
            await self._wake.wait()
            # Soon after the first move, since a crash before that would repeat everything; then once in a while.
            await self._clock.sleep(min(_GATHERING, self._store.interval))
            await self.flush()
            await self._clock.sleep(max(0.0, self._store.interval - _GATHERING))

    async def flush(self) -> bool:
        """Save everything that is due now, but for what failed a moment ago; tell whether all of it could be.

        Raises what asks for the whole process to stop.
        """
        now = self._clock.monotonic()
        return await self._save_all([key for key in self._due if not self._rests(key, now)], self._save)

    async def last_flush(self, within: float) -> bool:
        """Save everything that is due, in at most so many seconds; tell whether all of it could be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._save_all([key for key in self._due if key not in self._refused], self._save_or_not)
        return False

    def _rests(self, key: str, now: float) -> bool:
        trouble = self._troubles.get(key)
        return key in self._refused or (trouble is not None and now < trouble.until)

    async def _save_all(self, keys: Sequence[str], save: _Save) -> bool:
        async with self._saving:
            self._wake.clear()
            due = [self._due[key] for key in keys if key in self._due]
            for start in range(0, len(due), _AT_ONCE):
                await all_of((partial(save, *entry) for entry in due[start : start + _AT_ONCE]), _AT_ONCE)
            if self._due:
                self._wake.set()
            self._show()
            return not self._troubles

    async def _save_or_not(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Save a checkpoint if possible: at the end, one that asks for an operator must not stop the others."""
        with contextlib.suppress(SinkError):
            await self._save(mailbox, checkpoint)

    async def _save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        try:
            async with self._watchdog.over(f"saving the checkpoint of {mailbox.address}"):
                await self._store.save(mailbox, checkpoint)
        except (SinkError, StuckError) as error:
            self._failed(mailbox, error)
            if isinstance(error, SinkError) and error.asks is Asks.RESYNC and mailbox.address in self._due:
                self._refused[mailbox.address] = error
            if error.scope is Scope.PROCESS and error.asks is Asks.STOP:
                raise
            return
        # Another one may have become due meanwhile. Identity, because comparing large checkpoints costs more than
        # saving one once too often.
        due = self._due.get(mailbox.address)
        if due is not None and due[1] is checkpoint:
            del self._due[mailbox.address]
        if self._troubles.pop(mailbox.address, None) is not None:
            self._log.info("the checkpoint is saved again", mailbox=mailbox.address)

    def _failed(self, mailbox: Mailbox, error: EwsSyncError) -> None:
        now = self._clock.monotonic()
        trouble = self._troubles.setdefault(
            mailbox.address, _Trouble(Backoff(self._store.interval, 300.0, self._jitter))
        )
        trouble.problem = error.summary
        trouble.until = now + max(trouble.backoff.next(), error.retry_after or 0.0)
        if now - trouble.told_at >= TELL_EVERY:
            trouble.told_at = now
            self._log.error(
                "a checkpoint cannot be saved; trying again",
                mailbox=mailbox.address,
                problem=error.summary,
                hint=error.hint,
            )

    def _show(self) -> None:
        """Show on /status what is not saved, in one line however many mailboxes it is."""
        failing = [address for address, trouble in self._troubles.items() if trouble.backoff.failures > 1]
        warning = ""
        if failing:
            others = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
            warning = (
                f"the checkpoint of {failing[0]}{others} cannot be saved, so after a restart some mail would be stored "
                f"again: {self._troubles[failing[0]].problem}"
            )
        if warning != self._warning:
            self._status.settle(self._warning)
            if warning:
                self._status.warn(warning)
            self._warning = warning


@dataclass(slots=True)
class _Trouble:
    """Why a mailbox's checkpoint is not saved, when it is tried again, and when it was last said (monotonic)."""

    backoff: Backoff
    problem: str = ""
    until: float = 0.0
    told_at: float = float("-inf")
