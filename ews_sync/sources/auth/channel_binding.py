"""The channel binding of a TLS connection: what ties a log-in to the connection that it was meant for.

Exchange calls it Extended Protection; Exchange Server 2019 CU14 and later demands it by default.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from spnego.channel_bindings import GssChannelBindings

if TYPE_CHECKING:
    import httpx

_PREFIX = b"tls-server-end-point:"
_TOO_WEAK = (hashes.MD5, hashes.SHA1)


def bindings(response: httpx.Response) -> GssChannelBindings | None:
    """Give the binding of the connection that `response` came over; None where there is no TLS."""
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    # An ssl.SSLObject, with uvloop as well.
    certificate = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject | ssl.SSLSocket) else None
    if not certificate:
        return None
    return GssChannelBindings(application_data=_PREFIX + end_point(certificate))


def end_point(certificate: bytes) -> bytes:
    """Give `tls-server-end-point` of a certificate (DER), without its prefix: RFC 5929 section 4.1.

    It is the hash that the certificate's signature uses; SHA-256 for MD5, SHA-1, and where there is none.
    """
    algorithm: hashes.HashAlgorithm | None
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        algorithm = None
    if algorithm is None or isinstance(algorithm, _TOO_WEAK):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate)
    return digest.finalize()
