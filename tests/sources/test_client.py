"""The HTTP client against a small real server that does as it is told."""

from __future__ import annotations

import asyncio
import gzip
import re
import ssl
import tracemalloc
import zlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from aiohttp import web

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    ProtocolError,
    Scope,
    SourceError,
    ThrottledError,
)
from ews_sync.sources.ews.client import USER_AGENT, Call, Client, RetryPolicy
from ews_sync.sources.ews.decoding import AnswerReader
from ews_sync.sources.ews.spool import SpoolError
from tests.sources.support import FakeClock, envelope, fault, got, item_xml, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ews_sync.sources.ews.operations import Answer

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OK = envelope("")
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once, since making one takes long, and never used here."""
XML = {"Content-Type": "text/xml; charset=utf-8"}
CALL = Call("asking", b"<request/>", principal="claims@example.com")


class Peer:
    """A server: `answers` are given in turn, the last one stays."""

    def __init__(self, *answers: Handler) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


def says(body: bytes = OK, status: int = 200, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers={**XML, **named})

    return answer


def breaks_off(keep: int, *, promise: int = 1000) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {promise}\r\n\r\n".encode()
        request.transport.write((head + OK)[: len(head) + keep])
        request.transport.close()
        return web.Response()

    return answer


async def resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[Peer]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", peer.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/EWS/Exchange.asmx"
        yield peer
    finally:
        await runner.cleanup()


class Rig:
    """A peer and a client of it, with time in the test's hands."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.clock = FakeClock()
        self.begun = self.discarded = 0
        """How many answers were begun to be read, and how many of them were given back unread."""
        self.reading = asyncio.Event()
        self.peer = Peer(says())
        self.client: Client

    async def start(self, *answers: Handler, attempts: int = 4) -> None:
        self.peer = await self._stack.enter_async_context(serving(Peer(*answers)))
        self.client = self.connect(self.peer.url, attempts)

    def connect(self, url: str, attempts: int = 4) -> Client:
        http = httpx.AsyncClient(
            auth=("svc", "swordfish"), trust_env=False, verify=NO_TLS, limits=httpx.Limits(max_connections=32)
        )
        self._stack.push_async_callback(http.aclose)
        return Client(url, http, self.clock, retry=RetryPolicy(attempts=attempts), jitter=lambda: 1.0)

    async def ask(self, call: Call = CALL) -> Answer:
        return await self.client.send(call, self._reader)

    async def fail(self, call: Call = CALL) -> SourceError:
        with pytest.raises(SourceError) as caught:
            await self.ask(call)
        assert "swordfish" not in str(caught.value)
        return caught.value

    def _reader(self) -> AnswerReader:
        rig = self
        rig.begun += 1
        rig.reading.set()

        class Watched(AnswerReader):
            def discard(self) -> None:
                rig.discarded += 1
                super().discard()

        return Watched("asking")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        yield Rig(stack)


# --- What is sent ----------------------------------------------------------------------------------------------------


async def test_what_every_request_carries(rig: Rig) -> None:
    await rig.start(says())
    await rig.ask()
    await rig.ask()
    first, second = [request.headers for request in rig.peer.requests]
    assert first["User-Agent"] == USER_AGENT
    assert re.fullmatch(r"ews-sync/\d.*", USER_AGENT)
    assert first["Content-Type"] == "text/xml; charset=utf-8"
    assert first["Accept"] == "text/xml"
    assert first["Accept-Encoding"] == "gzip"
    assert first["return-client-request-id"] == "true"
    assert re.fullmatch("[0-9a-f-]{36}", first["client-request-id"])
    assert first["client-request-id"] != second["client-request-id"]
    assert "X-AnchorMailbox" not in first
    assert rig.peer.requests[0].method == "POST"
    assert rig.peer.bodies == [b"<request/>"] * 2
    assert rig.discarded == 0


async def test_the_anchor_and_no_compression_where_they_are_asked_for(rig: Rig) -> None:
    await rig.start(says())
    await rig.ask(Call("asking", b"x", "p", anchor="claims@example.com", compressed=False))
    assert rig.peer.requests[0].headers["X-AnchorMailbox"] == "claims@example.com"
    assert rig.peer.requests[0].headers["Accept-Encoding"] == "identity"


async def test_an_address_with_letters_that_are_not_ascii(rig: Rig) -> None:
    await rig.start(says())
    await rig.ask(Call("asking", b"x", "p", anchor="büro@example.com"))
    assert dict(rig.peer.requests[0].raw_headers)[b"X-AnchorMailbox"] == "büro@example.com".encode()


async def test_an_address_that_no_header_can_hold_is_our_error(rig: Rig) -> None:
    await rig.start(says(), attempts=1)
    assert isinstance(await rig.fail(Call("asking", b"x", "p", anchor="a\r\nX-Evil: 1@b.c")), ConnectionFailedError)
    assert rig.peer.requests == []


# --- Retries ---------------------------------------------------------------------------------------------------------


def test_waits_grow_up_to_the_longest_with_jitter() -> None:
    policy = RetryPolicy(attempts=8, first_wait=1.0, longest_wait=20.0)
    assert [policy.wait(attempt, 1.0) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 20, 20]
    assert policy.wait(1, 0.0) == 0.5


@pytest.mark.parametrize(
    "answer",
    [resets, breaks_off(0), breaks_off(30), breaks_off(len(OK)), says(OK[:-20]), says(b"")],
    ids=["reset", "no body", "part", "less than promised", "cut by a proxy", "empty"],
)
async def test_a_broken_answer_is_asked_for_again_with_growing_waits(answer: Handler, rig: Rig) -> None:
    await rig.start(answer, answer, answer, says())
    assert (await rig.ask()).messages == ()
    assert rig.clock.waits == [1.0, 2.0, 4.0]
    assert rig.discarded == rig.begun - 1


async def test_the_caller_hears_of_it_after_as_many_attempts_as_the_policy_says(rig: Rig) -> None:
    await rig.start(resets)
    error = await rig.fail()
    assert isinstance(error, ConnectionFailedError)
    assert error.asks is Asks.RETRY
    assert len(rig.peer.requests) == 4
    assert error.request_id == rig.peer.requests[-1].headers["client-request-id"]
    await rig.start(resets)
    await rig.fail(Call("asking", b"x", "p", attempts=2))
    assert len(rig.peer.requests) == 2


async def test_a_server_that_is_not_there(rig: Rig, unused_port: int) -> None:
    rig.client = rig.connect(f"http://127.0.0.1:{unused_port}/EWS/Exchange.asmx")
    error = await rig.fail()
    assert error.summary == f"asking: cannot connect to 127.0.0.1:{unused_port}: Connection refused"
    assert "host" in error.hint or "name" in error.hint
    assert rig.clock.waits == [1.0, 2.0, 4.0]


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_a_closed_client_is_our_error(rig: Rig) -> None:
    await rig.start(says(), attempts=1)
    await rig.client.aclose()
    assert isinstance(await rig.fail(), ConnectionFailedError)


async def test_other_statuses_are_retried(rig: Rig) -> None:
    await rig.start(says(b"<html>Bad Gateway", 502, Content_Type="text/html"), says(status=504), says())
    await rig.ask()
    assert rig.clock.waits == [1.0, 2.0]


async def test_html_with_status_200(rig: Rig) -> None:
    await rig.start(says(b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8"), attempts=1)
    error = await rig.fail()
    assert error.summary == "asking: the server answered with text/html instead of XML"
    assert "proxy" in error.hint


async def test_this_machines_trouble_is_not_retried(rig: Rig) -> None:
    class Full:
        def write(self, _: bytes) -> None:
            raise SpoolError("no room")

        def discard(self) -> None:
            pass

        def finish(self) -> None:
            raise AssertionError

    await rig.start(says(response("GetItem", got(item_xml()))))
    with pytest.raises(SpoolError):
        await rig.client.send(CALL, lambda: AnswerReader("asking", Full))  # type: ignore[arg-type]
    assert len(rig.peer.requests) == 1


# --- Throttling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "value", "wait"),
    [
        (503, "7", 7.0),
        (429, "120", 120.0),
        (503, "Mon, 05 Jan 2026 09:00:30 GMT", 30.0),
        (503, "Mon, 05 Jan 2026 09:00:30", 30.0),
        (503, "Mon, 05 Jan 2026 08:00:00 GMT", 1.0),
        (503, "99999999999999999999", 3600.0),
        (503, "9" * 400, 3600.0),
        (503, "soon", 1.0),
        (503, "²", 1.0),
        (503, "Mon, 01 Jan 2026 00:00:00 +99999999999999", 1.0),
        (503, "", 1.0),
    ],
)
async def test_retry_after_is_obeyed(status: int, value: str, wait: float, rig: Rig) -> None:
    await rig.start(says(b"busy", status, Retry_After=value, Content_Type="text/plain"), says())
    await rig.ask(Call("asking", b"<request/>", CALL.principal, patience=wait))
    assert rig.clock.waits == [wait]


async def test_the_back_off_of_a_fault_is_obeyed(rig: Rig) -> None:
    await rig.start(says(fault("ErrorServerBusy", backoff="61500"), 500), says())
    await rig.ask()
    assert rig.clock.waits == [61.5]


@pytest.mark.parametrize(("backoff", "header"), [("0", "9"), ("5000", "9"), ("9000", "5"), ("9000", "soon")])
async def test_the_longer_of_fault_and_header_counts(backoff: str, header: str, rig: Rig) -> None:
    await rig.start(says(fault("ErrorServerBusy", backoff=backoff), 500, Retry_After=header), says())
    await rig.ask()
    assert rig.clock.waits == [9.0]


async def test_busy_is_told_in_the_end_with_the_wait(rig: Rig) -> None:
    await rig.start(says(fault("ErrorServerBusy", backoff="5000"), 500))
    error = await rig.fail()
    assert isinstance(error, ThrottledError)
    assert error.retry_after == 5.0
    assert rig.clock.waits == [5.0, 5.0, 5.0]
    assert rig.client.gate(CALL.principal).wait_left == 5.0


async def test_a_back_off_holds_for_its_principal_and_for_nobody_else(rig: Rig) -> None:
    await rig.start(says(fault("ErrorServerBusy", backoff="5000"), 500), says(), attempts=1)
    await rig.fail()
    await rig.ask(Call("asking", b"x", principal="other@example.com"))
    assert rig.clock.waits == []
    await rig.ask()
    assert rig.clock.waits == [5.0]


async def test_a_server_error_with_retry_after_waits_that_long(rig: Rig) -> None:
    await rig.start(says(b"", 502, Retry_After="33"), says())
    await rig.ask()
    assert rig.clock.waits == [33.0]


# --- What asks for an operator ---------------------------------------------------------------------------------------


async def test_a_wrong_password_is_tried_once_in_the_whole_process(rig: Rig) -> None:
    await rig.start(says(b"", 401, WWW_Authenticate='Basic realm="x"'))
    results = await asyncio.gather(
        *(rig.ask(Call("asking", b"x", principal=f"{number}@b.c")) for number in range(30)), return_exceptions=True
    )
    assert {type(result) for result in results} == {AuthenticationError}
    error = await rig.fail()
    assert (error.asks, error.scope, error.code) == (Asks.STOP, Scope.PROCESS, "HTTP 401")
    assert "auth_user" in error.hint
    assert len(rig.peer.requests) == 1
    assert error.request_id == rig.peer.requests[0].headers["client-request-id"]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "EwsApplicationAccessPolicy"),
        (404, "check ews_endpoint"),
        (405, "check ews_endpoint"),
        (407, "HTTPS_PROXY"),
    ],
)
async def test_what_an_operator_must_mend_is_not_retried(status: int, text: str, rig: Rig) -> None:
    await rig.start(says(b"", status))
    error = await rig.fail()
    assert (error.asks, error.code) == (Asks.STOP, f"HTTP {status}")
    assert text in error.hint
    assert len(rig.peer.requests) == 1


async def test_a_redirect_is_not_followed_and_nothing_is_sent_elsewhere(rig: Rig) -> None:
    await rig.start(says())
    elsewhere = rig.peer
    await rig.start(says(b"", 302, Location=f"{elsewhere.url}?ticket=secret"))
    error = await rig.fail()
    assert elsewhere.requests == []
    assert len(rig.peer.requests) == 1
    assert error.asks is Asks.STOP
    assert elsewhere.url in error.summary
    assert "secret" not in str(error)


@pytest.mark.parametrize("location", ["http://[", "", "//:x", "/else"])
async def test_a_redirect_to_nowhere(location: str, rig: Rig) -> None:
    await rig.start(says(b"", 302, Location=location))
    assert isinstance(await rig.fail(), SourceError)


# --- Compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
async def test_a_compressed_answer(encoding: str, rig: Rig) -> None:
    data = response("GetItem", got(item_xml()))
    packed = zlib.compress(data) if encoding == "deflate" else gzip.compress(data)
    await rig.start(says(packed, Content_Encoding=encoding))
    assert (await rig.ask()).messages[0].items[0].ref.id == "i1"


@pytest.mark.parametrize(
    "body",
    [gzip.compress(OK)[:-30], b"not gzip", gzip.compress(OK)[:20] + b"\0" * 20, gzip.compress(b""), b""],
    ids=["cut short", "not gzip", "damaged", "of nothing", "empty"],
)
async def test_compression_that_is_damaged_is_retried(body: bytes, rig: Rig) -> None:
    await rig.start(says(body, Content_Encoding="gzip"), says())
    await rig.ask()
    assert rig.clock.waits == [1.0]


async def test_an_encoding_that_nobody_asked_for(rig: Rig) -> None:
    await rig.start(says(b"?", Content_Encoding="br"), attempts=1)
    assert isinstance(await rig.fail(), ProtocolError)


def bomb(kind: str) -> bytes:
    match kind:
        case "spaces":
            return gzip.compress(OK[:-20] + b" " * 100_000_000, 1)
        case "an attribute":
            return gzip.compress(OK[:-20] + b'<a b="' + b"x" * 100_000_000, 1)
        case _:
            return gzip.compress(OK) + b"\0" * 70_000_000


@pytest.mark.parametrize("kind", ["spaces", "an attribute", "trailing garbage"])
async def test_a_bomb_takes_no_memory(kind: str, rig: Rig) -> None:
    sent = bomb(kind)

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={**XML, "Content-Encoding": "gzip"})
        await answer.prepare(request)
        view = memoryview(sent)
        for start in range(0, len(sent), 65536):
            await answer.write(bytes(view[start : start + 65536]))
        return answer

    await rig.start(stream, attempts=1)
    tracemalloc.start()
    try:
        error = await rig.fail()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, ProtocolError)
    assert peak < 16 * 1024 * 1024


async def test_an_endless_answer_is_given_up(rig: Rig) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers=XML)
        await answer.prepare(request)
        await answer.write(OK[:-20])
        while True:
            await answer.write(b" " * 65536)

    await rig.start(stream, attempts=1)
    error = await rig.fail(Call("asking", b"x", "p", max_answer=1_000_000))
    assert "does not end" in error.summary


# --- What is given back ----------------------------------------------------------------------------------------------


async def test_cancellation_gives_everything_back(rig: Rig) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers=XML)
        await answer.prepare(request)
        await answer.write(OK[:-20])
        await asyncio.Event().wait()
        return answer

    await rig.start(*[hang] * 10, says())
    for _ in range(10):
        rig.reading.clear()
        task = asyncio.create_task(rig.ask())
        await rig.reading.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert rig.discarded == 10
    await asyncio.gather(*(rig.ask() for _ in range(20)))


async def test_hundreds_of_cancellations_cost_no_connection_and_no_place(rig: Rig) -> None:
    await rig.start(says(response("GetItem", *[got(item_xml())] * 20)))
    await rig.ask()
    for number in range(300):
        tasks = [asyncio.create_task(rig.ask(Call("asking", b"x", principal=f"p{n}"))) for n in range(3)]
        for _ in range(number % 40):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(rig.ask(Call("asking", b"x", f"p{n % 3}")) for n in range(60)))
    assert {len(answer.messages) for answer in answers} == {20}
    transport = rig.client._connections._http._transport
    assert isinstance(transport, httpx.AsyncHTTPTransport)
    assert "Requests: 0 active, 0 queued | Connections: 0 active" in repr(transport._pool)


async def test_connections_are_used_again(rig: Rig) -> None:
    await rig.start(says())
    for _ in range(5):
        await rig.ask()
    assert len({request.transport for request in rig.peer.requests}) == 1
