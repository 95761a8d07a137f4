"""OAuth 2 access tokens on every request to Exchange: msal behind a keeper of tokens, and what a refusal means."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import httpx

from ews_sync.errors import AuthenticationError, EwsSyncError, Scope
from ews_sync.sources.auth.oauth2_tokens import ClientCredentials, scope_for
from ews_sync.sources.auth.tokens import Token, TokenKeeper, is_in_vain
from ews_sync.web.challenges import challenges, of_scheme
from ews_sync.web.failures import one_line
from ews_sync.web.offers import not_offered

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator

    from ews_sync.settings.exchange import OAuth2

_ACCEPTED_LATELY = 600.0
"""Seconds for which a token that Exchange took proves that the application as such is let in."""
_REPLACED_EVERY = 600.0
"""Seconds in which a token that Exchange takes from others is not replaced for a mailbox that it keeps out."""
_UNPROVEN = 60.0
"""The same for a token that it takes from nobody: an administrator may be mending that."""
_ENOUGH_REFUSALS = 2
_ENOUGH = 4096
_WHAT_TO_CHECK = (
    "check that the app registration has the application permission full_access_as_app (Office 365 Exchange Online), "
    "with admin consent; that no application access policy excludes the mailbox; and that EWS is not blocked: Exchange "
    "Online blocks it from 1 October 2026 on unless the tenant allow-lists the application, and ends it on 1 April 2027"
)


def bearer_auth(
    endpoint: str, auth: OAuth2, tls: ssl.SSLContext, taken: Callable[[float], None] | None = None
) -> BearerAuth:
    """Make what puts tokens for the Exchange at `endpoint` on requests; `tls` is for the identity provider.

    Nothing is asked for before the first request. `taken` is that of `TokenKeeper`.
    """
    credentials = ClientCredentials(auth, scope_for(endpoint, auth.authority), tls)
    return BearerAuth(TokenKeeper(credentials.fetch, taken=taken))


class BearerAuth(httpx.Auth):
    """Puts a token on each request (RFC 6750); one that is refused is replaced once, and the request sent again.

    Raises what the keeper raises, and `AuthenticationError` when the other token is refused, too, or there is no use
    in another: of the mailbox in X-AnchorMailbox, unless Exchange takes no token from anybody. The request's body must
    be bytes: it may be sent twice.
    """

    def __init__(self, tokens: TokenKeeper, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._monotonic = monotonic
        self._accepted_at: float | None = None
        self._refusals = 0
        """Since Exchange took a token."""
        self._let_in: set[str] = set()
        self._kept_out: dict[str, float] = {}

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request; after a 401 once more, with another token."""
        token = await self._tokens.token()
        request.headers["Authorization"] = f"Bearer {token.value}"
        response = yield request
        mailbox = request.headers.get("X-AnchorMailbox", "")
        other = await self._another(token, mailbox, response) if response.status_code == 401 else None
        if other is not None:
            # httpx reads the refusal to its end before it sends the next request, however long it is.
            if isinstance(response.stream, httpx.AsyncByteStream):
                response.stream = _FirstBytes(response.stream, _ENOUGH)
            request.headers["Authorization"] = f"Bearer {other.value}"
            response = yield request
        if response.status_code == 401:
            raise self._refused(response, mailbox)
        if response.status_code in {200, 500}:
            self._accepted_at = self._monotonic()
            self._refusals = 0
            self._let_in.add(mailbox)
            self._kept_out.pop(mailbox, None)

    def sync_auth_flow(
        self,
        request: httpx.Request,  # noqa: ARG002 - httpx's signature
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Refuse to: there is no waiting for a token without an event loop."""
        raise RuntimeError("tokens are for asynchronous clients")

    async def _another(self, token: Token, mailbox: str, response: httpx.Response) -> Token | None:
        """Give the token to try next, if it makes sense to: the one that is there by now, else a new one."""
        if _lacks_bearer(response):
            return None
        there = self._tokens.current(token)
        if there is not None:
            return there
        now = self._monotonic()
        within = _REPLACED_EVERY if self._accepted_lately() else _UNPROVEN
        if now - self._kept_out.get(mailbox, -within) < within:
            return None
        # Whoever was let in before and is refused now has most likely met a revocation, however young the token is.
        if mailbox not in self._let_in and is_in_vain(token, now, within):
            return None
        try:
            return await self._tokens.another(token)
        except EwsSyncError as error:
            if self._accepted_lately():
                # The old token stays good for the others.
                error.scope = Scope.MAILBOX
            raise

    def _accepted_lately(self) -> bool:
        return self._accepted_at is not None and self._monotonic() - self._accepted_at < _ACCEPTED_LATELY

    def _refused(self, response: httpx.Response, mailbox: str) -> AuthenticationError:
        self._refusals += 1
        self._let_in.discard(mailbox)
        self._kept_out[mailbox] = self._monotonic()
        # An application that gets into other mailboxes is not refused as a whole, and one refusal is no proof of it:
        # no account locks by trying the next mailbox.
        whole = self._refusals >= _ENOUGH_REFUSALS and not self._accepted_lately()
        scope = Scope.PROCESS if whole else Scope.MAILBOX
        if _lacks_bearer(response):
            error = not_offered("Bearer", challenges(response.headers.get_list("www-authenticate")))
            error.scope = scope
            return error
        why = diagnostics(response)
        return AuthenticationError(
            "the Exchange server refuses the application's access token" + (f": {why}" if why else ""),
            scope=scope,
            code="HTTP 401",
            hint=_WHAT_TO_CHECK,
            request_id=one_line(response.headers.get("request-id", ""), 80),
        )


def _lacks_bearer(response: httpx.Response) -> bool:
    offered = challenges(response.headers.get_list("www-authenticate"))
    return bool(offered) and of_scheme(offered, "Bearer") is None


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
