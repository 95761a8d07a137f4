"""Connections: what is read and when, what is held back, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import httpcore
import pytest
from hypothesis import given, strategies as st

from ews_sync.web.network import AsyncioBackend, Connected, _addresses, _Protocol, first_connected
from tests.web.servers import deaf, listening, silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

LONG = 10.0
BOUND = 2 * 1024 * 1024
"""More than may ever wait in the process and in the system's buffers together, when those are small."""


class Peer:
    """The other end of a connection as a plain blocking socket: what it does has happened when it returns."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def close(self) -> None:
        self.connection.close()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening_socket:
        yield listening_socket


@pytest.fixture
async def ends(listener: socket.socket) -> AsyncIterator[tuple[httpcore.AsyncNetworkStream, Peer]]:
    stream = await AsyncioBackend().connect_tcp("127.0.0.1", listener.getsockname()[1], timeout=LONG)
    connection, _ = listener.accept()
    yield stream, Peer(connection)
    await stream.aclose()
    connection.close()


Ends = tuple[httpcore.AsyncNetworkStream, Peer]


async def read_all(stream: httpcore.AsyncNetworkStream, most: int = 65536) -> bytes:
    got = bytearray()
    while piece := await stream.read(most, LONG):
        assert len(piece) <= (most if most < 64 * 1024 else 256 * 1024)
        got += piece
    return bytes(got)


async def test_what_arrived_before_the_end_is_given_first(ends: Ends) -> None:
    stream, peer = ends
    peer.send(b"last words")
    peer.close()
    assert await read_all(stream, 4) == b"last words"
    assert await stream.read(4) == b""


async def test_what_arrived_before_the_connection_broke_is_given_first(ends: Ends) -> None:
    stream, peer = ends
    peer.send(b"last words")
    assert await stream.read(4, LONG) == b"last"
    peer.reset()
    assert await stream.read(100, LONG) == b" words"
    for _ in range(2):
        with pytest.raises(httpcore.ReadError) as raised:
            await stream.read(4, LONG)
        assert isinstance(raised.value.__context__, ConnectionResetError)


async def test_reading_in_vain_costs_nothing(ends: Ends) -> None:
    stream, peer = ends
    for seconds in (0, 0.001):
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, seconds)
    reading = asyncio.ensure_future(stream.read(100))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    peer.send(b"here")
    assert await stream.read(100, LONG) == b"here"


@pytest.mark.parametrize("deed", ["send", "close", "reset"])
async def test_what_the_server_has_done_is_known_at_once(ends: Ends, deed: str) -> None:
    stream, peer = ends
    assert stream.get_extra_info("is_readable") is False
    if deed == "send":
        peer.send(b"x")
    else:
        getattr(peer, deed)()
    # At first there was no turn of the event loop in between.
    for _ in range(10):
        assert stream.get_extra_info("is_readable") is True
        await asyncio.sleep(0)


async def test_a_closed_one_says_so(ends: Ends) -> None:
    stream, _ = ends
    await stream.aclose()
    assert stream.get_extra_info("is_readable") is True
    assert stream.get_extra_info("socket") is None
    with pytest.raises(httpcore.ReadError):
        await stream.read(1)
    with pytest.raises(httpcore.WriteError):
        await stream.write(b"x")
    await stream.aclose()


async def test_closing_wakes_up_who_reads_and_who_writes(ends: Ends) -> None:
    stream, _ = ends
    reading = asyncio.ensure_future(stream.read(1))
    writing = asyncio.ensure_future(stream.write(bytes(BOUND * 8)))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(httpcore.ReadError):
        await reading
    with pytest.raises(httpcore.WriteError):
        await writing


async def test_closing_leaves_behind_what_cannot_be_sent(ends: Ends) -> None:
    stream, _ = ends
    number = stream.get_extra_info("socket").fileno()
    with pytest.raises(httpcore.WriteTimeout):
        await stream.write(bytes(BOUND * 8), 0.01)
    await stream.aclose()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


async def test_the_end_is_told_while_something_waits_to_be_sent(ends: Ends) -> None:
    stream, peer = ends
    with pytest.raises(httpcore.WriteTimeout):
        await stream.write(bytes(BOUND * 8), 0.01)
    peer.connection.shutdown(socket.SHUT_WR)
    assert await stream.read(1, LONG) == b""


async def test_a_server_is_held_back_while_nobody_reads(ends: Ends) -> None:
    stream, peer = ends
    stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    peer.connection.setblocking(False)  # noqa: FBT003
    data = bytes(range(256)) * (BOUND * 4 // 256)
    sent = refused = 0
    while refused < 100 and sent < len(data):
        try:
            sent += peer.connection.send(data[sent : sent + 65536])
            refused = 0
        except BlockingIOError:
            refused += 1
        await asyncio.sleep(0)
    assert sent < BOUND
    got = bytearray()
    while len(got) < len(data):
        got += await stream.read(50_000, LONG)
        while sent < len(data):
            try:
                sent += peer.connection.send(data[sent : sent + 65536])
            except BlockingIOError:
                break
    assert got == data


async def test_writing_waits_for_who_does_not_read(ends: Ends) -> None:
    stream, peer = ends
    with pytest.raises(httpcore.WriteTimeout):
        await stream.write(bytes(BOUND * 8), 0.01)
    writing = asyncio.ensure_future(stream.write(bytes(BOUND * 8)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    writing = asyncio.ensure_future(stream.write(b"x"))
    await asyncio.sleep(0)
    peer.connection.setblocking(False)  # noqa: FBT003
    async with asyncio.timeout(LONG):
        while not writing.done():
            try:
                assert peer.connection.recv(BOUND)
            except BlockingIOError:
                await asyncio.sleep(0)
    await writing


async def test_a_connection_that_breaks_while_writing(ends: Ends) -> None:
    stream, peer = ends
    writing = asyncio.ensure_future(stream.write(bytes(BOUND * 8)))
    await asyncio.sleep(0)
    peer.reset()
    for attempt in (writing, stream.write(b"x")):
        with pytest.raises(httpcore.WriteError) as raised:
            await attempt
        assert isinstance(raised.value.__context__, ConnectionError)


async def test_tls_holds_back_who_writes(server_tls: ssl.SSLContext, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    async with listening(deaf, server_tls) as port:
        plain = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG)
        stream = await plain.start_tls(trusting, "127.0.0.1", LONG)
        connection = stream.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        transport = stream._transport  # type: ignore[attr-defined]
        wire = stream._wire  # type: ignore[attr-defined]
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(bytes(BOUND * 8), 0.05)
        assert transport.get_write_buffer_size() + wire.get_write_buffer_size() < 512 * 1024
        await stream.aclose()


async def test_tls_that_was_broken_by_somebody_in_between(server_tls: ssl.SSLContext, certificate: Path) -> None:
    async def garbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"so far so good")
        await writer.drain()
        await reader.read(1)
        # Below TLS: no record of it.
        raw = writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(raw.fileno())) as below:
            below.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await silent(reader, writer)

    trusting = ssl.create_default_context(cafile=certificate)
    async with listening(garbles, server_tls) as port:
        plain = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG)
        stream = await plain.start_tls(trusting, "127.0.0.1", LONG)
        assert await stream.read(100, LONG) == b"so far so good"
        await stream.write(b"x")
        with pytest.raises(httpcore.ReadError) as raised:
            await stream.read(100, LONG)
        assert isinstance(raised.value.__context__, ssl.SSLError)
        await stream.aclose()


async def test_tls_cannot_follow_what_the_server_has_said(ends: Ends) -> None:
    stream, peer = ends
    peer.send(b"220 mail.example ESMTP\r\n")
    assert await stream.read(1, LONG) == b"2"
    with pytest.raises(httpcore.ConnectError) as raised:
        await stream.start_tls(ssl.create_default_context(), "127.0.0.1", LONG)
    assert isinstance(raised.value.__context__, ssl.SSLError)
    assert stream.get_extra_info("socket") is None


@pytest.mark.parametrize("deed", ["close", "reset"])
async def test_tls_cannot_follow_the_end(ends: Ends, deed: str) -> None:
    stream, peer = ends
    getattr(peer, deed)()
    with contextlib.suppress(httpcore.ReadError):
        assert await stream.read(1, LONG) == b""
    with pytest.raises(httpcore.ConnectError):
        await stream.start_tls(ssl.create_default_context(), "127.0.0.1", LONG)


async def test_options_and_the_local_address_of_a_connection(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG, "127.0.0.2", options)
    assert stream.get_extra_info("client_addr")[0] == "127.0.0.2"
    assert stream.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    await stream.aclose()
    with pytest.raises(httpcore.ConnectError):
        await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG, None, [(socket.SOL_SOCKET, 10_000, 1)])


async def test_a_server_that_accepts_nothing_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        # Whoever is in the queue fills it; the next one is not answered.
        with pytest.raises(httpcore.ConnectTimeout):  # noqa: PT012
            while True:
                waiting.append(await AsyncioBackend().connect_tcp("127.0.0.1", full.getsockname()[1], 0.05))
        for stream in waiting:
            await stream.aclose()


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.lists(st.integers(1, 120), min_size=1))
def test_pieces_are_given_in_order_and_whole(pieces: list[bytes], sizes: list[int]) -> None:
    protocol = _Protocol()
    for piece in pieces:
        protocol.data_received(piece)
    whole = b"".join(pieces)
    given_back, wanted = b"", deque(sizes)
    while protocol.waiting:
        assert protocol.unread == len(whole) - len(given_back)
        wanted.rotate()
        taken = protocol.take(wanted[0])
        assert type(taken) is bytes
        assert len(taken) == min(wanted[0], len(whole) - len(given_back))
        given_back += taken
    assert given_back == whole
    assert protocol.unread == 0


class FakeTransport(asyncio.Transport):
    """Remembers that it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Network:
    """Addresses that connect when they are told to."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.both_tried = asyncio.Event()
        self.cancelled: list[str] = []
        self.outcomes: dict[str, asyncio.Future[Connected]] = {}

    async def connect(self, address: str) -> Connected:
        self.tried.append(address)
        if len(self.tried) == 2:
            self.both_tried.set()
        outcome = self.outcomes.setdefault(address, asyncio.get_running_loop().create_future())
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            self.cancelled.append(address)
            raise

    def accept(self, address: str) -> Connected:
        connected = FakeTransport(), _Protocol()
        self.outcomes.setdefault(address, asyncio.get_running_loop().create_future()).set_result(connected)
        return connected

    def refuse(self, address: str) -> None:
        refusal = self.outcomes.setdefault(address, asyncio.get_running_loop().create_future())
        refusal.set_exception(ConnectionRefusedError(111, f"{address} refuses"))


async def test_an_address_that_does_not_answer_is_not_waited_for() -> None:
    network = Network()
    second = network.accept("b")
    assert await first_connected(["a", "b", "c"], network.connect, 0.001) is second
    assert network.tried == ["a", "b"]
    assert network.cancelled == ["a"]


async def test_an_address_that_refuses_is_followed_by_the_next_at_once() -> None:
    network = Network()
    network.refuse("a")
    second = network.accept("b")
    assert await first_connected(["a", "b"], network.connect, LONG) is second


async def test_the_first_address_may_still_be_the_one_that_answers() -> None:
    network = Network()
    connecting = asyncio.ensure_future(first_connected(["a", "b"], network.connect, 0))
    await network.both_tried.wait()
    first, second = network.accept("a"), network.accept("b")
    winner = await connecting
    loser = second if winner is first else first
    assert isinstance(loser[0], FakeTransport)
    assert loser[0].aborted
    assert isinstance(winner[0], FakeTransport)
    assert not winner[0].aborted


async def test_a_connection_that_nobody_wants_any_more_is_closed() -> None:
    transport = FakeTransport()

    async def connect(address: str) -> Connected:
        if address == "slow":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                # Its end takes a while, in which whoever waits for both gives up.
                connecting.cancel()
                await asyncio.sleep(0)
                raise
        return transport, _Protocol()

    connecting = asyncio.ensure_future(first_connected(["slow", "quick"], connect, 0))
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert transport.aborted


async def test_what_all_addresses_say_is_told() -> None:
    network = Network()
    network.refuse("a")
    network.refuse("b")
    with pytest.raises(ExceptionGroup) as raised:
        await first_connected(["a", "b"], network.connect, 0)
    assert [str(error) for error in raised.value.exceptions] == ["[Errno 111] a refuses", "[Errno 111] b refuses"]
    with pytest.raises(ConnectionRefusedError):
        await first_connected(["a"], network.connect, 0)


async def test_being_cancelled_ends_all_attempts() -> None:
    network = Network()
    connecting = asyncio.ensure_future(first_connected(["a", "b"], network.connect, 0))
    await network.both_tried.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert sorted(network.cancelled) == ["a", "b"]


async def test_a_name_with_several_addresses(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listener.getsockname()[1]

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        await asyncio.sleep(0)
        found = [(socket.AF_INET6, "::1"), (socket.AF_INET6, "::2"), (socket.AF_INET, "127.0.0.1")]
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in found]

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        assert await _addresses("server.example", port) == ["::1", "127.0.0.1", "::2"]
        stream = await AsyncioBackend().connect_tcp("server.example", port, LONG)
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
    await stream.aclose()
