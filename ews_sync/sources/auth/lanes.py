"""Connections that are logged in one by one, as NTLM and Negotiate do it: a transport of lanes.

NTLM authenticates a connection, not a request ([MS-NTHT] section 1.3), and its messages must follow each other on that
one connection. A shared pool gives no hold on that: messages of several requests mix, and most are refused. So each
request gets a **lane** for itself: a client with a single connection, from its first message until the answer's body
is closed.

A lane whose request did not come to a proper end (an error, a cancellation, an answer that was not read) may be in any
state: half logged in, its connection half used. It is dropped at once, without waiting, and closed in the background;
whoever comes next gets a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from ews_sync.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

KEEP_FOR = 100.0
"""Seconds that an unused connection is kept. IIS closes after 120: who closes first is never surprised."""
_LARGEST_REFUSAL = 1024 * 1024
_CONNECTING = ".connect_tcp.started"


class ReplacedError(Exception):
    """The connection that a message belongs to is gone. Nothing was sent."""


class Lane:
    """A client that has one connection at a time.

    `knows_us` is for whoever logs in: whether the server lets requests on this connection in without more ado. It is
    False again as soon as the connection is another one.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.knows_us = False
        self.used_at = 0.0

    async def send(self, request: httpx.Request, *, same_connection: bool = False) -> httpx.Response:
        """Send a message; give the answer once its headers are there. It must be read to its end, or the lane dropped.

        With `same_connection` it goes on the connection of the message before, or not at all: raises `ReplacedError`
        when that is gone, before a byte was sent. Raises what httpx raises.
        """

        async def watch(event: str, _info: dict[str, Any]) -> None:
            # The pool opens a new connection without a word. The event's name begins with the layer that connects:
            # a proxy's, or the connection's own.
            if event.endswith(_CONNECTING):
                self.knows_us = False
                if same_connection:
                    raise ReplacedError

        watched = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "trace": watch},
        )
        return await self._client.send(watched, stream=True)

    async def aclose(self) -> None:
        """Close the connection, whatever is under way on it."""
        await self._client.aclose()


class LogOn(Protocol):
    """A way to log connections in."""

    async def send(self, lane: Lane, request: httpx.Request) -> httpx.Response:
        """Send the request over the lane, logging in where that is needed; give the answer as `Lane.send` does.

        Raises what httpx raises, and `SourceError`. The lane is dropped after any exception.
        """


class LaneTransport(httpx.AsyncBaseTransport):
    """Sends each request over a lane of its own, at most `lanes` of them at once; more requests wait for a lane.

    Lanes are made when they are needed by `new_client`, whose clients must have one connection each. The lane that was
    used last is used next, so a quiet appliance has one; lanes that were not used for `KEEP_FOR` seconds are closed.
    A request's own `pool` timeout is not looked at.
    """

    def __init__(
        self,
        log_on: LogOn,
        new_client: Callable[[], httpx.AsyncClient],
        lanes: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_on = log_on
        self._new_client = new_client
        self._monotonic = monotonic
        self._places = asyncio.Semaphore(lanes)
        self._busy: set[Lane] = set()
        # The first one is made now: what is wrong with the environment's proxies shows at the start.
        self._free = deque([Lane(new_client())])
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def busy(self) -> int:
        """How many lanes are in use."""
        return len(self._busy)

    @property
    def free(self) -> int:
        """How many lanes are ready and not in use."""
        return len(self._free)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises what httpx raises, and what the `LogOn` raises."""
        # It may have to be sent again on another connection.
        await request.aread()
        await self._places.acquire()
        lane = self._take()
        try:
            response = await self._log_on.send(lane, request)
        except BaseException:
            self._drop(lane)
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_LaneStream(response, give_back=lambda: self._give_back(lane), drop=lambda: self._drop(lane)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections, those in use as well."""
        self._closed = True
        for lane in (*self._free, *self._busy):
            self._close(lane)
        self._free.clear()
        while self._closing:
            await asyncio.gather(*self._closing)

    def _take(self) -> Lane:
        """Give a lane; a place for it is already held."""
        if self._closed:
            self._places.release()
            raise RuntimeError("the client is closed")
        self._close_unused()
        try:
            lane = self._free.pop() if self._free else Lane(self._new_client())
        except BaseException:
            self._places.release()
            raise
        self._busy.add(lane)
        return lane

    def _close_unused(self) -> None:
        """Close lanes that waited too long: those in front, as the last one used is the next one taken."""
        long_ago = self._monotonic() - KEEP_FOR
        while len(self._free) > 1 and self._free[0].used_at < long_ago:
            self._close(self._free.popleft())

    def _give_back(self, lane: Lane) -> None:
        lane.used_at = self._monotonic()
        self._busy.discard(lane)
        if self._closed:
            self._close(lane)
        else:
            self._free.append(lane)
        self._places.release()

    def _drop(self, lane: Lane) -> None:
        self._busy.discard(lane)
        self._close(lane)
        self._places.release()

    def _close(self, lane: Lane) -> None:
        task = asyncio.ensure_future(_quietly(lane.aclose()))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _LaneStream(httpx.AsyncByteStream):
    """The body of an answer, and what becomes of the lane that it comes over."""

    def __init__(self, response: httpx.Response, *, give_back: Callable[[], None], drop: Callable[[], None]) -> None:
        self._response = response
        self._give_back = give_back
        self._drop = drop
        self._was_read = False
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous client has no other
        async for piece in stream:
            yield piece
        self._was_read = True

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if not self._was_read:
            self._drop()
            return
        try:
            await self._response.aclose()
        except BaseException:
            self._drop()
            raise
        self._give_back()


async def pass_by(response: httpx.Response) -> None:
    """Read an answer that nobody wants to its end, so that its connection can be used further.

    Raises what httpx raises, and `ProtocolError` when it is too long to be what it seems.
    """
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > _LARGEST_REFUSAL:
            raise ProtocolError("the server's refusal does not end")


def without_body(request: httpx.Request, authorization: str | None = None) -> httpx.Request:
    """Make the first leg of a handshake: the request without its body, which waits until the server knows us."""
    passed = [(name, value) for name, value in request.headers.raw if name.lower() not in _ABOUT_THE_BODY]
    own = [(b"Content-Length", b"0")]
    if authorization is not None:
        own.append((b"Authorization", authorization.encode("ascii")))
    return httpx.Request(request.method, request.url, headers=passed + own, extensions=request.extensions)


def with_authorization(request: httpx.Request, authorization: str) -> httpx.Request:
    """Make the request that carries a message of a handshake beside its body."""
    headers = httpx.Headers(request.headers)
    headers["Authorization"] = authorization
    return httpx.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


_ABOUT_THE_BODY = frozenset({b"content-length", b"transfer-encoding", b"content-type", b"content-encoding"})


async def _quietly(closing: Coroutine[Any, Any, None]) -> None:
    # It is thrown away; how its connection takes that does not matter any more.
    with contextlib.suppress(Exception):
        await closing
