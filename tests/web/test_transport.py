"""One contract for httpx's own transport and ours, on both event loops, with and without TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.web.failures import FailureKind, causes, connection_failure
from ews_sync.web.transport import DirectTransport, direct_transport
from tests.web.servers import OK, answering, answering_once, break_connection, deaf, listening, read_request, silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.web.servers import Handler

    NewTransport = Callable[[ssl.SSLContext, httpx.Limits], httpx.AsyncBaseTransport]

LIMITS = httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=60)
ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)
LONG = 10.0
"""Seconds in which what has to happen does, on the slowest machine."""
SHORT = 0.05
LARGE = bytes(range(256)) * 16384


def httpxs(tls: ssl.SSLContext, limits: httpx.Limits) -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=tls, limits=limits, trust_env=False)


@pytest.fixture(params=[httpxs, DirectTransport], ids=["httpx", "ours"])
def new_transport(request: pytest.FixtureRequest) -> NewTransport:
    chosen: NewTransport = request.param
    return chosen


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


class World:
    """A client over the transport that is under test, and servers for it with or without TLS."""

    def __init__(
        self, new_transport: NewTransport, scheme: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
    ) -> None:
        self._new_transport = new_transport
        self._scheme = scheme
        self._server_tls = server_tls
        self._trusting = trusting

    @asynccontextmanager
    async def client(
        self, handler: Handler, limits: httpx.Limits = LIMITS, **timeouts: float
    ) -> AsyncIterator[httpx.AsyncClient]:
        tls = self._server_tls if self._scheme == "https" else None
        async with (
            listening(handler, tls) as port,
            httpx.AsyncClient(
                transport=self._new_transport(self._trusting, limits),
                base_url=f"{self._scheme}://127.0.0.1:{port}",
                timeout=httpx.Timeout(LONG, **timeouts),
            ) as http,
        ):
            yield http


@pytest.fixture
def world(new_transport: NewTransport, scheme: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext) -> World:
    return World(new_transport, scheme, server_tls, trusting)


async def test_a_connection_is_used_again(world: World) -> None:
    connections = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            body = await read_request(reader)
            writer.write(b"HTTP/1.1 200 Fine\r\nX-Case: a, B\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    async with world.client(echo) as http:
        for body in (b"", b"x", LARGE):
            answer = await http.post("/", content=body)
            assert answer.content == body
            assert (answer.status_code, answer.reason_phrase, answer.http_version) == (200, "Fine", "HTTP/1.1")
            assert (b"X-Case", b"a, B") in answer.headers.raw
    assert len(connections) == 1


async def test_an_upload_in_pieces_arrives_whole(world: World) -> None:
    got = bytearray()

    async def taking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await read_request(reader))
        writer.write(OK)
        await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 100_000):
            yield LARGE[start : start + 100_000]

    async with world.client(taking) as http:
        await http.put("/", content=pieces(), headers={"Content-Length": str(len(LARGE))})
    assert got == LARGE


async def test_what_is_known_of_a_connection(world: World, scheme: str) -> None:
    async with world.client(answering(OK)) as http, http.stream("GET", "/") as answer:
        stream = answer.extensions["network_stream"]
        tls = stream.get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject) is (scheme == "https")
        if tls is not None:
            assert tls.getpeercert(binary_form=True)
            assert tls.selected_alpn_protocol() in {None, "http/1.1"}
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", http.base_url.port)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        connection = stream.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 8192
        assert stream.get_extra_info("nothing") is None


@pytest.mark.parametrize("new_transport", [DirectTransport])  # httpx's does not see an end of TLS in time
@pytest.mark.parametrize("last_word", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_an_idle_connection_that_the_server_has_done_with_is_not_used_again(
    world: World, last_word: bytes
) -> None:
    may_go_on = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await may_go_on.wait()
        writer.write(last_word)
        if last_word:
            await silent(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(LONG), world.client(once) as http:
        for _ in range(3):
            may_go_on.clear()
            assert (await http.get("/")).text == "hello"
            connection = http._transport._pool.connections[0]  # type: ignore[attr-defined]
            assert not connection.has_expired()
            may_go_on.set()
            while not connection.has_expired():  # noqa: ASYNC110 - what the network brings makes no event
                await asyncio.sleep(0)


@pytest.mark.parametrize("when", ["before the answer", "in the body", "while sending"])
async def test_being_cancelled_costs_no_connection(world: World, when: str) -> None:
    waiting = asyncio.Event()
    ended = asyncio.Queue[None]()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(OK)
            await writer.drain()
            return
        if when == "in the body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
            await writer.drain()
        if when == "while sending":
            waiting.set()
            await leave.wait()
        else:
            await reader.readexactly(len(LARGE))
            waiting.set()
        try:
            await silent(reader, writer)
        finally:
            ended.put_nowait(None)

    leave = asyncio.Event()
    async with asyncio.timeout(LONG), world.client(slow, ONE) as http:
        for _ in range(3):
            waiting.clear()
            leave.clear()
            task = asyncio.ensure_future(http.post("/", content=LARGE))
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            leave.set()
            await ended.get()
            assert (await http.get("/", headers={"Connection": "close"})).text == "hello"


async def test_closing_waits_for_nobody(world: World) -> None:
    ended = asyncio.Event()

    async def heedless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        # It neither answers the end of TLS, nor closes by itself.
        writer.transport.pause_reading()  # type: ignore[attr-defined] # TCP's has it
        await ended.wait()

    async with world.client(heedless) as http:
        assert (await http.get("/")).text == "hello"
        async with asyncio.timeout(LONG):
            await http.aclose()
        ended.set()


async def test_what_waits_ends_when_the_client_is_closed(world: World) -> None:
    asked = asyncio.Event()

    async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await silent(reader, writer)

    async with asyncio.timeout(LONG), world.client(asks) as http:
        task = asyncio.ensure_future(http.get("/"))
        await asked.wait()
        await http._transport.aclose()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await task


async def test_no_more_connections_than_allowed(world: World) -> None:
    async with world.client(silent, ONE, pool=SHORT, read=LONG) as http:
        first = asyncio.ensure_future(http.get("/"))
        await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await http.get("/")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_body_that_ends_too_early_is_given_as_far_as_it_goes(world: World) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"x" * 200_000
    got = 0
    async with world.client(answering_once(cut)) as http, http.stream("GET", "/") as answer:
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012
            async for piece in answer.aiter_raw():
                got += len(piece)
    assert got == 200_000


FAILURES: dict[str, tuple[Handler, type[httpx.TransportError], FailureKind, str]] = {
    "closed": (answering_once(b""), httpx.RemoteProtocolError, FailureKind.BROKEN, "Server disconnected"),
    "reset": (answering_once(b"", reset=True), httpx.ReadError, FailureKind.BROKEN, "Connection reset by peer"),
    "garbage": (answering_once(b"\x00\x01\r\n\r\n"), httpx.RemoteProtocolError, FailureKind.BROKEN, "illegal"),
    "no answer": (silent, httpx.ReadTimeout, FailureKind.NOT_ANSWERED, "(ReadTimeout)"),
    "half a body": (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        httpx.ReadTimeout,
        FailureKind.NOT_ANSWERED,
        "(ReadTimeout)",
    ),
    "half a head": (answering_once(b"HTTP/1.1 200 O"), httpx.RemoteProtocolError, FailureKind.BROKEN, "Server"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_failures(world: World, name: str) -> None:
    handler, kind, told_as, words = FAILURES[name]
    async with world.client(handler, read=SHORT) as http:
        with pytest.raises(httpx.TransportError) as raised:
            await http.post("/", content=b"x")
        failure = connection_failure(raised.value, http.base_url, "the peer")
    assert type(raised.value) is kind
    assert raised.value.request.method == "POST"
    assert failure.kind is told_as
    assert words in failure.summary


async def test_a_server_that_takes_nothing(world: World) -> None:
    async with world.client(deaf, write=SHORT) as http:
        with pytest.raises(httpx.WriteTimeout):
            await http.post("/", content=LARGE * 4)


async def test_a_connection_that_breaks_while_sending(world: World) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        break_connection(writer)

    async with world.client(breaking) as http:
        with pytest.raises((httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)):
            await http.post("/", content=LARGE * 4)


async def failure_of(new_transport: NewTransport, url: str, tls: ssl.SSLContext, connect: float = LONG) -> Exception:
    timeout = httpx.Timeout(LONG, connect=connect)
    async with httpx.AsyncClient(transport=new_transport(tls, LIMITS), timeout=timeout) as http:
        with pytest.raises(httpx.TransportError) as raised:
            await http.get(url)
    return raised.value


async def test_nobody_listens(new_transport: NewTransport, trusting: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = httpx.URL(f"http://127.0.0.1:{free.getsockname()[1]}/")
    error = await failure_of(new_transport, str(url), trusting)
    assert type(error) is httpx.ConnectError
    failure = connection_failure(error, url, "the peer")
    assert (failure.kind, failure.summary) == (
        FailureKind.NOT_CONNECTED,
        f"cannot connect to 127.0.0.1:{url.port}: Connection refused",
    )


async def test_a_name_that_cannot_be_looked_up(new_transport: NewTransport, trusting: ssl.SSLContext) -> None:
    # No server is asked: no label is as long as this.
    error = await failure_of(new_transport, f"http://{'x' * 64}.example/", trusting)
    assert type(error) is httpx.ConnectError
    assert any(isinstance(cause, socket.gaierror) for cause in causes(error))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "nothing://127.0.0.1/"])
async def test_what_is_not_http(new_transport: NewTransport, trusting: ssl.SSLContext, url: str) -> None:
    assert type(await failure_of(new_transport, url, trusting)) is httpx.UnsupportedProtocol


async def test_an_illegal_request(new_transport: NewTransport, trusting: ssl.SSLContext) -> None:
    async with listening(silent) as port, httpx.AsyncClient(transport=new_transport(trusting, LIMITS)) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(f"http://127.0.0.1:{port}/", headers={"X": "a\nb"})


async def test_a_certificate_that_nobody_vouches_for(new_transport: NewTransport, server_tls: ssl.SSLContext) -> None:
    async with listening(answering(OK), server_tls) as port:
        url = f"https://127.0.0.1:{port}/"
        error = await failure_of(new_transport, url, ssl.create_default_context())
    failure = connection_failure(error, httpx.URL(url), "the peer")
    assert type(error) is httpx.ConnectError
    assert failure.certificate is not None
    assert failure.certificate.code == 18


async def test_a_certificate_of_another(
    new_transport: NewTransport, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with listening(answering(OK), server_tls) as port:
        url = f"https://localhost:{port}/"
        error = await failure_of(new_transport, url, trusting)
    failure = connection_failure(error, httpx.URL(url), "the peer")
    assert failure.certificate is not None
    assert failure.certificate.is_of_another


async def test_the_server_hears_which_name_is_meant(
    new_transport: NewTransport, certificate: Path, trusting: ssl.SSLContext
) -> None:
    names = []
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate)
    server_tls.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting.check_hostname = False
    async with (
        listening(answering(OK), server_tls) as port,
        httpx.AsyncClient(transport=new_transport(trusting, LIMITS)) as http,
    ):
        assert (await http.get(f"https://localhost:{port}/")).text == "hello"
    assert names == ["localhost"]


async def test_ciphers_are_those_of_the_context(
    new_transport: NewTransport, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    trusting.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    async with (
        listening(answering(OK), server_tls) as port,
        httpx.AsyncClient(transport=new_transport(trusting, LIMITS)) as http,
        http.stream("GET", f"https://127.0.0.1:{port}/") as answer,
    ):
        chosen = answer.extensions["network_stream"].get_extra_info("ssl_object").cipher()
    assert chosen[:2] == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2")


async def speaks_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(5)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    await silent(reader, writer)


async def speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()
    await silent(reader, writer)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(5)
    # Not closed, since that resets the connection when there is more to read.
    writer.write_eof()
    await silent(reader, writer)


@pytest.mark.parametrize("handler", [speaks_plainly, speaks_first, hangs_up])
async def test_a_server_without_tls(new_transport: NewTransport, trusting: ssl.SSLContext, handler: Handler) -> None:
    async with listening(handler) as port:
        url = f"https://127.0.0.1:{port}/"
        error = await failure_of(new_transport, url, trusting)
    failure = connection_failure(error, httpx.URL(url), "the peer")
    assert type(error) is httpx.ConnectError
    assert failure.kind is FailureKind.NO_TLS


async def test_a_server_that_breaks_the_connection_instead_of_tls(
    new_transport: NewTransport, trusting: ssl.SSLContext
) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        break_connection(writer)

    async with listening(breaking) as port:
        url = f"https://127.0.0.1:{port}/"
        error = await failure_of(new_transport, url, trusting)
    failure = connection_failure(error, httpx.URL(url), "the peer")
    assert (failure.kind, failure.summary) == (
        FailureKind.NOT_CONNECTED,
        f"cannot connect to 127.0.0.1:{port}: Connection reset by peer",
    )


async def test_a_server_that_does_not_go_on_with_tls(new_transport: NewTransport, trusting: ssl.SSLContext) -> None:
    async with listening(silent) as port:
        url = f"https://127.0.0.1:{port}/"
        error = await failure_of(new_transport, url, trusting, connect=SHORT)
    failure = connection_failure(error, httpx.URL(url), "the peer")
    assert type(error) is httpx.ConnectTimeout
    assert failure.kind is FailureKind.NOT_ACCEPTED
    assert failure.summary.endswith("while TLS was being set up")


async def test_being_cancelled_while_tls_is_set_up(trusting: ssl.SSLContext) -> None:
    # Ours alone: httpx's leaves the connection open.
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        begun.set()
        await silent(reader, writer)
        ended.set()

    async with (
        asyncio.timeout(LONG),
        listening(waits) as port,
        httpx.AsyncClient(transport=DirectTransport(trusting, ONE), timeout=LONG) as http,
    ):
        task = asyncio.ensure_future(http.get(f"https://127.0.0.1:{port}/"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()


ANSWERS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        b"HTTP/1.1 204 Nothing\r\n\r\n",
    ]
)


@settings(max_examples=60, deadline=None)
@given(answer=ANSWERS, cuts=st.lists(st.integers(1, 90), max_size=4), end=st.integers(0, 100), reset=st.booleans())
def test_both_make_the_same_of_whatever_comes(answer: bytes, cuts: list[int], end: int, reset: bool) -> None:  # noqa: FBT001
    sent = answer[:end]
    edges = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    pieces = [sent[start:stop] for start, stop in pairwise(edges)]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        # A reset may overtake what was sent, so there must be nothing.
        if reset and not sent:
            break_connection(writer)

    async def outcome(new_transport: NewTransport) -> object:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with listening(handler) as port, httpx.AsyncClient(transport=new_transport(tls, LIMITS)) as http:
            try:
                got = await http.get(f"http://127.0.0.1:{port}/")
            except httpx.TransportError as error:
                return type(error), str(error) if isinstance(error, httpx.ProtocolError) else ""
            return got.status_code, got.headers.raw, got.content

    async def both() -> tuple[object, object]:
        return await outcome(httpxs), await outcome(DirectTransport)

    theirs, ours = asyncio.run(both())
    assert ours == theirs


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_where_the_environment_names_a_proxy_httpx_makes_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert isinstance(direct_transport(tls, LIMITS), DirectTransport)
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert isinstance(direct_transport(tls, LIMITS), DirectTransport)
    monkeypatch.setenv(name, "http://proxy.example:3128")
    assert direct_transport(tls, LIMITS) is None
