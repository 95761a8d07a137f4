"""The servers of a benchmark, in processes of their own: a simulated Exchange and a stand-in platform.

What measures and what is measured share nothing with them but the network.
"""

from __future__ import annotations

import multiprocessing
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from benchmarks.messages import PLAIN, message
from benchmarks.server_process import Served, server_process
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
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    from benchmarks.server_process import ServerProcess
    from ews_sync.simulator.platform.contract import NewEmail
    from ews_sync.simulator.platform.store import Bucket

USER, PASSWORD, TOKEN = "svc@bench.example", "swordfish", "open-sesame"
OWNER, BUCKET = "bench", "mail"
_FIRST = datetime(2026, 1, 5, 8, tzinfo=UTC)
_EXCHANGE, _PLATFORM = "exchange", "platform"


@dataclass(frozen=True, slots=True)
class Load:
    """The mail: so many mailboxes with so many messages of so many bytes each, and the platform's latency (s).

    `kinds` are taken in turn (see `messages`). `claimed` is what the server says that each message takes, None for
    what it does take. The platform refuses the first `failures` uploads. `exchange_latency` (s) is the mail server's,
    and with `max_concurrent` it refuses further requests of one principal at the same time, as Exchange does.
    """

    mailboxes: int
    messages: int
    size: int
    platform_latency: float = 0.0
    kinds: tuple[str, ...] = (PLAIN,)
    claimed: int | None = None
    failures: int = 0
    exchange_latency: float = 0.0
    max_concurrent: int | None = None

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
class Traffic:
    """What the mail server was asked: how many requests, and how many of one principal at the same time at the most."""

    requests: int
    most_at_once: int


class Servers:
    """Servers that run. `exchange` and `platform` are where they are."""

    def __init__(self, exchange: ServerProcess, platform: ServerProcess, stored: Synchronized[int]) -> None:
        self.exchange = exchange.urls[0]
        self.platform = platform.urls[-1]
        self._exchange = exchange
        self._platform = platform
        self._stored = stored

    @property
    def processor(self) -> float:
        """The processor time in seconds that both have had."""
        return sum(process.processor for process in {self._exchange, self._platform})

    @property
    def stored(self) -> int:
        """How many emails the platform has taken since `begin`. To ask costs the servers nothing."""
        return self._stored.value

    def begin(self, bucket: str = BUCKET) -> None:
        """Begin to count anew, and see that there is a bucket."""
        self._exchange.ask("begin")
        self._platform.ask("bucket", bucket)
        self._stored.value = 0

    def traffic(self) -> Traffic:
        """Tell what the mail server was asked since `begin`."""
        traffic = self._exchange.ask("traffic")
        assert isinstance(traffic, Traffic)  # noqa: S101 - our own process's answer
        return traffic

    def ids(self) -> dict[str, list[str]]:
        """Give the ids of each mailbox's items, by address."""
        ids: dict[str, list[str]] = self._exchange.ask("ids")
        return ids


@contextmanager
def servers(load: Load, directory: Path, *, apart: bool = False) -> Iterator[Servers]:
    """Run the servers while the block runs, in one process, or `apart` in two.

    The platform keeps its mail in `directory`/platform.sqlite. Raises `SystemExit` when they do not start or answer.
    """
    stored: Synchronized[int] = multiprocessing.get_context("spawn").Value("q", 0)
    with ExitStack() as stack:
        parts = [(_EXCHANGE,), (_PLATFORM,)] if apart else [(_EXCHANGE, _PLATFORM)]
        running = [stack.enter_context(server_process(_serve, load, directory, part, stored)) for part in parts]
        yield Servers(running[0], running[-1], stored)


# --- In the process --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _serve(
    load: Load, directory: Path, parts: tuple[str, ...], stored: Synchronized[int]
) -> AsyncIterator[Served]:
    urls: list[str] = []
    answers: dict[str, Callable[..., object]] = {}
    async with AsyncExitStack() as stack:
        if _EXCHANGE in parts:
            exchange = await stack.enter_async_context(exchange_server(load))
            urls.append(exchange.url)
            answers.update(_about_exchange(exchange))
        if _PLATFORM in parts:
            store = stack.enter_context(_CountedStore(directory / "platform.sqlite", stored))
            platform = await stack.enter_async_context(_platform(load, store))
            urls.append(platform.url)
            answers["bucket"] = lambda name: bool(store.create_bucket(OWNER, name))
        yield Served(tuple(urls), answers)


def exchange_server(load: Load) -> ExchangeServer:
    """Make a mail server with the mail, and an account that may read all of it. It does not serve yet."""
    exchange = Exchange()
    for address in load.addresses():
        inbox = exchange.create_mailbox(address).folder("Inbox")
        for number in range(load.messages):
            claimed = FROM_MIME if load.claimed is None else load.claimed
            received = _FIRST + timedelta(minutes=number)
            inbox.deliver(load.message(address, number), received=received, size=claimed)
    account = Account(USER, PASSWORD, may_impersonate=True)
    server = ExchangeServer(exchange, accounts=[account], max_concurrent=load.max_concurrent)
    if load.exchange_latency:
        server.faults.add(Latency(load.exchange_latency))
    return server


def _about_exchange(server: ExchangeServer) -> Mapping[str, Callable[..., object]]:
    def traffic() -> Traffic:
        return Traffic(server.log.counts.total(), max(server.log.most_in_flight.values(), default=0))

    def ids() -> dict[str, list[str]]:
        return {name: [item.id for item in box.items()] for name, box in server.exchange.mailboxes.items()}

    return {"begin": server.log.clear, "traffic": traffic, "ids": ids}


def _platform(load: Load, store: PlatformStore) -> PlatformServer:
    store.create_bucket(OWNER, BUCKET)
    platform = PlatformServer(store, [Token(TOKEN)])
    if load.platform_latency:
        platform.faults.add(Latency(load.platform_latency))
    if load.failures:
        platform.faults.add(api_error(503), operation=Operation.PUT_EMAILS, times=load.failures)
    return platform


class _CountedStore(PlatformStore):
    """Tells in memory that is shared how many emails have come."""

    def __init__(self, path: Path, stored: Synchronized[int]) -> None:
        super().__init__(path)
        self._stored = stored

    def put_emails(self, bucket: Bucket, emails: Sequence[NewEmail]) -> None:
        super().put_emails(bucket, emails)
        self._stored.value += len(emails)
