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

from ews_sync.simulator.access import Account
from ews_sync.simulator.faults import Latency
from ews_sync.simulator.platform.access import Token
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
_LINE = b"The quick brown fox jumps over the lazy dog, and the mail goes on and on; 0123456789.\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """The mail: so many mailboxes with so many messages of so many bytes each, and the platform's latency (s)."""

    mailboxes: int
    messages: int
    size: int
    platform_latency: float = 0.0

    @property
    def emails(self) -> int:
        """All of them."""
        return self.mailboxes * self.messages

    def addresses(self) -> list[str]:
        """Give the mailboxes' addresses."""
        return [f"box-{number}@bench.example" for number in range(self.mailboxes)]


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
            inbox.deliver(_message(address, number, load.size), received=_FIRST + timedelta(minutes=number))
    account = Account(USER, PASSWORD, may_impersonate=True)
    with PlatformStore(directory / "platform.sqlite") as store:
        store.create_bucket(OWNER, BUCKET)
        async with (
            ExchangeServer(exchange, accounts=[account]) as server,
            PlatformServer(store, [Token(TOKEN)]) as platform,
        ):
            if load.platform_latency:
                platform.faults.add(Latency(load.platform_latency))
            pipe.send(Addresses(server.url, platform.url))
            await asyncio.to_thread(pipe.recv)


def _message(address: str, number: int, size: int) -> bytes:
    head = (
        f"From: sender@bench.example\r\nTo: {address}\r\nSubject: message {number}\r\n"
        f"Message-ID: <{number}.{address}>\r\nDate: Mon, 5 Jan 2026 08:00:00 +0000\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    return head + _LINE * max(1, (size - len(head)) // len(_LINE))
