"""What HTTP and TLS failures mean, as our errors, in words for whoever reads them at night. Pure."""

from __future__ import annotations

import email.utils
import errno
import os
import ssl
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    ProtocolError,
    SourceError,
    ThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_RETRY_AFTER = 24 * 3600.0
"""Seconds. Whoever asks for more has a broken clock, and would stop the mailbox for good."""

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


def connection_error(doing: str, error: Exception, url: httpx.URL, request_id: str) -> ConnectionFailedError:
    """Make the error for a request to `url` that met a failure below HTTP."""
    certificate = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return ConnectionFailedError(
            f"{doing}: the certificate of {_place(url)} could not be verified: {certificate.verify_message}",
            asks=Asks.STOP,
            hint=_certificate_hint(certificate.verify_code),
            code="CERTIFICATE_VERIFY_FAILED",
            request_id=request_id,
        )
    hint = ""
    match error:
        case httpx.ConnectTimeout():
            summary = f"{doing}: {_place(url)} did not accept a connection in time"
            hint = "check that the network and its firewalls let this machine through"
        case httpx.ConnectError() | httpx.ProxyError() | httpx.UnsupportedProtocol() | httpx.InvalidURL():
            summary = f"{doing}: cannot connect to {_place(url)}: {_reason(error)}"
            hint = "check the server's name and port in the config, DNS, and that the network lets this machine through"
            if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
                hint = 'check that the port speaks TLS, and "ews_ssl_ciphers"; Exchange must allow TLS 1.2'
        case httpx.TimeoutException():
            summary = f"{doing}: the Exchange server did not answer in time ({type(error).__name__})"
        case zlib.error():
            summary = f"{doing}: the server's answer was damaged: it is not the gzip that it should be"
        case _:
            summary = f"{doing}: the connection to the Exchange server broke: {_reason(error)}"
    return ConnectionFailedError(summary, hint=hint, request_id=request_id)


def status_error(doing: str, response: httpx.Response, now: datetime) -> SourceError:  # noqa: PLR0911 - a table
    """Make the error for an answer that is no SOAP: another status, or another kind of content."""
    status = response.status_code
    code = f"HTTP {status}"
    url = response.request.url
    match status:
        case 401:
            return AuthenticationError(
                f"{doing}: the Exchange server refused the user name or password",
                code=code,
                hint="check auth_user and the password (REINFER_EWS_AUTH_PASS), and that the server allows this "
                "auth_type; it was tried once, since accounts lock",
            )
        case 403:
            online = url.host.endswith(_EXCHANGE_ONLINE)
            hint = _EWS_IN_EXCHANGE_ONLINE if online else _EWS_FORBIDDEN
            return SourceError(f"{doing}: the Exchange server forbids it", asks=Asks.STOP, code=code, hint=hint)
        case 404 | 405 | 410:
            return ProtocolError(
                f"{doing}: there is no EWS at {_address(url)}",
                asks=Asks.STOP,
                code=code,
                hint="check ews_endpoint, or host and port, in the config",
            )
        case 407:
            return ConnectionFailedError(
                f"{doing}: the proxy wants a user name and password",
                asks=Asks.STOP,
                code=code,
                hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
            )
        case 429 | 503:
            return ThrottledError(
                f"{doing}: the Exchange server is busy or not available",
                code=code,
                retry_after=retry_after(response, now),
            )
        case 301 | 302 | 303 | 307 | 308:
            return ProtocolError(
                f"{doing}: the server redirects to {_target(response)}, which is not followed",
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


def content_type(response: httpx.Response) -> str:
    """Give what the answer says that it is, without parameters, in lower case."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def retry_after(response: httpx.Response, now: datetime) -> float | None:
    """Read Retry-After, in seconds or as a date (RFC 9110 section 10.2.3)."""
    text = str(response.headers.get("retry-after", "")).strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_RETRY_AFTER, float(text))
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(LONGEST_RETRY_AFTER, max(0.0, (moment - now).total_seconds()))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _certificate_hint(verify_code: int) -> str:
    """Say what to do; the codes are X509_V_ERR_* of OpenSSL's x509_vfy.h."""
    match verify_code:
        case 9 | 10:  # not yet valid, expired
            return "renew the server's certificate, or set this machine's clock"
        case 62 | 64:  # another name, another address
            return "the config must name the server as its certificate does: check ews_endpoint, or host"
        case _:
            return 'set "ews_ssl_ca_bundle" to a file with the certificate of the authority that signed it'


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        if isinstance(here, BaseExceptionGroup):
            for one in here.exceptions:
                yield from _causes(one)
        here = here.__cause__ or here.__context__


def _reason(error: BaseException) -> str:
    """Give the operating system's own words where there are any: they say more than those of the libraries above."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            # Those of name look-ups are negative, and those of TLS its own; asyncio puts its own words before the rest.
            known = cause.errno in errno.errorcode and not isinstance(cause, ssl.SSLError)
            return os.strerror(cause.errno) if known else cause.strerror
    return " ".join(str(error).split())[:300] or type(error).__name__


def _place(url: httpx.URL) -> str:
    return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _address(url: httpx.URL) -> str:
    """Give an address without what may be secret in it."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))[:200]


def _target(response: httpx.Response) -> str:
    try:
        return _address(response.request.url.join(response.headers.get("location", "")))
    except (httpx.InvalidURL, ValueError):
        return "another address"
