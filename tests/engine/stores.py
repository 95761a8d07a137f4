"""Sinks and a checkpoint store in memory, which outlive the process that wrote to them.

What a process has not heard to be stored may be stored all the same, in whole or in part: a put takes its time, and can
be interrupted anywhere in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.errors import SinkError
from ews_sync.model import MailboxCheckpoint, Recall, Receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ews_sync.model import Clock, DeadLetter, Email, Folder, ItemRef, Mailbox


@dataclass(frozen=True, slots=True)
class Stored:
    """An email as it is stored."""

    id: str
    folder: tuple[str, ...]
    body: bytes


@dataclass(slots=True)
class Disk:
    """What outlives a crash, by mailbox."""

    emails: dict[str, dict[str, Stored]] = field(default_factory=dict)
    lines: dict[str, list[Stored]] = field(default_factory=dict)
    letters: dict[str, dict[str, DeadLetter]] = field(default_factory=dict)
    checkpoints: dict[str, MailboxCheckpoint] = field(default_factory=dict)
    uploads: Counter[str] = field(default_factory=Counter)
    """How often each email was confirmed to a process that was alive to hear it."""


class MemorySink:
    """A `Sink`, as one of three kinds.

    \"files\" knows what it holds, \"platform\" does not, and \"lines\" is ordered: it appends, and is cut back.
    """

    def __init__(self, disk: Disk, clock: Clock, kind: str = "files") -> None:
        self.ordered = kind == "lines"
        self.recall = {"files": Recall.EVERYTHING, "lines": Recall.NOTHING}.get(kind, Recall.ONE_BY_ONE)
        self.disk = disk
        self.alive = True
        self.latency = 0.02
        self.before: Callable[[Sequence[Email]], Awaitable[None]] | None = None
        self.before_open: Callable[[Mailbox], Awaitable[None]] | None = None
        self.before_letters: Callable[[Sequence[DeadLetter]], Awaitable[None]] | None = None
        self.puts: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        """The ids of the emails that `holds` was asked about."""
        self.breaks_after: int | None = None
        """After so many emails of the next batch the sink fails; they are stored."""
        self.at_once = 0
        self.most_at_once = 0
        self._clock = clock
        self._confirmed: dict[str, int] = {}

    async def open(self, mailbox: Mailbox, position: str | None) -> None:
        if self.before_open is not None:
            await self.before_open(mailbox)
        lines = self.disk.lines.setdefault(mailbox.address, [])
        at = int(position or 0)
        assert len(lines) >= at, "the checkpoint claims more than was ever written"
        if self.alive:
            del lines[at:]
        self._confirmed[mailbox.address] = at

    async def put(self, batch: Sequence[Email]) -> Receipt:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._put(batch)
        finally:
            self.at_once -= 1

    async def _put(self, batch: Sequence[Email]) -> Receipt:
        if self.before is not None:
            await self.before(batch)
        if self.breaks_after is not None:
            return await self._put_in_part(batch)
        address = batch[0].mailbox.address
        stored = self._stored(batch)
        self._cut_back(address)
        middle = len(stored) // 2
        for part in (stored[:middle], stored[middle:]):
            await self._clock.sleep(self.latency / 2)
            if not self.alive:
                return Receipt()
            self._write(address, part)
        self.puts.append(tuple(email.id for email in batch))
        self.disk.uploads.update(email.id for email in batch)
        if not self.ordered:
            return Receipt()
        self._confirmed[address] = len(self.disk.lines[address])
        return Receipt(position=str(self._confirmed[address]))

    def _stored(self, batch: Sequence[Email]) -> list[Stored]:
        return [Stored(email.id, email.metadata.folder, b"".join(email.mime.chunks())) for email in batch]

    def _cut_back(self, address: str) -> None:
        """Take away what an ordered sink holds behind what was confirmed."""
        if self.ordered and self.alive:
            del self.disk.lines[address][self._confirmed[address] :]

    def _write(self, address: str, part: Sequence[Stored]) -> None:
        if self.ordered:
            self.disk.lines[address] += part
        else:
            self.disk.emails.setdefault(address, {}).update((email.id, email) for email in part)

    async def _put_in_part(self, batch: Sequence[Email]) -> Receipt:
        count, self.breaks_after = self.breaks_after or 0, None
        done, left = batch[:count], tuple(batch[count:])
        if done:
            await self._put(done)
        failure = SinkError("in the middle", retry_after=5.0)
        if not done:
            raise failure
        return Receipt(left=left, failure=failure)

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        if self.before_letters is not None:
            await self.before_letters(letters)
        if self.alive:
            for letter in letters:
                self.disk.letters.setdefault(letter.mailbox.address, {})[letter.item_id] = letter

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        self.asked += [ref.email_id or "" for ref in refs]
        stored = self.disk.emails.get(mailbox.address, {})
        found = [stored.get(ref.email_id or "") for ref in refs]
        return [entry is not None and entry.folder == folder.path for entry in found]

    async def check(self, mailbox: Mailbox) -> None:
        pass

    async def aclose(self) -> None:
        pass


class MemoryCheckpoints:
    """A `CheckpointStore`."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self.disk = disk
        self.interval = 1.0
        self.alive = True
        self.saves = 0
        self.before: Callable[[Mailbox], Awaitable[None]] | None = None
        self._clock = clock

    async def load(self, mailbox: Mailbox) -> MailboxCheckpoint:
        return self.disk.checkpoints.get(mailbox.address, MailboxCheckpoint())

    async def save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        await self._clock.sleep(0.005)
        if self.before is not None:
            await self.before(mailbox)
        if self.alive:
            self.saves += 1
            self.disk.checkpoints[mailbox.address] = checkpoint

    async def aclose(self) -> None:
        self.alive = False
