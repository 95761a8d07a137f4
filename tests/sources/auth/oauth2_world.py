"""What the tests of OAuth 2 share: keys and certificates, and settings for the stand-ins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from ews_sync.settings.exchange import AccessType, ClientCertificate, ClientSecret, Exchange, OAuth2

if TYPE_CHECKING:
    from pathlib import Path

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT_ID = "66666666-7777-8888-9999-000000000000"
SECRET = "s3cr~t/+&=välue"
ENDPOINT = "https://outlook.office365.com/EWS/Exchange.asmx"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate, both in PEM form, and the certificate's SHA-1 in hexadecimal."""

    key: str
    certificate: str
    thumbprint: str


@cache
def key_pair(number: int = 1, days: int = 30) -> KeyPair:
    """The same one for the same arguments; `days` until it expires, which can be in the past."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"client {number}")])
    ends = datetime.now(UTC) + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(
        pem_of(key),
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        certificate.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303 - what thumbprints are
    )


def pem_of(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def oauth2(
    authority: str,
    credential: ClientSecret | ClientCertificate | None = None,
    *,
    client_id: str = CLIENT_ID,
) -> OAuth2:
    return OAuth2(authority, client_id, credential or ClientSecret(SecretStr(SECRET)))


def with_certificate(pair: KeyPair, *, thumbprint: bool = False, certificate: bool = True) -> ClientCertificate:
    return ClientCertificate(
        SecretStr(pair.key), pair.thumbprint if thumbprint else None, pair.certificate if certificate else None
    )


def settings(endpoint: str, auth: OAuth2, bundle: Path | None) -> Exchange:
    return Exchange(endpoint, auth, AccessType.IMPERSONATION, ssl_ca_bundle=bundle)
