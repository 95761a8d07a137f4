"""The servers of a benchmark, in a process of their own: a simulated Exchange and a stand-in platform.

What measures and what is measured share nothing with them but the network.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from benchmarks.messages import PLAIN, message
from ews_sync.simulator.access import Account
from ews_sync.simulator.faults import Latency
from ews_sync.simulator.item import FROM_MIME
from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.calls import Operation
from ews_sync.simulator.platform.faults import api_error
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

USER, PASSWORD, TOKEN = "svc@bench.example", "swordfish", "open-sesame"
OWNER, BUCKET = "bench", "mail"
_FIRST = datetime(2026, 1, 5, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Load:
    """The mail: so many mailboxes with so many messages of so many bytes each, and the platform's latency (s).

    `kinds` are taken in turn (see `messages`). `claimed` is what the server says that each message takes, None for
    what it does take. Of `busy` uploads the platform takes one.
    """

    mailboxes: int
    messages: int
    size: int
    platform_latency: float = 0.0
    kinds: tuple[str, ...] = (PLAIN,)
    claimed: int | None = None
    failures: int = 0

    @property
    def emails(self) -> int:
        """All of them."""
        return self.mailboxes * self.messages

    def addresses(self) -> list[str]:
        """Give the mailboxes' addresses."""
        return [f"box-{number}@bench.example" for number in range(self.mailboxes)]

    def message(self, address: str, number: int) -> bytes:
        """Give a mailbox's message `number`."""
        return message(self.kinds[number % len(self.kinds)], address, number, self.size)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are."""

    exchange: str
    platform: str


@contextmanager
def servers(load: Load, directory: Path) -> Iterator[Addresses]:
    """Run the servers while the block runs. The platform keeps its mail in `directory`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(load, directory, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join(20)
        process.kill()


def _serve(load: Load, directory: Path, pipe: Connection) -> None:
    asyncio.run(_run(load, directory, pipe))


async def _run(load: Load, directory: Path, pipe: Connection) -> None:
    exchange = Exchange()
    for address in load.addresses():
        inbox = exchange.create_mailbox(address).folder("Inbox")
        for number in range(load.messages):
            claimed = FROM_MIME if load.claimed is None else load.claimed
            received = _FIRST + timedelta(minutes=number)
            inbox.deliver(load.message(address, number), received=received, size=claimed)
    account = Account(USER, PASSWORD, may_impersonate=True)
    with PlatformStore(directory / "platform.sqlite") as store:
        store.create_bucket(OWNER, BUCKET)
        async with (
            ExchangeServer(exchange, accounts=[account]) as server,
            PlatformServer(store, [Token(TOKEN)]) as platform,
        ):
            if load.platform_latency:
                platform.faults.add(Latency(load.platform_latency))
            if load.failures:
                platform.faults.add(api_error(503), operation=Operation.PUT_EMAILS, times=load.failures)
            pipe.send(Addresses(server.url, platform.url))
            await asyncio.to_thread(pipe.recv)
