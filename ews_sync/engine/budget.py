"""Room for messages in memory: reserved before they are fetched, given back once they are stored.

Shared by all mailboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class ByteBudget:
    """So many bytes, given out in the order in which they were asked for.

    Nobody can ask for more than there is: a message too large for it goes through a temporary file anyway.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = capacity
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """How many bytes are reserved now."""
        return self._capacity - self._free

    def clamp(self, size: int) -> int:
        """Give what is really reserved for `size` bytes."""
        return max(1, min(size, self._capacity))

    def try_reserve(self, size: int) -> bool:
        """Reserve at once, if there is room and nobody waits; tell whether it worked."""
        size = self.clamp(size)
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    async def reserve(self, size: int) -> None:
        """Reserve, waiting for room."""
        if self.try_reserve(size):
            return
        size = self.clamp(size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The room was granted in the same moment.
                self.release(size)
            else:
                # Whoever released something since then may have taken the entry out already.
                with contextlib.suppress(ValueError):
                    self._waiting.remove((size, turn))
                self._grant()
            raise

    def release(self, size: int) -> None:
        """Give back what was reserved for `size` bytes."""
        self._free += self.clamp(size)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)
