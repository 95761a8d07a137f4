"""A mailbox's folders: which are there, how far each is read, and which are in trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from ews_sync.engine.reading import Reading
from ews_sync.engine.troubles import FolderTroubles, RoundEndedError
from ews_sync.errors import FolderGoneError, SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ews_sync.engine.showing import Display
    from ews_sync.model import Clock, Folder, Mailbox

T = TypeVar("T")


class Folders:
    """What the rounds of one mailbox know of its folders. `present` are those that the last look has found."""

    def __init__(self, mailbox: Mailbox, clock: Clock, display: Display, jitter: Callable[[], float]) -> None:
        self.present: Sequence[Folder] = ()
        self.seen_at = 0.0
        """When that look was answered, in monotonic seconds."""
        self.readings: dict[str, Reading] = {}
        """By the folder's id."""
        self._clock = clock
        self._display = display
        self._troubles = FolderTroubles(jitter)
        self._log = structlog.get_logger("ews_sync.mailbox").bind(mailbox=mailbox.address)

    def reading(self, folder: Folder) -> Reading:
        """Give how far the folder is read."""
        return self.readings.setdefault(folder.id, Reading())

    def begin_round(self) -> None:
        """Forget the folders that are gone, which may never come back, and let those rest that have to."""
        self._troubles.begin_round(self._clock.monotonic())
        present = {folder.id for folder in self.present}
        for folder_id in [folder_id for folder_id in self.readings if folder_id not in present]:
            del self.readings[folder_id]

    def is_out(self, folder: Folder) -> bool:
        """Tell whether the folder is left alone for the rest of the round."""
        return self._troubles.is_out(folder.id)

    def is_in(self, folder: Folder) -> bool:
        """Tell whether the folder is there and well."""
        return any(folder.id == present.id for present in self.present) and not self.is_out(folder)

    def answered(self, folder: Folder) -> None:
        """Take note that something that was asked of the folder succeeded."""
        self._troubles.answered(folder.id)

    async def work_on(self, folder: Folder, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do work on one folder whose failure leaves the other folders alone; None when it failed."""
        try:
            result = await work()
        except SourceError as error:
            self.failed(folder, error)
            return None
        self.answered(folder)
        return result

    def failed(self, folder: Folder, error: SourceError) -> None:
        """Take a folder out of the round. Raises `RoundEndedError` when it is not the folder's own failure."""
        if isinstance(error, FolderGoneError):
            self._troubles.leave_out(folder.id)
            self._log.debug("the folder is gone", folder=folder.path)
            return
        if self._troubles.failed(folder.id, error, self._clock.monotonic()):
            raise RoundEndedError(error) from error
        if self._display.folder_failed(folder, error, self._clock.now()):
            self._log.error(
                "folder failed", folder=folder.path, problem=error.summary, hint=error.hint, code=error.code
            )

    def end_round(self) -> None:
        """Take note of which folders are well: those that have not failed and do not rest.

        Raises the `SourceError` that all of them have failed with, if they have.
        """
        error = self._troubles.everywhere(len(self.present))
        if error is not None:
            raise error
        for folder in self.present:
            if self._troubles.well(folder.id) and self._display.folder_well(folder):
                self._log.info("folder is well again", folder=folder.path)
