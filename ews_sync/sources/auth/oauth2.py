"""OAuth 2 access tokens on every request to Exchange: msal behind a keeper of tokens, and what a refusal means."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import httpx

from ews_sync.errors import AuthenticationError, Scope
from ews_sync.sources.auth.oauth2_tokens import ClientCredentials, scope_for
from ews_sync.sources.auth.tokens import TokenKeeper
from ews_sync.web.failures import one_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator

    from ews_sync.settings.exchange import OAuth2

_ACCEPTED_LATELY = 600.0
"""Seconds for which a token that Exchange took proves that the application as such is let in."""
_ENOUGH = 4096
_WHAT_TO_CHECK = (
    "check that the app registration has the application permission full_access_as_app (Office 365 Exchange Online), "
    "with admin consent; that no application access policy excludes the mailbox; and that EWS is not blocked: Exchange "
    "Online blocks it from 1 October 2026 on unless the tenant allow-lists the application, and ends it on 1 April 2027"
)


def bearer_auth(endpoint: str, auth: OAuth2, tls: ssl.SSLContext) -> BearerAuth:
    """Make what puts tokens for the Exchange at `endpoint` on requests; `tls` is for the identity provider.

    Nothing is asked for before the first request.
    """
    return BearerAuth(TokenKeeper(ClientCredentials(auth, scope_for(endpoint, auth.authority), tls).fetch))


class BearerAuth(httpx.Auth):
    """Puts a token on each request (RFC 6750); one that is refused is replaced once, and the request sent again.

    Raises what the keeper raises, and `AuthenticationError` when the other token is refused, too. The request's body
    must be bytes: it may be sent twice.
    """

    def __init__(self, tokens: TokenKeeper, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._monotonic = monotonic
        self._accepted_at: float | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request; after a 401 once more, with another token."""
        token = await self._tokens.token()
        request.headers["Authorization"] = f"Bearer {token.value}"
        response = yield request
        if response.status_code == 401 and self._tokens.refuse(token):
            token = await self._tokens.token()
            # httpx reads the refusal to its end before it sends the next request, however long it is.
            if isinstance(response.stream, httpx.AsyncByteStream):
                response.stream = _FirstBytes(response.stream, _ENOUGH)
            request.headers["Authorization"] = f"Bearer {token.value}"
            response = yield request
        if response.status_code == 401:
            raise self._refused(response)
        if response.status_code in {200, 500}:
            self._accepted_at = self._monotonic()

    def sync_auth_flow(
        self,
        request: httpx.Request,  # noqa: ARG002 - httpx's signature
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Refuse to: there is no waiting for a token without an event loop."""
        raise RuntimeError("tokens are for asynchronous clients")

    def _refused(self, response: httpx.Response) -> AuthenticationError:
        accepted = self._accepted_at is not None and self._monotonic() - self._accepted_at < _ACCEPTED_LATELY
        why = diagnostics(response)
        return AuthenticationError(
            "the Exchange server refuses the application's access token" + (f": {why}" if why else ""),
            # An application that gets into other mailboxes is not refused as a whole.
            scope=Scope.MAILBOX if accepted else Scope.PROCESS,
            code="HTTP 401",
            hint=_WHAT_TO_CHECK,
            request_id=one_line(response.headers.get("request-id", ""), 80),
        )


def diagnostics(response: httpx.Response) -> str:
    """Give the server's own reason for a 401: x-ms-diagnostics, as Exchange sends it, else WWW-Authenticate's error.

    Exchange writes `2000008;reason="...";error_category="..."`; the rest is RFC 6750 section 3. "" where there is none.
    """
    said = response.headers.get("x-ms-diagnostics", "")
    found = re.search(r'reason="([^"]*)"', said)
    if found:
        return one_line(found[1].rstrip("."))
    challenge = ", ".join(response.headers.get_list("www-authenticate"))
    for name in ("error_description", "error"):
        found = re.search(rf'\b{name}="([^"]*)"', challenge)
        if found:
            return one_line(found[1])
    return ""


class _FirstBytes(httpx.AsyncByteStream):
    """The beginning of a stream; what is behind it is not read."""

    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for piece in self._stream:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()
