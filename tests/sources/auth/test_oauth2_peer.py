"""Tokens from an OAuth 2 server that nobody here wrote: npm's oidc-provider.

It is looked for in the directory that OAUTH_PEER names, by default .venv/peers, where
`npm install --prefix .venv/peers oidc-provider@9` puts it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicNumbers
from pydantic import SecretStr

from ews_sync.errors import Asks, AuthenticationError
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings.exchange import ClientSecret
from ews_sync.simulator.access import Account
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.sources.auth.login import log_in
from ews_sync.sources.ews.client import Client
from ews_sync.sources.ews.source import EwsSource
from tests.sources.auth.oauth2_world import TENANT, key_pair, oauth2, settings, with_certificate
from tests.sources.support import FakeClock

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator

    from aiohttp import web

    from ews_sync.settings.exchange import OAuth2

pytestmark = pytest.mark.oauth_peer

RESOURCE = "https://outlook.office365.com"
SECRET = "s3cr~t/+&=value"
"""Of every kind of letter that the peer allows: ASCII."""
OWNER = Mailbox("owner@example.com", Bucket("acme", "mail"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def peer(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The authority that it is reached by."""
    root = Path(__file__).resolve().parents[3]
    modules = Path(os.environ.get("OAUTH_PEER") or root / ".venv" / "peers")
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run the peer with")
    if not (modules / "node_modules" / "oidc-provider").is_dir():
        pytest.skip(f"oidc-provider is not installed: npm install --prefix {modules} oidc-provider@9")
    clients = tmp_path_factory.mktemp("peer") / "clients.json"
    clients.write_text(
        json.dumps(
            {
                "tenant": TENANT,
                "resource": RESOURCE,
                "clients": [
                    {"client_id": "app-secret", "client_secret": SECRET},
                    {"client_id": "app-key", "jwks": {"keys": [public_jwk()]}},
                ],
            }
        )
    )
    script = Path(__file__).with_name("oauth2_peer.mjs")
    process = subprocess.Popen(  # noqa: S603 - our own words
        [node, str(script), str(modules), str(certificate), str(clients)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        # The library may have warnings to give first.
        port = next((line for line in lines if line.strip().isdigit()), "")
        assert port, "the peer did not start"
        yield f"https://127.0.0.1:{port.strip()}/{TENANT}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def public_jwk() -> dict[str, str]:
    key = serialization.load_pem_private_key(key_pair().key.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "n": from_number(numbers.n), "e": from_number(numbers.e)}


def from_number(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Verifier:
    """Takes tokens whose signature is the peer's, for Exchange, each of them at most `most` times."""

    def __init__(self, keys: dict[str, Any], most: int) -> None:
        self.keys = {key["kid"]: key for key in keys["keys"]}
        self.most = most
        self.used: dict[str, int] = {}

    def authenticate(self, request: web.Request) -> Account | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        signed, _, signature = token.rpartition(".")
        head, claims = (json.loads(decode(part)) for part in signed.split("."))
        key = self.keys[head["kid"]]
        public = RSAPublicNumbers(*(int.from_bytes(decode(key[name]), "big") for name in "en")).public_key()
        try:
            public.verify(decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return None
        self.used[claims["jti"]] = self.used.get(claims["jti"], 0) + 1
        if scheme != "Bearer" or claims["aud"] != RESOURCE or self.used[claims["jti"]] > self.most:
            return None
        return Account(claims["client_id"], "", may_impersonate=True)

    def challenges(self, request: web.Request) -> list[str]:
        return [f'Bearer realm="{request.host}", error="invalid_token"']


@dataclass(frozen=True, slots=True)
class World:
    authority: str
    exchange: ExchangeServer
    verifier: Verifier
    bundle: Path

    async def probes(self, auth: OAuth2, times: int) -> None:
        """Open the mailbox several times at once."""
        login = log_in(settings(self.exchange.url, auth, self.bundle))
        clock = FakeClock()
        source = EwsSource(Client(self.exchange.url, login.http, clock), clock, impersonate=True, account=login.account)
        try:
            await asyncio.gather(*(source.probe(OWNER) for _ in range(times)))
        finally:
            await source.aclose()


@pytest.fixture
async def world(peer: str, server_tls: ssl.SSLContext, certificate: Path) -> AsyncIterator[World]:
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:  # noqa: S501 - only to see its keys
        keys = (await http.get(f"{peer}/discovery/v2.0/keys")).json()
    exchange = Exchange()
    exchange.create_mailbox(OWNER.address)
    verifier = Verifier(keys, most=20)
    async with ExchangeServer(exchange, ssl_context=server_tls, authenticator=verifier) as server:
        yield World(peer, server, verifier, certificate)


@pytest.mark.parametrize("kind", ["secret", "thumbprint", "certificate"])
async def test_a_token_that_is_used_up_is_replaced(world: World, kind: str) -> None:
    if kind == "secret":
        auth = oauth2(world.authority, ClientSecret(SecretStr(SECRET)), client_id="app-secret")
    else:
        credential = with_certificate(key_pair(), thumbprint=kind == "thumbprint", certificate=kind == "certificate")
        auth = oauth2(world.authority, credential, client_id="app-key")
    await world.probes(auth, times=30)
    # 30 requests, of which 10 at least find the first token used up.
    assert len(world.verifier.used) == 2
    assert {record.account for record in world.exchange.log if record.status == 200} == {auth.client_id}


@pytest.mark.parametrize(
    ("client_id", "secret", "tenant", "code"),
    [
        ("app-secret", "wrong", TENANT, "invalid_client"),
        ("nobody", SECRET, TENANT, "invalid_client"),
        ("app-secret", SECRET, "elsewhere", "AADSTS90002"),
    ],
)
async def test_refusals(world: World, client_id: str, secret: str, tenant: str, code: str) -> None:
    authority = world.authority.replace(TENANT, tenant)
    with pytest.raises(AuthenticationError) as caught:
        await world.probes(oauth2(authority, ClientSecret(SecretStr(secret)), client_id=client_id), times=1)
    assert (caught.value.code, caught.value.asks) == (code, Asks.STOP)
    assert caught.value.hint


async def test_a_key_that_the_peer_does_not_know(world: World) -> None:
    with pytest.raises(AuthenticationError) as caught:
        await world.probes(oauth2(world.authority, with_certificate(key_pair(2)), client_id="app-key"), times=1)
    assert caught.value.code == "invalid_client"
