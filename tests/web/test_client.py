"""The client that the mail server and the platform are talked to with."""

from __future__ import annotations

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.web.transport import DirectTransport, new_client
from tests.web.servers import OK, listening

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.servers import Handler

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)
MOVED = b"HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
WITH_COOKIE = b"HTTP/1.1 200 OK\r\nSet-Cookie: backend=7\r\nContent-Length: 0\r\n\r\n"


def noting(heads: list[bytes], answer: bytes) -> Handler:
    """Answer all that comes alike, and note what it was."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)

    return handler


async def test_a_redirect_is_given_and_not_followed() -> None:
    heads: list[bytes] = []
    async with listening(noting(heads, MOVED)) as port, new_client(TLS, ONE) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/")
    assert (answer.status_code, len(heads)) == (307, 1)


async def test_it_goes_by_the_proxy_that_the_environment_names_and_no_further_than_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    direct: list[bytes] = []
    by_proxy: list[bytes] = []
    async with listening(noting(by_proxy, OK)) as proxy, listening(noting(direct, OK)) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        async with new_client(TLS, ONE) as http:
            assert not isinstance(http._transport, DirectTransport)
            await http.get("http://mail.example/ews")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with new_client(TLS, ONE) as http:
            await http.get(f"http://127.0.0.1:{port}/ews")
    assert [head.split()[1] for head in by_proxy] == [b"http://mail.example/ews"]
    assert [head.split()[1] for head in direct] == [b"/ews"]


@pytest.mark.parametrize("proxy", [False, True], ids=["direct", "proxy"])
async def test_its_limits_hold_by_either_way(proxy: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    connections = 0
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            arrived.set()
            await go.wait()
            writer.write(OK)

    async with listening(slow) as port:
        if proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with new_client(TLS, ONE) as http, asyncio.TaskGroup() as group:
            tasks = [group.create_task(http.get(f"http://127.0.0.1:{port}/")) for _ in range(3)]
            await arrived.wait()
            go.set()
            answers = await asyncio.gather(*tasks)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert connections == 1


@pytest.mark.parametrize("proxy", [False, True], ids=["direct", "proxy"])
async def test_its_authorities_hold_by_either_way(
    proxy: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
    server_tls: ssl.SSLContext,
    certificate: Path,
) -> None:
    heads: list[bytes] = []
    async with listening(noting(heads, OK), server_tls) as port:
        if proxy:
            # Some proxy is named, and not for this server: the client's own transports are what is used.
            monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with new_client(ssl.create_default_context(cafile=str(certificate)), ONE) as http:
            assert (await http.get(f"https://127.0.0.1:{port}/")).status_code == 200
        async with new_client(ssl.create_default_context(), ONE) as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(f"https://127.0.0.1:{port}/")


async def test_without_a_proxy_it_goes_over_the_transport_that_costs_less() -> None:
    async with new_client(TLS, ONE) as http:
        assert isinstance(http._transport, DirectTransport)


async def test_credentials_go_along_and_a_jar_decides_which_cookies_come_back() -> None:
    nothing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    for cookies, comes_back in ((None, True), (nothing, False)):
        heads: list[bytes] = []
        async with (
            listening(noting(heads, WITH_COOKIE)) as port,
            new_client(TLS, ONE, auth=httpx.BasicAuth("svc", "x"), cookies=cookies) as http,
        ):
            for _ in range(2):
                await http.get(f"http://127.0.0.1:{port}/")
        assert all(b"\r\nAuthorization: Basic " in head for head in heads)
        assert (b"\r\nCookie: backend=7" in heads[1]) is comes_back
