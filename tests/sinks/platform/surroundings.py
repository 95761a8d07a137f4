"""A stand-in platform, and the appliance's parts that talk to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import SecretStr

from ews_sync.errors import Asks, SinkError
from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from ews_sync.sinks.platform.api import PlatformApi
from ews_sync.sinks.platform.buckets import Buckets
from ews_sync.sinks.platform.dead_letters import DeadLetterDirectory
from ews_sync.sinks.platform.health import MOST_BYTES
from ews_sync.sinks.platform.sink import PlatformSink
from ews_sync.sinks.platform.states import PlatformCheckpointStore
from tests.sinks.builders import MAILBOX, OTHER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from ews_sync.model import Email, Mailbox, Receipt

TOKEN = "correct-horse-battery"


@dataclass(slots=True)
class HandClock:
    """Time that passes when it is told to."""

    seconds: float = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


@dataclass(slots=True)
class Platform:
    """All of it: the server with its store, and what is made anew with each process."""

    store: PlatformStore
    server: PlatformServer
    clock: HandClock = field(default_factory=HandClock)
    warnings: list[str] = field(default_factory=list)

    def api(self, token: str = TOKEN) -> PlatformApi:
        return PlatformApi(self.server.url, SecretStr(token), self.clock, answer_within=10.0)

    def sink(self, *, token: str = TOKEN, letters: Path | None = None, most_bytes: int = MOST_BYTES) -> PlatformSink:
        api = self.api(token)
        directory = None if letters is None else DeadLetterDirectory(letters)
        return PlatformSink(api, Buckets(api), self.clock, letters=directory, most_bytes=most_bytes)

    @asynccontextmanager
    async def opened(
        self, *, letters: Path | None = None, most_bytes: int = MOST_BYTES, token: str = TOKEN
    ) -> AsyncIterator[PlatformSink]:
        """A sink with the mailbox open."""
        sink = self.sink(letters=letters, most_bytes=most_bytes, token=token)
        try:
            await sink.open(MAILBOX, None)
            yield sink
        finally:
            await sink.aclose()

    @asynccontextmanager
    async def checkpoints(self, *mailboxes: Mailbox) -> AsyncIterator[PlatformCheckpointStore]:
        """A checkpoint store, as a process has it."""
        api = self.api()
        try:
            yield PlatformCheckpointStore(
                api, Buckets(api), mailboxes or (MAILBOX, OTHER), self.clock, self.warnings.append
            )
        finally:
            await api.aclose()

    def ids(self, mailbox: Mailbox = MAILBOX) -> list[str]:
        """The ids of what is stored of a mailbox, in order."""
        bucket = mailbox.bucket
        return [email["id"] for email in self.store.emails(bucket.owner, bucket.name, mailbox.address)]

    def uploads(self) -> dict[str, int]:
        """How often each email was uploaded, by its id."""
        counted = self.store.uploads(MAILBOX.bucket.owner, MAILBOX.bucket.name)
        return {email_id: count for (_, email_id), count in counted.items()}

    def puts(self) -> list[tuple[int, tuple[str, ...]]]:
        """The uploads that were tried: status, and the ids in it."""
        return [(record.status, record.email_ids) for record in self.server.log.of("put_emails")]


@asynccontextmanager
async def a_platform() -> AsyncIterator[Platform]:
    """A platform with the tests' bucket in it."""
    with PlatformStore() as store:
        store.create_bucket(MAILBOX.bucket.owner, MAILBOX.bucket.name)
        async with PlatformServer(store, [Token(TOKEN)]) as server:
            yield Platform(store, server)


async def put_until_stored(platform: Platform, sink: PlatformSink, batch: Sequence[Email]) -> list[Receipt]:
    """Put a batch as the engine does: what is left is put again, after the wait that was asked for."""
    receipts: list[Receipt] = []
    left = tuple(batch)
    while left:
        try:
            receipt = await sink.put(left)
        except SinkError as error:
            if error.asks is not Asks.RETRY:
                raise
            await platform.clock.sleep(error.retry_after or 1.0)
            continue
        receipts.append(receipt)
        left = receipt.left
        if receipt.failure is not None:
            await platform.clock.sleep(receipt.failure.retry_after or 1.0)
    return receipts
