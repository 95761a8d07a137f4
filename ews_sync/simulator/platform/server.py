"""The stand-in platform over HTTP.

async with PlatformServer(store, [Token("secret")]) as server:
    ...  # server.url ends with /api/; server.log has what was asked for
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ews_sync.simulator.faults import (
    Call,
    ConnectionReset,
    Disturbance,
    FaultPlan,
    Hang,
    HttpError,
    Latency,
    Truncated,
    html_page,
)
from ews_sync.simulator.platform.access import Token, authenticate
from ews_sync.simulator.platform.calls import route
from ews_sync.simulator.platform.errors import ApiError
from ews_sync.simulator.platform.faults import AnswerLost, ContradictingStatus, RefusedEmail, RequestTooLarge
from ews_sync.simulator.platform.json_text import write_json
from ews_sync.simulator.platform.service import PlatformService, Request, read
from ews_sync.simulator.request_log import RequestLog
from ews_sync.simulator.serving import Listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime

    from ews_sync.simulator.platform.calls import Route
    from ews_sync.simulator.platform.store import PlatformStore

LARGEST_REQUEST: Final = 256 << 20
"""Bytes that a body can have."""


@dataclass(frozen=True, slots=True)
class PlatformRecord:
    """One request: what was asked, when, and how it was answered.

    `operation` is one of `calls.Operation`, "" where the request was refused before that was known. `bucket` is
    owner/name; `mailboxes` are those that it was about, each once; `email_ids` are the emails that it uploaded, asked
    for or deleted; `size` is the body's in bytes. `status` is the HTTP status, 0 if the connection ended without one;
    `message` is the API's error. `seconds` is the time to the end of the answer, `effects` are the names of the faults
    that were applied.
    """

    operation: str
    bucket: str
    mailboxes: tuple[str, ...]
    email_ids: tuple[str, ...]
    size: int
    status: int
    message: str
    started: datetime
    seconds: float
    effects: tuple[str, ...]
    user_agent: str


class PlatformServer(Listener):
    """Serves one `PlatformStore` to those who have a token. An asynchronous context manager.

    `port` 0 takes any that is free. `faults` and `tokens` can be changed while it runs. With `bare_config` a config is
    answered as it was uploaded, without a status around it. `sleep` is what latency waits with.
    """

    def __init__(  # noqa: PLR0913 - each is a part that can be exchanged
        self,
        store: PlatformStore,
        tokens: Iterable[Token] = (),
        faults: FaultPlan | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        bare_config: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(host, port, ssl_context)
        self.store = store
        self.tokens = list(tokens)
        self.faults = FaultPlan() if faults is None else faults
        self.log: RequestLog[PlatformRecord] = RequestLog()
        self.service = PlatformService(store, bare_config=bare_config)
        self.sleep = sleep

    @property
    def url(self) -> str:
        """What the appliance takes as its endpoint; the platform's command line client takes `root`."""
        return f"{self.root}/api/"

    def application(self) -> web.Application:
        """Make what is served."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        conversation = _Conversation(self, http)
        try:
            return await conversation.answer()
        finally:
            conversation.write_down()


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def _reply(status: int, body: dict[str, Any]) -> _Reply:
    return _Reply(status, write_json(body).encode())


class _Conversation:
    """One request and its answer."""

    def __init__(self, server: PlatformServer, http: web.Request) -> None:
        self._server = server
        self._http = http
        self._started = server.store.clock()
        self._begun = asyncio.get_running_loop().time()
        self._call = Call("")
        self._size = 0
        self._status = 0
        self._message = ""
        self._effects: tuple[str, ...] = ()
        self._written = False

    async def answer(self) -> web.StreamResponse:
        """Answer the request, or fail to, as the faults have it."""
        body = await self._body()
        url = self._http.rel_url
        try:
            token = authenticate(self._http.headers.get("Authorization"), self._server.tokens)
            request = Request(route(self._http.method, url.raw_path, list(url.query.items())))
        except ApiError as error:
            return await self._send(self._refusal(error))
        refusal = None
        try:
            request = Request(request.route, self._read(request.route, body))
        except ApiError as error:
            refusal = error
        del body  # as large as all the rest, and a slow answer may keep it long
        operation = request.route.operation
        self._server.log.counts[operation] += 1
        self._call = self._describe(request)
        disturbance = self._server.faults.disturb(self._call)
        self._effects = tuple(type(effect).__name__ for effect in disturbance.effects)
        with self._server.log.flight(operation):
            instead = await self._instead(disturbance)
            if instead is not None:
                return instead
            return await self._deliver(self._reply(request, refusal, token, disturbance), disturbance)

    def write_down(self) -> None:
        """Put the request into the log, once: before its last byte, so that who has the answer finds it there."""
        if self._written:
            return
        self._written = True
        self._server.log.add(
            PlatformRecord(
                operation=self._call.operation,
                bucket=self._call.bucket,
                mailboxes=self._call.mailboxes,
                email_ids=self._call.items,
                size=self._size,
                status=self._status,
                message=self._message,
                started=self._started,
                seconds=asyncio.get_running_loop().time() - self._begun,
                effects=self._effects,
                user_agent=self._http.headers.get("User-Agent", ""),
            )
        )

    async def _body(self) -> bytearray:
        """Read all of the body, and keep it unless it is too large: who still sends reads no answer."""
        body = bytearray()
        async for chunk in self._http.content.iter_any():
            self._size += len(chunk)
            if self._size <= LARGEST_REQUEST:
                body += chunk
            else:
                body.clear()
        return body

    def _read(self, where: Route, body: bytearray) -> Any:  # noqa: ANN401 - see service.read
        if self._size > LARGEST_REQUEST:
            raise ApiError(413, f"a request can have {LARGEST_REQUEST} bytes")
        if "Content-Encoding" in self._http.headers:
            raise ApiError(415, "a body with a Content-Encoding is not accepted")
        return read(where, self._http.headers.get("Content-Type", ""), body)

    def _describe(self, request: Request) -> Call:
        operation = request.route.operation
        mailboxes = request.mailboxes
        return Call(
            operation=operation.value,
            mailbox=mailboxes[0] if mailboxes else "",
            items=request.ids,
            nth=self._server.log.counts[operation],
            bucket=self._server.service.bucket_name(request.route),
            mailboxes=mailboxes,
            size=self._size,
            content=request.content,
        )

    async def _instead(self, disturbance: Disturbance) -> web.StreamResponse | None:
        """Do what the faults have in the place of the request, if they have anything."""
        latency = disturbance.find(Latency)
        if latency is not None:
            await self._server.sleep(latency.seconds)
        if disturbance.find(Hang) is not None:
            await self._server.stopping.wait()
            return self._reset()
        error = disturbance.find(HttpError)
        if error is not None:
            return await self._send(self._http_error(error))
        reset = disturbance.find(ConnectionReset)
        return self._reset() if reset is not None and reset.after is None else None

    def _reply(self, request: Request, refusal: ApiError | None, token: Token, disturbance: Disturbance) -> _Reply:
        """Carry the request out, as far as the faults let it."""
        too_large = disturbance.find(RequestTooLarge)
        if too_large is not None and too_large.as_page:
            return self._http_error(html_page(413))
        contradicting = disturbance.find(ContradictingStatus)
        if contradicting is not None and not contradicting.is_applied:
            return _reply(contradicting.http_status, {"status": contradicting.status})
        try:
            self._refuse(refusal, disturbance)
            body = self._server.service.answer(request, token, disturbance)
        except ApiError as error:
            return self._refusal(error)
        if contradicting is not None:
            return _reply(contradicting.http_status, {**body, "status": contradicting.status})
        return _reply(200, body)

    def _refuse(self, refusal: ApiError | None, disturbance: Disturbance) -> None:
        """Raise what is wrong with the request: by the faults, or of itself."""
        too_large = disturbance.find(RequestTooLarge)
        if too_large is not None:
            raise ApiError(413, f"a request can have {too_large.limit} bytes")
        if refusal is not None:
            raise refusal
        refused = disturbance.find(RefusedEmail)
        if refused is not None:
            raise ApiError(refused.status, f'{refused.message} (id "{refused.first(self._call)}")')

    async def _deliver(self, reply: _Reply, disturbance: Disturbance) -> web.StreamResponse:
        """Send an answer, or as much of it as the faults leave."""
        if disturbance.find(AnswerLost) is not None:
            return self._reset()
        reset = disturbance.find(ConnectionReset)
        if reset is not None:
            return await self._cut(reply, reset.after or 0, abrupt=True)
        truncated = disturbance.find(Truncated)
        if truncated is None:
            return await self._send(reply)
        keep = int(len(reply.body) * truncated.keep)
        if truncated.honest:
            return await self._send(replace(reply, body=reply.body[:keep]))
        return await self._cut(reply, keep, abrupt=False)

    def _refusal(self, error: ApiError) -> _Reply:
        self._message = error.message
        reply = _reply(error.status, {"status": "error", "message": error.message})
        if error.status == 401:
            reply.headers["WWW-Authenticate"] = "Bearer"
        return reply

    def _http_error(self, error: HttpError) -> _Reply:
        headers = dict(error.headers)
        if error.retry_after is not None:
            headers["Retry-After"] = error.retry_after
        return _Reply(error.status, error.body.encode(), error.content_type, headers)

    async def _send(self, reply: _Reply) -> web.StreamResponse:
        response = web.Response(
            status=reply.status, body=reply.body, headers={"Content-Type": reply.content_type, **reply.headers}
        )
        await response.prepare(self._http)
        self._status = reply.status
        self.write_down()
        await response.write_eof()
        return response

    async def _cut(self, reply: _Reply, keep: int, *, abrupt: bool) -> web.StreamResponse:
        """Promise the whole answer and send a part of it."""
        response = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type})
        response.content_length = len(reply.body)
        response.force_close()
        await response.prepare(self._http)
        self._status = reply.status
        await response.write(reply.body[:keep])
        self.write_down()
        transport = self._http.transport
        if transport is not None:
            if abrupt:
                transport.abort()
            else:
                transport.close()
        return response

    def _reset(self) -> web.StreamResponse:
        self.write_down()
        transport = self._http.transport
        if transport is not None:
            transport.abort()
        return web.Response(status=499)  # goes nowhere: the connection is gone
