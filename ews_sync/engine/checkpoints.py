"""Keeping checkpoints: often enough that a crash repeats little, seldom enough that it costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.backoff import TELL_EVERY
from ews_sync.errors import SinkError

if TYPE_CHECKING:
    from ews_sync.model import CheckpointStore, Clock, Mailbox, MailboxCheckpoint

_AT_ONCE = 8
_GATHERING = 1.0
"""Seconds in which other moves of the same mailbox, and other mailboxes, may come along."""


class CheckpointKeeper:
    """Saves the checkpoints that moved, at most every `store.interval` seconds, and at the end all that are left.

    What cannot be saved stays due and is tried again: the mail itself is stored, so nothing is lost but time.
    """

    def __init__(self, store: CheckpointStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._due: dict[str, tuple[Mailbox, MailboxCheckpoint]] = {}
        self._wake = asyncio.Event()
        self._saving = asyncio.Lock()
        self._told_at: dict[str, float] = {}
        """When it was last said that a mailbox's checkpoint cannot be saved (monotonic seconds)."""
        self._log = structlog.get_logger("ews_sync.checkpoint")

    def moved(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Have the checkpoint saved soon."""
        self._due[mailbox.address] = (mailbox, checkpoint)
        self._wake.set()

    async def run(self) -> None:
        """Save what is due, until cancelled."""
        while True:
            await self._wake.wait()
            # Soon after the first move, since a crash before that would repeat everything; then once in a while.
            await self._clock.sleep(min(_GATHERING, self._store.interval))
            await self.flush()
            await self._clock.sleep(max(0.0, self._store.interval - _GATHERING))

    async def flush(self) -> bool:
        """Save everything that is due now; tell whether all of it could be."""
        async with self._saving:
            self._wake.clear()
            due = list(self._due.values())
            results: list[bool] = []
            for start in range(0, len(due), _AT_ONCE):
                results += await asyncio.gather(*(self._save(*entry) for entry in due[start : start + _AT_ONCE]))
            if self._due:
                self._wake.set()
            return all(results)

    async def last_flush(self, within: float) -> bool:
        """Save everything that is due, in at most so many seconds; tell whether all of it could be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self.flush()
        return False

    async def _save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> bool:
        try:
            await self._store.save(mailbox, checkpoint)
        except SinkError as error:
            now = self._clock.monotonic()
            if now - self._told_at.get(mailbox.address, -TELL_EVERY) >= TELL_EVERY:
                self._told_at[mailbox.address] = now
                self._log.error(
                    "a checkpoint cannot be saved; trying again", mailbox=mailbox.address, problem=str(error)
                )
            return False
        # Another one may have become due meanwhile. Identity, because comparing large checkpoints costs more than
        # saving one once too often.
        if self._due[mailbox.address][1] is checkpoint:
            del self._due[mailbox.address]
        if self._told_at.pop(mailbox.address, None) is not None:
            self._log.info("the checkpoint is saved again", mailbox=mailbox.address)
        return True
