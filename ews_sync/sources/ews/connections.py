"""Requests over httpx that can be cancelled at any moment without harm.

A cancellation that hits httpcore's pool while it hands out or takes back a connection costs that connection for good
(measured with httpcore 1.0: after a few hundred cancellations the pool is empty, and everything waits for ever). So
these steps run as tasks of their own, and whoever is cancelled leaves them behind to finish. And nobody waits inside
the pool: places are given out here, where waiting can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import httpx

    from ews_sync.sources.ews.throttle import Gate

T = TypeVar("T")

_UNREAD = 512 * 1024
"""Bytes of an answer that may wait to be read, about (see socket(7) on SO_RCVBUF)."""
AT_ONCE = 32
"""How many requests run at once; the pool must have at least as many connections."""


class Connections:
    """Sends requests, as many of them at the same time as there are `places`."""

    def __init__(self, http: httpx.AsyncClient, places: Gate) -> None:
        self._http = http
        self._places = places
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bounded: WeakSet[object] = WeakSet()
        """The connections of which `_bound` has bounded what the system keeps."""

    async def send(self, new_request: Callable[[], httpx.Request], may_start: Callable[[], object]) -> httpx.Response:
        """Send a request; give the response once its headers are there. It must be closed with `close`.

        `may_start`, and then `new_request`, are called when nothing is left to wait for; when one raises, nothing is
        sent. Raises that, and what httpx raises.
        """
        await self._places.enter()
        try:
            may_start()
            request = new_request()
        except BaseException:
            self._places.leave()
            raise
        return await self._finish(self._send(request), undo=self._close)

    async def close(self, response: httpx.Response) -> None:
        """Give the connection back."""
        await self._finish(self._close(response))

    async def aclose(self) -> None:
        """Stop what is still under way, and close all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._http.send(request, stream=True, follow_redirects=False)
        except BaseException:
            self._places.leave()
            raise
        self._bound(response)
        return response

    async def _close(self, response: httpx.Response) -> None:
        try:
            await response.aclose()
        finally:
            self._places.leave()

    async def _finish(
        self, work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]] | None = None
    ) -> T:
        """Do `work` to its end. When the caller is cancelled meanwhile, `undo` gives back what came of it."""
        task = self._start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(self._left_behind, undo))
            raise

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _left_behind(self, undo: Callable[[T], Coroutine[Any, Any, object]] | None, task: asyncio.Task[T]) -> None:
        # Asking for the exception also keeps asyncio from complaining that nobody did.
        if not task.cancelled() and task.exception() is None and undo is not None:
            self._start(undo(task.result())).add_done_callback(partial(self._left_behind, None))

    def _bound(self, response: httpx.Response) -> None:
        """Bound what the system keeps of an answer that is not read yet.

        The event loop takes all of that into memory at once, which can be 6 MB for each of the connections.
        """
        stream = response.extensions.get("network_stream")
        if stream is None or stream in self._bounded:
            return
        self._bounded.add(stream)
        connection = stream.get_extra_info("socket")
        if connection is not None:
            # One that is closed already has nothing to bound.
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD)
