"""Checkpoints as the platform's keyed sync states: one for each folder of each mailbox, in the mailbox's bucket.

`synced_until` and `status` are the platform's own; what a timestamp cannot say travels in `cursor`, which a platform
may refuse, or forget. Then `synced_until` is all there is, which is said once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from ews_sync.errors import CheckpointError
from ews_sync.model import FolderCheckpoint, MailboxCheckpoint
from ews_sync.sinks.keyed_state import from_keyed_state, to_keyed_state
from ews_sync.sinks.platform.answers import NotFoundError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ews_sync.model import Bucket, Mailbox
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


class PlatformCheckpointStore:
    """Keeps checkpoints in the buckets of `mailboxes`. A `CheckpointStore`.

    Errors are `PlatformError` and, from `load`, `CheckpointError`. Only folders that moved are written. `warn` hears,
    once, what an operator should know about this platform.
    """

    interval: float = 5.0

    def __init__(
        self, api: PlatformApi, buckets: Buckets, mailboxes: Iterable[Mailbox], warn: Callable[[str], object]
    ) -> None:
        self._api = api
        self._buckets = buckets
        self._own = {(mailbox.bucket, mailbox.address.casefold()) for mailbox in mailboxes}
        self._warn = warn
        self._warned = False
        self._loaded: dict[Bucket, dict[str, list[Mapping[str, Any]]]] = {}
        self._locks: dict[Bucket, asyncio.Lock] = {}
        self._saved: dict[tuple[Bucket, str], dict[str, FolderCheckpoint]] = {}
        self._without_cursor: set[Bucket] = set()
        self._log = structlog.get_logger("ews_sync.checkpoint")

    async def load(self, mailbox: Mailbox) -> MailboxCheckpoint:
        """Read what was saved last; empty when there is nothing."""
        folders = {}
        for state in await self._states(mailbox):
            folder = self._read(mailbox, state)
            folders[folder.folder_id] = folder
        self._saved[mailbox.bucket, mailbox.address] = dict(folders)
        return MailboxCheckpoint(folders)

    async def save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Write the states of the folders that moved since the last save, several at once."""
        try:
            bucket_id = await self._buckets.id_of(mailbox.bucket)
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
        state = to_keyed_state(mailbox.address, folder)
        if mailbox.bucket not in self._without_cursor:
            try:
                await self._api.put_keyed_sync_state(bucket_id, state)
            except RefusedError as error:
                refusal = error
            else:
                return
        else:
            refusal = None
        del state["cursor"]
        await self._api.put_keyed_sync_state(bucket_id, state)
        if refusal is not None:
            self._without_cursor.add(mailbox.bucket)
            self._log.debug("a sync state was refused with its cursor and accepted without", problem=refusal.summary)
            self._say(CURSOR_REFUSED)

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
        for state in await self._api.keyed_sync_states(await self._buckets.id_of(bucket)):
            address = str(state.get("mailbox_name", "")).casefold()
            # The platform also knows states of mailboxes as a whole, which say nothing of any folder.
            if address in states and state.get("folder_id") is not None:
                states[address].append(state)
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
