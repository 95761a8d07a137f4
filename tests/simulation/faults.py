"""What goes wrong, call by call: decided by dice, told to the history."""

from __future__ import annotations

import random
from itertools import product
from typing import TYPE_CHECKING, TypeVar

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    CursorRejectedError,
    EwsSyncError,
    FolderGoneError,
    ProtocolError,
    Scope,
    SinkError,
    SourceError,
    StorageError,
    ThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.model import Clock, Folder, Mailbox
    from tests.simulation.history import History
    from tests.simulation.plan import Rates

_Error = TypeVar("_Error", bound=EwsSyncError)
_WAITS = (None, None, None, 0.0, 7.0, 90.0)
_EVERY_KIND = tuple(product(Asks, Scope))
SOURCE_TYPES: tuple[type[SourceError], ...] = (
    ConnectionFailedError,
    ThrottledError,
    FolderGoneError,
    CursorRejectedError,
    ProtocolError,
    AuthenticationError,
)
SINK_TYPES: tuple[type[SinkError], ...] = (SinkError, StorageError)


class Outage:
    """For a while every call of some of the parts (\"source\", \"sink\", \"store\") fails in one and the same way."""

    def __init__(self, parts: Sequence[str], asks: Asks, scope: Scope, ends_at: float) -> None:
        self.parts = parts
        self.asks = asks
        self.scope = scope
        self.ends_at = ends_at

    def __str__(self) -> str:
        return f"{' and '.join(self.parts)} until {self.ends_at:.0f}s: {self.asks}, {self.scope}"


class Faults:
    """Decides what fails. `heal` ends all of it."""

    def __init__(self, rates: Rates, seed: int, history: History, clock: Clock, addresses: Sequence[str]) -> None:
        self.rates = rates
        self.dice = random.Random(seed)
        self.healed = False
        self.outage: Outage | None = None
        self.calls: list[tuple[float, str]] = []
        """When each call was made, and what it was."""
        self._history = history
        self._clock = clock
        self._addresses = addresses

    def heal(self) -> None:
        """Let nothing fail from here on."""
        self.healed = True
        self.outage = None

    def happens(self, rate: float) -> bool:
        """Roll the dice for something that has a chance of `rate`."""
        return rate > 0.0 and not self.healed and self.dice.random() < rate

    def happened(self, kind: str, mailbox: str | None, names: tuple[str, ...] = ()) -> None:
        """Take note of a fault: a cause to store mail of the mailbox (None: of all) once more."""
        self._history.fault(kind)
        self._history.note(self._clock.monotonic(), "fault", f"{mailbox or 'all'}: {kind}", names)
        for address in self._addresses if mailbox is None else (mailbox,):
            self._history.cause(address, kind)

    def tells_again(self) -> bool:
        """Tell whether the feed tells of an item once more."""
        return self.happens(self.rates.told_again)

    async def source(self, call: str, mailbox: Mailbox, folder: Folder | None) -> None:
        """Fail a call of the source, if its time has come."""
        self.calls.append((self._clock.monotonic(), "source"))
        where = f"{call} {'' if folder is None else '/'.join(folder.path)}".strip()
        outage = self._outage("source")
        if outage is not None:
            await self._clock.sleep(0.01)
            raise self._said(SourceError("an outage", asks=outage.asks, scope=outage.scope), mailbox, where)
        if self.happens(self.rates.source):
            await self._clock.sleep(self.dice.random() * 0.1)
            if self.dice.random() < 0.4:
                kind = self.dice.choice(SOURCE_TYPES)
                error = kind("injected", retry_after=self.dice.choice(_WAITS))
            else:
                asks, scope = self.dice.choice(_EVERY_KIND)
                error = SourceError("injected", asks=asks, scope=scope, retry_after=self.dice.choice(_WAITS))
            raise self._said(error, mailbox, where)

    async def sink(self, call: str, mailbox: Mailbox, part: str = "sink") -> None:
        """Fail a call of the sink or (`part` \"store\") of the checkpoint store, if its time has come."""
        self.calls.append((self._clock.monotonic(), part))
        outage = self._outage(part)
        if outage is not None:
            await self._clock.sleep(0.01)
            raise self._said(SinkError("an outage", asks=outage.asks, scope=outage.scope), mailbox, call)
        if self.happens(self.rates.sink if part == "sink" else self.rates.store):
            await self._clock.sleep(self.dice.random() * 0.1)
            raise self._said(self.sink_error(), mailbox, call)

    def sink_error(self) -> SinkError:
        """Give an error of any kind."""
        asks, scope = self.dice.choice(_EVERY_KIND)
        kind = self.dice.choice(SINK_TYPES)
        return kind("injected", asks=asks, scope=scope, retry_after=self.dice.choice(_WAITS))

    async def answer(self) -> None:
        """Let an answer take its time."""
        if self.happens(self.rates.slow):
            self._history.fault("slow answer")
            await self._clock.sleep(self.dice.choice([0.3, 3.0, 40.0]) * self.dice.random())

    def _outage(self, part: str) -> Outage | None:
        outage = self.outage
        if outage is None or part not in outage.parts:
            return None
        if self._clock.monotonic() >= outage.ends_at:
            self.outage = None
            return None
        return outage

    def _said(self, error: _Error, mailbox: Mailbox, where: str) -> _Error:
        everybody = error.scope is Scope.PROCESS and error.asks is Asks.STOP
        kind = f"{type(error).__name__} {error.asks}/{error.scope} from {where}"
        self._history.note(self._clock.monotonic(), "fault", f"{mailbox.address}: {kind}")
        self._history.fault(f"{'source' if isinstance(error, SourceError) else 'sink'}: {error.asks}/{error.scope}")
        for address in self._addresses if everybody else (mailbox.address,):
            self._history.cause(address, kind)
        return error
