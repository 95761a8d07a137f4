"""Checkpoints as the platform's keyed sync states: one for each folder of each mailbox, in the mailbox's bucket.

`synced_until` and `status` are the platform's own; what a timestamp cannot say travels in `cursor`, which a platform
may refuse, or forget. Then `synced_until` is all there is, which is said once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from ews_sync.errors import Asks, CheckpointError
from ews_sync.model import FolderCheckpoint, MailboxCheckpoint
from ews_sync.sinks.keyed_state import from_keyed_state, to_keyed_state
from ews_sync.sinks.platform.answers import NotFoundError, PlatformError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ews_sync.model import Bucket, Clock, Mailbox
    from ews_sync.sinks.platform.api import PlatformApi
    from ews_sync.sinks.platform.buckets import Buckets

_GONE_THROUGH = (
    "folders are gone through again from the time up to which they are known to be stored. No mail is uploaded twice "
    "for it, but older mail that was moved into a folder while no appliance ran is not noticed"
)
NO_CURSOR = (
    "sync states in the platform came without a cursor (another appliance has written them, or the platform does not "
    f"keep it): their {_GONE_THROUGH}"
)
CURSOR_REFUSED = f"the platform refuses the cursor of sync states: after each restart all {_GONE_THROUGH}"
_FOLDERS_AT_ONCE = 4
_STRIKES, _APART, _TRY_AGAIN = 3, 3.0, 600.0


class _Cursors:
    """Whether a bucket takes cursors. One refusal may be anything: several, some seconds apart, are a habit.

    Times are monotonic seconds. A bucket with the habit is tried again once in a while.
    """

    def __init__(self) -> None:
        self._strikes = 0
        self._struck_at = float("-inf")
        self._tried_at = float("-inf")

    def worth_a_try(self, now: float) -> bool:
        """Tell whether to write the next state with its cursor."""
        if self._strikes < _STRIKES:
            return True
        if now - self._tried_at < _TRY_AGAIN:
            return False
        self._tried_at = now
        return True

    def accepted(self) -> None:
        """Take note that a cursor was accepted."""
        self._strikes = 0

    def refused(self, now: float) -> bool:
        """Take note that a cursor was refused; tell whether it is a habit."""
        if now - self._struck_at >= _APART:
            self._strikes += 1
            self._struck_at = now
        if self._strikes >= _STRIKES:
            self._tried_at = now
        return self._strikes >= _STRIKES


class PlatformCheckpointStore:
    """Keeps checkpoints in the buckets of `mailboxes`. A `CheckpointStore`.

    Errors are `PlatformError` and, from `load`, `CheckpointError`. Only folders that moved are written. `warn` hears,
    once, what an operator should know about this platform.
    """

    interval: float = 5.0

    def __init__(
        self,
        api: PlatformApi,
        buckets: Buckets,
        mailboxes: Iterable[Mailbox],
        clock: Clock,
        warn: Callable[[str], object],
    ) -> None:
        self._api = api
        self._buckets = buckets
        self._own = {(mailbox.bucket, mailbox.address.casefold()) for mailbox in mailboxes}
        self._clock = clock
        self._warn = warn
        self._warned = False
        self._loaded: dict[Bucket, dict[str, list[Mapping[str, Any]]]] = {}
        self._locks: dict[Bucket, asyncio.Lock] = {}
        self._saved: dict[tuple[Bucket, str], dict[str, FolderCheckpoint]] = {}
        self._loaded_from: dict[tuple[Bucket, str], str] = {}
        self._cursors: dict[Bucket, _Cursors] = {}
        self._log = structlog.get_logger("ews_sync.checkpoint")

    async def load(self, mailbox: Mailbox) -> MailboxCheckpoint:
        """Read what was saved last; empty when there is nothing."""
        # Another spelling of the address may have left a state of the same folder: the later of them comes last, and
        # the mailbox's own after all others.
        states = sorted(
            await self._states(mailbox),
            key=lambda state: (state.get("mailbox_name") == mailbox.address, str(state.get("last_synced_at"))),
        )
        folders = {}
        for state in states:
            folder = self._read(mailbox, state)
            folders[folder.folder_id] = folder
        self._saved[mailbox.bucket, mailbox.address] = dict(folders)
        self._loaded_from[mailbox.bucket, mailbox.address] = await self._buckets.id_of(mailbox.bucket)
        return MailboxCheckpoint(folders)

    async def save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Write the states of the folders that moved since the last save, several at once."""
        try:
            bucket_id = await self._buckets.id_of(mailbox.bucket)
            if self._loaded_from.get((mailbox.bucket, mailbox.address), bucket_id) != bucket_id:
                # What it says is not in there.
                raise PlatformError(f"bucket {mailbox.bucket} was deleted and made anew", asks=Asks.RESYNC)
            await self._save(mailbox, bucket_id, checkpoint)
        except NotFoundError:
            self._buckets.forget(mailbox.bucket)
            raise

    async def aclose(self) -> None:
        """Do nothing: the connections are the sink's."""

    async def _save(self, mailbox: Mailbox, bucket_id: str, checkpoint: MailboxCheckpoint) -> None:
        saved = self._saved.setdefault((mailbox.bucket, mailbox.address), {})
        places = asyncio.Semaphore(_FOLDERS_AT_ONCE)

        async def one(folder: FolderCheckpoint) -> None:
            async with places:
                await self._put(mailbox, bucket_id, folder)
            saved[folder.folder_id] = folder

        # A folder's checkpoint is another object whenever it moved.
        moved = [folder for key, folder in checkpoint.folders.items() if saved.get(key) is not folder]
        results = await asyncio.gather(*(one(folder) for folder in moved), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _put(self, mailbox: Mailbox, bucket_id: str, folder: FolderCheckpoint) -> None:
        """Write one state. Raises the refusal when it could be written without its cursor only, and may do better."""
        state = to_keyed_state(mailbox.address, folder)
        cursors = self._cursors.setdefault(mailbox.bucket, _Cursors())
        refusal = None
        if cursors.worth_a_try(self._clock.monotonic()):
            try:
                await self._api.put_keyed_sync_state(bucket_id, state)
            except RefusedError as error:
                refusal = error
            else:
                cursors.accepted()
                return
        del state["cursor"]
        await self._api.put_keyed_sync_state(bucket_id, state)
        if refusal is None:
            return
        if refusal.too_large:
            self._log.warning(
                "a sync state is too large with its cursor, and was saved without",
                mailbox=mailbox.address,
                folder=folder.folder_path,
                problem=refusal.summary,
            )
        elif cursors.refused(self._clock.monotonic()):
            self._say(CURSOR_REFUSED)
        else:
            raise refusal

    async def _states(self, mailbox: Mailbox) -> list[Mapping[str, Any]]:
        """Give the mailbox's states. Those of its bucket's other mailboxes are kept until they are asked for, too."""
        bucket, address = mailbox.bucket, mailbox.address.casefold()
        async with self._locks.setdefault(bucket, asyncio.Lock()):
            waiting = self._loaded.get(bucket)
            if waiting is None or address not in waiting:
                waiting = self._loaded[bucket] = await self._fetch(bucket)
            return waiting.pop(address)

    async def _fetch(self, bucket: Bucket) -> dict[str, list[Mapping[str, Any]]]:
        states: dict[str, list[Mapping[str, Any]]] = {address: [] for own, address in self._own if own == bucket}

        def take(state: Mapping[str, Any]) -> None:
            address = str(state.get("mailbox_name", "")).casefold()
            # The platform also knows states of mailboxes as a whole, which say nothing of any folder.
            if address in states and state.get("folder_id") is not None:
                states[address].append(state)

        await self._api.keyed_sync_states(await self._buckets.id_of(bucket), take)
        return states

    def _read(self, mailbox: Mailbox, state: Mapping[str, Any]) -> FolderCheckpoint:
        try:
            read = from_keyed_state(state)
        except CheckpointError as error:
            raise CheckpointError(
                f"a sync state of mailbox {mailbox.address} in bucket {mailbox.bucket} cannot be read",
                hint="delete the mailbox's sync states in the platform to start again from the configured time, or "
                'set "start_from" to "config"',
            ) from error
        if read.cursor_damaged:
            self._log.warning(
                "the cursor of a sync state cannot be read; going on from its synced_until",
                mailbox=mailbox.address,
                folder=read.checkpoint.folder_path,
            )
        elif read.checkpoint.cursor is None and read.checkpoint.backfill is None:
            self._say(NO_CURSOR)
        return read.checkpoint

    def _say(self, warning: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(warning)
