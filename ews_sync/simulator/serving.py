"""What the simulated servers share: listening, stopping, and starting again on the same port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self


class Listener:
    """Serves an `Application` on one address. An asynchronous context manager; `port` 0 takes any that is free.

    A server derives from it and says in `application` what it serves. `stopping` is set when it is to end: what hangs
    is let go then.
    """

    def __init__(self, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
        self.stopping = asyncio.Event()
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._runner: web.AppRunner | None = None

    @property
    def root(self) -> str:
        """Scheme, host and port."""
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://{self._host}:{self._port}"

    def application(self) -> web.Application:
        """Make what is served, anew for each start."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to listen."""
        self.stopping = asyncio.Event()
        self._runner = web.AppRunner(
            self.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._ssl_context).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop. What hangs is let go. The server can be started again, on the same port."""
        self.stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
