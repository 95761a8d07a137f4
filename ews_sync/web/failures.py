"""What HTTP, TLS and the operating system say about a failure, in words for whoever reads them at night.

Pure, but for which proxies the environment names.
"""

from __future__ import annotations

import email.utils
import errno
import os
import ssl
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_RETRY_AFTER = 24 * 3600.0
"""Seconds. Whoever asks for more has a broken clock, and would stop the work for good."""


@dataclass(frozen=True, slots=True)
class CertificateFailure:
    """A certificate that could not be verified: OpenSSL's words, and its code (X509_V_ERR_* of x509_vfy.h)."""

    reason: str
    code: int

    @property
    def is_out_of_date(self) -> bool:
        """Whether it is not valid yet, or no longer."""
        return self.code in {9, 10}

    @property
    def is_of_another(self) -> bool:
        """Whether it is the certificate of another name or address."""
        return self.code in {62, 64}


class FailureKind(StrEnum):
    """Where a request failed that got no answer."""

    CERTIFICATE = "certificate"
    PROXY_LOGIN = "proxy login"
    PROXY = "proxy"
    """The proxy itself cannot be reached, or will not connect any further."""
    NOT_ACCEPTED = "not accepted"
    """Nothing answered to the attempt to connect."""
    NOT_CONNECTED = "not connected"
    NO_TLS = "no TLS"
    NOT_ANSWERED = "not answered"
    BROKEN = "broken"

    @property
    def sent_nothing(self) -> bool:
        """Whether there was no connection to send anything over."""
        return self not in {FailureKind.NOT_ANSWERED, FailureKind.BROKEN}


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """A failure below HTTP, in words that go on after what was being done; `code` is "" for most."""

    kind: FailureKind
    summary: str
    code: str = ""
    certificate: CertificateFailure | None = None


def connection_failure(error: BaseException, url: httpx.URL, peer: str, presented: str = "") -> ConnectionFailure:
    """Recognise what a request to `url` met below HTTP. `peer` is who should have answered, as in "the platform".

    `presented` says in words which certificate the server has, where that is what failed and it is known.
    """
    certificate = certificate_failure(error)
    if certificate is not None:
        why = "; ".join(filter(None, (certificate.reason, presented)))
        return ConnectionFailure(
            FailureKind.CERTIFICATE,
            f"the certificate of {place(url)} could not be verified: {why}",
            "CERTIFICATE_VERIFY_FAILED",
            certificate,
        )
    match error:
        case httpx.ProxyError() if reason(error).startswith("407"):
            return ConnectionFailure(FailureKind.PROXY_LOGIN, "the proxy wants a user name and password", "HTTP 407")
        case httpx.ConnectTimeout() | httpx.ConnectError() | httpx.ProxyError():
            return _no_connection(error, url)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return ConnectionFailure(FailureKind.NOT_CONNECTED, f"cannot connect to {place(url)}: {reason(error)}")
        case httpx.TimeoutException():
            return ConnectionFailure(
                FailureKind.NOT_ANSWERED, f"{peer} did not answer in time ({type(error).__name__})"
            )
        case _:
            return ConnectionFailure(FailureKind.BROKEN, f"the connection to {peer} broke: {reason(error)}")


def _no_connection(error: httpx.TransportError, url: httpx.URL) -> ConnectionFailure:
    if isinstance(error, httpx.ConnectTimeout) and is_tls(error):
        summary = f"{place(url)} did not answer {_within(error)} while TLS was being set up"
        return ConnectionFailure(FailureKind.NOT_ACCEPTED, summary)
    if is_tls(error):
        # Through a proxy, TLS is with the server.
        return ConnectionFailure(FailureKind.NO_TLS, f"cannot connect to {place(url)}: {reason(error)}")
    proxy = proxy_for(url)
    through = f"the proxy {proxy}" if proxy else place(url)
    if isinstance(error, httpx.ProxyError):
        kind, why = FailureKind.PROXY, f"{through if proxy else 'the proxy'} says {reason(error)}"
        return ConnectionFailure(kind, f"cannot connect to {place(url)}: {why}")
    if isinstance(error, httpx.ConnectTimeout):
        kind, summary = FailureKind.NOT_ACCEPTED, f"{through} did not accept a connection in time"
    else:
        kind, summary = FailureKind.NOT_CONNECTED, f"cannot connect to {through}: {reason(error)}"
    return ConnectionFailure(FailureKind.PROXY if proxy else kind, summary)


def _within(error: httpx.ConnectTimeout) -> str:
    """Give how long was waited, in words."""
    try:
        seconds = error.request.extensions["timeout"]["connect"]
    except (RuntimeError, KeyError):
        # Not every one that raises it says for which request.
        return "in time"
    return f"within {seconds:.0f} s" if seconds else "in time"


def proxy_for(url: httpx.URL) -> str:
    """Give host and port of the proxy that the environment names for `url`, or ""; no user name, no password."""
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or urllib.request.proxy_bypass(url.host):
        return ""
    try:
        return place(httpx.URL(named if "://" in named else f"http://{named}"))
    except httpx.InvalidURL:
        return ""


def certificate_failure(error: BaseException) -> CertificateFailure | None:
    """Give what is wrong with the peer's certificate, if that is what `error` comes from."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateFailure(cause.verify_message, cause.verify_code)
    return None


def is_tls(error: BaseException) -> bool:
    """Tell whether `error` comes from TLS."""
    return any(isinstance(cause, ssl.SSLError) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and everything that it comes from, members of groups included."""
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        if isinstance(here, BaseExceptionGroup):
            for one in here.exceptions:
                yield from causes(one)
        here = here.__cause__ or here.__context__


def reason(error: BaseException) -> str:
    """Give the operating system's own words where there are any: they say more than those of the libraries above."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            # Those of name look-ups are negative, and those of TLS its own; asyncio puts its own words before the rest.
            known = cause.errno in errno.errorcode and not isinstance(cause, ssl.SSLError)
            return os.strerror(cause.errno) if known else cause.strerror
    return one_line(str(error)) or type(error).__name__


def retry_after(response: httpx.Response, now: datetime) -> float | None:
    """Read Retry-After, in seconds or as a date (RFC 9110 section 10.2.3); None where none makes sense."""
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


def content_type(response: httpx.Response) -> str:
    """Give what the answer says that it is, without parameters, in lower case."""
    return one_line(str(response.headers.get("content-type", "")).partition(";")[0].lower(), 100)


def place(url: httpx.URL) -> str:
    """Give host and port."""
    return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def address(url: httpx.URL) -> str:
    """Give an address without what may be secret in it."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))[:200]


def redirected_to(response: httpx.Response) -> str:
    """Give the address that a redirect names."""
    try:
        return address(response.request.url.join(response.headers.get("location", "")))
    except (httpx.InvalidURL, ValueError):
        return "another address"


def one_line(text: str, longest: int = 300) -> str:
    """Give a text from outside as one printable line of bounded length."""
    line = " ".join(text[: longest * 4].split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    return line if len(line) <= longest else line[: longest - 1] + "…"
