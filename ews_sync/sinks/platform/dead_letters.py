"""Dead letters of the platform's mailboxes as files: `D/<owner>/<bucket>/<mailbox>/dead-letters.jsonl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.errors import StorageError
from ews_sync.sinks.dead_letters import DeadLetterFile
from ews_sync.sinks.durable import Disk, make_directories, try_writing, unmake
from ews_sync.sinks.mailbox_directory import DiskThreads, utc_now
from ews_sync.sinks.paths import mailbox_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ews_sync.model import DeadLetter, Mailbox


class DeadLetterDirectory:
    """Keeps dead letters below `directory`. Errors are `StorageError`."""

    def __init__(self, directory: Path, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()
        self._threads = DiskThreads(directory, 1)
        self._files: dict[Path, DeadLetterFile] = {}

    async def record(self, letters: Sequence[DeadLetter]) -> None:
        """Record letters, durably and once each."""
        try:
            await self._threads.run(f"recording a dead letter in {self._directory}", self._record, letters)
        except StorageError as error:
            what = error.hint or f"see what is wrong with {self._directory}"
            error.hint = f"{what}, or run without --dead-letter-dir"
            raise

    async def check(self) -> None:
        """Try that the directory can be made and written, and leave nothing behind."""
        await self._threads.run("looking at the directory of dead letters", self._check)

    async def aclose(self) -> None:
        """Finish what is being written."""
        await self._threads.aclose()

    def _record(self, letters: Sequence[DeadLetter]) -> None:
        by_mailbox: dict[Path, list[DeadLetter]] = {}
        for letter in letters:
            by_mailbox.setdefault(self._path(letter.mailbox), []).append(letter)
        for path, of_mailbox in by_mailbox.items():
            make_directories(self._disk, path)
            file = self._files.setdefault(path, DeadLetterFile(self._disk, path, utc_now))
            file.record(of_mailbox)

    def _check(self) -> None:
        made: list[Path] = []
        try:
            try_writing(self._disk, self._directory, made)
        finally:
            unmake(made)

    def _path(self, mailbox: Mailbox) -> Path:
        return mailbox_directory(self._directory, mailbox)
