"""The way from httpx to a server: without a proxy over the network of our own, with one as httpx does it."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpcore
import httpx

from ews_sync.web.network import AsyncioBackend

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from http.cookiejar import CookieJar


def new_client(
    tls: ssl.SSLContext, limits: httpx.Limits, *, auth: httpx.Auth | None = None, cookies: CookieJar | None = None
) -> httpx.AsyncClient:
    """Make a client for a server: over `DirectTransport`, or by the proxies that the environment names.

    It follows no redirect, which would take mail and what belongs to the server elsewhere. `cookies` is the jar that
    it keeps them in, and decides which: without one it keeps all of them.
    """
    return httpx.AsyncClient(
        transport=direct_transport(tls, limits),
        # Where there is a proxy (HTTPS_PROXY, NO_PROXY), the client makes transports of its own from these.
        verify=tls,
        limits=limits,
        follow_redirects=False,
        auth=auth,
        cookies=cookies,
    )


def direct_transport(tls: ssl.SSLContext, limits: httpx.Limits) -> DirectTransport | None:
    """Make a client's `transport`; None, with which httpx makes its own, where the environment names any proxy."""
    proxies = urllib.request.getproxies()
    if any(proxies.get(scheme) for scheme in ("http", "https", "all")):
        return None
    return DirectTransport(tls, limits)


class DirectTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over connections of its own, like httpx's `AsyncHTTPTransport` without a proxy, with less work.

    `limits` holds for the connections of all servers together.
    """

    def __init__(self, tls: ssl.SSLContext, limits: httpx.Limits) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=AsyncioBackend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; give the answer once its headers are there. Raises `httpx.TransportError`."""
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = await self._pool.handle_async_request(sent)
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        with _as_httpx():
            await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer, as it arrives."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, AsyncIterable)  # noqa: S101 - an asynchronous pool has no other
        with _as_httpx():
            async for piece in stream:
                yield piece

    async def aclose(self) -> None:
        with _as_httpx():
            await self._response.aclose()


_KINDS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
}
"""What a pool without a proxy raises, and what that is called above it."""


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except tuple(_KINDS) as error:
        raise _KINDS[type(error)](str(error)) from error
