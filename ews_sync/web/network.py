"""TCP and TLS for httpcore, straight on asyncio's transports and protocols.

httpcore's own way leads through anyio, which on asyncio costs an additional turn of the event loop for every message
that is sent, two system calls around every one that is awaited, a cancel scope for each of both, and does TLS in
Python. Here the event loop does it: uvloop's TLS is native.

A connection is read from ahead of whoever wants its bytes, up to a bound; this is also how it is known at once that a
server has closed an idle one.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections import deque
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, cast

import httpcore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    Option = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

_UNREAD = 64 * 1024
"""Bytes that may wait to be read before the server is held back; one read of the event loop's comes on top."""
_MUCH = 64 * 1024
_MOST = 256 * 1024
"""Bytes that are given at a time: what uvloop takes from the system at a time."""
_UNSENT = 64 * 1024
"""Bytes that may wait to be sent before whoever writes is held back; what one write brings comes on top."""
_NEXT_ADDRESS_AFTER = 0.25
"""Seconds until an address is tried beside one that has not answered: RFC 8305 section 5."""


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Connects by the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Option] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of `host` that answers, trying one after the other.

        Raises `httpcore.ConnectTimeout` after `timeout` seconds, and `httpcore.ConnectError` from what the operating
        system says: an `OSError`, or a group of them when there were several addresses.
        """
        options = tuple(socket_options or ())

        async def connect(address: str) -> Connected:
            return await _connect(address, port, local_address, options)

        try:
            async with asyncio.timeout(timeout):
                addresses = await _addresses(host, port)
                transport, protocol = await first_connected(addresses, connect, _NEXT_ADDRESS_AFTER)
        except OSError as error:
            # The operating system's own has a number.
            if isinstance(error, TimeoutError) and error.errno is None:
                raise httpcore.ConnectTimeout from error
            raise httpcore.ConnectError(error) from error
        except ExceptionGroup as errors:
            raise httpcore.ConnectError("no address could be connected to") from errors
        return AsyncioStream(transport, transport, protocol)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class AsyncioStream(httpcore.AsyncNetworkStream):
    """One connection. Made by `AsyncioBackend`; one task may read and one may write at a time.

    `transport` is what is written to, `wire` the TCP connection underneath (the same without TLS).
    """

    def __init__(self, transport: asyncio.Transport, wire: asyncio.Transport, protocol: _Protocol) -> None:
        self._transport = transport
        # With TLS, reading is held back here and not at the transport: what is received is always decrypted at once,
        # so none of it can be lost inside when the connection breaks.
        self._wire = wire
        self._protocol = protocol
        self._poll: select.poll | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Give what has arrived, 1 to `max_bytes`, waiting for it up to `timeout` seconds; b"" at the end.

        Who asks for 64 KiB, as httpcore always does, is given up to 256: it takes any size, and each piece costs some
        40 µs until it is read, however large it is.

        What arrived before the end, or before the connection broke, is given first. Being cancelled loses nothing.
        Raises `httpcore.ReadTimeout`, and `httpcore.ReadError` from what broke the connection.
        """
        protocol = self._protocol
        if not protocol.waiting and not protocol.has_ended:
            try:
                await protocol.arrival(timeout)
            except TimeoutError as error:
                raise httpcore.ReadTimeout from error
        if protocol.waiting:
            data = protocol.take(max_bytes if max_bytes < _MUCH else max(max_bytes, _MOST))
            if protocol.is_held_back and protocol.unread <= _UNREAD:
                protocol.is_held_back = False
                self._wire.resume_reading()
            return data
        if protocol.lost_by is not None:
            raise _because(httpcore.ReadError, protocol.lost_by)
        if protocol.is_closed:
            raise httpcore.ReadError("the connection is closed")
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send, waiting up to `timeout` seconds each time that the server takes nothing.

        Raises `httpcore.WriteTimeout`, and `httpcore.WriteError` from what broke the connection. After either, or when
        cancelled, it is unknown how much was sent.
        """
        if not buffer:
            return
        if len(buffer) <= _UNSENT:
            await self._write(buffer, timeout)
            return
        # A TLS transport passes on whatever it is given at once, and only then begins to count.
        whole = memoryview(buffer)
        for start in range(0, len(whole), _UNSENT):
            await self._write(whole[start : start + _UNSENT], timeout)

    async def _write(self, piece: bytes | memoryview, seconds: float | None) -> None:
        self._check_for_writing()
        self._transport.write(piece)
        if self._protocol.is_full:
            try:
                await self._protocol.room(seconds)
            except TimeoutError as error:
                raise httpcore.WriteTimeout from error
            self._check_for_writing()

    def _check_for_writing(self) -> None:
        lost_by = self._protocol.lost_by
        if lost_by is not None:
            raise _because(httpcore.WriteError, lost_by)
        if self._transport.is_closing():
            raise httpcore.WriteError("the connection is closed")

    async def aclose(self) -> None:
        """Close at once, whatever waits to be sent or read, and without asking the server."""
        self._protocol.close()
        # A proper end of TLS would wait for the server's, up to half a minute. Nothing of HTTP depends on it.
        self._transport.abort()
        # The event loop closes the socket in its next turn.
        await asyncio.sleep(0)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Begin TLS, and give the stream that is used from now on. Whatever goes wrong, the connection is closed.

        Raises `httpcore.ConnectError` from an `ssl.SSLError` (`ssl.SSLCertVerificationError` for certificates) or
        another `OSError`, and `httpcore.ConnectTimeout` after `timeout` seconds, which also comes from an
        `ssl.SSLError`: it tells that there was a connection.
        """
        try:
            transport = await self._handshake(ssl_context, server_hostname, timeout)
        except OSError as error:
            await self.aclose()
            if isinstance(error, ssl.SSLWantReadError):
                raise httpcore.ConnectTimeout(error) from error
            raise httpcore.ConnectError(error) from error
        except BaseException:
            await self.aclose()
            raise
        transport.set_write_buffer_limits(_UNSENT)
        return AsyncioStream(transport, self._wire, self._protocol)

    async def _handshake(
        self, context: ssl.SSLContext, server_hostname: str | None, seconds: float | None
    ) -> asyncio.Transport:
        """Give the transport of TLS. Raises `OSError`, which is `ssl.SSLWantReadError` when it takes too long."""
        self._check_for_tls()
        try:
            async with asyncio.timeout(seconds):
                transport = await asyncio.get_running_loop().start_tls(
                    self._transport, self._protocol, context, server_hostname=server_hostname
                )
        except (TimeoutError, ConnectionResetError) as error:
            if error.errno is not None:
                raise
            if isinstance(error, TimeoutError):
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the server does not go on with TLS") from error
            # What both event loops say when the connection ends without an error.
            raise _closed_before_tls() from error
        if transport is None or transport.get_extra_info("ssl_object") is None:
            raise _closed_before_tls()
        return transport

    def _check_for_tls(self) -> None:
        """Raise what tells that TLS cannot begin: its first word is the client's."""
        if self._protocol.waiting:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the server speaks first, which no TLS server does")
        if self._protocol.lost_by is not None:
            raise self._protocol.lost_by
        if self._protocol.has_ended:
            raise _closed_before_tls()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's signature
        """Give "ssl_object", "client_addr", "server_addr", "socket" or "is_readable"; None where there is none."""
        match info:
            case "is_readable":
                return self._is_readable()
            case "socket":
                # The number of a closed one may be another's already.
                return None if self._wire.is_closing() else self._wire.get_extra_info("socket")
            case "ssl_object":
                return self._transport.get_extra_info("ssl_object")
            case "client_addr":
                return self._wire.get_extra_info("sockname")
            case "server_addr":
                return self._wire.get_extra_info("peername")
        return None

    def _is_readable(self) -> bool:
        """Tell whether reading would not wait: on an idle connection, that the server has closed it or spoken on."""
        if self._protocol.waiting or self._protocol.has_ended or self._wire.is_closing():
            return True
        # The event loop may not have looked since it arrived.
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._wire.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))


class _Protocol(asyncio.Protocol):
    """What has arrived on a connection, and how it ended."""

    def __init__(self) -> None:
        self.waiting: deque[bytes | memoryview] = deque()
        self.unread = 0
        """Bytes in `waiting`."""
        self.has_ended = False
        """Nothing more will arrive."""
        self.lost_by: Exception | None = None
        """What broke the connection."""
        self.is_closed = False
        """Closed by ourselves."""
        self.is_held_back = False
        self.is_full = False
        """Too much waits to be sent."""
        self._wire: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def take(self, most: int) -> bytes:
        """Take up to `most` bytes of what is waiting, from its beginning. Something must be waiting."""
        pieces, size = [], 0
        while self.waiting and size < most:
            piece = self.waiting.popleft()
            if size + len(piece) > most:
                # A view, so that what stays behind is not copied each time.
                view = memoryview(piece)
                self.waiting.appendleft(view[most - size :])
                piece = view[: most - size]
            pieces.append(piece)
            size += len(piece)
        self.unread -= size
        first = pieces[0]
        return first if len(pieces) == 1 and isinstance(first, bytes) else b"".join(pieces)

    async def arrival(self, seconds: float | None) -> None:
        """Wait until something has arrived, or nothing more will. Raises `TimeoutError`."""
        self._reader = asyncio.get_running_loop().create_future()
        await _within(self._reader, seconds)

    async def room(self, seconds: float | None) -> None:
        """Wait until more can be sent, or nothing more can. Raises `TimeoutError`."""
        self._writer = asyncio.get_running_loop().create_future()
        await _within(self._writer, seconds)

    def close(self) -> None:
        """Wake up whoever waits: the connection is being closed."""
        self.is_closed = True
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's has all of its methods, and is none of its children.
        self._wire = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.waiting.append(data)
        self.unread += len(data)
        if self.unread > _UNREAD and not self.is_held_back and self._wire is not None:
            self.is_held_back = True
            self._wire.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.has_ended = True
        _wake(self._reader)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_by = exc
        self._end()
        self._wire = None

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        _wake(self._writer)

    def _end(self) -> None:
        self.has_ended = True
        _wake(self._reader)
        self.resume_writing()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _within(waiter: asyncio.Future[None], seconds: float | None) -> None:
    """Await `waiter`. Raises `TimeoutError`. It costs a fraction of what `asyncio.timeout` does."""
    if seconds is None:
        await waiter
        return
    timer = waiter.get_loop().call_later(seconds, _expire, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


def _closed_before_tls() -> ssl.SSLError:
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the server closed the connection while TLS was being set up")


def _because(kind: type[Exception], cause: Exception) -> Exception:
    error = kind(cause)
    # httpcore's pool takes an error's cause away, but leaves its context.
    error.__cause__ = error.__context__ = cause
    return error


Connected = tuple[asyncio.Transport, _Protocol]


async def _connect(address: str, port: int, local_address: str | None, options: Iterable[Option]) -> Connected:
    local = None if local_address is None else (local_address, 0)
    transport, protocol = await asyncio.get_running_loop().create_connection(_Protocol, address, port, local_addr=local)
    try:
        for option in options:
            transport.get_extra_info("socket").setsockopt(*option)
    except BaseException:
        transport.abort()
        raise
    return transport, protocol


async def _addresses(host: str, port: int) -> Sequence[str]:
    """Give the addresses of `host` in the order in which they are tried: the system's, families taking turns.

    Raises `socket.gaierror`.
    """
    # As bytes: text would go through a codec, which has errors of its own.
    found = await asyncio.get_running_loop().getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    families: dict[int, list[str]] = {}
    for family, *_, address in found:
        families.setdefault(family, []).append(str(address[0]))
    return [address for address in chain(*zip_longest(*families.values())) if address is not None]


async def first_connected(
    addresses: Sequence[str], connect: Callable[[str], Coroutine[Any, Any, Connected]], delay: float
) -> Connected:
    """Give the connection to the address that answers first; the next is tried when one fails, or after `delay`.

    RFC 8305 section 5: a server that has lost one of its addresses is reached by another without much delay. Raises
    the `OSError` of the only address, or an `ExceptionGroup` of those of all.
    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    untried = deque(addresses)
    attempts: list[asyncio.Task[Connected]] = []
    pending: set[asyncio.Task[Connected]] = set()
    winner: asyncio.Task[Connected] | None = None
    failures: list[Exception] = []
    try:
        while winner is None and (untried or pending):
            if untried:
                attempts.append(asyncio.create_task(connect(untried.popleft())))
                pending.add(attempts[-1])
            wait = delay if untried else None
            done, pending = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    winner = attempt
                elif isinstance(error, Exception):
                    failures.append(error)
    finally:
        try:
            await _abandon([attempt for attempt in attempts if attempt is not winner])
        except BaseException:
            if winner is not None:
                winner.result()[0].abort()
            raise
    if winner is None:
        raise ExceptionGroup("all addresses failed", failures)
    return winner.result()


async def _abandon(attempts: Sequence[asyncio.Task[Connected]]) -> None:
    """End attempts that nobody wants any more; close what they have come to."""
    for attempt in attempts:
        # Also where nobody waits for its end any more.
        attempt.add_done_callback(_close_what_came)
        attempt.cancel()
    await asyncio.gather(*attempts, return_exceptions=True)


def _close_what_came(attempt: asyncio.Task[Connected]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[0].abort()
