"""The TLS context that all connections to a server share; making one takes tens of milliseconds, so it is made once."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import certifi

if TYPE_CHECKING:
    from ews_sync.settings.exchange import Exchange


def tls_context(exchange: Exchange) -> ssl.SSLContext:
    """Make the context.

    The system's certificate authorities (SSL_CERT_FILE honoured), those of `ews_ssl_ca_bundle` besides.

    Without `ssl_verify` no certificate is looked at; whoever calls this says so loudly.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or (paths.capath and any(os.scandir(paths.capath)))):
        # A minimal image may have no system store.
        context.load_verify_locations(cafile=str(Path(certifi.where())))
    if exchange.ssl_ca_bundle is not None:
        context.load_verify_locations(cafile=str(exchange.ssl_ca_bundle))
    if exchange.ssl_ciphers is not None:
        context.set_ciphers(exchange.ssl_ciphers)
    if not exchange.ssl_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
