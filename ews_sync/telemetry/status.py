"""What the appliance is doing now: written by the engine, read by the server and the terminal.

Plain values, one process, one event loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ews_sync.telemetry.health import Health
from ews_sync.telemetry.traffic import Traffic

if TYPE_CHECKING:
    from datetime import datetime

    from ews_sync.errors import EwsSyncError
    from ews_sync.model import DeadLetter

RATE_WINDOW = 60.0
"""Seconds over which rates are taken."""
DEAD_LETTERS_SHOWN = 100
"""How many dead letters are kept for whoever looks; the newest."""


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

    def __str__(self) -> str:
        return f"{self.reason} - {self.hint}" if self.hint else self.reason

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
    rate: Rate | None = None
    """Only once something was stored: most folders of most mailboxes never see any mail."""
    newest_received: datetime | None = None
    synced_until: datetime | None = None
    last_synced_at: datetime | None = None
    failure: Failure | None = None


class Rate:
    """Events per second over the last `RATE_WINDOW` seconds; holds a count for each second in which there was one."""

    def __init__(self) -> None:
        # No deque, which takes 600 bytes though nothing is in it: there are thousands of these, and most stay empty.
        self._counts: list[tuple[int, int]] = []

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
            del self._counts[0]


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


@dataclass(frozen=True, slots=True)
class ShardNote:
    """Which instance of a cluster this is, and how many of the config's mailboxes are its own.

    `number` counts from 0. The numbers of mailboxes are None until there is a config.
    """

    name: str
    number: int
    total: int
    mailboxes: int | None = None
    mailboxes_in_config: int | None = None

    def __str__(self) -> str:
        which = f"{self.name}, one of {self.total} shards (number {self.number}, from 0)"
        if self.mailboxes is None or self.mailboxes_in_config is None:
            return which
        all_of_them = f"the config's {self.mailboxes_in_config} mailboxes"
        if self.mailboxes_in_config == 1:
            all_of_them = "the config's 1 mailbox"
        if not self.mailboxes:
            return f"{which}: none of {all_of_them}, so there is nothing to do here"
        return f"{which}: {self.mailboxes} of {all_of_them}"


@dataclass(frozen=True, slots=True)
class DeadLetterNote:
    """An email that could not be stored, as it is shown: whose and which it is, and why. See `model.DeadLetter`."""

    mailbox: str
    folder: tuple[str, ...]
    email_id: str | None
    item_id: str
    received: datetime | None
    code: str
    reason: str
    recorded_at: datetime

    @classmethod
    def of(cls, letter: DeadLetter, recorded_at: datetime) -> DeadLetterNote:
        """Make one of a dead letter."""
        return cls(
            mailbox=letter.mailbox.address,
            folder=letter.folder,
            email_id=letter.email_id,
            item_id=letter.item_id,
            received=letter.received,
            code=letter.code,
            reason=letter.reason,
            recorded_at=recorded_at,
        )


@dataclass(slots=True)
class Status:
    """The whole appliance.

    `config_loaded_at` is when the config that is in force was loaded, `config_checked_at` when it was last looked at
    and found fine, be it changed or not.
    """

    version: str
    started_at: datetime
    config_source: str = ""
    config_missing: bool = False
    """Whether there is no config yet, since it has to be fetched first."""
    config_loaded_at: datetime | None = None
    config_checked_at: datetime | None = None
    config_failure: Failure | None = None
    """Why the config cannot be had or used; where there was one before, that one stays in force."""
    shard: ShardNote | None = None
    sink: str = ""
    stopping: bool = False
    failure: Failure | None = None
    """Why everything stands still, until it is built anew."""
    source_failure: Failure | None = None
    """Why no mailbox can be read: the mail server is away for everybody."""
    sink_failure: Failure | None = None
    """Why no mail can be stored: what stores it is unwell for everybody."""
    health: Health = field(default_factory=Health)
    traffic: Traffic = field(default_factory=Traffic)
    token_ends_at: float | None = None
    """Until when the access token for the mail server is used (monotonic seconds); None where there is none."""
    warnings: list[str] = field(default_factory=list)
    mailboxes: dict[str, MailboxProgress] = field(default_factory=dict)
    dead_letters: deque[DeadLetterNote] = field(default_factory=lambda: deque(maxlen=DEAD_LETTERS_SHOWN))
    """The last dead letters since this process started, the oldest first."""
    dead_letters_noted: int = 0
    """How many there were in all since then."""

    def warn(self, warning: str) -> bool:
        """Show a warning until `settle`; tells whether it is a new one."""
        if warning in self.warnings:
            return False
        self.warnings.append(warning)
        return True

    def settle(self, warning: str) -> None:
        """Show a warning no longer."""
        if warning in self.warnings:
            self.warnings.remove(warning)

    def note_dead_letter(self, letter: DeadLetter, at: datetime) -> None:
        """Show an email that could not be stored."""
        self.dead_letters.append(DeadLetterNote.of(letter, at))
        self.dead_letters_noted += 1

    @property
    def idle(self) -> bool:
        """Whether no mailbox of the config belongs to this shard."""
        return self.shard is not None and self.shard.mailboxes == 0

    @property
    def source_answered(self) -> bool:
        """Whether the source has answered for any mailbox; a shard without mailboxes waits for nobody."""
        return self.idle or any(mailbox.source_answered for mailbox in self.mailboxes.values())

    @property
    def sink_answered(self) -> bool:
        """Whether the sink has been made ready for any mailbox."""
        return self.idle or any(mailbox.sink_ready for mailbox in self.mailboxes.values())

    @property
    def every_mailbox_fails(self) -> bool:
        """Whether there are mailboxes, and the last round of each of them has failed."""
        return bool(self.mailboxes) and all(mailbox.failure is not None for mailbox in self.mailboxes.values())

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why the job is not being done, in words; nothing when it is."""
        if self.stopping:
            return ("it is stopping",)
        if self.config_missing:
            return (_because("there is no config yet", self.config_failure),)
        if self.failure is not None:
            return (_because("everything stands still", self.failure),)
        found = []
        if not self.source_answered:
            found.append(_because("the Exchange server has not answered yet", self._trouble))
        elif self.source_failure is not None:
            found.append(_because("no mailbox can be read", self.source_failure))
        elif self.every_mailbox_fails:
            found.append(_because("every mailbox fails", self._trouble))
        if not self.sink_answered:
            found.append(_because("where the mail goes is not ready yet", self.sink_failure))
        elif self.sink_failure is not None:
            found.append(_because("no mail can be stored", self.sink_failure))
        return tuple(found)

    @property
    def _trouble(self) -> Failure | None:
        return next((mailbox.failure for mailbox in self.mailboxes.values() if mailbox.failure is not None), None)

    @property
    def ready(self) -> bool:
        """Whether the job is being done: the config is there, source and sink have answered, nothing is stopping."""
        return not self.obstacles


def _because(what: str, failure: Failure | None) -> str:
    return what if failure is None else f"{what}: {failure}"
