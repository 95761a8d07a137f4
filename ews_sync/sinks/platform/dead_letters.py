"""Dead letters of the platform's mailboxes as files: `D/<owner>/<bucket>/<mailbox>/dead-letters.jsonl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.errors import StorageError
from ews_sync.sinks.dead_letters import DeadLetterFile
from ews_sync.sinks.disk_threads import DiskThreads
from ews_sync.sinks.durable import Disk, flush_names, make_directories, remove_leftovers, try_writing, unmake
from ews_sync.sinks.mailbox_directory import by_mailbox, mailbox_key, utc_now
from ews_sync.sinks.paths import mailbox_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ews_sync.model import DeadLetter
    from ews_sync.sinks.disk_threads import Patience
    from ews_sync.telemetry.health import Health


class DeadLetterDirectory:
    """Keeps dead letters below `directory`. Errors are `StorageError`.

    `health` hears when the disk no longer answers, and `patience` says when that is.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk | None = None,
        health: Health | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._directory = directory
        self._threads = DiskThreads(directory, 1, health=health, patience=patience)
        self._disk = self._threads.watched(disk or Disk())
        self._files: dict[Path, DeadLetterFile] = {}

    async def record(self, letters: Sequence[DeadLetter]) -> None:
        """Record letters, durably and once each."""
        try:
            for own in by_mailbox(letters):
                doing = f"recording a dead letter in {self._directory}"
                await self._threads.run(mailbox_key(own[0].mailbox), doing, self._record, own)
        except StorageError as error:
            what = error.hint or f"see what is wrong with {self._directory}"
            error.hint = f"{what}, or run without --dead-letter-dir"
            raise

    async def check(self) -> None:
        """Try that the directory can be made and written, and leave nothing behind."""
        await self._threads.run(None, "looking at the directory of dead letters", self._check)

    async def aclose(self) -> None:
        """Finish what is being written."""
        await self._threads.aclose()

    def _record(self, letters: Sequence[DeadLetter]) -> None:
        path = mailbox_directory(self._directory, letters[0].mailbox)
        if not self._files:
            remove_leftovers(self._disk, self._directory)
        if path not in self._files or not path.is_dir():
            make_directories(self._disk, path)
            flush_names(self._disk, path, self._directory)
        self._files.setdefault(path, DeadLetterFile(self._disk, path, utc_now)).record(letters)

    def _check(self) -> None:
        made: list[Path] = []
        try:
            try_writing(self._disk, self._directory, made)
        finally:
            unmake(made)
