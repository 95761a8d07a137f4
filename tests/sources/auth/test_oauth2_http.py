"""The HTTP client that msal is given, by itself."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from ews_sync.errors import Asks, AuthenticationError, ConnectionFailedError
from ews_sync.simulator.faults import Hang
from ews_sync.simulator.identity.provider import IdentityProvider
from ews_sync.simulator.identity.server import IdentityServer
from ews_sync.sources.auth.oauth2_http import IdentityHttp
from ews_sync.web.tls import system_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    return system_context()


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_assertions_in_bytes_are_sent_as_their_letters(tls: ssl.SSLContext) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.text())
        return web.json_response({})

    async with serving(answer) as url:
        given = await asyncio.to_thread(IdentityHttp(tls).post, url, data={"client_assertion": b"a.b.c", "scope": "s"})
    assert (given.status_code, given.text) == (200, "{}")
    assert parse_qs(seen[0]) == {"client_assertion": ["a.b.c"], "scope": ["s"]}


async def test_secrets_that_are_echoed_do_not_show(tls: ssl.SSLContext) -> None:
    async def answer(request: web.Request) -> web.Response:
        said = parse_qs(await request.text())["client_secret"]
        return web.json_response({"error": "invalid_client", "error_description": f"not {said[0]}"}, status=401)

    async with serving(answer) as url:
        with pytest.raises(AuthenticationError) as caught:
            await asyncio.to_thread(IdentityHttp(tls).post, url, data={"client_secret": "hunter2"})
    assert caught.value.summary.endswith("not ***")


async def test_who_does_not_answer(tls: ssl.SSLContext) -> None:
    async with IdentityServer(IdentityProvider("t")) as server:
        server.faults.add(Hang())
        http = IdentityHttp(tls, answer_within=0.05)
        with pytest.raises(ConnectionFailedError, match="did not answer in time") as caught:
            await asyncio.to_thread(http.get, f"{server.authority}/v2.0/.well-known/openid-configuration")
    assert caught.value.asks is Asks.RETRY


async def test_an_answer_that_does_not_end_in_time(tls: ssl.SSLContext) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0)

    ticking = itertools.count(0.0, 10.0)
    async with serving(answer) as url:
        with pytest.raises(ConnectionFailedError, match="did not answer in time"):
            await asyncio.to_thread(IdentityHttp(tls, monotonic=lambda: next(ticking)).get, url)


async def test_when_to_come_back_may_be_a_date(tls: ssl.SSLContext) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "Fri, 01 Jan 2027 00:00:30 GMT"})

    def now() -> datetime:
        return datetime(2027, 1, 1, tzinfo=UTC)

    async with serving(answer) as url:
        with pytest.raises(ConnectionFailedError) as caught:
            await asyncio.to_thread(IdentityHttp(tls, now=now).get, url)
    assert caught.value.retry_after == 30


@pytest.mark.parametrize(
    ("status", "kind", "asks"),
    [
        (301, AuthenticationError, Asks.STOP),
        (404, AuthenticationError, Asks.STOP),
        (407, ConnectionFailedError, Asks.STOP),
        (408, ConnectionFailedError, Asks.RETRY),
        (418, ConnectionFailedError, Asks.RETRY),
        (502, ConnectionFailedError, Asks.RETRY),
    ],
)
async def test_what_a_status_asks_for(tls: ssl.SSLContext, status: int, kind: type[Exception], asks: Asks) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>")

    async with serving(answer) as url:
        with pytest.raises((AuthenticationError, ConnectionFailedError)) as caught:
            await asyncio.to_thread(IdentityHttp(tls).get, url)
    assert (type(caught.value), caught.value.asks, caught.value.code) == (kind, asks, f"HTTP {status}")
