"""OAuth 2 from the settings to the mailbox: a stand-in identity provider and the simulated Exchange, over TLS."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import httpx
import pytest
from aiohttp import web
from pydantic import SecretStr

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    EwsSyncError,
    Scope,
)
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings.exchange import AccessType, ClientCertificate, ClientSecret, Exchange as ExchangeSettings, OAuth2
from ews_sync.simulator.access import Account
from ews_sync.simulator.bearer import BearerAuthenticator
from ews_sync.simulator.faults import ConnectionReset, HttpError
from ews_sync.simulator.identity.provider import App, IdentityProvider, Secret
from ews_sync.simulator.identity.server import CONFIGURATION, DISCOVERY, TOKEN, IdentityServer
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.sources.auth.login import log_in
from ews_sync.sources.auth.oauth2 import BearerAuth, diagnostics
from ews_sync.sources.auth.oauth2_credentials import Signer
from ews_sync.sources.ews.client import Client, RetryPolicy
from ews_sync.sources.ews.source import EwsSource
from tests.sources.auth.oauth2_world import (
    CLIENT_ID,
    ENDPOINT,
    SECRET,
    TENANT,
    key_pair,
    oauth2,
    settings,
    with_certificate,
)
from tests.sources.support import FakeClock

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

OWNER = Mailbox("owner@example.com", Bucket("acme", "mail"))
OTHER = Mailbox("other@example.com", Bucket("acme", "mail"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass(frozen=True, slots=True)
class World:
    """An identity provider, an Exchange that takes its tokens, and what is needed to reach both."""

    identity: IdentityServer
    exchange: ExchangeServer
    bundle: Path

    @property
    def provider(self) -> IdentityProvider:
        return self.identity.provider

    def settings(
        self,
        credential: ClientSecret | ClientCertificate | None = None,
        *,
        authority: str | None = None,
        client_id: str = CLIENT_ID,
    ) -> ExchangeSettings:
        auth = oauth2(authority or self.identity.authority, credential, client_id=client_id)
        return settings(self.exchange.url, auth, self.bundle)


@pytest.fixture
async def world(server_tls: ssl.SSLContext, certificate: Path) -> AsyncIterator[World]:
    app = App(CLIENT_ID, secrets=[Secret(SECRET)], certificates=[key_pair().certificate])
    provider = IdentityProvider(TENANT, [app])
    exchange = Exchange()
    for mailbox in (OWNER, OTHER):
        exchange.create_mailbox(mailbox.address)
    accounts = [Account(CLIENT_ID, "", may_impersonate=True)]
    authenticator = BearerAuthenticator(provider, accounts)
    async with (
        IdentityServer(provider, server_tls) as identity,
        ExchangeServer(exchange, ssl_context=server_tls, authenticator=authenticator) as server,
    ):
        yield World(identity, server, certificate)


@asynccontextmanager
async def source_for(settings: ExchangeSettings, *, attempts: int = 4) -> AsyncIterator[EwsSource]:
    login = log_in(settings)
    clock = FakeClock()
    client = Client(settings.endpoint, login.http, clock, retry=RetryPolicy(attempts=attempts))
    source = EwsSource(client, clock, impersonate=True, account=login.account)
    try:
        yield source
    finally:
        # A renewal in the background must not outlive the servers.
        for thread in threading.enumerate():
            if thread.name == "token":
                await asyncio.to_thread(thread.join, 10)
        await source.aclose()


async def probe(settings: ExchangeSettings, *, attempts: int = 4) -> None:
    async with source_for(settings, attempts=attempts) as source:
        await source.probe(OWNER)


async def failure(settings: ExchangeSettings, *, attempts: int = 1) -> EwsSyncError:
    with pytest.raises(EwsSyncError) as caught:
        await probe(settings, attempts=attempts)
    error = caught.value
    assert SECRET not in f"{error!s} {error.hint} {error.__cause__!r}"
    return error


# --- credentials -----------------------------------------------------------------------------------------------------


async def test_a_client_secret(world: World) -> None:
    await probe(world.settings())
    assert {record.account for record in world.exchange.log} == {CLIENT_ID}
    assert world.identity.requests == {CONFIGURATION: 1, TOKEN: 1}


@pytest.mark.parametrize(
    ("given", "algorithm"),
    [({"thumbprint"}, "RS256"), ({"certificate"}, "PS256"), ({"thumbprint", "certificate"}, "PS256")],
)
async def test_a_private_key(world: World, given: set[str], algorithm: str) -> None:
    credential = with_certificate(key_pair(), thumbprint="thumbprint" in given, certificate="certificate" in given)
    await probe(world.settings(credential))
    assert world.provider.algorithms == {algorithm: 1}


async def test_the_keys_own_certificate_may_be_any_of_several(world: World) -> None:
    chain = key_pair(2).certificate + key_pair().certificate
    await probe(world.settings(ClientCertificate(SecretStr(key_pair().key), certificate=chain)))
    assert world.provider.algorithms == {"PS256": 1}


async def test_each_assertion_is_a_new_one(world: World) -> None:
    async with source_for(world.settings(with_certificate(key_pair()))) as source:
        await source.probe(OWNER)
        world.provider.revoke_all()
        # This provider takes no assertion a second time.
        await source.probe(OWNER)
    assert world.identity.requests[TOKEN] == 2


async def test_a_private_key_that_cannot_be_used(world: World) -> None:
    pair, other = key_pair(), key_pair(2)
    damaged = "-----BEGIN CERTIFICATE-----\nQUJDREVG\n-----END CERTIFICATE-----\n"
    for key, thumbprint, certificate, says in (
        (pair.key.replace("\nM", "\nN", 1), pair.thumbprint, None, "private_key: the private key is damaged"),
        (pair.key, None, other.certificate, "private_key: does not belong to the certificate"),
        (
            pair.key,
            other.thumbprint,
            pair.certificate,
            f"thumbprint: is that of another certificate .*{pair.thumbprint}",
        ),
        (pair.key, None, damaged, "certificate: the certificate is damaged"),
    ):
        with pytest.raises(ConfigurationError, match=says) as caught:
            await probe(world.settings(ClientCertificate(SecretStr(key), thumbprint, certificate)))
        assert (caught.value.asks, caught.value.scope) == (Asks.STOP, Scope.PROCESS)
        assert "BEGIN" not in str(caught.value)
    assert world.identity.requests == {}


# --- one token for all -----------------------------------------------------------------------------------------------


async def test_two_hundred_requests_at_once_ask_for_one_token(world: World) -> None:
    login = log_in(world.settings())
    async with login.http as http:
        calls = [http.post(world.exchange.url, content=b"<x/>", timeout=60) for _ in range(200)]
        answers = await asyncio.gather(*calls)
    assert 401 not in {answer.status_code for answer in answers}
    assert world.identity.requests[TOKEN] == 1
    assert len(world.exchange.log) == 200


def test_msal_is_imported_when_a_token_is_wanted_and_not_in_the_event_loops_thread() -> None:
    script = f"""
import asyncio, sys, threading
from pydantic import SecretStr
from ews_sync.errors import EwsSyncError
from ews_sync.settings.exchange import ClientSecret, Exchange, OAuth2
from ews_sync.sources.auth.login import log_in

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "msal":
            print(threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Watch())
login = log_in(Exchange({ENDPOINT!r}, OAuth2("https://127.0.0.1:1/tenant", "id", ClientSecret(SecretStr("s")))))
print([name for name in ("msal", "cryptography", "requests") if name in sys.modules])

async def main():
    try:
        await login.http.post({ENDPOINT!r})
    except EwsSyncError as error:
        print(type(error).__name__)

asyncio.run(main())
print([name for name in ("cryptography",) if name in sys.modules])
"""
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60, env={"NO_PROXY": "*"}
    )
    assert done.stdout.split("\n") == ["[]", "False", "ConnectionFailedError", "[]", ""], done.stderr


async def test_a_token_that_is_about_to_end_is_renewed_while_requests_go_on(world: World) -> None:
    # Good for two minutes, and due at once: whoever comes next asks for another without waiting for it.
    world.provider.lifetime, world.provider.refresh_in = 120, 0
    async with source_for(world.settings()) as source:
        for _ in range(50):
            await source.probe(OWNER)
            if world.identity.requests[TOKEN] > 1:
                break
    assert world.identity.requests[TOKEN] > 1
    assert {record.status for record in world.exchange.log} == {200}


async def test_an_outage_of_the_identity_provider_is_not_noticed_while_the_token_is_good(world: World) -> None:
    world.provider.lifetime, world.provider.refresh_in = 120, 0
    world.identity.faults.add(HttpError(503), operation=TOKEN, nth=range(2, 1000))
    async with source_for(world.settings(), attempts=1) as source:
        for _ in range(50):
            await source.probe(OWNER)
            if world.identity.requests[TOKEN] > 1:
                break
        await source.probe(OWNER)
    assert world.identity.requests[TOKEN] > 1


# --- refused by Exchange ---------------------------------------------------------------------------------------------


async def test_a_token_that_is_refused_is_replaced_and_the_request_sent_again(world: World) -> None:
    async with source_for(world.settings()) as source:
        await source.probe(OWNER)
        world.provider.revoke_all()
        before = len(world.exchange.log)
        await asyncio.gather(*(source.probe(mailbox) for mailbox in (OWNER, OTHER) * 4))
    statuses = [record.status for record in world.exchange.log][before:]
    assert 401 in statuses
    assert statuses.count(200) == 8
    assert world.identity.requests == {CONFIGURATION: 1, TOKEN: 2}


async def test_an_application_without_permission(world: World) -> None:
    world.provider.apps[CLIENT_ID] = App(CLIENT_ID, secrets=[Secret(SECRET)], roles=())
    async with source_for(world.settings(), attempts=4) as source:
        with pytest.raises(AuthenticationError) as caught:
            await source.probe(OWNER)
        # It may be that mailbox alone; the next one decides.
        assert (caught.value.asks, caught.value.scope) == (Asks.STOP, Scope.MAILBOX)
        with pytest.raises(AuthenticationError) as caught:
            await source.probe(OTHER)
    error = caught.value
    assert (error.asks, error.scope, error.code) == (Asks.STOP, Scope.PROCESS, "HTTP 401")
    assert "invalid_token" in error.summary
    for word in ("full_access_as_app", "admin consent", "application access policy", "1 October 2026", "1 April 2027"):
        assert word in error.hint
    assert world.identity.requests[TOKEN] == 2
    assert len(world.exchange.log) == 3


async def test_the_first_mailbox_may_be_one_that_is_refused(world: World) -> None:
    world.exchange.faults.add(HttpError(401), mailbox=OTHER.address)
    async with source_for(world.settings()) as source:
        for _ in range(5):
            with pytest.raises(AuthenticationError) as caught:
                await source.probe(OTHER)
            assert caught.value.scope is Scope.MAILBOX
            await source.probe(OWNER)
    # A mailbox that is kept out does not have the good token replaced at every try.
    assert world.identity.requests[TOKEN] == 2


async def test_two_revocations_one_after_the_other(world: World) -> None:
    async with source_for(world.settings()) as source:
        for _ in range(3):
            await source.probe(OWNER)
            await source.probe(OTHER)
            world.provider.revoke_all()
        await source.probe(OTHER)
    assert world.identity.requests[TOKEN] == 4


async def test_one_mailbox_is_refused_and_no_other_token_comes(world: World) -> None:
    async with source_for(world.settings()) as source:
        await source.probe(OWNER)
        world.exchange.faults.add(HttpError(401), mailbox=OTHER.address)
        world.provider.apps[CLIENT_ID] = App(CLIENT_ID, secrets=[])
        with pytest.raises(AuthenticationError) as caught:
            await source.probe(OTHER)
        assert caught.value.scope is Scope.MAILBOX
        await source.probe(OWNER)


async def test_a_server_that_takes_no_tokens(world: World) -> None:
    world.exchange.faults.add(HttpError(401, headers=(("WWW-Authenticate", "NTLM"),)))
    error = await failure(world.settings())
    assert "does not offer Bearer; it offers NTLM" in error.summary
    assert world.identity.requests[TOKEN] == 1


async def test_the_identity_provider_is_verified_whatever_holds_for_exchange(world: World) -> None:
    unverified = ExchangeSettings(
        world.exchange.url, oauth2(world.identity.authority), AccessType.IMPERSONATION, ssl_verify=False
    )
    assert (await failure(unverified)).code == "CERTIFICATE_VERIFY_FAILED"
    assert world.identity.requests == {}
    await probe(replace(unverified, ssl_ca_bundle=world.bundle))


async def test_exchanges_own_reason_is_shown(world: World) -> None:
    reason = 'x;reason="The token contains no permissions, or permissions can not be understood.";error_category="y"'
    world.exchange.faults.add(HttpError(401, headers=(("x-ms-diagnostics", reason), ("request-id", "r-1"))))
    error = await failure(world.settings())
    assert error.summary.endswith(": The token contains no permissions, or permissions can not be understood")
    assert error.request_id == "r-1"


async def test_one_mailbox_that_is_refused_does_not_stop_the_others(world: World) -> None:
    async with source_for(world.settings()) as source:
        await source.probe(OWNER)
        world.exchange.faults.add(HttpError(401), mailbox=OTHER.address)
        with pytest.raises(AuthenticationError) as caught:
            await source.probe(OTHER)
        assert (caught.value.asks, caught.value.scope) == (Asks.STOP, Scope.MAILBOX)
        await source.probe(OWNER)


async def test_a_refusal_is_not_kept_where_another_token_mends_it(world: World) -> None:
    world.exchange.faults.add(HttpError(401), times=2)
    async with source_for(world.settings()) as source:
        with pytest.raises(AuthenticationError):
            await source.probe(OWNER)
        await source.probe(OWNER)


async def test_a_refusal_that_does_not_end_is_not_read_to_its_end(world: World) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((await request.read()).decode())
        if len(seen) > 1:
            return web.Response(text="fine")
        response = web.StreamResponse(status=401)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with asyncio.timeout(20), log_in(world.settings()).http as http:
            got = await http.post(f"http://127.0.0.1:{runner.addresses[0][1]}/", content=b"the body")
    finally:
        await runner.cleanup()
    assert got.text == "fine"
    assert seen == ["the body", "the body"]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x-ms-diagnostics": '2000003;reason="The audience is wrong.";error_category="z"'}, "The audience is wrong"),
        ({"www-authenticate": 'Bearer error="invalid_token", error_description="It has expired"'}, "It has expired"),
        ({"www-authenticate": 'Bearer client_id="x", error="invalid_token"'}, "invalid_token"),
        ({"www-authenticate": "Bearer"}, ""),
        ({}, ""),
    ],
)
def test_why_a_token_was_refused(headers: dict[str, str], says: str) -> None:
    assert diagnostics(httpx.Response(401, headers=headers)) == says


def test_tokens_need_an_event_loop() -> None:
    with httpx.Client(auth=_some_auth()) as http, pytest.raises(RuntimeError, match="asynchronous"):
        http.get("https://127.0.0.1:1/")


def _some_auth() -> BearerAuth:
    auth = log_in(settings(ENDPOINT, oauth2("https://127.0.0.1:1/tenant"), None)).http.auth
    assert isinstance(auth, BearerAuth)
    return auth


# --- refused by the identity provider --------------------------------------------------------------------------------


async def test_refusals_say_what_to_do(world: World) -> None:
    soon = time.time() - 1
    pair, expired, unknown = key_pair(), key_pair(3, days=-1), key_pair(2)
    world.provider.apps |= {
        "expired": App("expired", secrets=[Secret(SECRET, expires_at=soon)], certificates=[expired.certificate]),
        "disabled": App("disabled", secrets=[Secret(SECRET)], is_enabled=False),
    }
    wrong = ClientSecret(SecretStr("another-value"))
    for changed, code, hint in (
        (world.settings(wrong), "AADSTS7000215", "not its Secret ID, into auth_oauth_client_secret"),
        (world.settings(client_id="expired"), "AADSTS7000222", "the client secret has expired: create a new one"),
        (world.settings(client_id="nobody"), "AADSTS700016", "check auth_oauth_client_id"),
        (world.settings(client_id="disabled"), "AADSTS7000112", "enable it"),
        (world.settings(authority=f"{world.identity.root}/elsewhere"), "AADSTS90002", "auth_oauth_authority"),
        (world.settings(with_certificate(unknown)), "AADSTS700027", "upload the certificate"),
        (world.settings(with_certificate(expired), client_id="expired"), "AADSTS700027", "if it has expired"),
        (world.settings(with_certificate(pair, thumbprint=True), client_id="nobody"), "AADSTS700016", "client_id"),
    ):
        error = await failure(changed)
        assert isinstance(error, AuthenticationError), error
        assert (error.code, error.asks, error.scope) == (code, Asks.STOP, Scope.PROCESS)
        assert hint in error.hint
        assert "Trace ID" not in error.summary
        assert error.request_id.endswith("Z")
        assert len(error.request_id) > 40
    assert len(world.exchange.log) == 0


async def test_the_tokens_audience_follows_the_cloud(world: World) -> None:
    world.provider.resources = ()
    error = await failure(world.settings())
    assert (error.code, "Exchange Online" in error.hint) == ("AADSTS500011", True)


@pytest.mark.parametrize(
    ("fault", "code", "wait"),
    [
        (HttpError(500), "HTTP 500", None),
        (HttpError(503, "7"), "HTTP 503", 7),
        (HttpError(429, "4"), "HTTP 429", 4),
        (ConnectionReset(), "", None),
        (HttpError(200, body="<html>log in here</html>"), "HTTP 200", None),
        (HttpError(403, body="<html>no</html>"), "HTTP 403", None),
    ],
)
@pytest.mark.parametrize("operation", [CONFIGURATION, TOKEN])
async def test_what_heals_by_itself_is_tried_again(
    world: World, fault: HttpError | ConnectionReset, code: str, wait: float | None, operation: str
) -> None:
    rule = world.identity.faults.add(fault, operation=operation)
    async with source_for(world.settings(), attempts=1) as source:
        with pytest.raises(ConnectionFailedError) as caught:
            await source.probe(OWNER)
        error = caught.value
        assert (error.asks, error.code, error.retry_after) == (Asks.RETRY, code, wait)
        assert "asking for an access token" in error.summary
        # Not asked again at once, whoever wants a token.
        with pytest.raises(ConnectionFailedError):
            await source.probe(OTHER)
    assert world.identity.requests[operation] == 1
    world.identity.faults.remove(rule)
    await probe(world.settings())


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (HttpError(404), "check auth_oauth_authority"),
        (HttpError(302, headers=(("Location", "https://elsewhere.example/x"),)), "the tenant itself"),
        (HttpError(200, body="{}", content_type="application/json"), "check auth_oauth_authority"),
    ],
)
@pytest.mark.parametrize("operation", [CONFIGURATION, TOKEN])
async def test_what_is_no_identity_provider(world: World, fault: HttpError, hint: str, operation: str) -> None:
    world.identity.faults.add(fault, operation=operation)
    error = await failure(world.settings())
    assert isinstance(error, AuthenticationError)
    assert hint in error.hint


async def test_an_answer_that_does_not_end_in_size(world: World) -> None:
    world.identity.faults.add(HttpError(200, body="x" * 2_000_000), operation=TOKEN)
    error = await failure(world.settings())
    assert (type(error), error.asks) == (ConnectionFailedError, Asks.RETRY)


async def test_a_certificate_of_the_identity_provider_that_nobody_vouches_for(world: World) -> None:
    error = await failure(settings(world.exchange.url, oauth2(world.identity.authority), None))
    assert (error.code, error.asks) == ("CERTIFICATE_VERIFY_FAILED", Asks.STOP)
    assert "it presents CN=" in error.summary
    assert "ews_ssl_ca_bundle" in error.hint
    assert "SSL_CERT_FILE" in error.hint
    assert error.request_id == ""
    other = world.settings(authority=world.identity.authority.replace("127.0.0.1", "localhost"))
    assert "auth_oauth_authority" in (await failure(other)).hint


async def test_nobody_there(world: World) -> None:
    error = await failure(world.settings(authority="https://127.0.0.1:1/tenant"))
    assert (type(error), error.asks) == (ConnectionFailedError, Asks.RETRY)
    assert "cannot reach 127.0.0.1:1" in error.summary


async def test_the_proxies_of_the_environment_are_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert "cannot reach" in (await failure(world.settings())).summary
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await probe(world.settings())


async def test_nothing_secret_is_logged_at_the_lowest_level(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assertions: list[str] = []
    signed = Signer.assertion

    def noting(self: Signer, *args: str, use_sha1: bool) -> str:
        assertions.append(signed(self, *args, use_sha1=use_sha1))
        return assertions[-1]

    with caplog.at_level(logging.DEBUG), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Signer, "assertion", noting)
        await probe(world.settings())
        await probe(world.settings(with_certificate(key_pair())))
        await failure(world.settings(client_id="nobody"))
    assert "msal" in {record.name.partition(".")[0] for record in caplog.records}
    assert len(assertions) == 1
    key = key_pair().key.splitlines()[1]
    for secret in (SECRET, key, *assertions, *(token.value for token in world.provider.tokens)):
        assert secret not in caplog.text


async def test_only_what_is_needed_is_asked_for(world: World) -> None:
    """Neither the authority's aliases nor Microsoft itself: an appliance may reach nothing else."""
    await failure(world.settings(client_id="nobody"))
    assert world.identity.requests[DISCOVERY] == 0
    assert isinstance(world.settings().auth, OAuth2)
