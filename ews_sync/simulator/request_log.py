"""What a simulated server was asked for: the last requests, and counts of all."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEPT: Final = 10_000


class Record(Protocol):
    """One request, as far as the log counts it. `status` is the HTTP status, 0 where there was no answer."""

    @property
    def operation(self) -> str:
        """What was asked for."""

    @property
    def status(self) -> int:
        """How it was answered."""


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(slots=True)
class RequestLog(Generic[RecordT]):
    """The last requests, oldest first, and counts of all."""

    records: deque[RecordT] = field(default_factory=lambda: deque(maxlen=_KEPT))
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    most_in_flight: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[RecordT]:
        return iter(self.records)

    def __getitem__(self, position: int) -> RecordT:
        return self.records[position]

    def of(self, operation: str) -> list[RecordT]:
        """Return the requests of one operation."""
        return [record for record in self.records if record.operation == operation]

    def add(self, record: RecordT) -> None:
        """Write a request down."""
        self.records.append(record)
        self.statuses[record.status] += 1
        self._changed.set()

    def clear(self) -> None:
        """Forget everything, except what is in flight."""
        self.records.clear()
        self.counts.clear()
        self.statuses.clear()
        self.most_in_flight.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. It is looked at when a request begins, and when one was answered."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @contextmanager
    def flight(self, principal: str) -> Iterator[None]:
        """Count a request as being in flight for a principal."""
        self.in_flight[principal] += 1
        self.most_in_flight[principal] = max(self.most_in_flight[principal], self.in_flight[principal])
        self._changed.set()
        try:
            yield
        finally:
            self.in_flight[principal] -= 1
