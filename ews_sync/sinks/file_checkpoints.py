"""Checkpoints as files that people can read: `P/state/<owner>/<bucket>/<mailbox>.json`, atomic and durable.

The version before the last save stays as `<mailbox>.json.bak`. It is for people, not for the appliance: a file that
cannot be read stops its mailbox with a message that says what to do, because to start over in silence would fetch
years of mail again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

from ews_sync.errors import CheckpointError
from ews_sync.model import MailboxCheckpoint
from ews_sync.sinks.disk_threads import DiskThreads
from ews_sync.sinks.durable import Disk, replace
from ews_sync.sinks.keyed_state import from_keyed_state, to_keyed_state
from ews_sync.sinks.mailbox_directory import mailbox_key
from ews_sync.sinks.new_email import json_bytes
from ews_sync.sinks.paths import state_file

if TYPE_CHECKING:
    from pathlib import Path

    from ews_sync.model import Bucket, FolderCheckpoint, Mailbox
    from ews_sync.sinks.disk_threads import Patience
    from ews_sync.telemetry.health import Health

STATE_VERSION = 1


class FileCheckpointStore:
    """Keeps checkpoints below `prefix`. A `CheckpointStore`; errors are `StorageError` and `CheckpointError` (`load`).

    Saves of one mailbox come one after the other in the order in which they were asked for; one that changes nothing
    is not written. `threads` bounds how many files are written at a time; `health` hears when the disk no longer
    answers, and `patience` says when that is.
    """

    interval: float = 1.0

    def __init__(
        self,
        prefix: Path,
        *,
        threads: int = 2,
        disk: Disk | None = None,
        health: Health | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._prefix = prefix
        self._threads = DiskThreads(prefix, threads, health=health, patience=patience)
        self._disk = self._threads.watched(disk or Disk())
        self._saves: dict[tuple[Bucket, str], _Saves] = {}

    async def load(self, mailbox: Mailbox) -> MailboxCheckpoint:
        """Read what was saved last; empty when there is no file."""
        data = await self._threads.run(mailbox_key(mailbox), "reading the checkpoint", self._read, mailbox)
        return MailboxCheckpoint() if data is None else self._decode(mailbox, data)

    async def save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Replace what is saved. Only the first save makes the directory: one that goes away later is a lost volume."""
        saves = self._saves.setdefault(mailbox_key(mailbox), _Saves())
        saves.asked += 1
        # Made here and not in the thread, so that what is saved is what was asked for, whatever becomes of the
        # mappings.
        data = _encode(mailbox, checkpoint)
        doing, key = "saving the checkpoint", mailbox_key(mailbox)
        await self._threads.run(key, doing, self._write, saves, saves.asked, self._path(mailbox), data)

    async def aclose(self) -> None:
        """Finish what is being written."""
        await self._threads.aclose()

    def _path(self, mailbox: Mailbox) -> Path:
        return state_file(self._prefix, mailbox, ".json")

    def _read(self, mailbox: Mailbox) -> bytes | None:
        try:
            return self._disk.read(self._path(mailbox))
        except FileNotFoundError:
            return None

    def _write(self, saves: _Saves, number: int, path: Path, data: bytes) -> None:
        with saves.lock:
            digest = hashlib.sha256(data).digest()
            # Threads start in any order, and a cancelled save still runs: an earlier one must not undo a later one.
            if number < saves.written or digest == saves.digest:
                return
            # The sink has made the directory for its lock. One that is gone since is not made anew: the mail went with
            # it, and a checkpoint that outlives the mail would keep it from ever coming back.
            saves.digest = b""
            replace(self._disk, path, data, spare=".bak")
            saves.written, saves.digest = number, digest

    def _decode(self, mailbox: Mailbox, data: bytes) -> MailboxCheckpoint:
        try:
            state: dict[str, Any] = json.loads(data)
            version = state["version"]
            if version != STATE_VERSION:
                raise self._damaged(
                    mailbox, f"has version {version!r}, and this appliance reads version {STATE_VERSION}"
                )
            folders: dict[str, FolderCheckpoint] = {}
            for folder in state["folders"]:
                read = from_keyed_state(folder)
                if read.cursor_damaged or read.mailbox != mailbox.address:
                    raise self._damaged(mailbox, "holds a folder that cannot be read")
                folders[read.checkpoint.folder_id] = read.checkpoint
            position = state.get("sink_position")
            if position is not None and not isinstance(position, str):
                raise self._damaged(mailbox, "holds a position that is no text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(mailbox, "cannot be read") from error
        except CheckpointError as error:
            if error.hint:
                raise
            raise self._damaged(mailbox, "holds a folder that cannot be read") from error
        return MailboxCheckpoint(folders, position)

    def _damaged(self, mailbox: Mailbox, what: str) -> CheckpointError:
        path = self._path(mailbox)
        return CheckpointError(
            f"the state file of mailbox {mailbox.address} {what}",
            hint=f"put {path.name}.bak in the place of {path}, which repeats a little, "
            "or move the file away to start from the configured time",
        )


class _Saves:
    """One mailbox's saves: how many were asked for, the last one written, and the digest of what is in the file."""

    def __init__(self) -> None:
        self.asked = 0
        self.written = 0
        self.digest = b""
        self.lock = threading.Lock()


def _encode(mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> bytes:
    state: dict[str, object] = {"version": STATE_VERSION, "mailbox": mailbox.address}
    if checkpoint.sink_position is not None:
        state["sink_position"] = checkpoint.sink_position
    state["folders"] = [
        to_keyed_state(mailbox.address, folder, readable=True) for folder in checkpoint.folders.values()
    ]
    return json_bytes(state, indent=2) + b"\n"
