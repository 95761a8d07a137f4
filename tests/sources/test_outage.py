"""An Exchange that is away for a day: the whole way from the engine to the wire, on virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.engine.engine import Engine, EngineOptions
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings.values import Pace
from ews_sync.simulator.access import Account
from ews_sync.simulator.exchange import ExchangeService
from ews_sync.simulator.store import Exchange
from ews_sync.sources.ews.source import EwsSource
from ews_sync.telemetry.status import Status
from tests.engine.stores import Disk, MemoryCheckpoints, MemorySink
from tests.engine.virtual_time import START, VirtualClock, run
from tests.sources.virtual_server import Fails, Says, VirtualServer

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = 3600.0
PAGE = Says(b"<html>Service Unavailable", 503, "text/html")


@dataclass
class Plant:
    """An Exchange with many mailboxes, an appliance that keeps them, and a switch."""

    mailboxes: int
    clock: VirtualClock = field(default_factory=VirtualClock)
    away: Says | Fails | None = None

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.clock.now)
        self.addresses = [f"m{number:03}@x.test" for number in range(self.mailboxes)]
        for address in self.addresses:
            self.exchange.create_mailbox(address)
        self._account = Account("svc@x.test", "", may_impersonate=True)
        self._service = ExchangeService(self.exchange)
        self.server = VirtualServer(self._answer)
        chance = self._chances()
        self.client = self.server.connect(jitter=lambda: next(chance))
        source = EwsSource(self.client, self.clock, impersonate=True, account="svc")
        self.disk = Disk()
        self.status = Status("test", START)
        self.engine = Engine(
            [Mailbox(address, Bucket("acme", "mail")) for address in self.addresses],
            source,
            MemorySink(self.disk, self.clock),
            MemoryCheckpoints(self.disk, self.clock),
            self.clock,
            self.status,
            EngineOptions(pace=Pace(poll_frequency=60.0, poll_message_sleep=0.0), jitter=lambda: next(chance)),
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def stored(self) -> int:
        return sum(len(emails) for emails in self.disk.emails.values())

    def knows_of_an_outage(self) -> bool:
        return self.status.source_failure is not None

    def mail(self, each: int) -> None:
        """Have new mail in every mailbox."""
        for address in self.addresses:
            for _ in range(each):
                self.exchange.mailboxes[address].folder("Inbox").deliver(
                    b"Subject: hello\r\n\r\nbody",
                    message_id=f"<{self.exchange.mailboxes[address].next_number()}@{address}>",
                )

    async def until(self, count: int, within: float) -> float:
        """Wait until so many emails are stored; give the time."""
        ends = self.now + within
        while self.stored < count:
            assert self.now < ends, f"{self.stored} of {count} emails after {within} s"
            await asyncio.sleep(0.1)
        return self.now

    def _answer(self, request: httpx.Request) -> Says | Fails:
        if self.away is not None:
            return self.away
        reply = self._service.answer(self._service.read(request.content), self._account)
        return Says(b"".join(reply.chunks()), reply.status)

    def _chances(self) -> Iterator[float]:
        while True:
            yield from (0.0, 0.618, 0.236, 0.854, 0.472, 0.09, 0.708, 0.326, 0.944, 0.562, 0.18)


@pytest.mark.parametrize(
    ("away", "mailboxes", "hours"),
    [(Fails(), 20, 24), (Fails(httpx.ConnectTimeout, 15.0), 10, 3), (PAGE, 10, 3)],
    ids=["refused for a day", "silent", "a page"],
)
def test_an_outage_costs_nothing_but_time(away: Says | Fails, mailboxes: int, hours: int) -> None:
    async def scene() -> None:
        plant = Plant(mailboxes)
        plant.mail(2)
        running = asyncio.create_task(plant.engine.run())
        await plant.until(2 * mailboxes, 600.0)
        began, before = plant.now, len(plant.server.started)
        plant.away = away
        await asyncio.sleep(hours * HOUR / 2)
        plant.mail(3)
        await asyncio.sleep(hours * HOUR / 2)
        asked = [start.at - began for start in plant.server.started[before:]]
        probes = [moment for moment in asked if moment >= 120.0]
        # One in about five minutes, however many mailboxes there are, once it is known.
        assert 11 * hours <= len(probes) <= 13.5 * hours + 6
        assert len(asked) - len(probes) <= 4 * mailboxes + 8
        assert plant.stored == 2 * mailboxes
        assert plant.knows_of_an_outage()
        back = plant.now
        plant.server.most, plant.away = 0, None
        assert await plant.until(2 * mailboxes + 1, 400.0) - back <= 310.0
        assert not plant.knows_of_an_outage()
        await plant.until(5 * mailboxes, 700.0)
        assert plant.server.most <= 24
        plant.engine.stop()
        await running
        assert not any(plant.disk.letters.values())

    run(scene())
