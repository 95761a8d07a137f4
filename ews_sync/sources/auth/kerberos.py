"""Kerberos in Negotiate (RFC 4559), over lanes: each request carries a ticket, unless the server remembers.

An optional extra: it needs gssapi and krb5, which need the system's Kerberos libraries.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import logging
import re
from typing import TYPE_CHECKING

import spnego

from ews_sync.errors import AuthenticationError, ConfigurationError, ConnectionFailedError, ProtocolError, SourceError
from ews_sync.sources.auth.channel_binding import bindings
from ews_sync.sources.auth.lanes import ReplacedError, pass_by, with_authorization, without_body
from ews_sync.sources.auth.tokens import in_thread
from ews_sync.web.challenges import challenges, of_scheme
from ews_sync.web.failures import one_line
from ews_sync.web.offers import not_offered

if TYPE_CHECKING:
    import httpx
    from spnego.channel_bindings import GssChannelBindings

    from ews_sync.sources.auth.lanes import Lane

_SCHEME = "Negotiate"
_TICKETS = (
    "give the process a keytab (KRB5_CLIENT_KTNAME=/path/to/file.keytab), or a ticket (kinit; KRB5CCNAME names its "
    "cache); klist shows what there is"
)
# MIT krb5's codes (krb5_err.et), as the unsigned numbers that GSSAPI gives.
_KRB5 = 2**32 - 1765328384
_SERVICE_UNKNOWN, _CLOCKS_DIFFER, _REALM_UNKNOWN, _KDC_UNREACHABLE = (_KRB5 + n for n in (7, 37, 154, 156))
_OWN_WORDS = re.compile(r".*Minor \(\d+\): ")


class Kerberos:
    """Logs in at `host` with the process's Kerberos credentials; `user` says whose, where there are several.

    Raises `ConfigurationError` when the packages are not installed.
    """

    def __init__(self, user: str | None, host: str) -> None:
        if importlib.util.find_spec("gssapi") is None or importlib.util.find_spec("krb5") is None:
            raise _not_installed()
        self._user = user
        self._host = host
        self._bound_to: GssChannelBindings | None = None
        self._one_at_a_time = asyncio.Lock()
        # At its debug level pyspnego logs every message.
        logging.getLogger("spnego").setLevel(logging.INFO)

    async def send(self, lane: Lane, request: httpx.Request) -> httpx.Response:
        """Send the request with a ticket.

        Raises what httpx raises; `AuthenticationError` when there is no ticket, the server refuses it or offers no
        Negotiate; `ConnectionFailedError` when no KDC answers.
        """
        if lane.knows_us:
            try:
                response = await lane.send(request, same_connection=True)
            except ReplacedError:
                pass
            else:
                if response.status_code != 401:
                    return response
                await pass_by(response)
        if request.url.scheme == "https" and self._bound_to is None:
            # The ticket is bound to the server's certificate, which only a connection shows.
            response = await lane.send(without_body(request))
            if response.status_code == 401:
                _check_offer(response)
            self._bound_to = bindings(response)
            await pass_by(response)
        response = await self._with_ticket(lane, request)
        seen = bindings(response)
        if response.status_code == 401 and seen != self._bound_to:
            # The server has a new certificate.
            self._bound_to = seen
            await pass_by(response)
            response = await self._with_ticket(lane, request)
        if response.status_code == 401:
            _check_offer(response)
            raise AuthenticationError(
                "the Exchange server refused the Kerberos ticket",
                code="HTTP 401",
                hint=f"check that the service name HTTP/{self._host} is registered for the account that Exchange "
                "runs as (setspn -Q), and that the clocks agree",
            )
        lane.knows_us = str(response.headers.get("persistent-auth", "")).strip().lower() == "true"
        return response

    async def _with_ticket(self, lane: Lane, request: httpx.Request) -> httpx.Response:
        # Getting a ticket waits for the KDC, and the library knows no other way than to block. One at a time: the first
        # of them make the cache that the others find theirs in.
        async with self._one_at_a_time:
            ticket = await in_thread(self._ticket)
        return await lane.send(with_authorization(request, f"{_SCHEME} {base64.b64encode(ticket).decode()}"))

    def _ticket(self) -> bytes:
        try:
            context = spnego.client(
                self._user,
                hostname=self._host,
                service="HTTP",
                channel_bindings=self._bound_to,
                # The server proves itself by its certificate: no third leg for that.
                context_req=spnego.ContextReq.default & ~spnego.ContextReq.mutual_auth,
                # Not "negotiate", which falls back to NTLM without a word.
                protocol="kerberos",
            )
            token = context.step()
        except ImportError as error:
            raise _not_installed() from error
        except spnego.exceptions.SpnegoError as error:
            raise _no_ticket(self._host, error.base_error or error) from error
        if token is None:
            raise ProtocolError("Kerberos made no ticket")
        return token


def _no_ticket(host: str, error: Exception) -> SourceError:
    code = getattr(error, "min_code", 0)
    reason = _OWN_WORDS.sub("", one_line(str(error), longest=500))
    summary = f"no Kerberos ticket for HTTP/{host}: {reason}"
    if code in {_KDC_UNREACHABLE, _REALM_UNKNOWN}:
        return ConnectionFailedError(summary, hint="check the network, DNS, and the realm's KDCs in krb5.conf")
    if code == _SERVICE_UNKNOWN:
        hint = f"ews_endpoint must name the server as its service name does: register HTTP/{host} (setspn -S)"
    elif code == _CLOCKS_DIFFER:
        hint = "set this machine's clock"
    else:
        hint = _TICKETS
    return AuthenticationError(summary, hint=hint)


def _not_installed() -> ConfigurationError:
    return ConfigurationError(
        ('auth_type "kerberos" needs packages that are not installed',), hint="pip install 'ews-sync[kerberos]'"
    )


def _check_offer(response: httpx.Response) -> None:
    offered = challenges(response.headers.get_list("www-authenticate"))
    if of_scheme(offered, _SCHEME) is None:
        raise not_offered(_SCHEME, offered)
