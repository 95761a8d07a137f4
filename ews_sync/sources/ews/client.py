"""One EWS request over HTTP: connections, headers, retries, throttling. Knows no XML.

What the bytes say is the reader's to tell.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
import zlib
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
import structlog

from ews_sync import __version__
from ews_sync.errors import Asks, ConnectionFailedError, ProtocolError, Scope, SourceError, ThrottledError
from ews_sync.sources.ews.circuit import Cause, Circuit, Sign, SilenceError, sign_of
from ews_sync.sources.ews.codes import TIMED_OUT
from ews_sync.sources.ews.connections import AT_ONCE, Connections
from ews_sync.sources.ews.contact import FirstContact
from ews_sync.sources.ews.throttle import LONGEST_TOLD, Allowance, Gate, LeftAloneError, doubled
from ews_sync.sources.ews.trouble import connection_error, status_error
from ews_sync.telemetry.traffic import Outcome, Traffic
from ews_sync.web.certificates import presented_certificate
from ews_sync.web.failures import content_type, one_line, retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ews_sync.model import Clock
    from ews_sync.sources.ews.circuit import Trial

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

USER_AGENT = f"ews-sync/{__version__}"
ANSWER_WITHIN = 150.0
"""Seconds of silence. Exchange executes a request for up to a minute before it gives up, so reading waits longer."""
_DEADLINE = 1800.0
_PATIENCE = 600.0
_LONG_ENOUGH = 1800.0
"""Seconds after which a call is not attempted again."""
_AT_MOST = 5400.0
"""Seconds that a call takes at most, all its waits included: whoever watches takes it for stuck after two hours."""
_PIECE = 64 * 1024
_PAUSE_EVERY = 1024 * 1024
_AT_ONCE_AGAIN = 2
"""Requests at once to a server that is just back; they become more with every good answer."""
_LONG_WAIT = (
    f"the server asks to be left alone for more than {LONGEST_TOLD / 60:.0f} minutes, which is taken for a mistake of "
    "its own or of a proxy's: it is asked again after that"
)
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
_WITH_SOAP = frozenset({200, 429, 500, 503})
"""The statuses with which Exchange's own answers come. SOAP with another one is not looked for."""
_SAME_FOR_ALL = (
    (b"Content-Type", b"text/xml; charset=utf-8"),
    (b"Accept", b"text/xml"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", USER_AGENT.encode()),
    (b"return-client-request-id", b"true"),
)
_XML = frozenset({"text/xml", "application/soap+xml", "application/xml"})


class Reader(Protocol[T_co]):
    """Reads one answer as its bytes arrive."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises a `SourceError` when they make no sense."""

    def close(self) -> T_co:
        """End: give the answer, or raise the `SourceError` that it stands for."""

    def discard(self) -> None:
        """Give back what was read."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request ready to be sent. `doing` is for messages; `principal` is whom the server throttles.

    `anchor` is the impersonated mailbox, if any; `max_answer` how many bytes an answer can have; `attempts` how often
    the call is sent at most to a server that is not busy, where that is less often than the policy says. `patience` is
    how many seconds it waits while the server wants its principal to be left alone; if it is longer, it fails.
    `for_messages` says that messages are asked for, each of which can make a request fail of itself. `operation` names
    it where requests are counted.
    """

    doing: str
    content: bytes
    principal: str
    anchor: str | None = None
    compressed: bool = True
    max_answer: int = 64 * 1024 * 1024
    attempts: int = 100
    patience: float = _PATIENCE
    for_messages: bool = False
    operation: str = "other"


@dataclass(slots=True, eq=False)
class _Attempt:
    """A call on its way for one more time. `trial` is there from the moment at which something is sent, `sent_at`."""

    call: Call
    number: int
    gate: Gate
    request_id: str
    trial: Trial | None = None
    sent_at: float = 0.0


class _TooEarlyError(Exception):
    """Between the gate and the wire the server has asked for the principal to be left alone."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is sent before its caller hears of a failure, and how long to wait in between, in seconds."""

    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 20.0

    def wait(self, attempt: int, jitter: float) -> float:
        """Give the wait after failed attempt number `attempt` (from 1); `jitter` is in [0, 1)."""
        return doubled(self.first_wait, attempt - 1, self.longest_wait) * (0.5 + jitter / 2)


class Client:
    """Sends calls to one EWS endpoint. Raises `SourceError` and its children only."""

    def __init__(  # noqa: PLR0913 - the parts that it joins, and how it behaves
        self,
        url: str,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        retry: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
        answer_within: float = ANSWER_WITHIN,
        traffic: Traffic | None = None,
    ) -> None:
        self._traffic = traffic or Traffic()
        self._url = httpx.URL(url)
        self._http = http
        self._clock = clock
        self._retry = retry or RetryPolicy()
        self._timeout = httpx.Timeout(connect=15, read=answer_within, write=60, pool=None).as_dict()
        self._jitter = jitter
        self._gates: dict[str, Gate] = {}
        self._contact = FirstContact()
        self._circuit = Circuit(clock, jitter)
        self._places = Gate(clock, Allowance(limit=AT_ONCE, ceiling=AT_ONCE, rounds=1))
        self._connections = Connections(http, self._places)
        self._numbers = itertools.count()
        self._log = structlog.get_logger("ews_sync.ews")

    def gate(self, principal: str) -> Gate:
        """Give the principal's gate; the same one every time."""
        return self._gates.setdefault(principal, Gate(self._clock))

    async def send(
        self,
        call: Call,
        new_reader: Callable[[], Reader[T]],
        throttling: Callable[[T], ThrottledError | None] = lambda _: None,
    ) -> T:
        """Send the call until it is answered, at most as often as the policy and the call allow.

        `new_reader` makes a reader for each attempt. `throttling` finds in an answer, good as it is, that the server is
        busy all the same. Raises `ServerAwayError` at once while the server is away for everybody.
        """
        try:
            async with asyncio.timeout(_AT_MOST):
                return await self._send(call, new_reader, throttling)
        except TimeoutError:
            # Nothing below lets another one out.
            raise ThrottledError(
                f"{call.doing}: still behind other requests after {_AT_MOST / 60:.0f} minutes",
                hint="the server or the network is too slow for so many mailboxes; it is tried again",
            ) from None

    async def _send(
        self,
        call: Call,
        new_reader: Callable[[], Reader[T]],
        throttling: Callable[[T], ThrottledError | None],
    ) -> T:
        number = next(self._numbers)
        began = self._clock.monotonic()
        failed = 0
        while True:
            self._circuit.check()
            try:
                return await self._admitted(call, number, new_reader, throttling)
            except _TooEarlyError:
                continue
            except SourceError as error:
                # What this machine lacks (scope PROCESS) does not come back by asking the server again.
                if error.scope is Scope.PROCESS:
                    raise
                # This may have been the failure that tells that nobody gets through, which an operator need not mend
                # for each mailbox, whatever it asks for.
                self._circuit.check()
                if error.asks is not Asks.RETRY:
                    raise
                failed += 1
                wait = self._wait(error, failed)
                longest = max(wait, self.gate(call.principal).wait_left)
                too_late = self._clock.monotonic() - began >= _LONG_ENOUGH
                if failed >= self._attempts(call, error) or longest > call.patience or too_late:
                    raise
                self._log.debug(
                    "request failed, trying again",
                    doing=call.doing,
                    problem=error.summary,
                    request_id=error.request_id,
                    attempt=failed,
                    wait=round(wait, 1),
                )
            await self._clock.sleep(wait)

    def _attempts(self, call: Call, error: SourceError) -> int:
        """Give how many attempts are enough.

        A busy server says nothing about this call; one that took too long over it does. A small request that got
        nothing for minutes is not sent again at once: its caller knows what else can be asked for.
        """
        if isinstance(error, SilenceError) and not call.for_messages:
            return 1
        if isinstance(error, ThrottledError) and error.code != TIMED_OUT:
            return self._retry.attempts
        return min(self._retry.attempts, call.attempts)

    def _wait(self, error: SourceError, failed: int) -> float:
        """Give the wait before the next attempt. Who is to be left alone waits at the gate."""
        if _is_for_the_gate(error):
            return 0.0
        return error.retry_after if error.retry_after is not None else self._retry.wait(failed, self._jitter())

    async def _admitted(
        self,
        call: Call,
        number: int,
        new_reader: Callable[[], Reader[T]],
        throttling: Callable[[T], ThrottledError | None],
    ) -> T:
        """Attempt once, as soon as the principal's gate lets it through."""
        gate = self.gate(call.principal)
        try:
            async with gate.passage(call.patience):
                return await self._noting(_Attempt(call, number, gate, str(uuid.uuid4())), new_reader, throttling)
        except LeftAloneError as error:
            raise ThrottledError(
                f"{call.doing}: the server wants to be left alone for another {error.wait:.0f} s",
                retry_after=error.wait,
            ) from None

    async def _noting(
        self,
        attempt: _Attempt,
        new_reader: Callable[[], Reader[T]],
        throttling: Callable[[T], ThrottledError | None],
    ) -> T:
        """Attempt once, and take note of what it tells of the server."""
        sign, outcome = Sign.NOTHING, Outcome.FAILED
        cause: Cause | None = None
        try:
            answer = await self._attempt(attempt, new_reader, throttling)
            sign, outcome = Sign.THERE, Outcome.OK
        except SourceError as error:
            outcome = Outcome.THROTTLED if isinstance(error, ThrottledError) else outcome
            sign = sign_of(error, for_messages=attempt.call.for_messages)
            reason = error.summary.removeprefix(f"{attempt.call.doing}: ")
            cause = Cause(reason, error.hint, error.code, error.retry_after or 0.0)
            raise
        finally:
            if attempt.trial is not None:
                took = self._clock.monotonic() - attempt.sent_at
                self._traffic.answered(attempt.call.operation, outcome, took)
                if self._circuit.ended(attempt.trial, sign, cause):
                    self._begin_small()
        self._places.succeeded()
        return answer

    def _heed(self, attempt: _Attempt, error: SourceError | None) -> None:
        """Tell the principal's gate how it went; None: well.

        A wait that cannot be meant is kept from stopping the mail, and the error says so.
        """
        gate = attempt.gate
        if error is None:
            gate.succeeded()
            return
        if error.retry_after is not None and error.retry_after > LONGEST_TOLD:
            error.retry_after = LONGEST_TOLD
            error.hint = f"{error.hint}; {_LONG_WAIT}" if error.hint else _LONG_WAIT
        if _is_for_the_gate(error):
            gate.was_busy(error.retry_after)
            mailbox = attempt.call.anchor
            self._traffic.throttled(mailbox and mailbox.lower(), self._clock.monotonic(), gate.allowance.not_before)

    def _begin_small(self) -> None:
        """Have a server that is just back not met by everybody at once."""
        self._places.restart(_AT_ONCE_AGAIN)
        for gate in self._gates.values():
            gate.restart(1)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connections.aclose()

    async def _attempt(
        self,
        attempt: _Attempt,
        new_reader: Callable[[], Reader[T]],
        throttling: Callable[[T], ThrottledError | None],
    ) -> T:
        call, request_id = attempt.call, attempt.request_id
        done = answered = False
        # A reader takes memory, and thousands of mailboxes can be waiting for their turn: made when there is an answer.
        reader: Reader[T] | None = None
        deadline = asyncio.timeout(_DEADLINE)
        try:
            async with deadline:
                response = await self._respond(attempt)
                answered = True
                try:
                    reader = new_reader()
                    answer = await self._read(call, response, reader)
                    self._heed(attempt, throttling(answer))
                except SourceError as error:
                    self._heed(attempt, error)
                    raise
                finally:
                    # Only now can anybody else be let through.
                    await self._connections.close(response)
            done = True
        except SourceError as error:
            # Nobody finds in the server's logs what never got there.
            if answered or not isinstance(error, ConnectionFailedError):
                error.request_id = error.request_id or request_id
            raise
        # RuntimeError is what httpx has for a closed client, and uvloop for a transport that closes underneath it.
        except (httpx.HTTPError, httpx.InvalidURL, zlib.error, OSError, RuntimeError, UnicodeError) as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                raise ConnectionFailedError(
                    f"{call.doing}: the server's answer did not end within {_DEADLINE:.0f} s", request_id=request_id
                ) from error
            raise await self._broken(attempt, error) from error
        else:
            return answer
        finally:
            if not done and reader is not None:
                reader.discard()

    async def _broken(self, attempt: _Attempt, error: Exception) -> ConnectionFailedError:
        presented = await presented_certificate(error, self._url)
        sent = not isinstance(error, _NEVER_SENT)
        return connection_error(attempt.call.doing, error, self._url, attempt.request_id if sent else "", presented)

    async def _respond(self, attempt: _Attempt) -> httpx.Response:
        """Send, and give the response as soon as its headers are there."""
        call = attempt.call
        async with self._contact.passage(call.doing):
            try:
                response = await self._connections.send(
                    partial(self._request, call, attempt.request_id), partial(self._start, attempt)
                )
            except httpx.HTTPError as error:
                raise await self._broken(attempt, error) from error
            if response.status_code in {200, 500}:
                self._contact.taken()
            if response.status_code != 401:
                return response
            await self._connections.close(response)
            refusal = status_error(call.doing, response, self._clock.now())
            refusal.request_id = attempt.request_id
            self._contact.refused(refusal)
            raise refusal

    def _request(self, call: Call, request_id: str) -> httpx.Request:
        # Not by way of the client, which would merge defaults of which each is replaced here.
        return httpx.Request(
            "POST",
            self._url,
            headers=_headers(call, request_id),
            content=call.content,
            extensions={"timeout": self._timeout},
        )

    def _start(self, attempt: _Attempt) -> None:
        """Look again whether it may go, now that there is nothing left to wait for."""
        if attempt.gate.wait_left > 0:
            raise _TooEarlyError
        attempt.trial = self._circuit.start(attempt.number, may_probe=not attempt.call.for_messages)
        attempt.sent_at = self._clock.monotonic()

    async def _read(self, call: Call, response: httpx.Response, reader: Reader[T]) -> T:
        if response.status_code not in _WITH_SOAP or content_type(response) not in _XML:
            raise status_error(call.doing, response, self._clock.now())
        received = at_pause = 0
        try:
            async with aclosing(_decoded(response)) as pieces:
                async for piece in pieces:
                    received += len(piece)
                    if received > call.max_answer:
                        raise ProtocolError(f"{call.doing}: the server's answer does not end ({received} bytes so far)")
                    reader.feed(piece)
                    if received - at_pause > _PAUSE_EVERY:
                        # What is in the buffers, or well compressed, comes without a wait: others want to run, too.
                        at_pause = received
                        await asyncio.sleep(0)
            return reader.close()
        except SourceError as error:
            # What the answer says and what its header says may differ: the longer one is safe.
            told = [wait for wait in (error.retry_after, retry_after(response, self._clock.now())) if wait is not None]
            error.retry_after = max(told, default=None)
            raise


def _is_for_the_gate(error: SourceError) -> bool:
    """Tell whether the server has asked for the principal to be left alone."""
    if isinstance(error, ConnectionFailedError):
        return False
    return isinstance(error, ThrottledError) or error.retry_after is not None


def _headers(call: Call, request_id: str) -> list[tuple[bytes, bytes]]:
    # In bytes, since an address can have letters that are not ASCII, which httpx does not take in text.
    headers = [
        *_SAME_FOR_ALL,
        (b"Accept-Encoding", b"gzip" if call.compressed else b"identity"),
        (b"client-request-id", request_id.encode()),
    ]
    if call.anchor is not None:
        headers.append((b"X-AnchorMailbox", call.anchor.encode()))
    return headers


async def _decoded(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces of bounded size, however far its compression expands.

    It comes from the stream itself: httpx's own iterators close it at the end, where a cancellation would do harm
    (see `connections`).
    """
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous client has no other
    encoding = str(response.headers.get("content-encoding", "")).strip().lower()
    if encoding in {"", "identity"}:
        async for piece in stream:
            yield piece
        return
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise ProtocolError(f"the server answered in an encoding that was not asked for: {one_line(encoding, 40)}")
    inflate = zlib.decompressobj(wbits=47)
    behind = 0
    async for piece in stream:
        if inflate.eof:
            # What comes behind the end is nobody's, and zlib would keep it all.
            behind += len(piece)
            if behind > _PAUSE_EVERY:
                raise ProtocolError("the server's compressed answer does not end where it says")
            continue
        data = piece
        while data:
            yield inflate.decompress(data, _PIECE)
            data = inflate.unconsumed_tail
    yield inflate.flush()
    if not inflate.eof:
        raise ConnectionFailedError("the server's compressed answer was cut short")
