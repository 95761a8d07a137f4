"""One EWS request over HTTP: connections, headers, retries, throttling. Knows no XML.

What the bytes say is the reader's to tell.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import ssl
import uuid
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
import structlog

from ews_sync import __version__
from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    EwsSyncError,
    ProtocolError,
    Scope,
    SourceError,
    ThrottledError,
)
from ews_sync.sources.ews.throttle import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ews_sync.model import Clock

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

USER_AGENT = f"ews-sync/{__version__}"
_TIMEOUT = httpx.Timeout(connect=15, read=150, write=60, pool=None)
"""Exchange executes a request for up to a minute before it gives up, so reading waits longer than that."""
_DEADLINE = 1800.0
_PIECE = 64 * 1024
_EWS_IN_EXCHANGE_ONLINE = (
    "Exchange Online blocks EWS by default since 1 October 2026 unless the tenant allow-lists the application, and ends it on 1 April 2027: "
    "ask the tenant's administrator to allow this application (Set-OrganizationConfig EwsEnabled / EwsApplicationAccessPolicy)"
)


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

    `anchor` the impersonated mailbox, if any.
    """

    doing: str
    content: bytes
    principal: str
    anchor: str | None = None
    compressed: bool = True
    max_answer: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failing request is sent again before its caller hears of it, and how long to wait in between, in seconds."""

    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 20.0

    def wait(self, attempt: int, jitter: float) -> float:
        """Give the wait after failed attempt number `attempt` (from 1); `jitter` is in [0, 1)."""
        wait = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        return wait * (0.5 + jitter / 2)


class Client:
    """Sends calls to one EWS endpoint. Raises `SourceError` and its children only."""

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        retry: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._retry = retry or RetryPolicy()
        self._jitter = jitter
        self._gates: dict[str, Gate] = {}
        self._log = structlog.get_logger("ews_sync.ews")

    def gate(self, principal: str) -> Gate:
        """Give the principal's gate; the same one every time."""
        return self._gates.setdefault(principal, Gate(self._clock))

    async def send(self, call: Call, new_reader: Callable[[], Reader[T]]) -> T:
        """Send the call until it is answered, at most as often as the policy allows.

        `new_reader` makes a reader for each attempt.
        """
        gate = self.gate(call.principal)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with gate.passage():
                    answer = await self._attempt(call, new_reader())
            except SourceError as error:
                if isinstance(error, ThrottledError):
                    gate.was_busy(error.retry_after)
                if error.asks is not Asks.RETRY or attempt >= self._retry.attempts:
                    raise
                wait = 0.0 if isinstance(error, ThrottledError) else self._wait(error, attempt)
                self._log.debug(
                    "request failed, trying again",
                    doing=call.doing,
                    problem=error.summary,
                    attempt=attempt,
                    wait=round(wait, 1),
                )
                await self._clock.sleep(wait)
            else:
                gate.succeeded()
                return answer

    def _wait(self, error: EwsSyncError, attempt: int) -> float:
        return error.retry_after if error.retry_after is not None else self._retry.wait(attempt, self._jitter())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _attempt(self, call: Call, reader: Reader[T]) -> T:
        request_id = str(uuid.uuid4())
        done = False
        try:
            async with asyncio.timeout(_DEADLINE):
                request = self._http.build_request(
                    "POST", self._url, content=call.content, headers=_headers(call, request_id), timeout=_TIMEOUT
                )
                response = await self._http.send(request, stream=True)
                try:
                    answer = await self._read(call, response, reader)
                finally:
                    await response.aclose()
            done = True
        except SourceError as error:
            error.request_id = request_id
            raise
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"{call.doing}: the server's answer did not end within {_DEADLINE:.0f} s", request_id=request_id
            ) from error
        except (httpx.HTTPError, httpx.StreamError, zlib.error, ssl.SSLError, OSError) as error:
            raise _connection_error(call.doing, error, request_id) from error
        else:
            return answer
        finally:
            if not done:
                reader.discard()

    async def _read(self, call: Call, response: httpx.Response, reader: Reader[T]) -> T:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_xml = kind in {"text/xml", "application/soap+xml", "application/xml"}
        if response.status_code not in {200, 500} or not is_xml:
            raise _status_error(call.doing, response, kind, self._clock.now())
        try:
            received = 0
            async for piece in _decoded(response):
                received += len(piece)
                if received > call.max_answer:
                    raise ProtocolError(f"{call.doing}: the server's answer does not end ({received} bytes so far)")
                reader.feed(piece)
            return reader.close()
        except ThrottledError as error:
            error.retry_after = error.retry_after or _retry_after(response, self._clock.now())
            raise


def _headers(call: Call, request_id: str) -> dict[str, str]:
    headers = {
        "Content-Type": "text/xml; charset=utf-8",
        "Accept": "text/xml",
        "Accept-Encoding": "gzip" if call.compressed else "identity",
        "User-Agent": USER_AGENT,
        "client-request-id": request_id,
        "return-client-request-id": "true",
    }
    if call.anchor is not None:
        headers["X-AnchorMailbox"] = call.anchor
    return headers


async def _decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body in pieces of bounded size, however far its compression expands."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"}:
        async for piece in response.aiter_raw(_PIECE):
            yield piece
        return
    if encoding not in {"gzip", "deflate"}:
        raise ProtocolError(f"the server answered in an encoding that was not asked for: {encoding[:40]}")
    inflate = zlib.decompressobj(wbits=47)
    async for piece in response.aiter_raw():
        data = piece
        while data:
            yield inflate.decompress(data, _PIECE)
            data = inflate.unconsumed_tail
    yield inflate.flush()


def _connection_error(doing: str, error: Exception, request_id: str) -> ConnectionFailedError:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ConnectionFailedError(
            f"{doing}: the server's certificate could not be verified: {text}",
            hint='set "ews_ssl_ca_bundle" to the file with your certificate authority\'s certificate',
            code="CERTIFICATE_VERIFY_FAILED",
            request_id=request_id,
        )
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            summary = f"{doing}: cannot connect to the Exchange server: {text}"
            hint = "check the server's name and port in the config, DNS, and that the network lets this machine through"
        case httpx.TimeoutException():
            summary, hint = f"{doing}: the Exchange server did not answer in time ({type(error).__name__})", ""
        case _:
            summary, hint = f"{doing}: the connection to the Exchange server broke: {text}", ""
    return ConnectionFailedError(summary, hint=hint, request_id=request_id)


def _status_error(doing: str, response: httpx.Response, kind: str, now: datetime) -> SourceError:  # noqa: PLR0911
    status = response.status_code
    code = f"HTTP {status}"
    match status:
        case 401:
            return AuthenticationError(
                f"{doing}: the Exchange server refused the user name or password",
                code=code,
                hint="check auth_user and the password (REINFER_EWS_AUTH_PASS), and that the server allows this auth_type",
            )
        case 403:
            return SourceError(
                f"{doing}: the Exchange server forbids it", asks=Asks.STOP, code=code, hint=_EWS_IN_EXCHANGE_ONLINE
            )
        case 404 | 405 | 410:
            return ProtocolError(
                f"{doing}: there is no EWS at {response.request.url.copy_with(userinfo=b'')}",
                asks=Asks.STOP,
                code=code,
                hint="check ews_endpoint, or host and port, in the config",
            )
        case 429 | 503:
            return ThrottledError(
                f"{doing}: the Exchange server is busy or not available",
                code=code,
                retry_after=_retry_after(response, now),
            )
        case 301 | 302 | 303 | 307 | 308 if "location" in response.headers:
            return ProtocolError(
                f"{doing}: the server redirects to another address, which is not followed",
                code=code,
                hint="set ews_endpoint to the EWS address itself, as Get-WebServicesVirtualDirectory shows it",
            )
        case 200:
            return ConnectionFailedError(
                f"{doing}: the server answered with {kind or 'something unnamed'} instead of XML",
                code=code,
                hint="a proxy, a load balancer or a log-in page may have answered in the server's place",
            )
        case _:
            return SourceError(
                f"{doing}: the server answered HTTP {status}",
                code=code,
                scope=Scope.MAILBOX,
                retry_after=_retry_after(response, now),
            )


def _retry_after(response: httpx.Response, now: datetime) -> float | None:
    """Read Retry-After, in seconds or as a date (RFC 9110 section 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
