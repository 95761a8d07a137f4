"""Bearer tokens at the simulated Exchange, as Exchange Online takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.simulator.identity.provider import EXCHANGE, FULL_ACCESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

    from ews_sync.simulator.access import Account
    from ews_sync.simulator.identity.provider import IdentityProvider, IssuedToken

_EXCHANGE_ID = "00000002-0000-0ff1-ce00-000000000000"
"""Exchange Online's own id in every tenant."""


class BearerAuthenticator:
    """Takes the tokens of one identity provider. An account's `user` is the client id that it belongs to.

    An `Authenticator` for `ExchangeServer`. A token must be issued for `resource`, and its application must have the
    permission full_access_as_app.
    """

    def __init__(self, identity: IdentityProvider, accounts: Iterable[Account], *, resource: str = EXCHANGE) -> None:
        self._identity = identity
        self._accounts = {account.user.casefold(): account for account in accounts}
        self._resource = resource

    def authenticate(self, request: web.Request) -> Account | None:
        """Return the account of the application that the request's token was issued to."""
        token = self._token(request)
        if token is None or token.resource != self._resource or FULL_ACCESS not in token.roles:
            return None
        return self._accounts.get(token.client_id.casefold())

    def challenges(self, request: web.Request) -> list[str]:
        """Ask for a token; `error` says that there was one, and that it is not good (RFC 6750 section 3.1)."""
        parts = [
            f'Bearer client_id="{_EXCHANGE_ID}"',
            'trusted_issuers="00000001-0000-0000-c000-000000000000@*"',
            'token_types="app_asserted_user_v1 service_asserted_app_v1"',
            'authorization_uri="https://login.windows.net/common/oauth2/authorize"',
        ]
        if "Authorization" in request.headers:
            parts.append('error="invalid_token"')
        return [", ".join(parts)]

    def _token(self, request: web.Request) -> IssuedToken | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        return self._identity.find(value.strip()) if scheme.casefold() == "bearer" else None
