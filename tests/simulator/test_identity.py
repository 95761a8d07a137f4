"""The stand-in identity provider is as strict as the real one, and fails as it is told."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ews_sync.simulator.access import Account
from ews_sync.simulator.bearer import BearerAuthenticator
from ews_sync.simulator.faults import ConnectionReset, HttpError, Latency
from ews_sync.simulator.identity.assertions import TYPE
from ews_sync.simulator.identity.errors import RefusedError
from ews_sync.simulator.identity.provider import App, IdentityProvider, Secret
from ews_sync.simulator.identity.server import CONFIGURATION, TOKEN, IdentityServer
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from tests.sources.auth.oauth2_world import KeyPair, key_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

NOW = 1_800_000_000.0
HERE = "https://here/contoso.com/oauth2/v2.0/token"
SCOPE = "https://outlook.office365.com/.default"
SECRET_FORM = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "s3cret", "scope": SCOPE}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> IdentityProvider:
    app = App("app", secrets=[Secret("s3cret"), Secret("old", NOW - 1)], certificates=[pair().certificate])
    return IdentityProvider("contoso.com", [app, App("off", [Secret("s3cret")], is_enabled=False)], clock=clock)


@pytest.fixture
async def server(provider: IdentityProvider) -> AsyncIterator[IdentityServer]:
    async with IdentityServer(provider) as started:
        yield started


def pair() -> KeyPair:
    return key_pair(days=3650)


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def assertion(
    claims: Mapping[str, object] | None = None,
    header: Mapping[str, object] | None = None,
    *,
    signed_by: KeyPair | None = None,
    algorithm: str = "RS256",
) -> str:
    """A good one, but for what is given; None takes a claim away."""
    digest = bytes.fromhex(pair().thumbprint)
    all_claims = {"iss": "app", "sub": "app", "aud": HERE, "exp": NOW + 600, "iat": NOW, "jti": "1"} | dict(
        claims or {}
    )
    all_header: dict[str, Any] = {"alg": algorithm, "typ": "JWT", "x5t": encode(digest)} | dict(header or {})
    parts = [
        encode(json.dumps({name: value for name, value in part.items() if value is not None}).encode())
        for part in (all_header, all_claims)
    ]
    key = serialization.load_pem_private_key((signed_by or pair()).key.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join([*parts, encode(signature)])


def form(text: str, **changes: str) -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_assertion_type": TYPE,
        "client_assertion": text,
        "scope": SCOPE,
    } | changes


def refused(provider: IdentityProvider, given: dict[str, str]) -> int:
    with pytest.raises(RefusedError) as caught:
        provider.grant(given, {HERE})
    assert provider.tokens == ()
    return caught.value.code


def test_a_secret_and_an_assertion_are_good(provider: IdentityProvider) -> None:
    assert provider.grant(SECRET_FORM, {HERE}).client_id == "app"
    assert provider.grant(form(assertion()), {HERE}).resource == "https://outlook.office365.com"
    assert provider.algorithms == {"RS256": 1}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_secret": "wrong"}, 7000215),
        ({"client_secret": "old"}, 7000222),
        ({"client_secret": ""}, 7000218),
        ({"client_id": "nobody"}, 700016),
        ({"client_id": "off"}, 7000112),
        ({"scope": "https://graph.microsoft.com/.default"}, 500011),
        ({"scope": "Mail.Read"}, 1002012),
        ({"grant_type": "password"}, 70003),
    ],
)
def test_what_is_refused(provider: IdentityProvider, changes: dict[str, str], code: int) -> None:
    assert refused(provider, SECRET_FORM | changes) == code


@pytest.mark.parametrize(
    ("claims", "header", "code"),
    [
        ({"aud": "https://elsewhere/token"}, {}, 700023),
        ({"iss": "other"}, {}, 700021),
        ({"sub": None}, {}, 700021),
        ({"exp": NOW - 301}, {}, 700024),
        ({"iat": NOW + 301}, {}, 700024),
        ({"exp": None}, {}, 50027),
        ({"jti": None}, {}, 50027),
        ({}, {"alg": "none"}, 5002730),
        ({}, {"alg": "PS256"}, 700027),
        ({}, {"x5t": None}, 700027),
        ({}, {"x5t": "AAAA"}, 700027),
    ],
)
def test_what_makes_an_assertion_worthless(
    provider: IdentityProvider, claims: dict[str, object], header: dict[str, object], code: int
) -> None:
    assert refused(provider, form(assertion(claims, header))) == code


def test_an_assertion_that_is_signed_by_another_damaged_or_used_before(provider: IdentityProvider) -> None:
    assert refused(provider, form(assertion(signed_by=key_pair(2)))) == 700027
    head, _, rest = assertion().partition(".")
    assert refused(provider, form(f"{head}.{encode(b'{}')}.{rest.partition('.')[2]}")) == 700027
    for text in ("", "x", "a.b.c", "....", f"{encode(b'[]')}.{encode(b'[]')}.x"):
        assert refused(provider, form(text)) == 50027
    assert refused(provider, form(assertion(), client_assertion_type="saml")) == 50027
    provider.grant(form(assertion()), {HERE})
    with pytest.raises(RefusedError, match="used before"):
        provider.grant(form(assertion()), {HERE})


def test_a_certificate_that_has_expired(provider: IdentityProvider, clock: Clock) -> None:
    clock.now += 20 * 365 * 86400
    assert refused(provider, form(assertion({"exp": clock.now, "iat": clock.now}))) == 700027


def test_tokens_expire_and_can_be_taken_back(provider: IdentityProvider, clock: Clock) -> None:
    first, second = (provider.grant(SECRET_FORM, ()).value for _ in range(2))
    assert first != second
    assert provider.find(first) is not None
    clock.now += provider.lifetime
    assert provider.find(first) is None
    clock.now -= 1
    assert provider.find(second) is not None
    provider.revoke_all()
    assert provider.find(second) is None
    provider.as_jwt = False
    assert "." not in provider.grant(SECRET_FORM, ()).value


async def test_the_layout_of_addresses(server: IdentityServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        described = (await http.get(f"{server.authority}/v2.0/.well-known/openid-configuration")).json()
        assert described["token_endpoint"] == server.token_endpoint
        answer = await http.post(server.token_endpoint, data=SECRET_FORM)
        assert answer.json().keys() == {"token_type", "expires_in", "ext_expires_in", "access_token"}
        assert server.provider.find(answer.json()["access_token"]) is not None
        found = await http.get(f"{server.root}/common/discovery/instance")
        assert found.json()["tenant_discovery_endpoint"].startswith(server.authority)
        unknown = await http.get(f"{server.root}/other/v2.0/.well-known/openid-configuration")
    assert (unknown.status_code, unknown.json()["error_codes"]) == (400, [90002])
    assert server.requests == {CONFIGURATION: 2, TOKEN: 1, "instance-discovery": 1}


async def test_refusals_are_written_as_entra_writes_them(server: IdentityServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            server.token_endpoint, data=SECRET_FORM | {"client_secret": "wrong"}, headers={"client-request-id": "c-1"}
        )
    assert answer.status_code == 401
    body = answer.json()
    assert body["error_description"].startswith("AADSTS7000215: ")
    assert (body["error"], body["error_codes"], body["correlation_id"]) == ("invalid_client", [7000215], "c-1")


async def test_faults(server: IdentityServer) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    server._sleep = sleep
    server.faults.add(HttpError(429, "3"), operation=TOKEN, times=1)
    server.faults.add(ConnectionReset(), operation=TOKEN, nth=2)
    server.faults.add(Latency(5), operation=TOKEN, nth=3)
    async with httpx.AsyncClient(trust_env=False) as http:
        busy = await http.post(server.token_endpoint, data=SECRET_FORM)
        with pytest.raises(httpx.TransportError):
            await http.post(server.token_endpoint, data=SECRET_FORM)
        slow = await http.post(server.token_endpoint, data=SECRET_FORM)
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "3")
    assert (slow.status_code, slept) == (200, [5])


async def test_exchange_takes_these_tokens_and_no_others(provider: IdentityProvider, clock: Clock) -> None:
    provider.apps["poor"] = App("poor", [Secret("s3cret")], roles=())
    accounts = [Account("APP", "", may_impersonate=True), Account("poor", "")]
    async with (
        ExchangeServer(Exchange(), authenticator=BearerAuthenticator(provider, accounts)) as exchange,
        httpx.AsyncClient(trust_env=False) as http,
    ):

        async def status(token: str | None) -> tuple[int, str]:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answer = await http.get(exchange.url, headers=headers)
            return answer.status_code, answer.headers.get("WWW-Authenticate", "")

        good = provider.grant(SECRET_FORM, ()).value
        assert await status(good) == (405, "")
        assert exchange.log[0].account == "APP"
        for token in ("nonsense", provider.grant(SECRET_FORM | {"client_id": "poor"}, ()).value):
            code, challenge = await status(token)
            assert (code, challenge.endswith('error="invalid_token"')) == (401, True)
        code, challenge = await status(None)
        assert (code, challenge.startswith("Bearer client_id="), "error=" in challenge) == (401, True, False)
        clock.now += provider.lifetime
        assert (await status(good))[0] == 401
