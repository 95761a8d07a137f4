"""How many connections there are at once: however many come, and however slow they are, a probe gets in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import RequestHandler


class Doorkeeper:
    """Makes the handler for each connection that comes in.

    When there are more than `most`, the oldest is closed: whoever only holds his open gives way to a probe.
    """

    def __init__(self, new_handler: Callable[[], RequestHandler], most: int = 100) -> None:
        self._new_handler = new_handler
        self._most = most
        self._inside: deque[RequestHandler] = deque()

    def __call__(self) -> RequestHandler:
        """Let one more in."""
        if len(self._inside) >= self._most:
            self._inside = deque(handler for handler in self._inside if handler.transport is not None)
        while len(self._inside) >= self._most:
            self._inside.popleft().force_close()
        handler = self._new_handler()
        self._inside.append(handler)
        return handler
