"""Which folders of a mailbox fail, and whether it is them or the mailbox. Pure.

A folder that fails is left alone for a while, and the others go on. But when two folders fail one after the other, or
all that were tried, then it is not the folders.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.engine.backoff import Backoff
from ews_sync.errors import Asks, ProtocolError, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.errors import EwsSyncError, SourceError


class RoundEndedError(Exception):
    """A round cannot go on: because of `error`, or (None) only to begin anew at the checkpoint."""

    def __init__(self, error: EwsSyncError | None) -> None:
        super().__init__(error)
        self.error = error


@dataclass(slots=True)
class _Rest:
    backoff: Backoff
    until: float = 0.0


@dataclass(slots=True)
class FolderTroubles:
    """Remembers what failed. Times are monotonic seconds, `jitter` is that of `Backoff`."""

    jitter: Callable[[], float] = random.random
    _rests: dict[str, _Rest] = field(default_factory=dict)
    _out: set[str] = field(default_factory=set)
    _in_a_row: list[str] = field(default_factory=list)
    _last: SourceError | None = None

    def begin_round(self, now: float) -> None:
        """Let the folders that have rested take part again."""
        self._out = {folder_id for folder_id, rest in self._rests.items() if rest.until > now}
        self._in_a_row.clear()
        self._last = None

    def is_out(self, folder_id: str) -> bool:
        """Tell whether the folder takes no part in this round (any more)."""
        return folder_id in self._out

    def leave_out(self, folder_id: str) -> None:
        """Have the folder sit out the rest of this round."""
        self._out.add(folder_id)

    def answered(self, folder_id: str) -> None:
        """Take note that something that was asked of the folder succeeded: it is not all of them that fail."""
        if folder_id not in self._out:
            self._in_a_row.clear()

    def well(self, folder_id: str) -> bool:
        """Let the folder's next rest be a short one, unless it sits out; tell whether it is well.

        At the end of a round, and not before: a folder can be listed again and again, and its items not be fetched.
        """
        self.answered(folder_id)
        if folder_id in self._out:
            return False
        self._rests.pop(folder_id, None)
        return True

    def failed(self, folder_id: str, error: SourceError, now: float) -> bool:
        """Take note of a failure; tell whether it is the mailbox's, and not this folder's."""
        if error.scope is Scope.PROCESS:
            return True
        if not _speaks_of_the_folder(error):
            if self._in_a_row:
                self._acquit()
                return True
            self._in_a_row.append(folder_id)
            self._last = error
        rest = self._rests.setdefault(folder_id, _Rest(Backoff(5.0, 300.0, self.jitter)))
        wait = max(rest.backoff.next(), error.retry_after or 0.0)
        rest.until = now + (max(wait, 60.0) if error.asks is Asks.STOP else wait)
        self._out.add(folder_id)
        return False

    def everywhere(self, folders: int) -> SourceError | None:
        """Give the failure that all of the mailbox's folders met in this round, if they did; it is the mailbox's then.

        `folders` is how many there are.
        """
        if len(self._in_a_row) < folders:
            return None
        self._acquit()
        return self._last

    def _acquit(self) -> None:
        for folder_id in self._in_a_row:
            self._rests.pop(folder_id, None)


def _speaks_of_the_folder(error: SourceError) -> bool:
    return error.scope is Scope.FOLDER or isinstance(error, ProtocolError)
