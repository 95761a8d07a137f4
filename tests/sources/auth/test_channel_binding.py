"""Channel bindings: their value, and what gss-ntlmssp says to them (by way of python3-gssapi)."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import TYPE_CHECKING

import pytest
import uvloop

from ews_sync.sources.auth.channel_binding import end_point
from tests.sources.auth.ntlm_world import ask_often, client
from tests.sources.auth.real_peers import acceptor, certificate, python_with_gssapi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


needs_peer = pytest.mark.skipif(python_with_gssapi() is None, reason="needs python3-gssapi and gss-ntlmssp")


EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("-newkey", "rsa:2048")
KINDS = [
    pytest.param((*EC, "-sha256"), "sha256", id="ecdsa-sha256"),
    pytest.param((*RSA, "-sha384"), "sha384", id="rsa-sha384"),
    pytest.param((*RSA, "-sha512"), "sha512", id="rsa-sha512"),
    # RFC 5929: SHA-256 where the certificate's own is weaker.
    pytest.param((*RSA, "-sha1"), "sha256", id="rsa-sha1"),
    pytest.param((*RSA, "-sha384", "-sigopt", "rsa_padding_mode:pss"), "sha384", id="rsa-pss-sha384"),
    pytest.param(("-newkey", "ed25519"), "sha256", id="ed25519"),
]


@pytest.mark.parametrize(("options", "algorithm"), KINDS)
def test_the_hash_is_that_of_the_certificates_signature(
    options: tuple[str, ...], algorithm: str, tmp_path: Path
) -> None:
    pem = certificate(tmp_path, *options).read_text().partition("-----BEGIN PRIVATE")[0]
    der = ssl.PEM_cert_to_DER_cert(pem)
    assert end_point(der) == hashlib.new(algorithm, der).digest()


def test_what_is_no_certificate_is_hashed_all_the_same() -> None:
    assert end_point(b"no certificate") == hashlib.sha256(b"no certificate").digest()


async def statuses(url: str, pem: Path) -> list[int]:
    async with client(url, user=r"DOM\bob", password="secret1", bundle=pem) as http:
        return await ask_often(http, url, 6, at_once=2)


@pytest.mark.channel_binding_peer
@needs_peer
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("options", "algorithm"), KINDS[:2])
def test_gss_ntlmssp_takes_our_bindings(
    loop: Callable[[], asyncio.AbstractEventLoop], options: tuple[str, ...], algorithm: str, tmp_path: Path
) -> None:
    pem = certificate(tmp_path, *options)
    with acceptor(tmp_path, pem, algorithm) as url, asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(statuses(url, pem)) == [200] * 6


@pytest.mark.channel_binding_peer
@needs_peer
def test_gss_ntlmssp_refuses_bindings_to_another_certificate(tmp_path: Path) -> None:
    pem = certificate(tmp_path, *EC, "-sha256")
    # As if somebody stood in between: the acceptor binds to something else than what the client sees.
    with acceptor(tmp_path, pem, "sha512") as url, asyncio.Runner() as runner:

        async def once() -> int:
            async with client(url, user=r"DOM\bob", password="secret1", bundle=pem) as http:
                return (await http.post(url, content=b"x")).status_code

        assert runner.run(once()) == 401
