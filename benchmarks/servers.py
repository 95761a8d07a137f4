"""The servers of a benchmark, in processes of their own: a simulated Exchange and a stand-in platform.

What measures and what is measured share nothing with them but the network.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.messages import PLAIN, message
from benchmarks.process import processor_seconds
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
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    from ews_sync.simulator.platform.contract import NewEmail
    from ews_sync.simulator.platform.store import Bucket

USER, PASSWORD, TOKEN = "svc@bench.example", "swordfish", "open-sesame"
OWNER, BUCKET = "bench", "mail"
_FIRST = datetime(2026, 1, 5, 8, tzinfo=UTC)
_STARTS_WITHIN = 300.0
_ANSWERS_WITHIN = 60.0
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

    def __init__(self, exchange: _Process, platform: _Process, stored: Synchronized[int]) -> None:
        self.exchange = exchange.addresses[_EXCHANGE]
        self.platform = platform.addresses[_PLATFORM]
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
        running = [stack.enter_context(_started(load, directory, part, stored)) for part in parts]
        yield Servers(running[0], running[-1], stored)


class _Process:
    """A process with servers, where they are, and the way to ask it."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe
        self.addresses: dict[str, str] = self._answer(_STARTS_WITHIN)

    @property
    def processor(self) -> float:
        assert self._process.pid is not None  # noqa: S101 - it was started
        return processor_seconds(self._process.pid)

    def ask(self, *question: str) -> Any:  # noqa: ANN401 - each question has an answer of its own
        self._pipe.send(question)
        return self._answer(_ANSWERS_WITHIN)

    def _answer(self, within: float) -> Any:  # noqa: ANN401 - likewise
        if not self._pipe.poll(within):
            raise SystemExit("the servers of the benchmark do not answer")
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit("the servers of the benchmark ended by themselves") from None


@contextmanager
def _started(load: Load, directory: Path, parts: tuple[str, ...], stored: Synchronized[int]) -> Iterator[_Process]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(load, directory, parts, stored, theirs), daemon=True)
    process.start()
    # The other end is the process's alone, so that its end is seen here.
    theirs.close()
    try:
        yield _Process(process, ours)
    finally:
        ours.close()
        process.join(20)
        process.kill()


# --- In the process --------------------------------------------------------------------------------------------------

_Answers = Mapping[str, Callable[..., object]]
"""What a server can be asked, and what gives the answer."""


def _serve(load: Load, directory: Path, parts: tuple[str, ...], stored: Synchronized[int], pipe: Connection) -> None:
    asyncio.run(_run(load, directory, parts, stored, pipe))


async def _run(
    load: Load, directory: Path, parts: tuple[str, ...], stored: Synchronized[int], pipe: Connection
) -> None:
    addresses: dict[str, str] = {}
    answers: dict[str, Callable[..., object]] = {}
    async with AsyncExitStack() as stack:
        if _EXCHANGE in parts:
            exchange = await stack.enter_async_context(_exchange(load))
            addresses[_EXCHANGE] = exchange.url
            answers.update(_about_exchange(exchange))
        if _PLATFORM in parts:
            store = stack.enter_context(_CountedStore(directory / "platform.sqlite", stored))
            platform = await stack.enter_async_context(_platform(load, store))
            addresses[_PLATFORM] = platform.url
            answers["bucket"] = lambda name: bool(store.create_bucket(OWNER, name))
        pipe.send(addresses)
        with suppress(EOFError):
            while True:
                name, *arguments = await asyncio.to_thread(pipe.recv)
                pipe.send(answers[name](*arguments))


def _exchange(load: Load) -> ExchangeServer:
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


def _about_exchange(server: ExchangeServer) -> _Answers:
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
