"""Signed assertions (RFC 7523) as Entra checks them: by the certificates that are registered for the application."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ews_sync.simulator.identity.errors import bad_assertion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LEEWAY = 300.0
_ALGORITHMS: dict[str, tuple[str, hashes.HashAlgorithm, AsymmetricPadding]] = {
    "RS256": ("x5t", hashes.SHA1(), padding.PKCS1v15()),  # noqa: S303 - what x5t is made of
    "PS256": (
        "x5t#S256",
        hashes.SHA256(),
        padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH),
    ),
}
"""By `alg`: the header that names the certificate, the hash that it is made of, and the signature's padding."""


def verified(
    assertion: str, client_id: str, certificates: Iterable[str], audiences: Collection[str], now: float
) -> tuple[str, str]:
    """Check an assertion; return its `jti` and the algorithm that it was signed with.

    `certificates` are those in PEM form that the application has. `audiences` are the names of this server.

    Raises:
        RefusedError: it is not good.

    """
    try:
        signed, _, signature_text = assertion.rpartition(".")
        header, claims = (json.loads(_decode(part)) for part in signed.split("."))
        signature = _decode(signature_text)
    except (ValueError, binascii.Error):
        raise bad_assertion(50027, "The assertion is no JSON Web Token.") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise bad_assertion(50027, "The assertion is no JSON Web Token.")
    algorithm = str(header.get("alg"))
    if algorithm not in _ALGORITHMS:
        raise bad_assertion(5002730, f"Signatures of the kind {algorithm} are not taken.")
    certificate = _certificate(header, algorithm, certificates, now)
    _check_signature(certificate, algorithm, signed.encode(), signature)
    _check_claims(claims, client_id, audiences, now)
    return str(claims["jti"]), algorithm


def _certificate(header: dict[str, Any], algorithm: str, certificates: Iterable[str], now: float) -> x509.Certificate:
    name, digest, _ = _ALGORITHMS[algorithm]
    wanted = header.get(name)
    if not isinstance(wanted, str):
        raise bad_assertion(700027, f"The assertion does not name its certificate ({name}).")
    known = [x509.load_pem_x509_certificate(pem.encode()) for pem in certificates]
    certificate = next((one for one in known if _encode(one.fingerprint(digest)) == wanted.rstrip("=")), None)
    if certificate is None:
        raise bad_assertion(
            700027, "The certificate that signed the assertion is not registered for the application. [not found]"
        )
    if certificate.not_valid_after_utc.timestamp() < now:
        raise bad_assertion(700027, "The certificate that signed the assertion has expired. [expired]")
    return certificate


def _check_signature(certificate: x509.Certificate, algorithm: str, signed: bytes, signature: bytes) -> None:
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise bad_assertion(5002730, "The certificate's key is not of the kind that the assertion says.")
    try:
        key.verify(signature, signed, _ALGORITHMS[algorithm][2], hashes.SHA256())
    except InvalidSignature:
        raise bad_assertion(700027, "The assertion's signature is not valid.") from None


def _check_claims(claims: dict[str, Any], client_id: str, audiences: Collection[str], now: float) -> None:
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise bad_assertion(700021, "The assertion is about another application than client_id.")
    if claims.get("aud") not in audiences:
        raise bad_assertion(700023, "The assertion is meant for another server.")
    try:
        expires, begins = float(claims["exp"]), float(claims.get("nbf", claims.get("iat", now)))
    except (KeyError, TypeError, ValueError):
        raise bad_assertion(50027, "The assertion has no times.") from None
    if not begins - _LEEWAY <= now <= expires + _LEEWAY:
        raise bad_assertion(700024, "The assertion is not within the time in which it is valid.")
    if not claims.get("jti"):
        raise bad_assertion(50027, "The assertion has no id of its own.")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
