"""Logging in, and TLS: against the simulated Exchange with a certificate of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from pydantic import SecretStr

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    SourceError,
)
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings.exchange import AccessType, BasicAuth, Exchange as ExchangeSettings
from ews_sync.simulator.access import Account
from ews_sync.simulator.faults import HttpError
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.sources.auth.login import log_in
from ews_sync.sources.auth.tls import tls_context
from ews_sync.sources.ews.client import Client, RetryPolicy
from ews_sync.sources.ews.source import EwsSource
from tests.sources.support import FakeClock

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

USER, PASSWORD = "svc@example.com", "swördfish"
OWNER = Mailbox("owner@example.com", Bucket("acme", "mail"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def settings(
    endpoint: str,
    *,
    password: str = PASSWORD,
    verify: bool = True,
    bundle: Path | None = None,
    ciphers: str | None = None,
) -> ExchangeSettings:
    auth = BasicAuth(USER, SecretStr(password))
    return ExchangeSettings(endpoint, auth, AccessType.IMPERSONATION, verify, bundle, ciphers)


@asynccontextmanager
async def source_for(exchange: ExchangeSettings) -> AsyncIterator[EwsSource]:
    login = log_in(exchange)
    clock = FakeClock()
    client = Client(exchange.endpoint, login.http, clock, retry=RetryPolicy())
    source = EwsSource(client, clock, impersonate=True, account=login.account)
    try:
        yield source
    finally:
        await source.aclose()


async def probe(exchange: ExchangeSettings) -> None:
    async with source_for(exchange) as source:
        await source.probe(OWNER)


async def failure(exchange: ExchangeSettings) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await probe(exchange)
    assert PASSWORD not in str(caught.value)
    return caught.value


@asynccontextmanager
async def server(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[ExchangeServer]:
    exchange = Exchange()
    exchange.create_mailbox(OWNER.address)
    account = Account(USER, PASSWORD, may_impersonate=True)
    async with ExchangeServer(exchange, [account], ssl_context=tls, host=host) as started:
        yield started


async def test_user_and_password_may_have_any_letters() -> None:
    async with server() as peer:
        await probe(settings(peer.url))
        assert peer.log[0].account == USER


async def test_a_wrong_password_is_tried_once() -> None:
    async with server() as peer:
        error = await failure(settings(peer.url, password="wrong"))
        assert isinstance(error, AuthenticationError)
        assert len(peer.log) == 1


async def test_basic_where_it_is_not_offered() -> None:
    async with server() as peer:
        peer.faults.add(HttpError(401, headers=(("WWW-Authenticate", "Negotiate, NTLM"),)))
        error = await failure(settings(peer.url))
        assert "the Exchange server does not offer Basic; it offers Negotiate and NTLM" in error.summary
        assert '"ntlm"' in error.hint
        assert len(peer.log) == 1


async def test_cookies_of_one_mailbox_do_not_go_along_with_another() -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(status=403, headers={"Set-Cookie": "X-BackEndCookie=ex01; path=/EWS"})

    app = web.Application()
    app.router.add_post("/EWS/Exchange.asmx", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        login = log_in(settings(f"http://127.0.0.1:{runner.addresses[0][1]}/EWS/Exchange.asmx"))
        async with login.http as http:
            for _ in range(2):
                await http.post(f"http://127.0.0.1:{runner.addresses[0][1]}/EWS/Exchange.asmx")
    finally:
        await runner.cleanup()
    assert seen == [None, None]


# --- TLS -------------------------------------------------------------------------------------------------------------


async def test_ones_own_certificate_authority(server_tls: ssl.SSLContext, certificate: Path) -> None:
    async with server(server_tls) as peer:
        await probe(settings(peer.url, bundle=certificate))


async def test_a_certificate_that_nobody_vouches_for(server_tls: ssl.SSLContext) -> None:
    async with server(server_tls) as peer:
        error = await failure(settings(peer.url))
        assert isinstance(error, ConnectionFailedError)
        assert (error.code, error.asks) == ("CERTIFICATE_VERIFY_FAILED", Asks.STOP)
        assert "self-signed certificate" in error.summary
        assert "it presents CN=" in error.summary
        assert "for 127.0.0.1, signed by itself, valid until 20" in error.summary
        assert "ews_ssl_ca_bundle" in error.hint
        assert len(peer.log) == 0


async def test_a_certificate_for_another_name(server_tls: ssl.SSLContext, certificate: Path) -> None:
    async with server(server_tls) as peer:
        url = peer.url.replace("127.0.0.1", "localhost")
        error = await failure(settings(url, bundle=certificate))
        assert error.code == "CERTIFICATE_VERIFY_FAILED"
        assert "as its certificate does" in error.hint


async def test_no_verification_at_all(server_tls: ssl.SSLContext) -> None:
    async with server(server_tls) as peer:
        await probe(settings(peer.url, verify=False))


async def test_tls_where_there_is_none() -> None:
    async with server() as peer:
        error = await failure(settings(peer.url.replace("http:", "https:")))
        assert isinstance(error, ConnectionFailedError)
        assert "TLS" in error.hint


async def test_a_name_that_nobody_knows() -> None:
    error = await failure(settings("http://exchange.invalid/EWS/Exchange.asmx"))
    assert error.summary.startswith("opening owner@example.com: cannot connect to exchange.invalid:80: ")
    assert "DNS" in error.hint
    assert error.request_id == ""


def test_a_bundle_that_is_not_there_or_holds_no_certificate(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for bundle, text in (
        (tmp_path / "missing.pem", "No such file"),
        (empty, "no certificates"),
        (tmp_path, "ews_ssl_ca"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            tls_context(settings("https://x", bundle=bundle))


def test_ciphers() -> None:
    context = tls_context(settings("https://x", ciphers="ECDHE-RSA-AES256-GCM-SHA384"))
    names = [cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("TLS_")]
    assert names == ["ECDHE-RSA-AES256-GCM-SHA384"]
    with pytest.raises(ConfigurationError, match="ews_ssl_ciphers"):
        tls_context(settings("https://x", ciphers="NO-SUCH"))


def test_without_a_system_store_there_are_still_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_context(settings("https://x")).cert_store_stats()["x509_ca"] > 50
