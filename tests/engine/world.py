"""An Exchange, a disk, and engines that run, stop and crash between them, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ews_sync.engine.engine import Engine, EngineOptions
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings.values import Pace
from ews_sync.telemetry.status import Status
from tests.engine.exchange import Exchange, ExchangeSource, FolderStore, Item
from tests.engine.stores import Disk, MemoryCheckpoints, MemorySink, Stored
from tests.engine.virtual_time import START, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime

    from ews_sync.model import Folder
    from ews_sync.telemetry.status import MailboxProgress

BUCKET = Bucket("owner", "bucket")
A = Mailbox("a@x", BUCKET)
B = Mailbox("b@x", BUCKET)
QUICK = Pace(poll_frequency=15.0, poll_message_sleep=0.0, reinfer_batch_size=10)
SLOW = Pace(poll_frequency=15.0, poll_message_sleep=0.1, reinfer_batch_size=80)
LONG_AGO = START.replace(microsecond=0) - timedelta(days=100)


def fails(
    error: Exception, call: str, folder: str = "", times: int = 10**6
) -> Callable[[str, Folder | None], Awaitable[None]]:
    """Make a hook that lets a call fail, in one folder or any, so many times."""
    left = times

    async def hook(name: str, where: Folder | None) -> None:
        nonlocal left
        if name == call and left and (not folder or (where is not None and "/".join(where.path) == folder)):
            left -= 1
            raise error

    return hook


class World:
    """All of it. `start` gives a new process over what the last one left on the disk.

    With `small` 0 every folder is marked and listed, however small.
    """

    def __init__(
        self,
        *mailboxes: Mailbox,
        pace: Pace = QUICK,
        sink: str = "files",
        seed: int = 0,
        memory: int = 24 * 1024 * 1024,
        small: int = 4000,
    ) -> None:
        self.clock = VirtualClock()
        self.mailboxes = mailboxes or (A,)
        self.exchange = Exchange(self.clock, seed)
        self.disk = Disk()
        self.options = EngineOptions(pace=pace, memory_for_mail=memory, small=small, jitter=self.exchange.random.random)
        self.kind = sink
        self.task: asyncio.Task[None] | None = None
        self.anew()

    def anew(self) -> None:
        """Make the parts of a process, without running it."""
        self.source = ExchangeSource(self.exchange, self.clock)
        self.sink = MemorySink(self.disk, self.clock, self.kind)
        self.store = MemoryCheckpoints(self.disk, self.clock)
        self.status = Status("test", START)
        self.options = replace(self.options, begun=set())
        self.another_engine()

    def another_engine(self) -> None:
        """Make an engine that follows another one in the same process."""
        self.engine = Engine(self.mailboxes, self.source, self.sink, self.store, self.clock, self.status, self.options)

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.engine.run())

    async def run(self, seconds: float = 40.0) -> None:
        """Let time pass, starting the process where there is none. What ends it is raised."""
        if self.task is None:
            self.start()
        assert self.task is not None
        await asyncio.wait({self.task}, timeout=seconds)
        if self.task.done():
            self.task.result()

    async def stop(self) -> None:
        """End the process in an orderly way, and look that it left nothing behind."""
        assert self.task is not None
        self.engine.stop()
        await self.task
        self.clean()
        self.task = None

    def clean(self) -> None:
        """Look that nothing leaked."""
        assert self.source.opened.count == 0, "messages are still open"
        assert self.engine._pipeline._budget.used == 0, "bytes are still reserved"
        assert self.engine._pipeline._in_flight == 0

    async def crash(self) -> None:
        """End the process where it stands: nothing that it would still do has an effect."""
        self.sink.alive = self.store.alive = False
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.task = None
        self.anew()

    async def restart(self) -> None:
        await self.stop()
        self.anew()

    # --- What people do ----------------------------------------------------------------------------------------------

    def mail(self, folder: FolderStore, *names: str, at: datetime | None = None) -> list[str]:
        """Have mail in a folder, received at `at` (now); gives the items' ids."""
        return [self.exchange.add(folder, Item(name, at or self.clock.now())) for name in names]

    def old_mail(self, folder: FolderStore, count: int, prefix: str = "old", *, apart: float = 60.0) -> list[str]:
        """Have old mail in a folder, `apart` seconds from each other."""
        return [
            self.exchange.add(folder, Item(f"{prefix}-{number}", LONG_AGO + timedelta(seconds=number * apart)))
            for number in range(count)
        ]

    # --- What came of it ---------------------------------------------------------------------------------------------

    def stored(self, mailbox: str = "a@x") -> dict[str, Stored]:
        if self.kind == "lines":
            return {line.id: line for line in self.disk.lines.get(mailbox, [])}
        return self.disk.emails.get(mailbox, {})

    def missing(self, mailbox: str = "a@x") -> list[str]:
        """Give the mail that is in the mailbox, and not stored with its content and folder."""
        stored = self.stored(mailbox)
        letters = {letter.email_id for letter in self.disk.letters.get(mailbox, {}).values()}
        missing = []
        for folder in self.exchange.mailboxes.get(mailbox, {}).values():
            for item in folder.items.values():
                if item.is_draft or not item.is_mail or item.name in letters:
                    continue
                if stored.get(item.name) != Stored(item.name, folder.path, item.text):
                    missing.append(item.name)
        return missing

    def repeated(self, names: Iterable[str] | None = None) -> dict[str, int]:
        """Give what was stored more than once, and how often."""
        return {
            name: count for name, count in self.disk.uploads.items() if count > 1 and (names is None or name in names)
        }

    def progress(self, mailbox: str = "a@x") -> MailboxProgress:
        return self.status.mailboxes[mailbox]
