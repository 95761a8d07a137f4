"""What the tests of NTLM share: a simulated Exchange that demands it, and clients that log in."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from ews_sync.settings.exchange import Exchange as ExchangeSettings, NtlmAuth
from ews_sync.simulator.access import Account
from ews_sync.simulator.ntlm import NtlmAuthenticator
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.sources.auth.login import log_in

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from ews_sync.sources.auth.lanes import LaneTransport

USER, PASSWORD = r"CORP\svc", "Schwärd/fish: 1"
OWNER = "owner@example.com"
HEADERS = {"Content-Type": "text/xml; charset=utf-8"}
BODY = b"""<?xml version="1.0" encoding="utf-8"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages"
 xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><s:Body><m:FindFolder Traversal="Shallow">
 <m:FolderShape><t:BaseShape>IdOnly</t:BaseShape></m:FolderShape>
 <m:ParentFolderIds><t:DistinguishedFolderId Id="inbox"/></m:ParentFolderIds></m:FindFolder></s:Body></s:Envelope>"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server, and what it has seen."""

    server: ExchangeServer
    seen: NtlmAuthenticator

    @property
    def url(self) -> str:
        return self.server.url


@asynccontextmanager
async def peer(
    *,
    user: str = USER,
    tls: ssl.SSLContext | None = None,
    requests_per_connection: int | None = None,
    **authenticator: Any,
) -> AsyncIterator[Peer]:
    exchange = Exchange()
    exchange.create_mailbox(OWNER)
    seen = NtlmAuthenticator([Account(user, PASSWORD, may_impersonate=True, mailbox=OWNER)], **authenticator)
    async with ExchangeServer(
        exchange, authenticator=seen, ssl_context=tls, requests_per_connection=requests_per_connection
    ) as server:
        yield Peer(server, seen)


def client(
    url: str, *, user: str = USER, password: str = PASSWORD, bundle: Path | None = None, verify: bool = True
) -> httpx.AsyncClient:
    auth = NtlmAuth(user, SecretStr(password))
    return log_in(ExchangeSettings(url, auth, ssl_ca_bundle=bundle, ssl_verify=verify)).http


def lanes(http: httpx.AsyncClient) -> LaneTransport:
    transport: Any = http._transport
    return transport  # type: ignore[no-any-return]


async def ask(http: httpx.AsyncClient, url: str) -> int:
    return (await http.post(url, content=BODY, headers=HEADERS)).status_code


async def ask_often(http: httpx.AsyncClient, url: str, times: int, at_once: int) -> list[int]:
    left = iter(range(times))

    async def work() -> list[int]:
        return [await ask(http, url) for _ in left]

    return [status for part in await asyncio.gather(*(work() for _ in range(at_once))) for status in part]
