"""Every way to log in, with the real command: Exchange's mailboxes to files on disk, over TLS."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ews_sync.simulator.access import Account
from ews_sync.simulator.bearer import BearerAuthenticator
from ews_sync.simulator.identity.provider import App, IdentityProvider, Secret
from ews_sync.simulator.identity.server import IdentityServer
from ews_sync.simulator.mail import MailFactory, populate
from ews_sync.simulator.ntlm import NtlmAuthenticator
from ews_sync.simulator.server import Authenticator, ExchangeServer
from tests.end_to_end.platform_world import Command, bare_environment, spawned
from tests.end_to_end.world import World
from tests.sources.auth.oauth2_world import CLIENT_ID, SECRET, TENANT, key_pair

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

PASSWORD = "Schwärd/fish: 1"
ADDRESS, OTHER = "abc@example.com", "xyz@example.com"


@asynccontextmanager
async def surroundings(
    directory: Path, tls: ssl.SSLContext, authenticator: Authenticator, account: Account
) -> AsyncIterator[World]:
    world = World(directory / "mail")
    world.server = ExchangeServer(world.exchange, [account], ssl_context=tls, authenticator=authenticator)
    populate(world.mailbox(ADDRESS), 60, factory=MailFactory(1))
    async with world.server:
        yield world


@asynccontextmanager
async def command(
    world: World, bundle: Path, config: dict[str, Any], variables: dict[str, str], *arguments: str
) -> AsyncIterator[Command]:
    path = world.directory.parent / "config.json"
    keys = {"auth_user": None, "auth_password": None, "ews_ssl_ca_bundle": str(bundle)}
    path.write_text(json.dumps(world.config(**(keys | config))))
    given = ("--local-files-prefix", str(world.directory), "--bind", "127.0.0.1:0", *arguments)
    environment = bare_environment() | {"REINFER_EWS_CONFIG": str(path)} | variables
    async with spawned(world, given, environment) as running:
        yield running


async def syncs_and_stops(world: World, running: Command) -> None:
    await world.until(lambda: not world.missing(), "all mail on disk")
    world.mailbox().folder("Inbox").deliver(b"Subject: new\r\nMessage-ID: <new@x>\r\n\r\nnew\r\n")
    await world.until(lambda: not world.missing(), "the new mail")
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.process.wait(), 30) == 0


async def ends(running: Command) -> None:
    """Wait for the end, which is an operator's business."""
    assert await asyncio.wait_for(running.process.wait(), 30) == 1


# --- NTLM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [r"CORP\svc", "svc@corp.example"])
@pytest.mark.parametrize("access", ["impersonation", "delegate"])
async def test_ntlm(tmp_path: Path, server_tls: ssl.SSLContext, certificate: Path, user: str, access: str) -> None:
    account = Account(user, PASSWORD, may_impersonate=access == "impersonation", delegate_of=[ADDRESS])
    seen = NtlmAuthenticator([account])
    async with surroundings(tmp_path, server_tls, seen, account) as world:
        config = {"auth_type": "ntlm", "auth_user": user, "access_type": access}
        async with command(
            world, certificate, config, {"REINFER_EWS_AUTH_PASS": PASSWORD}, "--debug-level", "2"
        ) as run:
            await syncs_and_stops(world, run)
    assert seen.handshakes == len(seen.connections)
    assert sum(connection.early_bytes for connection in seen.connections) == 0
    assert PASSWORD not in run.text


async def test_a_wrong_ntlm_password(tmp_path: Path, server_tls: ssl.SSLContext, certificate: Path) -> None:
    account = Account(r"CORP\svc", PASSWORD, may_impersonate=True)
    seen = NtlmAuthenticator([account])
    async with surroundings(tmp_path, server_tls, seen, account) as world:
        populate(world.mailbox(OTHER), 5)
        config = {"auth_type": "ntlm", "auth_user": account.user}
        async with command(world, certificate, config, {"REINFER_EWS_AUTH_PASS": "wrong horse"}) as run:
            await ends(run)
    last = run.text.splitlines()[-1]
    assert seen.handshakes == 1, "accounts lock"
    assert "refused the user name or password" in last
    assert "REINFER_EWS_AUTH_PASS" in last
    assert "wrong horse" not in run.text


# --- OAuth 2 ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def an_identity(tls: ssl.SSLContext, secret: Secret) -> AsyncIterator[IdentityServer]:
    app = App(CLIENT_ID, [secret], [key_pair().certificate])
    async with IdentityServer(IdentityProvider(TENANT, [app]), tls) as server:
        yield server


def oauth2(server: IdentityServer) -> dict[str, Any]:
    return {
        "auth_type": "oauth2",
        "auth_oauth_authority": server.authority,
        "auth_oauth_client_id": CLIENT_ID,
    }


@pytest.mark.parametrize("credential", ["secret", "thumbprint", "certificate"])
async def test_oauth2(tmp_path: Path, server_tls: ssl.SSLContext, certificate: Path, credential: str) -> None:
    account = Account(CLIENT_ID, "", may_impersonate=True)
    pair = key_pair()
    keys = {
        "secret": {"auth_oauth_client_secret": SECRET},
        "thumbprint": {
            "auth_oauth_client_credential_private_key": pair.key,
            "auth_oauth_client_credential_thumbprint": pair.thumbprint,
        },
        "certificate": {
            "auth_oauth_client_credential_private_key": pair.key,
            "auth_oauth_client_credential_certificate": pair.certificate,
        },
    }[credential]
    async with an_identity(server_tls, Secret(SECRET)) as identity:
        seen = BearerAuthenticator(identity.provider, [account])
        async with surroundings(tmp_path, server_tls, seen, account) as world:
            config = oauth2(identity) | keys
            async with command(world, certificate, config, {}, "--debug-level", "2") as run:
                await syncs_and_stops(world, run)
        tokens = [token.value for token in identity.provider.tokens]
    assert len(tokens) == 1
    assert not any(secret in run.text for secret in (SECRET, tokens[0], pair.key.splitlines()[1]))


async def test_an_expired_client_secret(tmp_path: Path, server_tls: ssl.SSLContext, certificate: Path) -> None:
    account = Account(CLIENT_ID, "", may_impersonate=True)
    async with an_identity(server_tls, Secret(SECRET, expires_at=time.time() - 60)) as identity:
        seen = BearerAuthenticator(identity.provider, [account])
        async with surroundings(tmp_path, server_tls, seen, account) as world:
            config = oauth2(identity) | {"auth_oauth_client_secret": SECRET}
            async with command(world, certificate, config, {}) as run:
                await ends(run)
    last = run.text.splitlines()[-1]
    assert "expired" in last
    assert "create a new one" in last
    assert SECRET not in run.text


# --- Rights ----------------------------------------------------------------------------------------------------------


async def test_a_mailbox_that_may_not_be_opened_names_the_right_and_the_others_go_on(
    tmp_path: Path, server_tls: ssl.SSLContext, certificate: Path
) -> None:
    account = Account(r"CORP\svc", PASSWORD, may_impersonate=[ADDRESS])
    async with surroundings(tmp_path, server_tls, NtlmAuthenticator([account]), account) as world:
        populate(world.mailbox(OTHER), 5)
        config = {"auth_type": "ntlm", "auth_user": account.user, "access_type": "impersonation"}
        async with command(world, certificate, config, {"REINFER_EWS_AUTH_PASS": PASSWORD}) as run:
            await world.until(lambda: not world.missing(ADDRESS), "the mailbox that may be opened")
            await world.until(lambda: any("ApplicationImpersonation" in str(line) for line in run.log), "the advice")
            [failed] = [line for line in run.log if line.get("event") == "mailbox failed"]
    assert failed["mailbox"] == OTHER
    assert "ApplicationImpersonation" in failed["hint"]
