"""Keeps mailboxes alive: new mail comes in, and people read, sort and delete it. For the demo."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from ews_sync.simulator.mail import MailFactory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.store import Exchange, Mailbox

FIRST_NUMBER: Final = 10_000_000
"""Where the numbers of new mail begin, so that they are not those of the mail that was there."""
_PROJECTS: Final = ("Storm", "Renewals", "Complaints", "Fleet", "Marine", "Audit")
_LOOKED_AT: Final = 20


class Life:
    """What happens in the mailboxes of an `Exchange`, a step at a time. The same seed lives the same life."""

    def __init__(self, exchange: Exchange, seed: int | None = None) -> None:
        self._exchange = exchange
        self._factory = MailFactory(exchange.seed if seed is None else seed)
        self._rng = random.Random(f"{self._factory.seed}:life")
        self._next = FIRST_NUMBER

    def step(self) -> str:
        """Let one message arrive somewhere, and perhaps something else happen. Return what: a word for each."""
        mailboxes = list(self._exchange.mailboxes.values())
        if not mailboxes:
            return "nothing"
        mailbox = self._rng.choice(mailboxes)
        mail = self._factory.email(self._next, sent=self._exchange.clock())
        self._next += 1
        mailbox.folder("Inbox").deliver(mail)
        chance = self._rng.random()
        if chance < 0.30:
            return "arrived, " + self._read(mailbox)
        if chance < 0.45:
            return "arrived, " + self._sort(mailbox)
        if chance < 0.52:
            return "arrived, " + self._delete(mailbox)
        if chance < 0.54:
            mailbox.folder("Inbox", self._rng.choice(_PROJECTS))
            return "arrived, folder"
        return "arrived"

    def _read(self, mailbox: Mailbox) -> str:
        item = self._recent(mailbox.folder("Inbox"))
        if item is None:
            return "nothing"
        item.set_read(not item.is_read)
        return "read"

    def _sort(self, mailbox: Mailbox) -> str:
        item = self._recent(mailbox.folder("Inbox"))
        below = list(mailbox.folder("Inbox").descendants())
        if item is None or not below:
            return "nothing"
        item.move(self._rng.choice(below))
        return "moved"

    def _delete(self, mailbox: Mailbox) -> str:
        item = self._recent(mailbox.folder("Inbox"))
        if item is None:
            return "nothing"
        item.move(mailbox.distinguished["deleteditems"])
        return "deleted"

    def _recent(self, folder: Folder) -> Item | None:
        """Return one of the last few items: people look at what is new."""
        recent = [item for item, _ in zip(folder.index.descending(), range(_LOOKED_AT), strict=False)]
        return self._rng.choice(recent) if recent else None


async def live(
    exchange: Exchange,
    *,
    rate_per_minute: float,
    seed: int | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> NoReturn:
    """Let mail arrive at a rate, with what people do with it, until cancelled.

    Times are those of the exchange's clock. The waits vary about the mean as arrivals do.
    """
    life = Life(exchange, seed)
    rng = random.Random(f"{exchange.seed if seed is None else seed}:waits")
    while True:
        await sleep(rng.expovariate(rate_per_minute / 60.0))
        life.step()
