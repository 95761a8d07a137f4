"""What the platform's answers mean: data, or one of our errors with what to do about it. Pure.

Every answer is JSON with `"status": "ok"`, or `"status": "error"` and a `message`, which are public knowledge: the
published documentation and the published command line client say so.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ews_sync.errors import Asks, Scope, SinkError
from ews_sync.web.failures import (
    FailureKind,
    connection_failure,
    content_type,
    one_line,
    redirected_to,
    retry_after,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import httpx

    from ews_sync.web.failures import CertificateFailure

QUOTA_WAIT = 900.0
"""Seconds to wait at least once a quota is used up: nothing but an operator, or a new month, changes that."""

LONGEST_WAIT = 3600.0
"""Seconds that anybody is waited for. Who asks for more has a broken clock, and would stop all mail for good."""

_PROXIES = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_HINTS = {
    FailureKind.PROXY_LOGIN: _PROXIES,
    FailureKind.PROXY: f"{_PROXIES}, and that the proxy is up and lets this machine through",
    FailureKind.NOT_ACCEPTED: "check that the network and its firewalls let this machine through, or set HTTPS_PROXY",
    FailureKind.NOT_CONNECTED: "check --reinfer-api-endpoint, DNS, HTTPS_PROXY, and that the network lets this machine "
    "through",
    FailureKind.NO_TLS: "check that --reinfer-api-endpoint names a port that speaks TLS",
}
_QUOTA = re.compile(r"\bquotas?\b", re.IGNORECASE)
# What a message repeats of an email is not what it says.
_QUOTED = re.compile(r"<[^<>]*>|'[^']*'|\"[^\"]*\"|`[^`]*`")
_BUSY = frozenset({429, 503})
_PASSES = frozenset({408, 409, 425})


class PlatformError(SinkError):
    """The platform, or the way to it, failed."""


class RefusedError(PlatformError):
    """What was sent is refused for what it is: to send it again will not help, to send less at a time may.

    `too_large` when it was for its size.
    """

    asks = Asks.SKIP
    scope = Scope.ITEM

    def __init__(self, summary: str, *, code: str, too_large: bool = False) -> None:
        super().__init__(summary, code=code)
        self.too_large = too_large


class BusyError(PlatformError):
    """The platform asks everybody to wait, for `retry_after` seconds where it says so."""

    scope = Scope.PROCESS


class UnreachableError(PlatformError):
    """There is no connection to the platform, so nothing was sent."""

    scope = Scope.PROCESS


class NotFoundError(PlatformError):
    """What was asked for is not there, or is not shown to this token."""

    asks = Asks.STOP


def read_answer(doing: str, response: httpx.Response, body: bytes, now: datetime) -> dict[str, Any]:
    """Give the JSON object of a good answer, its `status` included. `doing` begins the errors' messages.

    Raises `RefusedError` for 400, 413 and 422, and `PlatformError` otherwise.
    """
    answer = _json_object(body)
    said = None if answer is None else answer.get("status")
    if response.is_success:
        if answer is not None and said == "ok":
            return answer
        raise _no_answer(doing, response, answer)
    if said == "ok":
        raise PlatformError(
            f"{doing}: the platform contradicts itself: HTTP {response.status_code}, but its status is ok",
            scope=Scope.PROCESS,
            code=f"HTTP {response.status_code}",
        )
    if response.status_code in {400, 422} and said != "error":
        # Not the platform's own words, so it is not known what the platform thinks of it.
        raise _not_its_own(doing, response)
    raise _failure(doing, response, _message(answer), now)


def read_config(doing: str, response: httpx.Response, body: bytes, now: datetime) -> bytes:
    """Give an appliance's config, as JSON text: bare, or taken out of `{"status": "ok", "config": …}`."""
    answer = _json_object(body)
    if response.is_success and answer is not None:
        wrapped = answer.get("config")
        if answer.get("status") == "ok" and isinstance(wrapped, dict):
            return json.dumps(wrapped, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if "status" not in answer:
            # As it was sent: a key that is there twice is for the config's own reader to find.
            return body
    read_answer(doing, response, body, now)
    raise PlatformError(f"{doing}: the platform's answer has no config in it", code=f"HTTP {response.status_code}")


def connection_error(doing: str, error: Exception, url: httpx.URL, presented: str = "") -> PlatformError:
    """Make the error for a request that met a failure below HTTP.

    `presented` says in words which certificate the server has, where that is what failed and it is known.
    """
    failure = connection_failure(error, url, "the platform", presented)
    certificate = failure.certificate
    if certificate is not None or failure.kind is FailureKind.PROXY_LOGIN:
        return PlatformError(
            f"{doing}: {failure.summary}",
            asks=Asks.STOP,
            code=failure.code,
            hint=_HINTS[failure.kind] if certificate is None else _certificate_hint(certificate),
        )
    kind = UnreachableError if failure.kind.sent_nothing else PlatformError
    return kind(f"{doing}: {failure.summary}", scope=Scope.PROCESS, hint=_HINTS.get(failure.kind, ""))


def _no_answer(doing: str, response: httpx.Response, answer: Mapping[str, Any] | None) -> PlatformError:
    code = f"HTTP {response.status_code}"
    if answer is not None:
        said = _message(answer)
        return PlatformError(
            f'{doing}: the platform contradicts itself: {code}, but its status is not "ok"{said and f": {said}"}',
            scope=Scope.PROCESS,
            code=code,
        )
    kind = content_type(response)[:80] or "something unnamed"
    return PlatformError(
        f"{doing}: the answer is {kind}, and not the JSON that it should be",
        scope=Scope.PROCESS,
        code=code,
        hint="check --reinfer-api-endpoint: it ends with /api/; or a proxy or a log-in page answered in its place",
    )


def _not_its_own(doing: str, response: httpx.Response) -> PlatformError:
    return PlatformError(
        f"{doing}: HTTP {response.status_code}, but not in the platform's words",
        scope=Scope.PROCESS,
        code=f"HTTP {response.status_code}",
        hint="a proxy or a firewall before the platform may have refused it: look into its log",
    )


def _failure(doing: str, response: httpx.Response, message: str, now: datetime) -> PlatformError:  # noqa: PLR0911 - a table
    status = response.status_code
    code = f"HTTP {status}"
    said = f': it says "{message}"' if message else ""
    wait = retry_after(response, now)
    if _is_quota(status, message, wait):
        return PlatformError(
            f"{doing}: a quota of the platform is used up{said}",
            code=code,
            retry_after=max(wait or 0.0, QUOTA_WAIT),
            hint="raise the quota in the platform; nothing is lost meanwhile, the mail is uploaded afterwards",
        )
    if status in _BUSY or status in _PASSES or status >= 500:
        kind = BusyError if status in _BUSY else PlatformError
        return kind(
            f"{doing}: the platform is busy or not well: {code}{said}",
            scope=Scope.PROCESS,
            code=code,
            retry_after=None if wait is None else min(wait, LONGEST_WAIT),
        )
    match status:
        case 413:
            return RefusedError(
                f"{doing}: it is too large for the platform, or for a proxy before it{said}", code=code, too_large=True
            )
        case 400 | 422:
            return RefusedError(f"{doing}: the platform refuses it{said}", code=code)
        case 401:
            return PlatformError(
                f"{doing}: the platform refuses the API token{said}",
                asks=Asks.STOP,
                scope=Scope.PROCESS,
                code=code,
                hint="put a valid API token into REINFER_API_TOKEN (or the file that REINFER_API_TOKEN_FILE names); "
                "tokens stop working when they are regenerated or their user is removed",
            )
        case 403:
            return PlatformError(
                f"{doing}: the API token lacks the permission{said}",
                asks=Asks.STOP,
                code=code,
                hint="give the token's user the permissions to read buckets, to upload to them and to write their sync "
                "states, and to read appliance configs where the config is remote",
            )
        case 404:
            return NotFoundError(f"{doing}: it is not there, or the API token may not see it{said}", code=code)
        case 407:
            return PlatformError(
                f"{doing}: the proxy wants a user name and password",
                asks=Asks.STOP,
                code=code,
                hint=_PROXIES,
            )
        case 301 | 302 | 303 | 307 | 308:
            return PlatformError(
                f"{doing}: the server redirects to {redirected_to(response)}, which is not followed",
                asks=Asks.STOP,
                code=code,
                hint="give the platform's own address as --reinfer-api-endpoint, such as "
                "https://mydomain.reinfer.io/api/",
            )
        case _:
            return PlatformError(
                f"{doing}: an answer that makes no sense here, {code}{said}",
                asks=Asks.STOP,
                code=code,
                hint="check --reinfer-api-endpoint, such as https://mydomain.reinfer.io/api/",
            )


def _is_quota(status: int, message: str, wait: float | None) -> bool:
    """Tell whether a refusal is for what the customer has used up, which is not the email's fault."""
    if status == 402:
        return True
    # A rate is told with the time after which it is well again.
    if status not in {400, 403, 422, 429} or (status == 429 and wait is not None):
        return False
    return _QUOTA.search(_QUOTED.sub("", message)) is not None


def _certificate_hint(certificate: CertificateFailure) -> str:
    if certificate.is_out_of_date:
        return "renew the certificate, or set this machine's clock"
    if certificate.is_of_another:
        return "--reinfer-api-endpoint must name the server as its certificate does"
    return "set SSL_CERT_FILE to a file with the authorities to trust, the one of your network's proxy included"


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _message(answer: Mapping[str, Any] | None) -> str:
    message = None if answer is None else answer.get("message")
    return one_line(message) if isinstance(message, str) else ""
