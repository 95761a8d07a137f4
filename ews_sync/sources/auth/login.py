"""From the settings to an HTTP client that is logged in, one way for each `auth_type`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx

from ews_sync.settings.exchange import BasicAuth, Exchange, KerberosAuth, NtlmAuth, OAuth2
from ews_sync.sources.auth.lanes import KEEP_FOR, LaneTransport
from ews_sync.sources.auth.oauth2 import bearer_auth
from ews_sync.sources.auth.tls import tls_context
from ews_sync.web.transport import new_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ews_sync.sources.auth.lanes import LogOn

_LANES = 32
_ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_FOR)
_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=120)
"""Connections stay open longer than a mailbox waits between rounds: a quiet appliance does not make new ones."""


@dataclass(frozen=True, slots=True)
class Login:
    """A client that carries the credentials, and the account's name.

    Whom the server throttles when mailboxes are reached as a delegate.
    """

    http: httpx.AsyncClient
    account: str


def log_in(exchange: Exchange, token_taken: Callable[[float], None] | None = None) -> Login:
    """Make the client. Nothing is sent yet. `token_taken` hears until when each access token is used (monotonic).

    Raises `ConfigurationError` as `tls_context` does, and when packages for the way to log in are not installed.
    """
    match exchange.auth:
        case BasicAuth(user=user, password=password):
            # UTF-8 is what Exchange takes, and what RFC 7617 recommends.
            auth = httpx.BasicAuth(user.encode(), password.get_secret_value().encode())
            return Login(_client(tls_context(exchange), _LIMITS, auth), user)
        case OAuth2() as oauth2:
            tls = tls_context(exchange)
            # Whatever holds for Exchange: the client's secret is for the identity provider alone.
            verifying = tls if exchange.ssl_verify else tls_context(replace(exchange, ssl_verify=True))
            bearer = bearer_auth(exchange.endpoint, oauth2, verifying, token_taken)
            return Login(_client(tls, _LIMITS, bearer), oauth2.client_id)
        case NtlmAuth(user=user, password=password):
            # What a way to log in needs is loaded by whoever logs in that way: the process's memory is counted.
            from ews_sync.sources.auth.ntlm import Ntlm  # noqa: PLC0415

            return Login(_laned(Ntlm(user, password), tls_context(exchange)), user)
        case KerberosAuth(user=principal):
            from ews_sync.sources.auth.kerberos import Kerberos  # noqa: PLC0415 - as above

            log_on = Kerberos(principal, httpx.URL(exchange.endpoint).host)
            return Login(_laned(log_on, tls_context(exchange)), principal or "kerberos")


def _client(tls: ssl.SSLContext, limits: httpx.Limits, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
    return new_client(tls, limits, auth=auth, cookies=_no_cookies())


def _laned(log_on: LogOn, tls: ssl.SSLContext) -> httpx.AsyncClient:
    # A lane is a client and not a transport, since the environment's proxies apply here, too.
    transport = LaneTransport(log_on, lambda: _client(tls, _ONE), lanes=_LANES)
    return httpx.AsyncClient(transport=transport, follow_redirects=False, cookies=_no_cookies())


def _no_cookies() -> CookieJar:
    """Make a jar that keeps nothing.

    Exchange's cookies (X-BackEndCookie, load balancers' affinity) name the back end of one mailbox, and the client
    is shared by all of them.
    """
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
