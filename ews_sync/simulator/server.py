"""The simulated Exchange over HTTP.

async with ExchangeServer(exchange, accounts=[Account("svc@example.com", "secret", may_impersonate=True)]) as server:
    ...  # server.url ends with /EWS/Exchange.asmx; server.log has what was asked for
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import hmac
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

from ews_sync.simulator.exchange import ExchangeService, Limits, ReadRequest
from ews_sync.simulator.faults import (
    BrokenXml,
    Call,
    Compressed,
    ConnectionReset,
    Disturbance,
    FaultPlan,
    Hang,
    HttpError,
    Latency,
    SoapFault,
    Truncated,
)
from ews_sync.simulator.request_log import RequestLog
from ews_sync.simulator.serving import Listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from datetime import datetime

    from ews_sync.simulator.access import Account
    from ews_sync.simulator.exchange import Reply
    from ews_sync.simulator.store import Exchange

PATH: Final = "/EWS/Exchange.asmx"
LARGEST_REQUEST: Final = 67_108_864
"""Bytes that a request can have, as in Exchange 2013."""
_SMALL: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request: what was asked, by whom, when, and how it was answered.

    `mailbox` is the one that it was about, `account` the user who logged on. `status` is the HTTP status, 0 if the
    connection ended without one. `fault` is the code of a SOAP fault. `seconds` is the time to the end of the answer,
    `effects` are the names of the faults that were applied.
    """

    operation: str
    mailbox: str
    account: str
    item_count: int
    started: datetime
    status: int
    client_request_id: str | None
    fault: str | None = None
    seconds: float = 0.0
    user_agent: str = ""
    anchor_mailbox: str | None = None
    folders: tuple[str, ...] = ()
    item_ids: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    bytes_sent: int = 0


class Authenticator(Protocol):
    """Finds out who sends a request. NTLM and Bearer tokens are other implementations of this."""

    def authenticate(self, request: web.Request) -> Account | None:
        """Return the account, or None for a 401. NTLM keeps its state per `request.transport`."""

    def challenges(self, request: web.Request) -> list[str]:
        """Return the values of WWW-Authenticate for a 401."""


class BasicAuthenticator:
    """User names and passwords, in every request."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._accounts = {account.user.casefold(): account for account in accounts}

    def authenticate(self, request: web.Request) -> Account | None:
        """Return the account whose name and password the request has."""
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if scheme.casefold() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        account = self._accounts.get(user.casefold())
        if account is None or not hmac.compare_digest(account.password.encode(), password.encode()):
            return None
        return account

    def challenges(self, request: web.Request) -> list[str]:
        """Ask for Basic."""
        return [f'Basic realm="{request.host}"']


class ExchangeServer(Listener):
    """Serves one `Exchange` to `Account`s. An asynchronous context manager; `port` 0 takes any that is free.

    `faults` can be changed while it runs. `authenticator` takes the place of Basic authentication with `accounts`.
    `use_gzip` compresses small answers for clients that accept it. With `max_concurrent` a principal's further requests
    at the same time are refused (EWSMaxConcurrency: 27 in Exchange 2013 and later, 10 in 2010). A connection ends after
    `requests_per_connection`. `sleep` is what latency waits with.
    """

    def __init__(  # noqa: PLR0913 - each is a part that can be exchanged
        self,
        exchange: Exchange,
        accounts: Iterable[Account] = (),
        faults: FaultPlan | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        use_gzip: bool = False,
        max_concurrent: int | None = None,
        requests_per_connection: int | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(host, port, ssl_context)
        self.exchange = exchange
        self.service = ExchangeService(exchange, limits)
        self.faults = FaultPlan() if faults is None else faults
        self.log: RequestLog[RequestRecord] = RequestLog()
        self._authenticator = authenticator or BasicAuthenticator(accounts)
        self._use_gzip = use_gzip
        self._max_concurrent = max_concurrent
        self._requests_per_connection = requests_per_connection
        self._answered: dict[asyncio.BaseTransport, int] = {}
        self._sleep = sleep

    @property
    def url(self) -> str:
        """Where clients send their requests."""
        return f"{self.root}{PATH}"

    def application(self) -> web.Application:
        """Make what is served."""
        app = web.Application(client_max_size=LARGEST_REQUEST)
        app.router.add_route("*", PATH, self._serve)
        app.on_response_prepare.append(self._count)
        return app

    async def _count(self, http: web.Request, response: web.StreamResponse) -> None:
        """End the connection when it has had its requests."""
        transport, most = http.transport, self._requests_per_connection
        if transport is None or most is None:
            return
        answered = self._answered.pop(transport, 0) + 1
        if answered >= most:
            response.force_close()
            # The headers were made before this hook.
            response.headers["Connection"] = "close"
        else:
            self._answered[transport] = answered

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        exchange = _Exchange(self, http)
        try:
            return await exchange.answer()
        except ConnectionResetError:
            return web.Response(status=499)  # goes nowhere: the client is gone
        finally:
            exchange.write_down()


class _Exchange:
    """One request and its answer."""

    def __init__(self, server: ExchangeServer, http: web.Request) -> None:
        self._server = server
        self._http = http
        self._started = server.exchange.clock()
        self._begun = asyncio.get_running_loop().time()
        self._call = Call("")
        self._account = ""
        self._status = 0
        self._fault: str | None = None
        self._sent = 0
        self._item_count = 0
        self._effects: tuple[str, ...] = ()
        self._written = False

    async def answer(self) -> web.StreamResponse:
        """Answer the request, or fail to, as the faults have it."""
        account = self._server._authenticator.authenticate(self._http)  # noqa: SLF001 - of this module
        if account is None:
            return await self._refuse()
        self._account = account.user
        if self._http.method != "POST":
            return await self._plain(405, "", {"Allow": "POST"})
        if not self._http.content_type.endswith("/xml"):
            return await self._plain(415, "The content type was not the expected type 'text/xml; charset=utf-8'.")
        service = self._server.service
        request = service.read(await self._http.read())
        self._item_count = request.item_count
        log = self._server.log
        log.counts[request.operation] += 1
        self._call = service.describe(request, account, log.counts[request.operation])
        disturbance = self._server.faults.disturb(self._call)
        self._effects = tuple(type(effect).__name__ for effect in disturbance.effects)
        principal = (request.impersonated or account.user).casefold()
        with log.flight(principal):
            most = self._server._max_concurrent  # noqa: SLF001 - of this module
            if most is not None and log.in_flight[principal] > most:
                too_many = SoapFault("ErrorExceededConnectionCount", "You have exceeded the available connections.")
                disturbance = Disturbance(self._call, (too_many,))
            return await self._disturbed(request, account, disturbance)

    def write_down(self) -> None:
        """Put the request into the log, once: before its last byte, so that who has the answer finds it there."""
        if self._written:
            return
        self._written = True
        headers = self._http.headers
        self._server.log.add(
            RequestRecord(
                operation=self._call.operation,
                mailbox=self._call.mailbox,
                account=self._account,
                item_count=self._item_count,
                started=self._started,
                status=self._status,
                client_request_id=headers.get("client-request-id"),
                fault=self._fault,
                seconds=asyncio.get_running_loop().time() - self._begun,
                user_agent=headers.get("User-Agent", ""),
                anchor_mailbox=headers.get("X-AnchorMailbox"),
                folders=self._call.folders,
                item_ids=self._call.items,
                effects=self._effects,
                bytes_sent=self._sent,
            )
        )

    async def _disturbed(self, request: ReadRequest, account: Account, disturbance: Disturbance) -> web.StreamResponse:
        latency = disturbance.find(Latency)
        if latency is not None:
            await self._server._sleep(latency.seconds)  # noqa: SLF001 - of this module
        if disturbance.find(Hang) is not None:
            await self._server.stopping.wait()
            return self._reset()
        error = disturbance.find(HttpError)
        if error is not None:
            return await self._http_error(error)
        reset = disturbance.find(ConnectionReset)
        if reset is not None and reset.after is None:
            return self._reset()
        reply = self._server.service.answer(request, account, disturbance)
        self._fault = reply.fault
        truncated = disturbance.find(Truncated)
        if reset is not None or truncated is not None:
            return await self._send_part(b"".join(reply.chunks()), reply.status, reset, truncated)
        return await self._send(reply, disturbance)

    async def _send_part(
        self, body: bytes, status: int, reset: ConnectionReset | None, truncated: Truncated | None
    ) -> web.StreamResponse:
        if reset is not None:
            return await self._cut(body, reset.after or 0, abrupt=True)
        keep = int(len(body) * (truncated.keep if truncated else 1.0))
        if truncated is not None and not truncated.honest:
            return await self._cut(body, keep, abrupt=False)
        return await self._whole(status, body[:keep], zipped=False)

    async def _send(self, reply: Reply, disturbance: Disturbance) -> web.StreamResponse:
        compressed = disturbance.find(Compressed)
        wanted = compressed.on if compressed else self._server._use_gzip  # noqa: SLF001 - of this module
        zipped = wanted and "gzip" in self._http.headers.get("Accept-Encoding", "")
        chunks = reply.chunks()
        if disturbance.find(BrokenXml) is not None:
            chunks = iter([b"".join(chunks).replace(b"</", b"<", 1)])
        collected: list[bytes] = []
        length = 0
        for chunk in chunks:
            collected.append(chunk)
            length += len(chunk)
            if length > _SMALL:
                return await self._stream(reply.status, collected, chunks)
        if zipped or len(collected) == 1:
            return await self._whole(reply.status, b"".join(collected), zipped=zipped)
        return await self._stream(reply.status, collected, iter(()), length)

    async def _whole(self, status: int, body: bytes, *, zipped: bool) -> web.StreamResponse:
        headers = self._headers()
        if zipped:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        response = web.Response(status=status, body=body, headers=headers)
        await response.prepare(self._http)
        self._status, self._sent = status, len(body)
        self.write_down()
        await response.write_eof()
        return response

    async def _stream(
        self, status: int, begun: list[bytes], rest: Iterator[bytes], length: int | None = None
    ) -> web.StreamResponse:
        """Send an answer in pieces: of a `length` that is known, or a large one without ever having it whole."""
        response = web.StreamResponse(status=status, headers=self._headers())
        response.content_length = length
        if length is None:
            response.enable_chunked_encoding()
        await response.prepare(self._http)
        self._status = status
        while begun:
            await self._write(response, begun.pop(0))
        for chunk in rest:
            await self._write(response, chunk)
        self.write_down()
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, chunk: bytes) -> None:
        await response.write(chunk)
        self._sent += len(chunk)

    async def _cut(self, body: bytes, keep: int, *, abrupt: bool) -> web.StreamResponse:
        """Promise the whole body and send a part of it."""
        response = web.StreamResponse(status=200, headers=self._headers())
        response.content_length = len(body)
        response.force_close()
        await response.prepare(self._http)
        self._status = 200
        await self._write(response, body[:keep])
        self.write_down()
        transport = self._http.transport
        if transport is not None:
            if abrupt:
                transport.abort()
            else:
                transport.close()
        return response

    async def _http_error(self, error: HttpError) -> web.StreamResponse:
        headers = dict(error.headers)
        if error.retry_after is not None:
            headers["Retry-After"] = error.retry_after
        if error.status == 401:
            headers.setdefault("WWW-Authenticate", self._server._authenticator.challenges(self._http)[0])  # noqa: SLF001
        return await self._plain(error.status, error.body, headers, error.content_type)

    async def _refuse(self) -> web.StreamResponse:
        response = web.Response(status=401, headers=self._headers(), text="")
        for challenge in self._server._authenticator.challenges(self._http):  # noqa: SLF001 - of this module
            response.headers.add("WWW-Authenticate", challenge)
        await response.prepare(self._http)
        self._status = 401
        self.write_down()
        await response.write_eof()
        return response

    async def _plain(
        self, status: int, text: str, headers: dict[str, str] | None = None, content_type: str = "text/html"
    ) -> web.StreamResponse:
        named = {**self._headers(), "Content-Type": f"{content_type}; charset=utf-8", **(headers or {})}
        response = web.Response(status=status, body=text.encode(), headers=named)
        await response.prepare(self._http)
        self._status, self._sent = status, len(text)
        self.write_down()
        await response.write_eof()
        return response

    def _reset(self) -> web.StreamResponse:
        self.write_down()
        transport = self._http.transport
        if transport is not None:
            transport.abort()
        return web.Response(status=499)  # goes nowhere: the connection is gone

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "text/xml; charset=utf-8",
            "Cache-Control": "private",
            "Server": "Microsoft-IIS/10.0",
            "X-FEServer": "SIMULATOR",
            "request-id": str(uuid.uuid4()),
        }
        asked = self._http.headers.get("client-request-id")
        if asked and self._http.headers.get("return-client-request-id", "").casefold() == "true":
            headers["client-request-id"] = asked
        return headers
