"""Tokens by the OAuth 2 client credentials flow, with msal. Everything here blocks: it belongs into a thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from ews_sync.errors import AuthenticationError, EwsSyncError
from ews_sync.settings.exchange import ClientCertificate, OAuth2
from ews_sync.sources.auth.oauth2_http import IdentityHttp
from ews_sync.sources.auth.tokens import Grant
from ews_sync.web.failures import one_line

if TYPE_CHECKING:
    import ssl

_PUBLIC = "https://outlook.office365.com"
_CLOUDS: tuple[tuple[str, str], ...] = (
    ("outlook-dod.office365.us", "https://outlook-dod.office365.us"),
    ("webmail.apps.mil", "https://outlook-dod.office365.us"),
    ("office365.us", "https://outlook.office365.us"),
    ("outlook.cn", "https://partner.outlook.cn"),
    ("office365.com", _PUBLIC),
    ("office.com", _PUBLIC),
    ("outlook.com", _PUBLIC),
    # An endpoint with a name of its own is a way to some cloud: the one whose identity provider is asked.
    ("login.microsoftonline.us", "https://outlook.office365.us"),
    ("login.partner.microsoftonline.cn", "https://partner.outlook.cn"),
    ("login.chinacloudapi.cn", "https://partner.outlook.cn"),
)
"""Exchange Online in each cloud, by the end of a host's name (learn.microsoft.com: "National cloud deployments")."""

_LIFETIME = 3600
"""Seconds, for a server that does not say: OAuth only recommends to."""


def scope_for(endpoint: str, authority: str) -> str:
    """Give the scope that stands for Exchange: by the endpoint's host, else by the authority's.

    It is that of the public cloud where neither is known.
    """
    for url in (endpoint, authority):
        host = (urlsplit(url).hostname or "").lower()
        for end, resource in _CLOUDS:
            if host == end or host.endswith("." + end):
                return f"{resource}/.default"
    return f"{_PUBLIC}/.default"


class ClientCredentials:
    """Asks an identity provider for tokens. Everything is made when the first is asked for, msal's import included."""

    def __init__(self, auth: OAuth2, scope: str, tls: ssl.SSLContext) -> None:
        self._auth = auth
        self._scope = scope
        self._http = IdentityHttp(tls)
        self._app: Any = None
        """msal's application; it has no types."""

    def fetch(self) -> Grant:
        """Get a token that was issued just now.

        Raises `SourceError` and its children; `ConfigurationError` when the private key cannot be used.
        """
        from msal.exceptions import MsalError  # type: ignore[import-untyped]  # noqa: PLC0415 - memory

        try:
            if self._app is None:
                self._app = self._application()
            # What is still valid is kept elsewhere; msal would give its own copy again instead of asking.
            self._app.remove_tokens_for_client()
            # Named, since msal would import requests to find out what it has to expect.
            result = self._app.acquire_token_for_client([self._scope], http_exceptions=(httpx.HTTPError, MsalError))
            return _grant(result, self._auth.authority, time.time())
        except EwsSyncError:
            raise
        # RuntimeError and what else msal has for a configuration that lacks something.
        except (MsalError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise AuthenticationError(
                f"{self._auth.authority} does not answer as an identity provider does: {one_line(str(error))}",
                hint="check auth_oauth_authority",
            ) from error

    def _application(self) -> object:
        from msal import ConfidentialClientApplication  # type: ignore[import-untyped]  # noqa: PLC0415 - memory

        # Instance discovery would ask Microsoft whether the authority is one of its own: what the config names is
        # meant. The authority has no slash at its end, which msal would make part of the path.
        application: object = ConfidentialClientApplication(
            self._auth.client_id,
            client_credential=self._credential(),
            authority=self._auth.authority,
            http_client=self._http,
            instance_discovery=False,
            azure_region=False,
        )
        return application

    def _credential(self) -> str | dict[str, object]:
        credential = self._auth.credential
        if not isinstance(credential, ClientCertificate):
            return credential.secret.get_secret_value()
        from ews_sync.sources.auth.oauth2_credentials import signer  # noqa: PLC0415 - memory

        signs = signer(credential)

        def assertion() -> str:
            # A new one for each request: msal's own would be sent again, which servers may refuse (RFC 7523, jti).
            authority = self._app.authority
            return signs.assertion(self._auth.client_id, authority.token_endpoint, use_sha1=authority.is_adfs)

        return {"client_assertion": assertion}


def _grant(result: object, authority: str, now: float) -> Grant:
    """Take a token out of what msal gives (RFC 6749 section 5.1); `refresh_on` is its word for Entra's refresh_in."""
    said = result if isinstance(result, dict) else {}
    token = said.get("access_token")
    if not isinstance(token, str) or not _fits_header(token):
        raise AuthenticationError(
            f"{authority} answered without an access token that can be used", hint="check auth_oauth_authority"
        )
    refresh_on = said.get("refresh_on")
    return Grant(
        token, float(said.get("expires_in", _LIFETIME)), None if refresh_on is None else max(0.0, refresh_on - now)
    )


def _fits_header(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token
