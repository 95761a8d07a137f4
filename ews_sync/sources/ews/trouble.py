"""What HTTP and TLS failures mean, as our errors, in words for whoever reads them at night. Pure."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    SourceError,
    ThrottledError,
)
from ews_sync.sources.ews.circuit import SilenceError
from ews_sync.web.challenges import challenges, of_scheme
from ews_sync.web.failures import (
    FailureKind,
    address,
    connection_failure,
    content_type,
    redirected_to,
    retry_after,
)
from ews_sync.web.offers import not_offered

if TYPE_CHECKING:
    from datetime import datetime

    import httpx

    from ews_sync.web.failures import CertificateFailure

_PROXIES = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_HINTS = {
    FailureKind.PROXY_LOGIN: _PROXIES,
    FailureKind.PROXY: f"{_PROXIES}, and that the proxy is up and lets this machine through",
    FailureKind.NOT_ACCEPTED: "check that the network and its firewalls let this machine through",
    FailureKind.NOT_CONNECTED: "check the server's name and port in the config, DNS, and that the network lets this "
    "machine through",
    FailureKind.NO_TLS: 'check that the port speaks TLS, and "ews_ssl_ciphers"; Exchange must allow TLS 1.2',
}
_EWS_IN_EXCHANGE_ONLINE = (
    "Exchange Online blocks EWS by default since 1 October 2026 unless the tenant allow-lists the application, and "
    "ends it on 1 April 2027: ask the tenant's administrator to allow this application (Set-OrganizationConfig "
    "EwsEnabled / EwsApplicationAccessPolicy)"
)
_EWS_FORBIDDEN = (
    "EWS may be switched off for the account or for all (Get-CASMailbox and Get-OrganizationConfig show EwsEnabled and "
    "EwsApplicationAccessPolicy), or a proxy refuses. "
) + _EWS_IN_EXCHANGE_ONLINE
_EXCHANGE_ONLINE = ("office365.com", "office365.us", "outlook.com", "outlook.cn")


def connection_error(
    doing: str, error: Exception, url: httpx.URL, request_id: str, presented: str = ""
) -> ConnectionFailedError:
    """Make the error for a request to `url` that met a failure below HTTP.

    `presented` says in words which certificate the server has, where that is what failed and it is known.
    """
    if isinstance(error, zlib.error):
        return ConnectionFailedError(
            f"{doing}: the server's answer was damaged: it is not the gzip that it should be", request_id=request_id
        )
    failure = connection_failure(error, url, "the Exchange server", presented)
    certificate = failure.certificate
    for_operators = failure.kind in {FailureKind.CERTIFICATE, FailureKind.PROXY_LOGIN}
    kind = SilenceError if failure.kind is FailureKind.NOT_ANSWERED else ConnectionFailedError
    return kind(
        f"{doing}: {failure.summary}",
        asks=Asks.STOP if for_operators else Asks.RETRY,
        code=failure.code,
        hint=_HINTS.get(failure.kind, "") if certificate is None else _certificate_hint(certificate),
        request_id=request_id,
    )


def status_error(doing: str, response: httpx.Response, now: datetime) -> SourceError:  # noqa: PLR0911 - a table
    """Make the error for an answer that is no SOAP: another status, or another kind of content."""
    status = response.status_code
    code = f"HTTP {status}"
    url = response.request.url
    match status:
        case 401 if _lacks_basic(response):
            error = not_offered("Basic", challenges(response.headers.get_list("www-authenticate")))
            error.summary = f"{doing}: {error.summary}"
            return error
        case 401:
            return AuthenticationError(
                f"{doing}: the Exchange server refused the user name or password",
                code=code,
                hint="check auth_user and the password (REINFER_EWS_AUTH_PASS), and that the server allows this "
                "auth_type; it was tried once, since accounts lock. A proxy that opens TLS looks like this, too, to a "
                "server with Extended Protection",
            )
        case 403:
            online = url.host.endswith(_EXCHANGE_ONLINE)
            hint = _EWS_IN_EXCHANGE_ONLINE if online else _EWS_FORBIDDEN
            return SourceError(f"{doing}: the Exchange server forbids it", asks=Asks.STOP, code=code, hint=hint)
        case 404 | 405 | 410:
            return ConnectionFailedError(
                f"{doing}: there is no EWS at {address(url)}",
                asks=Asks.STOP,
                code=code,
                hint="check ews_endpoint, or host and port, in the config",
            )
        case 407:
            return ConnectionFailedError(
                f"{doing}: the proxy wants a user name and password",
                asks=Asks.STOP,
                code=code,
                hint=_PROXIES,
            )
        case 429 | 503:
            return ThrottledError(
                f"{doing}: the Exchange server is busy or not available",
                code=code,
                retry_after=retry_after(response, now),
            )
        case 301 | 302 | 303 | 307 | 308:
            return ConnectionFailedError(
                f"{doing}: the server redirects to {redirected_to(response)}, which is not followed",
                asks=Asks.STOP,
                code=code,
                hint="set ews_endpoint to the EWS address itself, as Get-WebServicesVirtualDirectory shows it",
            )
        case 200:
            kind = content_type(response)[:80] or "something unnamed"
            return ConnectionFailedError(
                f"{doing}: the server answered with {kind} instead of XML",
                code=code,
                hint="a proxy, a load balancer or a log-in page may have answered in the server's place",
            )
        case _:
            return SourceError(
                f"{doing}: the server answered HTTP {status}", code=code, retry_after=retry_after(response, now)
            )


def _lacks_basic(response: httpx.Response) -> bool:
    """Tell whether a password was sent as Basic to a server that names other ways to log in only."""
    offered = challenges(response.headers.get_list("www-authenticate"))
    sent = response.request.headers.get("authorization", "").casefold()
    return sent.startswith("basic ") and bool(offered) and of_scheme(offered, "Basic") is None


def _certificate_hint(certificate: CertificateFailure) -> str:
    if certificate.is_out_of_date:
        return "renew the server's certificate, or set this machine's clock"
    if certificate.is_of_another:
        return "the config must name the server as its certificate does: check ews_endpoint, or host"
    return 'set "ews_ssl_ca_bundle" to a file with the certificate of the authority that signed it'
