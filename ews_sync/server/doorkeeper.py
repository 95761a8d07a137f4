"""How many connections there are at once: however many come, and however slow they are, a probe gets in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import RequestHandler


@dataclass(slots=True)
class _Guest:
    """One connection. It is made a little after its handler: `was_connected` tells one that is gone from a new one."""

    handler: RequestHandler
    was_connected: bool = False

    def is_gone(self) -> bool:
        if self.handler.transport is not None:
            self.was_connected = True
            return False
        return self.was_connected

    def show_out(self) -> bool:
        """Cut the connection off; tell whether that could be done by now."""
        if self.handler.transport is None:
            return self.was_connected
        # Not closed, which would wait for what has not been read.
        self.handler.transport.abort()
        return True


class Doorkeeper:
    """Makes the handler for each connection that comes in.

    When there are more than `most`, the oldest is cut off: whoever only holds his open, or does not read what he asked
    for, gives way to a probe.
    """

    def __init__(self, new_handler: Callable[[], RequestHandler], most: int = 100) -> None:
        self._new_handler = new_handler
        self._most = most
        self._inside: deque[_Guest] = deque()
        self._unwanted: list[_Guest] = []

    def __call__(self) -> RequestHandler:
        """Let one more in."""
        self._inside = deque(guest for guest in self._inside if not guest.is_gone())
        while len(self._inside) >= self._most:
            self._unwanted.append(self._inside.popleft())
        self.tidy()
        guest = _Guest(self._new_handler())
        self._inside.append(guest)
        return guest.handler

    def tidy(self) -> bool:
        """Cut off those that had to go before they were connected; tell whether any are left."""
        self._unwanted = [guest for guest in self._unwanted if not guest.show_out()]
        return bool(self._unwanted)
