"""The HTTP client that msal is given: TLS, proxies and time limits as everywhere else; failures become our errors.

Synchronous, for use in a thread. Only answers that make sense get as far as msal, which would throttle the others, log
them whole, or lose what they say.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx

from ews_sync import __version__
from ews_sync.errors import Asks, AuthenticationError, ConnectionFailedError, SourceError
from ews_sync.sources.auth.oauth2_refusals import refusal_error, refusal_of
from ews_sync.web.certificates import presented_certificate
from ews_sync.web.failures import (
    address,
    certificate_failure,
    content_type,
    is_tls,
    one_line,
    place,
    reason,
    redirected_to,
    retry_after,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

_DOING = "asking for an access token"
_ANSWER_WITHIN = 30.0
_DEADLINE = 60.0
_LARGEST = 1024 * 1024
_SECRETS = ("client_secret", "client_assertion")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in the shape that msal wants (`msal.oauth2cli.http.Response`)."""

    status_code: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    def raise_for_status(self) -> None:
        """Do nothing: answers with an error have become exceptions before."""


class IdentityHttp:
    """What msal calls `http_client`. Raises `SourceError` and its children only.

    `answer_within` is how long to wait for the next byte, in seconds.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        answer_within: float = _ANSWER_WITHIN,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tls = tls
        self._timeout = httpx.Timeout(answer_within, connect=15)
        self._monotonic = monotonic
        self._now = now

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> Answer:
        """Fetch."""
        return self._answer(httpx.Request("GET", url, params=params, headers=headers))

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str | bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> Answer:
        """Send a form."""
        # httpx would write bytes, which assertions may come as, in their repr.
        form = {
            name: str(value, "ascii") if isinstance(value, bytes) else value for name, value in (data or {}).items()
        }
        secrets = tuple(str(form[name]) for name in _SECRETS if form.get(name))
        return self._answer(httpx.Request("POST", url, params=params, data=form, headers=headers), secrets)

    def close(self) -> None:
        """Do nothing: connections do not outlive a request. There are a few in an hour."""

    def _answer(self, request: httpx.Request, secrets: tuple[str, ...] = ()) -> Answer:
        request.headers["User-Agent"] = f"ews-sync/{__version__}"
        # Answers are small; compressed ones could become large.
        request.headers["Accept-Encoding"] = "identity"
        try:
            with httpx.Client(verify=self._tls, timeout=self._timeout) as client:
                response = client.send(request, stream=True, follow_redirects=False)
                try:
                    body = self._read(response)
                finally:
                    response.close()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _connection_error(error, request.url) from error
        return self._checked(response, body, secrets)

    def _read(self, response: httpx.Response) -> bytes:
        """Read the body; what does not end, in size or in time, is given up."""
        ends_at = self._monotonic() + _DEADLINE
        body = b""
        for piece in response.iter_raw():
            body += piece
            if len(body) > _LARGEST or self._monotonic() > ends_at:
                raise httpx.ReadTimeout("the answer does not end")
        return body

    def _checked(self, response: httpx.Response, body: bytes, secrets: tuple[str, ...]) -> Answer:
        text = body.decode("utf-8", "replace")
        content = _json(text)
        if response.status_code == 200 and isinstance(content, dict) and "error" not in content:
            return Answer(200, text, {name.lower(): value for name, value in response.headers.items()})
        wait = retry_after(response, self._now())
        refusal = refusal_of(content)
        busy = response.status_code in {408, 425, 429} or response.status_code >= 500
        if refusal is not None and not busy:
            raise refusal_error(refusal, place(response.request.url), retry_after=wait, secrets=secrets)
        raise _status_error(response, wait, refusal.request_id if refusal else "")


def _connection_error(error: Exception, url: httpx.URL) -> ConnectionFailedError:
    certificate = certificate_failure(error)
    if certificate is not None:
        hint = (
            'set "ews_ssl_ca_bundle", or SSL_CERT_FILE, to a file with the certificate of the authority that signed it'
        )
        if certificate.is_out_of_date:
            hint = "renew the certificate, or set this machine's clock"
        elif certificate.is_of_another:
            hint = "auth_oauth_authority must name the server as its certificate does"
        # This is a thread without an event loop.
        why = "; ".join(filter(None, (certificate.reason, asyncio.run(presented_certificate(error, url)))))
        return ConnectionFailedError(
            f"{_DOING}: the certificate of {place(url)} could not be verified: {why}",
            asks=Asks.STOP,
            hint=hint,
            code="CERTIFICATE_VERIFY_FAILED",
        )
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return ConnectionFailedError(f"{_DOING}: {place(url)} did not answer in time ({type(error).__name__})")
    hint = "check auth_oauth_authority, DNS, and that the network and its proxies let this machine reach that address"
    if is_tls(error):
        hint = 'check that the port speaks TLS, and "ews_ssl_ciphers"'
    return ConnectionFailedError(f"{_DOING}: cannot reach {place(url)}: {reason(error)}", hint=hint)


def _status_error(response: httpx.Response, wait: float | None, request_id: str) -> SourceError:
    """Make the error for an answer that says nothing of OAuth's, or that comes from a server that is unwell."""
    status, url = response.status_code, response.request.url
    code = f"HTTP {status}"
    if 300 <= status < 400:
        return AuthenticationError(
            f"{_DOING}: {place(url)} redirects to {redirected_to(response)}, which is not followed",
            code=code,
            hint="set auth_oauth_authority to the address of the tenant itself",
        )
    if status in {404, 405, 410}:
        return AuthenticationError(
            f"{_DOING}: there is no identity provider at {address(url)}",
            code=code,
            hint='check auth_oauth_authority; in Entra it is "https://login.microsoftonline.com/" and the tenant\'s id',
        )
    if status == 407:
        return ConnectionFailedError(
            f"{_DOING}: the proxy wants a user name and password",
            asks=Asks.STOP,
            code=code,
            hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        )
    if status == 429 or status >= 500:
        return ConnectionFailedError(
            f"{_DOING}: {place(url)} is busy or not available", code=code, retry_after=wait, request_id=request_id
        )
    kind = one_line(content_type(response), 80) or "something unnamed"
    return ConnectionFailedError(
        f"{_DOING}: {place(url)} answered with {kind} that makes no sense",
        code=code,
        hint="a proxy, a load balancer or a log-in page may have answered in its place",
        retry_after=wait,
    )


def _json(text: str) -> object:
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content
