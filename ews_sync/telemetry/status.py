"""What the appliance is doing now: written by the engine, read by the server and the terminal.

Plain values, one process, one event loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from ews_sync.errors import EwsSyncError

RATE_WINDOW = 60.0
"""Seconds over which rates are taken."""


class Phase(StrEnum):
    """What a mailbox or folder is about."""

    STARTING = "starting"
    MARKING = "marking"
    BACKFILLING = "backfilling"
    FOLLOWING = "following"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something does not go on, since when, and what to do."""

    reason: str
    hint: str
    code: str
    since: datetime
    needs_operator: bool

    @classmethod
    def of(cls, error: EwsSyncError, since: datetime) -> Failure:
        """Make one of an error."""
        return cls(error.summary, error.hint, error.code, since, needs_operator=error.asks == "stop")


@dataclass(slots=True)
class FolderProgress:
    """How far a folder is. `done` and `total` count the items of the backfill.

    `marked` those that the marking has seen so far.
    """

    path: tuple[str, ...]
    phase: Phase = Phase.STARTING
    items: int = 0
    marked: int = 0
    done: int = 0
    total: int = 0
    stored: int = 0
    synced_until: datetime | None = None
    last_synced_at: datetime | None = None
    failure: Failure | None = None


class Rate:
    """Events per second over the last `RATE_WINDOW` seconds; holds a count for each second in which there was one."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """Count events at `now` (monotonic seconds)."""
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + count)
        else:
            self._counts.append((second, count))
        self._forget(now)

    def per_second(self, now: float) -> float:
        """Give the rate."""
        self._forget(now)
        if not self._counts:
            return 0.0
        span = max(1.0, min(RATE_WINDOW, now - self._counts[0][0]))
        return sum(count for _, count in self._counts) / span

    def _forget(self, now: float) -> None:
        while self._counts and self._counts[0][0] < now - RATE_WINDOW:
            self._counts.popleft()


@dataclass(slots=True)
class MailboxProgress:
    """How far a mailbox is. `stored` counts emails since this process started."""

    address: str
    bucket: str
    phase: Phase = Phase.STARTING
    folders: dict[str, FolderProgress] = field(default_factory=dict)
    stored: int = 0
    stored_bytes: int = 0
    dead_letters: int = 0
    rounds: int = 0
    rate: Rate = field(default_factory=Rate)
    newest_received: datetime | None = None
    last_stored_at: datetime | None = None
    last_success_at: datetime | None = None
    failure: Failure | None = None
    sink_ready: bool = False
    source_answered: bool = False

    @property
    def done(self) -> int:
        """How many items of the backfills are behind us."""
        return sum(folder.done for folder in self.folders.values())

    @property
    def total(self) -> int:
        """How many items the backfills have in all."""
        return sum(max(folder.total, folder.done) for folder in self.folders.values())


@dataclass(slots=True)
class Status:
    """The whole appliance."""

    version: str
    started_at: datetime
    config_source: str = ""
    shard: str = ""
    sink: str = ""
    stopping: bool = False
    failure: Failure | None = None
    """Why everything stands still, until it is built anew."""
    sink_failure: Failure | None = None
    warnings: list[str] = field(default_factory=list)
    mailboxes: dict[str, MailboxProgress] = field(default_factory=dict)

    @property
    def source_answered(self) -> bool:
        """Whether the source has answered for any mailbox; a shard without mailboxes waits for nobody."""
        return not self.mailboxes or any(mailbox.source_answered for mailbox in self.mailboxes.values())

    @property
    def sink_answered(self) -> bool:
        """Whether the sink has been made ready for any mailbox."""
        return not self.mailboxes or any(mailbox.sink_ready for mailbox in self.mailboxes.values())

    @property
    def ready(self) -> bool:
        """Whether the job is being done: source and sink have answered, and nothing is stopping."""
        return self.source_answered and self.sink_answered and not self.stopping and self.failure is None
