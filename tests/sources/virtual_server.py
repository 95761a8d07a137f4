"""A server in this process on virtual time, behind httpx: no sockets, so a day of waiting costs nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from ews_sync.sources.ews.client import Call, Client, RetryPolicy
from ews_sync.sources.ews.decoding import AnswerReader
from tests.engine.virtual_time import VirtualClock
from tests.sources.support import envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.sources.ews.operations import Answer
    from ews_sync.telemetry.traffic import Traffic

OK = envelope("")
URL = "https://exchange.test/EWS/Exchange.asmx"


@dataclass(frozen=True, slots=True)
class Says:
    """One answer, `after` so many seconds."""

    body: bytes = OK
    status: int = 200
    content_type: str = "text/xml; charset=utf-8"
    retry_after: str | None = None
    after: float = 0.05


@dataclass(frozen=True, slots=True)
class Fails:
    """No answer: what httpx raises, `after` so many seconds."""

    error: type[httpx.TransportError] = httpx.ConnectError
    after: float = 0.01


@dataclass(frozen=True, slots=True)
class Started:
    """A request that reached the server, or where it should be: when, and whose it is."""

    at: float
    principal: str


class VirtualServer(httpx.AsyncBaseTransport):
    """Answers as `answer` says; notes when each request starts, and how many run at once."""

    def __init__(self, answer: Callable[[httpx.Request], Says | Fails]) -> None:
        self.answer = answer
        self.started: list[Started] = []
        self.running: Counter[str] = Counter()
        self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        principal = request.headers.get("X-AnchorMailbox", "")
        self.started.append(Started(asyncio.get_running_loop().time(), principal))
        self.running[principal] += 1
        self.most = max(self.most, self.running.total())
        try:
            said = self.answer(request)
            await asyncio.sleep(said.after)
        finally:
            self.running[principal] -= 1
        if isinstance(said, Fails):
            raise said.error("Connection refused")
        headers = {"Content-Type": said.content_type}
        if said.retry_after is not None:
            headers["Retry-After"] = said.retry_after
        return httpx.Response(said.status, stream=httpx.ByteStream(said.body), headers=headers)

    def connect(
        self, *, attempts: int = 4, jitter: Callable[[], float] = lambda: 0.0, traffic: Traffic | None = None
    ) -> Client:
        """Make a client of this server."""
        return Client(
            URL,
            httpx.AsyncClient(transport=self),
            VirtualClock(),
            retry=RetryPolicy(attempts=attempts),
            jitter=jitter,
            traffic=traffic,
        )


def asking(principal: str = "a@x", *, for_messages: bool = False) -> Call:
    return Call(f"asking {principal}", b"<request/>", principal, anchor=principal, for_messages=for_messages)


async def ask(client: Client, call: Call) -> Answer:
    return await client.send(call, lambda: AnswerReader(call.doing))
