r"""NTLM for the simulated Exchange: who logs on, once for each connection, as IIS does it.

authenticator = NtlmAuthenticator([Account(r"CORP\svc", "secret", mailbox="svc@example.com")])
async with ExchangeServer(exchange, authenticator=authenticator) as server:
    ...  # authenticator.connections has what happened on each connection
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.simulator import ntlm_messages as messages
from ews_sync.simulator.ntlm_spnego import unwrapped, wrapped

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from aiohttp import web

    from ews_sync.simulator.access import Account

NTLM, NEGOTIATE = "NTLM", "Negotiate"


@dataclass(slots=True)
class Connection:
    """What happened on one connection.

    `negotiated` and `authenticated` count negotiate and authenticate messages, the latter whether right or wrong;
    `early_bytes` the bytes of bodies that came with a request that was refused, or before the log-on. `in_spnego` tells
    how the last negotiate message came.
    """

    account: Account | None = None
    requests: int = 0
    negotiated: int = 0
    authenticated: int = 0
    early_bytes: int = 0
    in_spnego: bool = False
    _negotiate: bytes = field(default=b"", repr=False)
    _challenge: bytes = field(default=b"", repr=False)
    _header: str = field(default="", repr=False)

    def begin(self, negotiate: bytes, challenge: bytes, header: str) -> None:
        """Keep a negotiate message, the challenge that answers it, and that as the value of WWW-Authenticate."""
        self.account = None
        self.negotiated += 1
        self._negotiate, self._challenge, self._header = negotiate, challenge, header

    def pending(self) -> tuple[bytes, bytes] | None:
        """Take the handshake that has begun: the negotiate message and the challenge."""
        begun = (self._negotiate, self._challenge) if self._challenge else None
        self._negotiate = self._challenge = b""
        return begun

    @property
    def challenge_header(self) -> str | None:
        """The value of WWW-Authenticate while a handshake is under way."""
        return self._header if self._challenge else None


class NtlmAuthenticator:
    r"""Logs connections on with NTLMv2. Accounts are named `DOMAIN\user`, `user@domain` or `user`.

    `schemes` are what a 401 offers; of them NTLM works, and Negotiate with NTLM inside. `application_data` demands
    channel bindings: b"tls-server-end-point:" and the certificate's hash.
    With `remembers` off each request has to log on.
    """

    def __init__(
        self,
        accounts: Iterable[Account],
        *,
        schemes: Iterable[str] = (NEGOTIATE, NTLM),
        application_data: bytes | None = None,
        remembers: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._accounts = {account.user.casefold(): account for account in accounts}
        self._schemes = tuple(schemes)
        self._bindings = None if application_data is None else messages.bindings_of(application_data)
        self._remembers = remembers
        self._clock = clock
        self._by_transport: dict[asyncio.BaseTransport, Connection] = {}
        self.connections: list[Connection] = []

    def authenticate(self, request: web.Request) -> Account | None:
        """Return whom the request's connection is logged on as, or None for a 401."""
        connection = self._connection(request)
        connection.requests += 1
        account = self._identify(request, connection)
        if account is None:
            connection.early_bytes += request.content_length or int(request.body_exists)
        elif not self._remembers:
            connection.account = None
        return account

    def challenges(self, request: web.Request) -> list[str]:
        """Return the challenge of a handshake that has begun, else what there is to choose from."""
        begun = self._connection(request).challenge_header
        return [begun] if begun is not None else list(self._schemes)

    def change(self, account: Account) -> None:
        """Let somebody log on with another password from now on. Connections that are logged on stay so."""
        self._accounts[account.user.casefold()] = account

    def close_idle(self) -> None:
        """Close all connections, as a server does with those that were not used for a while."""
        for transport in list(self._by_transport):
            transport.close()

    @property
    def handshakes(self) -> int:
        """How many authenticate messages have come, on all connections."""
        return sum(connection.authenticated for connection in self.connections)

    @property
    def early_bytes(self) -> int:
        """How many bytes of bodies have come in vain."""
        return sum(connection.early_bytes for connection in self.connections)

    def _connection(self, request: web.Request) -> Connection:
        transport = request.transport
        if transport is None:
            return Connection()
        if transport not in self._by_transport:
            # Weak references would do, but uvloop's transports have none.
            for ended in [other for other in self._by_transport if other.is_closing()]:
                del self._by_transport[ended]
            self._by_transport[transport] = Connection()
            self.connections.append(self._by_transport[transport])
        return self._by_transport[transport]

    def _identify(self, request: web.Request, connection: Connection) -> Account | None:
        header = request.headers.get("Authorization")
        if header is None:
            return connection.account
        scheme, _, credentials = header.partition(" ")
        offered = next((known for known in self._schemes if known.casefold() == scheme.casefold()), None)
        if offered is None or offered not in {NTLM, NEGOTIATE}:
            return None
        try:
            token = base64.b64decode(credentials, validate=True)
            message = unwrapped(token)
            if messages.message_type(message) == messages.NEGOTIATE:
                self._begin(connection, offered, message, is_wrapped=message != token)
                return None
            return self._finish(connection, messages.authenticate(message))
        except (binascii.Error, messages.MalformedMessageError):
            return None

    def _begin(self, connection: Connection, scheme: str, negotiate: bytes, *, is_wrapped: bool) -> None:
        answer = messages.challenge(negotiate, os.urandom(8), domain="CORP", computer="EXCH1", now=self._clock())
        token = wrapped(answer) if is_wrapped else answer
        connection.in_spnego = is_wrapped
        connection.begin(negotiate, answer, f"{scheme} {base64.b64encode(token).decode()}")

    def _finish(self, connection: Connection, message: messages.Authenticate) -> Account | None:
        connection.authenticated += 1
        begun = connection.pending()
        if begun is None:
            return None
        negotiate, challenge = begun
        name = f"{message.domain}\\{message.user}" if message.domain else message.user
        account = self._accounts.get(name.casefold())
        if account is None:
            return None
        key = messages.session_base_key(account.password, message, challenge[24:32])
        if key is None or (message.mic_is_there and not messages.mic_is_right(key, negotiate, challenge, message)):
            return None
        if self._bindings is not None and message.bindings != self._bindings:
            return None
        connection.account = account
        return account
