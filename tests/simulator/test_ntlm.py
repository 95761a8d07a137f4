"""The simulated Exchange's own NTLM: what Microsoft's examples say, and what it refuses."""

from __future__ import annotations

import base64
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
import spnego

from ews_sync.simulator import ntlm_messages as messages
from ews_sync.simulator.access import Account
from ews_sync.simulator.ntlm import NtlmAuthenticator
from ews_sync.simulator.ntlm_spnego import unwrapped, wrapped
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USER, PASSWORD = r"CORP\svc", "Pässw0rd!"


@asynccontextmanager
async def world(authenticator: NtlmAuthenticator) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    # One connection, so that what is said one after the other is said on the same one.
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        ExchangeServer(Exchange(), authenticator=authenticator) as server,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        yield http, server.url


async def say(http: aiohttp.ClientSession, url: str, token: bytes | None, data: bytes = b"") -> tuple[int, bytes]:
    """Send a message; give the status and the server's message."""
    headers = {} if token is None else {"Authorization": f"NTLM {base64.b64encode(token).decode()}"}
    async with http.post(url, headers=headers, data=data) as response:
        offered = response.headers.getall("WWW-Authenticate", [])
        answer = next((value for value in offered if value.startswith("NTLM ")), "NTLM ")
        return response.status, base64.b64decode(answer[5:])


def context(user: str = USER, password: str = PASSWORD) -> spnego.ContextProxy:
    return spnego.client(user, password, protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "31d6cfe0d16ae931b73c59d7e0c089c0"),
        (b"abc", "a448017aaf21d8525fc10ae87aa6729d"),
        (b"1234567890" * 8, "e33b4ddc9c38f2199c3e7b164fcc0536"),
    ],
)
def test_md4_as_in_rfc_1320(data: bytes, digest: str) -> None:
    assert messages.md4(data).hex() == digest


def test_ntlmv2_as_in_microsofts_example() -> None:
    """[MS-NLMP] section 4.2.4: the user User of Domain, with the password Password."""
    challenge = bytes.fromhex("0123456789abcdef")
    pairs = b"".join(
        struct.pack("<HH", number, len(text) * 2) + text.encode("utf-16-le") for number, text in PAIRS
    ) + bytes(4)
    client_data = b"\1\1" + bytes(6) + bytes(8) + b"\xaa" * 8 + bytes(4) + pairs + bytes(4)
    proof = bytes.fromhex("68cd0ab851e51c96aabc927bebef6a1c")
    message = messages.Authenticate(
        b"", 0, proof + client_data, "Domain", "User", b"", mic_is_there=False, bindings=bytes(16)
    )
    key = messages.session_base_key("Password", message, challenge)
    assert key is not None
    assert key.hex() == "8de40ccadbc14a82f15cb0ad0de95ca3"
    assert messages.session_base_key("password", message, challenge) is None


PAIRS = ((2, "Domain"), (1, "Server"))


async def test_a_connection_is_logged_on_and_another_one_is_not() -> None:
    authenticator = NtlmAuthenticator([Account(USER, PASSWORD)])
    async with world(authenticator) as (http, url):
        ntlm = context()
        status, challenge = await say(http, url, ntlm.step())
        assert status == 401
        # What comes next is no SOAP, but whoever says it is known.
        assert (await say(http, url, ntlm.step(challenge), b"x"))[0] == 415
        assert (await say(http, url, None, b"x"))[0] == 415
        async with aiohttp.ClientSession() as other:
            assert (await say(other, url, None, b"xyz"))[0] == 401
    first, second = authenticator.connections
    assert (first.requests, first.negotiated, first.authenticated, first.early_bytes) == (3, 1, 1, 0)
    assert (second.requests, second.negotiated, second.authenticated, second.early_bytes) == (1, 0, 0, 3)


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), (r"CORP\other", PASSWORD), ("svc", PASSWORD)])
async def test_who_is_refused(user: str, password: str) -> None:
    authenticator = NtlmAuthenticator([Account(USER, PASSWORD)])
    async with world(authenticator) as (http, url):
        ntlm = context(user, password)
        _, challenge = await say(http, url, ntlm.step())
        assert (await say(http, url, ntlm.step(challenge)))[0] == 401
        assert (await say(http, url, None))[0] == 401


async def test_a_message_changed_on_the_way_is_refused() -> None:
    authenticator = NtlmAuthenticator([Account(USER, PASSWORD)])
    async with world(authenticator) as (http, url):
        ntlm = context()
        _, challenge = await say(http, url, ntlm.step())
        message = ntlm.step(challenge) or b""
        # The last byte of the MIC.
        changed = message[:87] + bytes((message[87] ^ 1,)) + message[88:]
        assert (await say(http, url, changed))[0] == 401


async def test_an_authenticate_message_does_not_work_twice() -> None:
    authenticator = NtlmAuthenticator([Account(USER, PASSWORD)])
    async with world(authenticator) as (http, url):
        ntlm = context()
        _, challenge = await say(http, url, ntlm.step())
        message = ntlm.step(challenge)
        assert (await say(http, url, message))[0] == 415
        assert (await say(http, url, message))[0] == 401


@pytest.mark.parametrize(
    "message", [b"", b"NTLMSSP\0", b"NTLMSSP\0\3\0\0\0" + b"\xff" * 60, b"\x60\x82", b"\x60\x7f\x06"]
)
async def test_nonsense_is_refused(message: bytes) -> None:
    authenticator = NtlmAuthenticator([Account(USER, PASSWORD)])
    async with world(authenticator) as (http, url):
        assert (await say(http, url, message))[0] == 401


def test_spnego_can_be_read_by_others() -> None:
    message = messages.challenge(bytes(16), bytes(8), domain="CORP", computer="EXCH1", now=0)
    assert unwrapped(wrapped(message)) == message
    assert unwrapped(message) == message
    long = message + bytes(300)
    assert unwrapped(wrapped(long)) == long


async def test_a_connection_ends_after_its_requests() -> None:
    authenticator = NtlmAuthenticator([])
    async with (
        ExchangeServer(Exchange(), authenticator=authenticator, requests_per_connection=2) as server,
        aiohttp.ClientSession() as http,
    ):
        for _ in range(5):
            await say(http, server.url, None)
    assert [connection.requests for connection in authenticator.connections] == [2, 2, 1]
