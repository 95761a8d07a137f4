r"""NTLM, plain or inside Negotiate ([MS-NTHT], RFC 4559), over lanes.

A handshake is two legs on one connection: the negotiate message without the request's body, which the server answers
with a challenge; then the authenticate message together with the body. From then on the connection is logged in.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

import httpx
import spnego
from spnego._ntlm_raw.crypto import ntowfv1

from ews_sync.errors import AuthenticationError, ProtocolError
from ews_sync.sources.auth.channel_binding import bindings
from ews_sync.sources.auth.lanes import ReplacedError, pass_by, with_authorization, without_body
from ews_sync.web.challenges import Challenge, challenges, of_scheme
from ews_sync.web.offers import not_offered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pydantic import SecretStr
    from spnego.channel_bindings import GssChannelBindings

    from ews_sync.sources.auth.lanes import Lane

_NTLM, _NEGOTIATE = "NTLM", "Negotiate"
_TRIES = 3
_GOOD_FOR = 60.0
"""Seconds for which a password that was accepted counts as known."""


class Ntlm:
    r"""Logs connections in as `user` (`DOMAIN\user`, `user@domain` or `user`).

    Accounts lock after a few wrong passwords, so after one refusal no connection tries it again: every further attempt
    to log in raises `AuthenticationError`.
    """

    def __init__(self, user: str, password: SecretStr, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._user = user
        self._password = password
        self._trust = _Trust(monotonic)
        self._scheme = _NTLM
        self._logged_on: WeakSet[Lane] = WeakSet()
        # At its debug level pyspnego logs every message, and who has an authenticate message can guess passwords.
        logging.getLogger("spnego").setLevel(logging.INFO)

    async def send(self, lane: Lane, request: httpx.Request) -> httpx.Response:
        """Send the request, on a connection that is logged in.

        Raises what httpx raises; `AuthenticationError` when the server offers no NTLM or has refused the password
        before; `ProtocolError` when its challenge makes no sense. A refusal comes as the server's 401.
        """
        for _ in range(_TRIES):
            try:
                if lane.knows_us:
                    response = await lane.send(request, same_connection=True)
                    if response.status_code != 401:
                        return response
                    # It knows us no longer: the server was restarted behind a proxy, or looks at each request anew.
                    lane.knows_us = False
                    await pass_by(response)
                if lane in self._logged_on:
                    # The server ended a connection, perhaps all of them, and perhaps for a new password.
                    self._trust.doubt()
                async with self._trust.passage():
                    return await self._shake_hands(lane, request)
            except httpx.TransportError:
                self._trust.doubt()
                raise
            except ReplacedError:
                # No message of ours was on the new connection: begin again there.
                continue
        raise httpx.RemoteProtocolError("the server closes the connection in the middle of logging in")

    async def _shake_hands(self, lane: Lane, request: httpx.Request) -> httpx.Response:
        context = _Context(self._user, self._password, self._scheme)
        response = await lane.send(without_body(request, context.step()))
        if response.status_code == 401 and self._offers_another(response, context.scheme):
            await pass_by(response)
            context = _Context(self._user, self._password, self._scheme)
            response = await lane.send(without_body(request, context.step()))
        if response.is_success:
            # This server lets everybody in.
            await pass_by(response)
            return await lane.send(request)
        if response.status_code != 401:
            return response
        challenge = of_scheme(_offered(response), context.scheme)
        if challenge is None or not challenge.token:
            raise ProtocolError(f"the Exchange server offers {context.scheme}, but does not begin it")
        answer = context.step(challenge, bindings(response))
        await pass_by(response)
        response = await lane.send(with_authorization(request, answer), same_connection=True)
        if response.status_code == 401:
            self._trust.refused()
        elif response.status_code in {200, 500}:
            self._trust.accepted()
            self._logged_on.add(lane)
        lane.knows_us = response.status_code != 401 and _stays(response)
        return response

    def _offers_another(self, response: httpx.Response, tried: str) -> bool:
        """Tell whether another scheme than the one tried is to be taken; it is remembered for all connections.

        Raises `AuthenticationError` when there is none.
        """
        offered = _offered(response)
        if of_scheme(offered, tried) is not None:
            return False
        scheme = next((known for known in (_NTLM, _NEGOTIATE) if of_scheme(offered, known)), None)
        if scheme is None:
            raise not_offered("NTLM", offered)
        self._scheme = scheme
        return True


class _Trust:
    """Whether the password is known to be good: accepted lately, refused, or unknown.

    While it is unknown, one connection goes ahead and the others wait for what comes of it. It is unknown again when
    it was accepted a while ago, and when the server ends a connection: a password that was changed while a hundred
    connections were open is tried once all the same.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._accepted_at: float | None = None
        self._is_refused = False
        self._alone = asyncio.Lock()

    def accepted(self) -> None:
        self._accepted_at = self._monotonic()

    def doubt(self) -> None:
        self._accepted_at = None

    def refused(self) -> None:
        self._is_refused = True

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        if not self._is_known:
            async with self._alone:
                if not self._is_known:
                    self._raise_refusal()
                    yield
                    return
        self._raise_refusal()
        yield

    @property
    def _is_known(self) -> bool:
        at = self._accepted_at
        return at is not None and not self._is_refused and self._monotonic() - at < _GOOD_FOR

    def _raise_refusal(self) -> None:
        if self._is_refused:
            raise AuthenticationError(
                "the Exchange server refused the user name or password",
                code="HTTP 401",
                hint="check auth_user and the password (REINFER_EWS_AUTH_PASS); it was tried once, since accounts lock",
            )


def _credential(user: str, password: SecretStr) -> spnego.NTLMHash:
    """Give a credential that is good for NTLM alone.

    With a password, Negotiate asks a Kerberos KDC first, where there are libraries for it: that blocks for seconds when
    none answers, and an account may lock for it.
    """
    # Not public, but there is no public way to the hash; pyproject.toml names the version.
    return spnego.NTLMHash(user, nt_hash=ntowfv1(password.get_secret_value()).hex())


class _Context:
    """One handshake: the values of Authorization, one after the other."""

    def __init__(self, user: str, password: SecretStr, scheme: str) -> None:
        self.scheme = scheme
        plain = scheme == _NTLM
        try:
            self._context = spnego.client(
                _credential(user, password),
                protocol="ntlm" if plain else "negotiate",
                options=spnego.NegotiateOptions.use_ntlm if plain else spnego.NegotiateOptions.use_negotiate,
            )
        except spnego.exceptions.SpnegoError as error:
            raise AuthenticationError(f"NTLM cannot be used: {error}", hint="check auth_user") from error

    def step(self, challenge: Challenge | None = None, bound_to: GssChannelBindings | None = None) -> str:
        try:
            token = base64.b64decode(challenge.token, validate=True) if challenge else None
            message = self._context.step(token, channel_bindings=bound_to)
        except Exception as error:
            # A parser of binary messages can stumble in many ways over one that is broken.
            raise ProtocolError(f"the server's NTLM challenge makes no sense: {type(error).__name__}") from error
        if message is None:
            raise ProtocolError("the server ends NTLM before it has begun")
        return f"{self.scheme} {base64.b64encode(message).decode()}"


def _offered(response: httpx.Response) -> tuple[Challenge, ...]:
    return challenges(response.headers.get_list("www-authenticate"))


def _stays(response: httpx.Response) -> bool:
    """Tell whether the server remembers the connection; some say when they do not."""
    return str(response.headers.get("persistent-auth", "")).strip().lower() != "false"
