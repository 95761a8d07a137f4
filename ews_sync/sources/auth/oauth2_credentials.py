"""An OAuth 2 client's private key and certificate: do they belong together, and how they sign.

Imports `cryptography` and is therefore imported only where a private key is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msal.oauth2cli import JwtAssertionCreator  # type: ignore[import-untyped]

from ews_sync.errors import ConfigurationError

if TYPE_CHECKING:
    from ews_sync.settings.exchange import ClientCertificate

_KEY = "auth_oauth_client_credential_private_key"
_THUMBPRINT = "auth_oauth_client_credential_thumbprint"
_CERTIFICATE = "auth_oauth_client_credential_certificate"
_EXPIRES_IN = 600


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs the assertions that stand for the client (RFC 7523 section 3).

    `x5t` and `x5t_s256` name the certificate (RFC 7515 sections 4.1.7 and 4.1.8): its SHA-1 or SHA-256 in hexadecimal.
    """

    key: RSAPrivateKey
    x5t: str | None
    x5t_s256: str | None

    def assertion(self, client_id: str, audience: str, *, use_sha1: bool) -> str:
        """Make one for the token endpoint `audience`; each has an id of its own, and is good for ten minutes.

        PS256 with x5t#S256 as Microsoft recommends it, where there is a certificate; RS256 with x5t otherwise, and for
        AD FS (`use_sha1`), which knows no other.
        """
        if self.x5t_s256 is None or (use_sha1 and self.x5t is not None):
            creator = JwtAssertionCreator(self.key, "RS256", sha1_thumbprint=self.x5t)
        else:
            creator = JwtAssertionCreator(self.key, "PS256", sha256_thumbprint=self.x5t_s256)
        signed = creator.create_normal_assertion(audience, client_id, expires_in=_EXPIRES_IN)
        # As text: httpx would send bytes as their repr.
        return str(signed, "ascii") if isinstance(signed, bytes) else str(signed)


def signer(credential: ClientCertificate) -> Signer:
    """Make the signer. Raises `ConfigurationError` when key, certificate and thumbprint cannot be used together."""
    key = _private_key(credential.private_key.get_secret_value())
    if credential.certificate is None:
        return Signer(key, credential.thumbprint, None)
    certificate = _certificate_of(key, credential.certificate)
    sha1 = certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - what x5t is made of
    if credential.thumbprint not in {None, sha1}:
        raise ConfigurationError(
            (f"{_THUMBPRINT}: is that of another certificate than {_CERTIFICATE}, whose thumbprint is {sha1}",),
            hint=f"leave {_THUMBPRINT} out: the certificate is enough",
        )
    return Signer(key, sha1, certificate.fingerprint(hashes.SHA256()).hex())


def _private_key(pem: str) -> RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except TypeError as error:
        raise ConfigurationError(
            (f"{_KEY}: is protected by a passphrase: give the private key without one",)
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The library's words may quote what it read.
        raise ConfigurationError(
            (f"{_KEY}: the private key is damaged, or of a kind that is not known: copy the whole PEM text again",)
        ) from error
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError((f"{_KEY}: must be an RSA key, which is what Entra takes",))
    return key


def _certificate_of(key: RSAPrivateKey, pem: str) -> x509.Certificate:
    """Find the key's own certificate: a file may have those of its authorities, too, in any order."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise ConfigurationError((f"{_CERTIFICATE}: the certificate is damaged: copy the PEM text again",)) from error
    own = key.public_key()
    for certificate in certificates:
        try:
            if certificate.public_key() == own:
                return certificate
        except (ValueError, UnsupportedAlgorithm):
            continue
    raise ConfigurationError(
        (f"{_KEY}: does not belong to the certificate of {_CERTIFICATE}: give the key that it was made with",)
    )
