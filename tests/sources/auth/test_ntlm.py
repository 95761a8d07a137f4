"""NTLM against the simulated Exchange, which checks responses, MICs and channel bindings by itself."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import uvloop
from aiohttp import web
from pydantic import SecretStr

from ews_sync.errors import Asks, AuthenticationError, ProtocolError
from ews_sync.model import Bucket, Mailbox
from ews_sync.simulator.access import Account
from ews_sync.sources.auth.lanes import LaneTransport
from ews_sync.sources.auth.ntlm import Ntlm, _stays
from ews_sync.sources.ews.client import Client
from ews_sync.sources.ews.connections import AT_ONCE
from ews_sync.sources.ews.source import EwsSource
from tests.sources.auth.ntlm_world import BODY, HEADERS, OWNER, PASSWORD, USER, ask, ask_often, client, lanes, peer
from tests.sources.support import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


# --- Who logs in, and how --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [r"CORP\svc", "svc@example.com", "svc"])
async def test_user_names_of_every_form(user: str) -> None:
    async with peer(user=user) as server, client(server.url, user=user) as http:
        assert await ask(http, server.url) == 200
        assert server.server.log[-1].account == user


@pytest.mark.parametrize("schemes", [("NTLM",), ("Negotiate",), ("Negotiate", "NTLM"), ('Basic realm="x"', "NTLM")])
async def test_whatever_of_ntlm_and_negotiate_the_server_offers(schemes: tuple[str, ...]) -> None:
    async with peer(schemes=schemes) as server, client(server.url) as http:
        assert await ask_often(http, server.url, 20, at_once=4) == [200] * 20
        assert [seen.authenticated for seen in server.seen.connections] == [1] * 4
        assert {seen.in_spnego for seen in server.seen.connections} == {"NTLM" not in schemes}
        assert server.seen.early_bytes == 0


async def test_a_server_that_offers_neither() -> None:
    async with peer(schemes=('Basic realm="x"', "Bearer")) as server, client(server.url) as http:
        with pytest.raises(AuthenticationError) as caught:
            await ask(http, server.url)
    assert str(caught.value) == (
        "the Exchange server does not offer NTLM; it offers Basic and Bearer (HTTP 401) - "
        'set auth_type to "oauth2" or "basic", or have NTLM switched on for EWS'
    )
    assert (server.seen.handshakes, server.seen.early_bytes) == (0, 0)


async def test_the_whole_source_reads_over_ntlm() -> None:
    async with peer() as server:
        http = client(server.url)
        clock = FakeClock()
        source = EwsSource(Client(server.url, http, clock), clock, impersonate=True, account=USER)
        try:
            mailbox = Mailbox(OWNER, Bucket("acme", "mail"))
            folders = await source.folders(mailbox)
        finally:
            await source.aclose()
        assert ("Inbox",) in {folder.path for folder in folders}
        assert server.seen.handshakes == len(server.seen.connections) == 1


# --- Connections -----------------------------------------------------------------------------------------------------


async def test_one_handshake_for_each_connection_and_no_body_in_vain() -> None:
    async with peer() as server, client(server.url) as http:
        assert await ask_often(http, server.url, 200, at_once=16) == [200] * 200
        seen = server.seen.connections
        assert len(seen) <= 16
        assert [(each.negotiated, each.authenticated) for each in seen] == [(1, 1)] * len(seen)
        assert server.seen.early_bytes == 0
        # One more for each connection: the leg without a body.
        assert sum(each.requests for each in seen) == 200 + len(seen)


async def test_a_server_that_ends_connections_after_some_requests() -> None:
    async with peer(requests_per_connection=4) as server, client(server.url) as http:
        assert await ask_often(http, server.url, 40, at_once=4) == [200] * 40
        assert server.seen.handshakes == len(server.seen.connections)
        assert server.seen.early_bytes == 0


async def test_connections_that_the_server_closed_while_they_were_not_used() -> None:
    async with peer() as server, client(server.url) as http:
        assert await ask_often(http, server.url, 8, at_once=4) == [200] * 8
        before = server.seen.handshakes
        server.seen.close_idle()
        await closed_everywhere(http)
        assert await ask_often(http, server.url, 8, at_once=4) == [200] * 8
        assert server.seen.handshakes == before + 4
        assert server.seen.handshakes == len(server.seen.connections)
        assert server.seen.early_bytes == 0


async def closed_everywhere(http: httpx.AsyncClient) -> None:
    """Wait until the closing has reached all lanes."""
    async with asyncio.timeout(5):
        for lane in lanes(http)._free:
            pool = getattr(lane._client._transport, "_pool")  # noqa: B009 - the sockets are deep inside
            while not all(connection.has_expired() for connection in pool.connections):  # noqa: ASYNC110 - see below
                # What arrives on a socket raises no event of ours.
                await asyncio.sleep(0)


async def test_a_server_that_looks_at_each_request_anew() -> None:
    async with peer(remembers=False) as server, client(server.url) as http:
        assert await ask_often(http, server.url, 10, at_once=2) == [200] * 10


async def test_a_server_that_closes_in_the_middle_of_logging_in() -> None:
    async with peer(requests_per_connection=1) as server, client(server.url) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="in the middle of logging in"):
            await ask(http, server.url)
        assert server.seen.handshakes == 0
        assert lanes(http).busy == 0


@pytest.mark.parametrize(("says", "stays"), [(None, True), ("true", True), ("false", False), (" False ", False)])
def test_some_servers_say_that_they_forget(says: str | None, stays: bool) -> None:  # noqa: FBT001 - a table
    headers = {} if says is None else {"Persistent-Auth": says}
    assert _stays(httpx.Response(200, headers=headers)) is stays


async def test_there_is_a_lane_for_each_request_that_the_client_sends_at_once() -> None:
    async with client("http://server.test/") as http:
        assert lanes(http)._places._value >= AT_ONCE


async def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer() as server, pipe(server.server._port) as (port, passed):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with client(server.url) as http:
            assert await ask_often(http, server.url, 6, at_once=2) == [200] * 6
        assert len(passed) == server.seen.handshakes == 2
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with client(server.url) as http:
            assert await ask(http, server.url) == 200
        assert len(passed) == 2


@asynccontextmanager
async def pipe(to: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Pass bytes on to a port, which does for a proxy of http; gives the own port, and an entry for each connection."""
    passed: list[int] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed.append(to)
        onward, back = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(copy(reader, back), copy(onward, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], passed


# --- Wrong passwords -------------------------------------------------------------------------------------------------


async def test_a_wrong_password_reaches_the_server_once_however_many_begin_together() -> None:
    async with peer() as server, client(server.url, password="wrong") as http:
        results = await asyncio.gather(*(ask(http, server.url) for _ in range(32)), return_exceptions=True)
        assert server.seen.handshakes == 1
        assert results.count(401) == 1
        refused = [result for result in results if isinstance(result, AuthenticationError)]
        assert len(refused) == 31
        assert {error.asks for error in refused} == {Asks.STOP}
        assert "wrong" not in str(refused[0]).replace("wrong password", "")


async def test_a_wrong_password_reaches_the_server_once_through_all_layers() -> None:
    async with peer() as server:
        clock = FakeClock()
        source = EwsSource(
            Client(server.url, client(server.url, password="wrong"), clock), clock, impersonate=True, account=USER
        )
        mailboxes = [Mailbox(f"box-{number}@example.com", Bucket("acme", "mail")) for number in range(32)]
        try:
            results = await asyncio.gather(*map(source.folders, mailboxes), return_exceptions=True)
        finally:
            await source.aclose()
        assert {type(result) for result in results} == {AuthenticationError}
        assert server.seen.handshakes == 1


async def test_a_password_that_changes_while_connections_are_open_is_tried_once() -> None:
    clock = FakeClock()
    async with peer() as server:
        http = laned(Ntlm(USER, SecretStr(PASSWORD), monotonic=clock.monotonic))
        async with http:
            assert await ask_often(http, server.url, 16, at_once=8) == [200] * 16
            server.seen._accounts = {USER.casefold(): Account(USER, "another", mailbox=OWNER)}
            before = server.seen.handshakes
            server.seen.close_idle()
            await closed_everywhere(http)
            clock.time += 3600
            results = await asyncio.gather(*(ask(http, server.url) for _ in range(8)), return_exceptions=True)
            assert server.seen.handshakes == before + 1
            assert 200 not in results


def laned(log_on: Ntlm) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=LaneTransport(log_on, new_lane, 32))


def new_lane() -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=1, max_keepalive_connections=1))


async def test_neither_the_password_nor_what_it_can_be_guessed_from_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with peer() as server, client(server.url) as http:
        assert await ask(http, server.url) == 200
    log_on = Ntlm(USER, SecretStr(PASSWORD))
    text = caplog.text + repr(log_on) + repr(vars(log_on))
    assert PASSWORD not in text
    # The beginning of an authenticate message in base64.
    assert "TlRMTVNTUAADAAAA" not in text


# --- Odd servers -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def odd(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/EWS/Exchange.asmx", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/EWS/Exchange.asmx"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("challenge", "says"),
    [
        ("NTLM", "does not begin it"),
        ("NTLM ***", "does not begin it"),
        ("NTLM AAAA", "makes no sense"),
        ("NTLM TlRMTVNTUAACAAAA", "makes no sense"),
        ("NTLM TlRMTVNTUAADAAAAGAAYAEgAAAAY", "makes no sense"),
    ],
)
async def test_challenges_that_make_no_sense(challenge: str, says: str) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with odd(refuse) as url, client(url) as http:
        with pytest.raises(ProtocolError, match=says):
            await ask(http, url)


async def test_a_refusal_that_does_not_end() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401, headers={"WWW-Authenticate": "Negotiate"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(bytes(65536))
        return response

    async with odd(refuse) as url, client(url) as http:
        with pytest.raises(ProtocolError, match="does not end"):
            await ask(http, url)


@pytest.mark.parametrize("status", [302, 403, 404, 503])
async def test_other_answers_are_handed_on(status: int) -> None:
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=status, headers={"Retry-After": "7"})

    async with odd(answer) as url, client(url) as http:
        response = await http.post(url, content=BODY, headers=HEADERS)
    assert (response.status_code, response.headers["Retry-After"]) == (status, "7")
    assert bodies == [b""]


async def test_a_server_that_lets_everybody_in() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async with odd(answer) as url, client(url) as http:
        assert (await http.post(url, content=BODY)).content == BODY


# --- Cancellations and errors ----------------------------------------------------------------------------------------


async def test_hundreds_of_cancellations_leave_nothing_behind() -> None:
    async with peer() as server, client(server.url) as http:
        results: list[object] = []
        for turns in (*range(40), *range(40)):
            tasks = [asyncio.create_task(ask(http, server.url)) for _ in range(8)]
            # Another moment each time: every await on the way is hit.
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            results += await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, asyncio.CancelledError) for result in results) > 200
        assert all(result == 200 for result in results if not isinstance(result, asyncio.CancelledError))
        assert lanes(http).busy == 0
        assert await ask_often(http, server.url, 200, at_once=32) == [200] * 200
        assert lanes(http).busy == 0


async def test_waiting_for_a_lane_can_be_cancelled() -> None:
    async with peer() as server:
        http = httpx.AsyncClient(transport=LaneTransport(Ntlm(USER, SecretStr(PASSWORD)), new_lane, 1))
        async with http:
            request = http.build_request("POST", server.url, content=BODY, headers=HEADERS)
            first = await http.send(request, stream=True)
            waiting = [asyncio.create_task(ask(http, server.url)) for _ in range(5)]
            await asyncio.sleep(0)
            for task in waiting[:4]:
                task.cancel()
            await first.aread()
            assert await waiting[4] == 200
            await asyncio.gather(*waiting, return_exceptions=True)
            assert await ask(http, server.url) == 200


async def test_an_answer_that_is_not_read_costs_its_connection_and_no_more() -> None:
    async with peer() as server, client(server.url) as http:
        for _ in range(3):
            request = http.build_request("POST", server.url, content=BODY, headers=HEADERS)
            response = await http.send(request, stream=True)
            await response.aclose()
            assert (lanes(http).busy, lanes(http).free) == (0, 0)
        assert await ask(http, server.url) == 200
        assert server.seen.handshakes == len(server.seen.connections) == 4


# --- Channel bindings ------------------------------------------------------------------------------------------------


def binding(certificate: Path) -> bytes:
    pem = certificate.read_text().partition("-----BEGIN PRIVATE")[0]
    return b"tls-server-end-point:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_extended_protection(
    loop: Callable[[], asyncio.AbstractEventLoop], scheme: str, server_tls: ssl.SSLContext, certificate: Path
) -> None:
    async def log_in_there(application_data: bytes) -> int:
        demands = peer(tls=server_tls, schemes=(scheme,), application_data=application_data)
        async with demands as server, client(server.url, bundle=certificate) as http:
            return await ask(http, server.url)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(log_in_there(binding(certificate))) == 200
        assert runner.run(log_in_there(b"tls-server-end-point:" + bytes(32))) == 401


async def test_extended_protection_where_certificates_are_not_verified(
    server_tls: ssl.SSLContext, certificate: Path
) -> None:
    demands = peer(tls=server_tls, application_data=binding(certificate))
    async with demands as server, client(server.url, verify=False) as http:
        assert await ask(http, server.url) == 200


async def test_a_password_that_is_changed_under_open_connections_is_tried_once() -> None:
    async with peer() as server, client(server.url) as http:
        assert set(await ask_often(http, server.url, 64, 16)) == {200}
        before = server.seen.handshakes
        server.seen.change(Account(USER, "another one", may_impersonate=True, mailbox=OWNER))
        server.seen.close_idle()
        outcomes = await asyncio.gather(*(ask(http, server.url) for _ in range(16)), return_exceptions=True)
        assert 200 not in outcomes
        assert server.seen.handshakes == before + 1
