"""The certificate that a server presents, for messages about one that could not be verified."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx

from ews_sync.web.failures import certificate_failure, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

_WITHIN = 10.0
_NAMES = 4


async def presented_certificate(error: BaseException, url: httpx.URL) -> str:
    """Say whose certificate is presented at `url`, and who signed it, if `error` comes from not trusting it; else "".

    Python does not tell it along with the failure, so this makes another connection, by the same proxies, on which
    nothing is verified and nothing is sent but a HEAD request without credentials for the server's root. Never raises.
    """
    if certificate_failure(error) is None:
        return ""
    try:
        data = await _fetch(url)
        return "" if data is None else _described(data)
    # Whatever goes wrong here, the failure itself is the news.
    except Exception:  # noqa: BLE001
        return ""


async def _fetch(url: httpx.URL) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    root = url.copy_with(raw_path=b"/", userinfo=b"")
    async with (
        httpx.AsyncClient(verify=context, timeout=_WITHIN, follow_redirects=False) as client,
        client.stream("HEAD", root) as response,
    ):
        connection = response.extensions["network_stream"].get_extra_info("ssl_object")
        return connection.getpeercert(binary_form=True) if connection is not None else None


def _described(data: bytes) -> str:
    from cryptography import x509  # noqa: PLC0415 - large, and hardly ever needed

    certificate = x509.load_der_x509_certificate(data)
    subject = _shown(certificate.subject) or "nobody"
    issuer = _shown(certificate.issuer) or "nobody"
    signed = "itself" if certificate.subject == certificate.issuer else issuer
    until = certificate.not_valid_after_utc.date().isoformat()
    names = _names(certificate)
    for_names = f" for {', '.join(names)}" if names else ""
    return one_line(f"it presents {subject}{for_names}, signed by {signed}, valid until {until}", 500)


def _shown(name: x509.Name) -> str:
    return name.rfc4514_string()


def _names(certificate: x509.Certificate) -> Sequence[str]:
    from cryptography import x509  # noqa: PLC0415 - likewise

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    values = [str(name.value) for name in found]
    return values if len(values) <= _NAMES else [*values[:_NAMES], f"{len(values) - _NAMES} more"]
