"""From the settings to an HTTP client that is logged in, one way for each `auth_type`."""

from __future__ import annotations

from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from ews_sync.errors import UnavailableError
from ews_sync.settings.exchange import BasicAuth, Exchange
from ews_sync.sources.auth.tls import tls_context

_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=120)
"""Connections stay open longer than a mailbox waits between rounds: a quiet appliance does not make new ones."""


@dataclass(frozen=True, slots=True)
class Login:
    """A client that carries the credentials, and the account's name.

    Whom the server throttles when mailboxes are reached as a delegate.
    """

    http: httpx.AsyncClient
    account: str


def log_in(exchange: Exchange) -> Login:
    """Make the client. Nothing is sent yet.

    Raises `UnavailableError` for ways to log in that this version lacks, `ConfigurationError` as `tls_context` does.
    """
    match exchange.auth:
        case BasicAuth(user=user, password=password):
            # UTF-8 is what Exchange takes, and what RFC 7617 recommends.
            auth = httpx.BasicAuth(user.encode(), password.get_secret_value().encode())
            # The environment's proxies apply (HTTPS_PROXY, NO_PROXY), so the client makes its own transports.
            client = httpx.AsyncClient(
                auth=auth, verify=tls_context(exchange), limits=_LIMITS, follow_redirects=False, cookies=_no_cookies()
            )
            return Login(client, user)
        case other:
            raise UnavailableError(f'auth_type "{other.kind}" is not in this version yet')


def _no_cookies() -> CookieJar:
    """Make a jar that keeps nothing.

    Exchange's cookies (X-BackEndCookie, load balancers' affinity) name the back end of one mailbox, and the client
    is shared by all of them.
    """
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
