"""Room for messages in memory: reserved before they are fetched, given back once they are stored.

Shared by all mailboxes, and fair between them: see `ByteBudget`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

PASSES = 16
"""How often others may go ahead of somebody whose turn it is, but for whom there is not yet enough room."""
_TIMES_FREE = 2
"""Who holds something gets no more than so many times what stays free for others."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """So many bytes that `owner` holds, until they are released."""

    owner: Hashable
    size: int


@dataclass(eq=False, slots=True)
class _Demand:
    wanted: Reservation
    turn: asyncio.Future[None]
    passed: int = 0


class ByteBudget:
    """So many bytes, given out in the order in which they were asked for.

    Somebody who asks for much waits for others to give back, and those behind may go ahead where there is room for
    them, but `PASSES` times at most. Somebody who holds much, because what it holds cannot be stored for a while, waits
    for that and holds nobody up: it leaves the others a third of what it found. So whoever holds nothing, and
    asks for one thing at a time, waits for one grant of each of the others that were there before, and `PASSES` more.

    Nobody can ask for more than there is: a message too large for it goes through a temporary file anyway.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = capacity
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], _Demand] = {}

    @property
    def used(self) -> int:
        """How many bytes are reserved now."""
        return self._capacity - self._free

    def try_reserve(self, size: int, owner: Hashable) -> Reservation | None:
        """Reserve at once, where there is room and it is fair to those who wait; None where it is not."""
        wanted = self._wanted(size, owner)
        passed = [demand for demand in self._waiting.values() if self._is_due(demand)]
        return wanted if self._may_have(wanted) and self._take(wanted, passed) else None

    async def reserve(self, size: int, owner: Hashable) -> Reservation:
        """Reserve, waiting for room."""
        reserved = self.try_reserve(size, owner)
        if reserved is not None:
            return reserved
        wanted = self._wanted(size, owner)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = _Demand(wanted, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if self._waiting.pop(turn, None) is None:
                # The room was granted in the same moment.
                self.release(wanted)
            else:
                self._grant()
            raise
        return wanted

    def release(self, reserved: Reservation) -> None:
        """Give back what was reserved."""
        self._free += reserved.size
        self._held[reserved.owner] -= reserved.size
        if not self._held[reserved.owner]:
            del self._held[reserved.owner]
        self._grant()

    def shrink(self, reserved: Reservation, size: int) -> Reservation:
        """Give back what is reserved beyond `size`; give what is left."""
        size = max(1, size)
        if size >= reserved.size:
            return reserved
        self.release(Reservation(reserved.owner, reserved.size - size))
        return Reservation(reserved.owner, size)

    def _wanted(self, size: int, owner: Hashable) -> Reservation:
        return Reservation(owner, max(1, min(size, self._capacity)))

    def _may_have(self, wanted: Reservation) -> bool:
        """Tell whether it is fair that the owner gets that much, whether there is room or not."""
        held = self._held.get(wanted.owner, 0)
        return not held or held + wanted.size <= _TIMES_FREE * (self._free - wanted.size)

    def _is_due(self, demand: _Demand) -> bool:
        # A wait that was cancelled is taken out by who waited.
        return not demand.turn.done() and self._may_have(demand.wanted)

    def _take(self, wanted: Reservation, passed: list[_Demand]) -> bool:
        """Reserve ahead of those who are `passed`, if they can be and there is room; tell whether it worked."""
        if wanted.size > self._free or any(demand.passed >= PASSES for demand in passed):
            return False
        for demand in passed:
            demand.passed += 1
        self._free -= wanted.size
        self._held[wanted.owner] += wanted.size
        return True

    def _grant(self) -> None:
        passed: list[_Demand] = []
        for demand in tuple(self._waiting.values()):
            if not self._free:
                return
            if not self._is_due(demand):
                continue
            if self._take(demand.wanted, passed):
                del self._waiting[demand.turn]
                demand.turn.set_result(None)
            else:
                passed.append(demand)
