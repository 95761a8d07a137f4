"""Applications, and the tokens that they are given. Knows no HTTP."""

from __future__ import annotations

import base64
import hmac
import json
import secrets as random_secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.simulator.identity.assertions import TYPE, verified
from ews_sync.simulator.identity.errors import RefusedError, bad_assertion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

EXCHANGE = "https://outlook.office365.com"
FULL_ACCESS = "full_access_as_app"


@dataclass(frozen=True, slots=True)
class Secret:
    """A client secret; `expires_at` is in seconds since 1970, None for never."""

    value: str = field(repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class App:
    """A registered application. `certificates` are in PEM form, `roles` what an administrator has consented to."""

    client_id: str
    secrets: Sequence[Secret] = ()
    certificates: Sequence[str] = ()
    roles: Collection[str] = (FULL_ACCESS,)
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, and what it says; `expires_at` is in seconds since 1970. `lifetime` is what its client is told."""

    value: str = field(repr=False)
    client_id: str
    resource: str
    roles: tuple[str, ...]
    expires_at: float
    lifetime: float
    refresh_in: float | None = None


class IdentityProvider:
    """One tenant. `apps` and the settings can be changed at any time; `clock` gives seconds since 1970.

    `lifetime` is that of tokens, in seconds; `refresh_in` is when a client should renew one, None for nothing said.
    With `as_jwt` tokens look like Entra's (their signature is worth nothing). With `once` an assertion can be used once
    only, as a strict server has it (RFC 7523 section 3, jti).
    """

    def __init__(  # noqa: PLR0913 - how it behaves
        self,
        tenant: str,
        apps: Iterable[App] = (),
        *,
        resources: Collection[str] = (EXCHANGE,),
        lifetime: float = 3599,
        refresh_in: float | None = None,
        as_jwt: bool = True,
        once: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tenant = tenant
        self.apps = {app.client_id: app for app in apps}
        self.resources = resources
        self.lifetime = lifetime
        self.refresh_in = refresh_in
        self.as_jwt = as_jwt
        self.once = once
        self.clock = clock
        self.algorithms: Counter[str] = Counter()
        self._tokens: dict[str, IssuedToken] = {}
        self._seen: set[str] = set()

    @property
    def tokens(self) -> tuple[IssuedToken, ...]:
        """All tokens that are not revoked, oldest first, expired ones included."""
        return tuple(self._tokens.values())

    def grant(self, form: Mapping[str, str], audiences: Collection[str]) -> IssuedToken:
        """Answer a token request; `audiences` are the names that an assertion can call this server by.

        Raises:
            RefusedError: there is no token.

        """
        if form.get("grant_type") != "client_credentials":
            raise RefusedError("unsupported_grant_type", 70003, "Only client_credentials are taken.")
        app = self._app(form.get("client_id", ""))
        if "client_assertion" in form:
            self._check_assertion(app, form, audiences)
        else:
            self._check_secret(app, form.get("client_secret"))
        if not app.is_enabled:
            raise RefusedError("unauthorized_client", 7000112, f"Application '{app.client_id}' is disabled.", 401)
        return self._issue(app, self._resource(form.get("scope", "")))

    def find(self, value: str) -> IssuedToken | None:
        """Return the token if it is good now: issued here, not expired, not revoked."""
        token = self._tokens.get(value)
        return token if token is not None and self.clock() < token.expires_at else None

    def revoke_all(self) -> None:
        """Take all tokens back."""
        self._tokens.clear()

    def _app(self, client_id: str) -> App:
        app = self.apps.get(client_id)
        if app is None:
            raise RefusedError(
                "unauthorized_client",
                700016,
                f"Application with identifier '{client_id}' was not found in the directory '{self.tenant}'.",
            )
        return app

    def _check_secret(self, app: App, given: str | None) -> None:
        if not given:
            raise RefusedError("invalid_client", 7000218, "There must be a client_assertion or a client_secret.", 401)
        secret = next((one for one in app.secrets if hmac.compare_digest(one.value.encode(), given.encode())), None)
        if secret is None:
            text = "The client secret is not valid. The secret's value belongs here, not the secret's id."
            raise RefusedError("invalid_client", 7000215, text, 401)
        if secret.expires_at is not None and secret.expires_at <= self.clock():
            raise RefusedError("invalid_client", 7000222, "The client secret keys have expired.", 401)

    def _check_assertion(self, app: App, form: Mapping[str, str], audiences: Collection[str]) -> None:
        if form.get("client_assertion_type") != TYPE:
            raise bad_assertion(50027, "The assertion's type is not one that is taken.")
        jti, algorithm = verified(form["client_assertion"], app.client_id, app.certificates, audiences, self.clock())
        if self.once and jti in self._seen:
            raise bad_assertion(700024, "The assertion was used before.")
        self._seen.add(jti)
        self.algorithms[algorithm] += 1

    def _resource(self, scope: str) -> str:
        resource, _, what = scope.rpartition("/")
        if what != ".default" or not resource:
            raise RefusedError("invalid_scope", 1002012, f"The scope '{scope}' must end with /.default.")
        if resource not in self.resources:
            raise RefusedError("invalid_resource", 500011, f"The resource '{resource}' was not found in the tenant.")
        return resource

    def _issue(self, app: App, resource: str) -> IssuedToken:
        expires_at = self.clock() + self.lifetime
        value = random_secrets.token_urlsafe(24)
        if self.as_jwt:
            claims = {"aud": resource, "appid": app.client_id, "roles": list(app.roles), "exp": int(expires_at)}
            value = ".".join(_encode(part) for part in ({"typ": "JWT", "alg": "RS256"}, claims)) + "." + value
        token = IssuedToken(
            value, app.client_id, resource, tuple(app.roles), expires_at, self.lifetime, self.refresh_in
        )
        self._tokens[value] = token
        return token


def _encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
