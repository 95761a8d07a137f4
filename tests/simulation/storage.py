"""The sink and the checkpoint store of a simulation, which fail in every way that their contracts leave them.

What the contract of a put leaves open: an answer that is lost, or a process that dies while it waits for one, says
nothing about whether the batch is stored. A remote sink may even store it later, but not after the same email was put
once more, or was asked about: then the peer has answered a later request for the same thing, and the earlier is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.errors import Asks, SinkError
from ews_sync.model import DeadLetter, MailboxCheckpoint, Receipt
from tests.engine.stores import Disk, MemoryCheckpoints, MemorySink, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ews_sync.model import Clock, Email, Folder, ItemRef, Mailbox
    from tests.simulation.faults import Faults
    from tests.simulation.history import History

INDIGESTIBLE = "indigestible"
"""Emails whose name begins with this are refused by the sink."""


@dataclass(eq=False, slots=True)
class Put:
    """A batch on its way, and what of it is not stored yet. `due` when it is stored after its time (else None)."""

    address: str
    left: list[tuple[Stored, str]]
    """What is to be stored, each with the id of the item that it comes from."""
    due: float | None = None


@dataclass(slots=True)
class SimulatedDisk(Disk):
    """A `Disk`, with what is on its way to it."""

    latest: dict[tuple[str, str], Put | None] = field(default_factory=dict)
    """By mailbox and name: the put that may still store the email, None when it was asked about since."""
    late: list[Put] = field(default_factory=list)
    opened_another: set[str] = field(default_factory=set)
    """The mailboxes whose bucket is another one than the one that their sink has opened."""
    loaded_another: set[str] = field(default_factory=set)
    """The mailboxes whose bucket is another one than the one that their checkpoint comes from."""

    def made_anew(self, address: str) -> None:
        """Have a mailbox's bucket deleted and made anew."""
        self.emails.pop(address, None)
        self.checkpoints.pop(address, None)
        self.late = [put for put in self.late if put.address != address]
        self.opened_another.add(address)
        self.loaded_another.add(address)

    def view(self, kind: str, address: str, position: str | None = None) -> dict[str, Stored]:
        """Give what is stored of a mailbox; of lines, only those up to a `position`."""
        if kind != "lines":
            return self.emails.get(address, {})
        lines = self.lines.get(address, [])
        return {line.id: line for line in (lines if position is None else lines[: int(position)])}


class SimulatedSink(MemorySink):
    """A `Sink` of one of the three kinds."""

    def __init__(self, disk: SimulatedDisk, clock: Clock, kind: str, faults: Faults, history: History) -> None:
        super().__init__(disk, clock, kind)
        self.kind = kind
        self.held: SimulatedDisk = disk
        self.in_flight: set[Put] = set()
        self._faults = faults
        self._history = history
        self._order: list[Put] = []

    async def open(self, mailbox: Mailbox, position: str | None) -> None:
        await self._faults.sink("open", mailbox)
        if self.alive:
            self.held.opened_another.discard(mailbox.address)
        await super().open(mailbox, position)

    async def put(self, batch: Sequence[Email]) -> Receipt:
        mailbox = batch[0].mailbox
        put = Put(
            mailbox.address,
            [(stored, email.item_id) for stored, email in zip(self._stored(batch), batch, strict=True)],
        )
        assert not (self.ordered and any(other.address == put.address for other in self.in_flight)), "not in order"
        self.apply_late()
        if self.alive:
            self.held.latest.update(((put.address, stored.id), put) for stored, _ in put.left)
        self.in_flight.add(put)
        self._order.append(put)
        try:
            return await self._fated(mailbox, batch, put)
        finally:
            if self.alive:
                self.in_flight.discard(put)
                self._order.remove(put)

    async def _fated(self, mailbox: Mailbox, batch: Sequence[Email], put: Put) -> Receipt:
        await self._faults.sink("put", mailbox)
        self._require_same(mailbox)
        faults, rates = self._faults, self._faults.rates
        if faults.happens(rates.slow):
            self._history.fault("slow put")
            await self._clock.sleep(faults.dice.random() * 40.0)
        lost = faults.happens(rates.lost)
        if lost and self.kind == "platform" and faults.happens(rates.late):
            put.due = self._clock.monotonic() + faults.dice.random() * 30.0
            self.held.late.append(put)
            faults.happened("answer lost, stored late", put.address, tuple(stored.id for stored, _ in put.left))
            raise SinkError("no answer")
        count = len(batch)
        if faults.happens(rates.part):
            count = faults.dice.randrange(count)
        self._cut_back(put.address)
        letters = self._refused(batch[:count])
        await self._write_in_pieces(put, len(batch) - count)
        if lost:
            faults.happened("answer lost", put.address, tuple(email.id for email in batch[:count]))
            raise SinkError("no answer")
        position = None
        if self.ordered:
            self._confirmed[put.address] = len(self.disk.lines[put.address])
            position = str(self._confirmed[put.address])
        self.disk.uploads.update(email.id for email in batch[:count])
        if count == len(batch):
            return Receipt(letters, position)
        failure = faults.sink_error()
        faults.happened("stored in part", put.address, tuple(email.id for email in batch[count:]))
        if not count:
            raise failure
        return Receipt(letters, position, left=tuple(batch[count:]), failure=failure)

    async def _write_in_pieces(self, put: Put, leave: int) -> None:
        while len(put.left) > leave:
            await self._clock.sleep(self.latency / 2)
            if not self.alive:
                return
            size = min(len(put.left) - leave, max(1, len(put.left) // 2))
            self._store_now(put, size)

    def _store_now(self, put: Put, count: int) -> None:
        piece, put.left = put.left[:count], put.left[count:]
        good = [(stored, item_id) for stored, item_id in piece if not stored.id.startswith(INDIGESTIBLE)]
        self._write(put.address, [stored for stored, _ in good])
        at = self._history.note(
            self._clock.monotonic(),
            "stored",
            f"{put.address} {' '.join(sorted({'/'.join(stored.folder) for stored, _ in good}))}",
            tuple(stored.id for stored, _ in good),
        )
        for _, item_id in good:
            self._history.uploads[put.address, item_id].append(at)

    def _refused(self, batch: Sequence[Email]) -> tuple[DeadLetter, ...]:
        letters = tuple(
            DeadLetter(email.mailbox, email.item_id, email.metadata.folder, "HTTP 422", "refused", email.id)
            for email in batch
            if email.id.startswith(INDIGESTIBLE)
        )
        if self.alive:
            for letter in letters:
                self.disk.letters.setdefault(letter.mailbox.address, {})[letter.item_id] = letter
        return letters

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        await self._faults.sink("dead_letter", letters[0].mailbox)
        await super().dead_letter(letters)
        if self._faults.happens(self._faults.rates.lost):
            self._faults.happened("answer lost", letters[0].mailbox.address)
            raise SinkError("no answer")

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        await self._faults.sink("holds", mailbox)
        await self._clock.sleep(self.latency / 2)
        self.apply_late()
        if self.alive:
            self.held.latest.update(((mailbox.address, ref.email_id or ""), None) for ref in refs)
        return await super().holds(mailbox, folder, refs)

    def apply_late(self) -> None:
        """Store what was sent earlier and is due only now, but for what was put or asked about since."""
        now = self._clock.monotonic()
        for put in [put for put in self.held.late if put.due is not None and put.due <= now]:
            self.held.late.remove(put)
            put.left = [entry for entry in put.left if self.held.latest.get((put.address, entry[0].id)) is put]
            if put.left:
                self._history.fault("stored late")
                self._history.note(now, "late", put.address, tuple(stored.id for stored, _ in put.left))
                self._store_now(put, len(put.left))

    def die(self) -> None:
        """Have the process that uses this die: what it has sent may be stored, now or later or in part, or not."""
        for put in self._order:
            dice = self._faults.dice
            if put.due is None and put.left and not self.ordered and put.address not in self.held.opened_another:
                self._store_now(put, dice.randrange(len(put.left) + 1))
                if self.kind == "platform" and put.left and self._faults.happens(self._faults.rates.late):
                    put.due = self._clock.monotonic() + dice.random() * 30.0
                    self.held.late.append(put)
        self.alive = False

    def _require_same(self, mailbox: Mailbox) -> None:
        if mailbox.address in self.held.opened_another:
            self._faults.happened("bucket made anew", mailbox.address)
            raise SinkError("the bucket was made anew", asks=Asks.RESYNC)


class SimulatedCheckpoints(MemoryCheckpoints):
    """A `CheckpointStore`. `saving` hears of every checkpoint before it counts."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        disk: SimulatedDisk,
        clock: Clock,
        kind: str,
        faults: Faults,
        history: History,
        saving: Callable[[Mailbox, MailboxCheckpoint], None],
    ) -> None:
        super().__init__(disk, clock)
        self.held = disk
        self.kind = kind
        self.in_flight: list[tuple[Mailbox, MailboxCheckpoint]] = []
        self._faults = faults
        self._history = history
        self._saving = saving
        self._loaded: set[str] = set()

    async def load(self, mailbox: Mailbox) -> MailboxCheckpoint:
        await self._faults.sink("load", mailbox, "store")
        if self.alive:
            self.held.loaded_another.discard(mailbox.address)
        if mailbox.address in self._loaded:
            # What was confirmed since the last save is forgotten.
            self._history.cause(mailbox.address, "loaded again")
        self._loaded.add(mailbox.address)
        return await super().load(mailbox)

    async def save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        entry = (mailbox, checkpoint)
        self.in_flight.append(entry)
        try:
            await self._save(mailbox, checkpoint)
        finally:
            if self.alive:
                self.in_flight.remove(entry)

    async def _save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        faults = self._faults
        if faults.happens(faults.rates.store / 4):
            self._write(mailbox, checkpoint, in_part=True)
            faults.happened("checkpoint saved in part, or its answer lost", mailbox.address)
            raise SinkError("no answer")
        await faults.sink("save", mailbox, "store")
        await self._clock.sleep(0.005)
        if mailbox.address in self.held.loaded_another:
            raise SinkError("the bucket was made anew", asks=Asks.RESYNC)
        self._write(mailbox, checkpoint)

    def die(self) -> None:
        """Have the process that uses this die: what it was saving may be saved, in part, or not."""
        for mailbox, checkpoint in self.in_flight:
            if self._faults.dice.random() < 0.5:
                self._write(mailbox, checkpoint, in_part=True)
        self.alive = False

    def _write(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint, *, in_part: bool = False) -> None:
        if not self.alive or mailbox.address in self.held.loaded_another:
            return
        if in_part and self.kind == "platform":
            # Each folder has a state of its own there.
            before = self.held.checkpoints.get(mailbox.address, MailboxCheckpoint())
            some = {key: folder for key, folder in checkpoint.folders.items() if self._faults.dice.random() < 0.5}
            checkpoint = MailboxCheckpoint({**before.folders, **some}, checkpoint.sink_position)
        self._saving(mailbox, checkpoint)
        self.saves += 1
        self.held.checkpoints[mailbox.address] = checkpoint
