"""What is met on the way to a server, told alike for the mail server and for the platform."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.errors import Asks, ConnectionFailedError, Scope
from ews_sync.sinks.platform.answers import PlatformError, UnreachableError, connection_error as platform_error
from ews_sync.sources.ews.trouble import connection_error as exchange_error
from ews_sync.web.failures import FailureKind, connection_failure, proxy_for

if TYPE_CHECKING:
    from ews_sync.errors import EwsSyncError

URL = httpx.URL("https://server.example/path")
PROXY = "http://joe:swordfish@proxy.example:3128"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def caused_by(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def wrong_certificate() -> ssl.SSLCertVerificationError:
    wrong = ssl.SSLCertVerificationError(1, "certificate verify failed")
    wrong.verify_code, wrong.verify_message = 20, "unable to get local issuer certificate"
    return wrong


REFUSED = caused_by(httpx.ConnectError("All connection attempts failed"), ConnectionRefusedError(111, "refused"))
NO_TLS = caused_by(httpx.ConnectError("x"), ssl.SSLError(1, "WRONG_VERSION_NUMBER"))
CERTIFICATE = caused_by(httpx.ConnectError("x"), wrong_certificate())


@pytest.mark.parametrize(
    ("error", "kind", "summary"),
    [
        (REFUSED, FailureKind.NOT_CONNECTED, "cannot connect to server.example:443: Connection refused"),
        (httpx.ConnectTimeout(""), FailureKind.NOT_ACCEPTED, "server.example:443 did not accept a connection in time"),
        (
            caused_by(httpx.ConnectTimeout("x"), ssl.SSLWantReadError(2, "The operation did not complete (read)")),
            FailureKind.NOT_ACCEPTED,
            "server.example:443 did not answer in time while TLS was being set up",
        ),
        (NO_TLS, FailureKind.NO_TLS, "cannot connect to server.example:443: WRONG_VERSION_NUMBER"),
        (
            CERTIFICATE,
            FailureKind.CERTIFICATE,
            "the certificate of server.example:443 could not be verified: unable to get local issuer certificate; it",
        ),
        (
            httpx.ProxyError("407 Proxy Authentication Required"),
            FailureKind.PROXY_LOGIN,
            "the proxy wants a user name and password",
        ),
        (
            httpx.ProxyError("503 Service Unavailable"),
            FailureKind.PROXY,
            "cannot connect to server.example:443: the proxy says 503 Service Unavailable",
        ),
        (httpx.ReadTimeout(""), FailureKind.NOT_ANSWERED, "the peer did not answer in time (ReadTimeout)"),
        (httpx.ReadError("gone"), FailureKind.BROKEN, "the connection to the peer broke: gone"),
        (httpx.InvalidURL("no"), FailureKind.NOT_CONNECTED, "cannot connect to server.example:443: no"),
        (httpx.UnsupportedProtocol("no"), FailureKind.NOT_CONNECTED, "cannot connect to server.example:443: no"),
    ],
)
def test_what_was_met(error: Exception, kind: FailureKind, summary: str) -> None:
    presented = "it" if error is CERTIFICATE else ""
    failure = connection_failure(error, URL, "the peer", presented)
    assert (failure.kind, failure.summary) == (kind, summary)


def test_how_long_was_waited_for_tls_is_told_where_it_is_known() -> None:
    request = httpx.Request("POST", URL, extensions={"timeout": {"connect": 15}})
    error = caused_by(httpx.ConnectTimeout("x", request=request), ssl.SSLWantReadError(2, "did not complete"))
    ours = exchange_error("reading", error, URL, "")
    assert ours.summary == "reading: server.example:443 did not answer within 15 s while TLS was being set up"
    assert "port speaks TLS" not in ours.hint


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (REFUSED, "cannot connect to the proxy proxy.example:3128: Connection refused"),
        (httpx.ConnectTimeout(""), "the proxy proxy.example:3128 did not accept a connection in time"),
        (
            httpx.ProxyError("403 Forbidden"),
            "cannot connect to server.example:443: the proxy proxy.example:3128 says 403 Forbidden",
        ),
        # Through the proxy, TLS is with the server.
        (NO_TLS, "cannot connect to server.example:443: WRONG_VERSION_NUMBER"),
    ],
)
def test_a_proxy_that_is_in_the_way_is_named(error: Exception, summary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    ours: list[EwsSyncError] = [exchange_error("reading", error, URL, ""), platform_error("storing", error, URL)]
    assert [one.summary for one in ours] == [f"reading: {summary}", f"storing: {summary}"]
    for one in ours:
        assert one.asks is Asks.RETRY
        assert ("HTTPS_PROXY, HTTP_PROXY and NO_PROXY" in one.hint) is (error is not NO_TLS)
        assert "swordfish" not in str(one)


@pytest.mark.parametrize(
    ("variable", "value", "url", "proxy"),
    [
        ("HTTPS_PROXY", PROXY, "https://a.example", "proxy.example:3128"),
        ("https_proxy", "proxy.example:8080", "https://a.example", "proxy.example:8080"),
        ("ALL_PROXY", "https://proxy.example", "https://a.example", "proxy.example:443"),
        ("HTTPS_PROXY", PROXY, "http://a.example", ""),
        ("HTTPS_PROXY", PROXY, "https://inside.example", ""),
        ("HTTPS_PROXY", "http://proxy.example:port", "https://a.example", ""),
    ],
)
def test_which_proxy_is_in_the_way(
    variable: str, value: str, url: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_for(httpx.URL(url)) == proxy


@pytest.mark.parametrize("error", [CERTIFICATE, httpx.ProxyError("407 Proxy Authentication Required")])
def test_what_no_waiting_mends_asks_for_an_operator(error: Exception) -> None:
    for ours in (exchange_error("x", error, URL, ""), platform_error("x", error, URL)):
        assert ours.asks is Asks.STOP
        assert ours.scope is Scope.MAILBOX
        assert ours.code in {"CERTIFICATE_VERIFY_FAILED", "HTTP 407"}
        assert ours.hint


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (REFUSED, False),
        (httpx.ConnectTimeout(""), False),
        (httpx.ProxyError("502 Bad Gateway"), False),
        (NO_TLS, False),
        (httpx.ReadTimeout(""), True),
        (httpx.WriteError("x"), True),
        (httpx.RemoteProtocolError("x"), True),
    ],
)
def test_whether_anything_was_sent(error: Exception, sent: bool) -> None:  # noqa: FBT001
    assert type(platform_error("x", error, URL)) is (PlatformError if sent else UnreachableError)
    assert isinstance(exchange_error("x", error, URL, ""), ConnectionFailedError)


@pytest.mark.parametrize(
    ("answer", "asks", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n", Asks.STOP, "wants a user name and password"),
        (b"HTTP/1.1 503 Service Unavailable\r\n", Asks.RETRY, "says 503 Service Unavailable"),
    ],
)
async def test_a_real_proxy_that_refuses_to_connect(
    answer: bytes, asks: Asks, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer + b"Content-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.ProxyError) as caught:
                await http.get(URL)
    ours = exchange_error("reading", caught.value, URL, "")
    assert ours.asks is asks
    assert words in ours.summary
