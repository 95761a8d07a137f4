"""Whether a folder changed since it was last read, from what FolderActivity says. Pure.

The time of the last change often comes in whole seconds, so a second change within the same second looks like the
first. A folder therefore counts as quiet only when it was read again, and gave the same activity, some seconds after
that activity was first seen. And every so often every folder is read anyway, in case a server does not keep the
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ews_sync.model import FolderActivity

_SETTLING = 3.0
"""Seconds.

Longer than the precision of the time of the last change, with room for the clocks of a cluster of servers.
"""
SWEEP_EVERY = 3600.0
"""Seconds between readings of a folder that seems quiet."""


@dataclass(slots=True)
class FolderWatch:
    """Remembers what a folder's activity was when it was read. Times are monotonic seconds."""

    _activity: FolderActivity | None = None
    _first_seen: float = 0.0
    _settled: bool = False
    _read_at: float | None = None

    def must_read(self, activity: FolderActivity | None, now: float) -> bool:
        """Tell whether the folder's feed has to be asked."""
        return activity is None or self.has_changed(activity, now) or not self._settled

    @property
    def has_read(self) -> bool:
        """Whether it remembers a reading."""
        return self._read_at is not None

    def has_changed(self, activity: FolderActivity, now: float) -> bool:
        """Tell whether anything has happened since the folder was read, or it is time to look all the same."""
        return self._read_at is None or now - self._read_at >= SWEEP_EVERY or activity != self._activity

    def was_read(self, activity: FolderActivity | None, seen_at: float, now: float) -> None:
        """Take note that the feed was read to its end after a look gave `activity`.

        `seen_at` is when that look was answered, not when it was asked: a slow answer speaks of its end.
        """
        if activity != self._activity:
            self._activity = activity
            self._first_seen = seen_at
            self._settled = False
        else:
            self._settled = seen_at - self._first_seen >= _SETTLING
        self._read_at = now

    def forget(self) -> None:
        """Have the folder read at the next look, whatever its activity."""
        self._read_at = None
