"""One EWS request over HTTP: connections, headers, retries, throttling. Knows no XML.

What the bytes say is the reader's to tell.
"""

from __future__ import annotations

import asyncio
import random
import uuid
import zlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
import structlog

from ews_sync import __version__
from ews_sync.errors import Asks, ConnectionFailedError, ProtocolError, Scope, SourceError, ThrottledError
from ews_sync.sources.ews.codes import TIMED_OUT
from ews_sync.sources.ews.connections import Connections
from ews_sync.sources.ews.contact import FirstContact
from ews_sync.sources.ews.throttle import Gate
from ews_sync.sources.ews.trouble import connection_error, status_error
from ews_sync.web.certificates import presented_certificate
from ews_sync.web.failures import content_type, retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ews_sync.model import Clock

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

USER_AGENT = f"ews-sync/{__version__}"
ANSWER_WITHIN = 150.0
"""Seconds of silence. Exchange executes a request for up to a minute before it gives up, so reading waits longer."""
_DEADLINE = 1800.0
_PIECE = 64 * 1024
_PAUSE_EVERY = 1024 * 1024
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
_XML = frozenset({"text/xml", "application/soap+xml", "application/xml"})


class Reader(Protocol[T_co]):
    """Reads one answer as its bytes arrive."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises a `SourceError` when they make no sense."""

    def close(self) -> T_co:
        """End: give the answer, or raise the `SourceError` that it stands for."""

    def discard(self) -> None:
        """Give back what was read."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request ready to be sent. `doing` is for messages; `principal` is whom the server throttles.

    `anchor` is the impersonated mailbox, if any; `max_answer` how many bytes an answer can have; `attempts` how often
    the call is sent at most to a server that is not busy, where that is less often than the policy says.
    """

    doing: str
    content: bytes
    principal: str
    anchor: str | None = None
    compressed: bool = True
    max_answer: int = 64 * 1024 * 1024
    attempts: int = 100


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is sent before its caller hears of a failure, and how long to wait in between, in seconds."""

    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 20.0

    def wait(self, attempt: int, jitter: float) -> float:
        """Give the wait after failed attempt number `attempt` (from 1); `jitter` is in [0, 1)."""
        wait = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        return wait * (0.5 + jitter / 2)


class Client:
    """Sends calls to one EWS endpoint. Raises `SourceError` and its children only."""

    def __init__(  # noqa: PLR0913 - the parts that it joins, and how it behaves
        self,
        url: str,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        retry: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        self._url = httpx.URL(url)
        self._http = http
        self._clock = clock
        self._retry = retry or RetryPolicy()
        self._timeout = httpx.Timeout(connect=15, read=answer_within, write=60, pool=None)
        self._jitter = jitter
        self._gates: dict[str, Gate] = {}
        self._contact = FirstContact()
        self._connections = Connections(http)
        self._log = structlog.get_logger("ews_sync.ews")

    def gate(self, principal: str) -> Gate:
        """Give the principal's gate; the same one every time."""
        return self._gates.setdefault(principal, Gate(self._clock))

    async def send(self, call: Call, new_reader: Callable[[], Reader[T]]) -> T:
        """Send the call until it is answered, at most as often as the policy and the call allow.

        `new_reader` makes a reader for each attempt.
        """
        gate = self.gate(call.principal)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with gate.passage():
                    return await self._noting(gate, call, new_reader())
            except SourceError as error:
                # What this machine lacks (scope PROCESS) does not come back by asking the server again.
                if error.asks is not Asks.RETRY or error.scope is Scope.PROCESS:
                    raise
                if attempt >= self._attempts(call, error):
                    raise
                # Who is throttled waits at the gate.
                wait = 0.0 if isinstance(error, ThrottledError) else self._wait(error, attempt)
                self._log.debug(
                    "request failed, trying again",
                    doing=call.doing,
                    problem=error.summary,
                    request_id=error.request_id,
                    attempt=attempt,
                    wait=round(wait, 1),
                )
            await self._clock.sleep(wait)

    def _attempts(self, call: Call, error: SourceError) -> int:
        """Give how many attempts are enough.

        A busy server says nothing about this call; one that took too long over it does.
        """
        if isinstance(error, ThrottledError) and error.code != TIMED_OUT:
            return self._retry.attempts
        return min(self._retry.attempts, call.attempts)

    async def _noting(self, gate: Gate, call: Call, reader: Reader[T]) -> T:
        """Attempt once, and tell the gate how it went before anybody else is let through."""
        try:
            answer = await self._attempt(call, reader)
        except ThrottledError as error:
            gate.was_busy(error.retry_after)
            raise
        gate.succeeded()
        return answer

    def _wait(self, error: SourceError, attempt: int) -> float:
        return error.retry_after if error.retry_after is not None else self._retry.wait(attempt, self._jitter())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connections.aclose()

    async def _attempt(self, call: Call, reader: Reader[T]) -> T:
        request_id = str(uuid.uuid4())
        done = answered = False
        deadline = asyncio.timeout(_DEADLINE)
        try:
            async with deadline:
                response = await self._respond(call, request_id)
                answered = True
                try:
                    answer = await self._read(call, response, reader)
                finally:
                    await self._connections.close(response)
            done = True
        except SourceError as error:
            # Nobody finds in the server's logs what never got there.
            if answered or not isinstance(error, ConnectionFailedError):
                error.request_id = error.request_id or request_id
            raise
        # RuntimeError is what httpx has for a closed client, and uvloop for a transport that closes underneath it.
        except (httpx.HTTPError, httpx.InvalidURL, zlib.error, OSError, RuntimeError, UnicodeError) as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                raise ConnectionFailedError(
                    f"{call.doing}: the server's answer did not end within {_DEADLINE:.0f} s", request_id=request_id
                ) from error
            raise await self._broken(call, error, request_id) from error
        else:
            return answer
        finally:
            if not done:
                reader.discard()

    async def _broken(self, call: Call, error: Exception, request_id: str) -> ConnectionFailedError:
        presented = await presented_certificate(error, self._url)
        sent = not isinstance(error, _NEVER_SENT)
        return connection_error(call.doing, error, self._url, request_id if sent else "", presented)

    async def _respond(self, call: Call, request_id: str) -> httpx.Response:
        """Send, and give the response as soon as its headers are there."""
        request = self._http.build_request(
            "POST", self._url, content=call.content, headers=_headers(call, request_id), timeout=self._timeout
        )
        async with self._contact.passage():
            try:
                response = await self._connections.send(request)
            except httpx.HTTPError as error:
                raise await self._broken(call, error, request_id) from error
            if response.status_code in {200, 500}:
                self._contact.taken()
            if response.status_code != 401:
                return response
            await self._connections.close(response)
            refusal = status_error(call.doing, response, self._clock.now())
            refusal.request_id = request_id
            self._contact.refused(refusal)
            raise refusal

    async def _read(self, call: Call, response: httpx.Response, reader: Reader[T]) -> T:
        if response.status_code not in {200, 500} or content_type(response) not in _XML:
            raise status_error(call.doing, response, self._clock.now())
        received = at_pause = 0
        try:
            async with aclosing(_decoded(response)) as pieces:
                async for piece in pieces:
                    received += len(piece)
                    if received > call.max_answer:
                        raise ProtocolError(f"{call.doing}: the server's answer does not end ({received} bytes so far)")
                    reader.feed(piece)
                    if received - at_pause > _PAUSE_EVERY:
                        # What is in the buffers, or well compressed, comes without a wait: others want to run, too.
                        at_pause = received
                        await asyncio.sleep(0)
            return reader.close()
        except ThrottledError as error:
            error.retry_after = error.retry_after or retry_after(response, self._clock.now())
            raise


def _headers(call: Call, request_id: str) -> list[tuple[bytes, bytes]]:
    headers = {
        "Content-Type": "text/xml; charset=utf-8",
        "Accept": "text/xml",
        "Accept-Encoding": "gzip" if call.compressed else "identity",
        "User-Agent": USER_AGENT,
        "client-request-id": request_id,
        "return-client-request-id": "true",
    }
    if call.anchor is not None:
        headers["X-AnchorMailbox"] = call.anchor
    # In bytes, since an address can have letters that are not ASCII, which httpx does not take in text.
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _decoded(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces of bounded size, however far its compression expands.

    It comes from the stream itself: httpx's own iterators close it at the end, where a cancellation would do harm
    (see `connections`).
    """
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous client has no other
    encoding = str(response.headers.get("content-encoding", "")).strip().lower()
    if encoding in {"", "identity"}:
        async for piece in stream:
            yield piece
        return
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise ProtocolError(f"the server answered in an encoding that was not asked for: {encoding[:40]}")
    inflate = zlib.decompressobj(wbits=47)
    behind = 0
    async for piece in stream:
        if inflate.eof:
            # What comes behind the end is nobody's, and zlib would keep it all.
            behind += len(piece)
            if behind > _PAUSE_EVERY:
                raise ProtocolError("the server's compressed answer does not end where it says")
            continue
        data = piece
        while data:
            yield inflate.decompress(data, _PIECE)
            data = inflate.unconsumed_tail
    yield inflate.flush()
