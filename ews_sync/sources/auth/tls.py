"""The TLS context that all connections to a server share; making one takes tens of milliseconds, so it is made once."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from ews_sync.errors import ConfigurationError
from ews_sync.web.tls import system_context

if TYPE_CHECKING:
    from ews_sync.settings.exchange import Exchange


def tls_context(exchange: Exchange) -> ssl.SSLContext:
    """Make the context.

    The system's certificate authorities (SSL_CERT_FILE honoured), those of `ews_ssl_ca_bundle` besides.

    Without `ssl_verify` no certificate is looked at; whoever calls this says so loudly. Raises `ConfigurationError`
    when the bundle cannot be read, or the ciphers are none that OpenSSL knows.
    """
    context = system_context()
    if exchange.ssl_ca_bundle is not None:
        try:
            context.load_verify_locations(cafile=str(exchange.ssl_ca_bundle))
        except OSError as error:
            reason = "it holds no certificates (PEM)" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigurationError((f"ews_ssl_ca_bundle: {exchange.ssl_ca_bundle}: {reason}",)) from error
    if exchange.ssl_ciphers is not None:
        try:
            context.set_ciphers(exchange.ssl_ciphers)
        except ssl.SSLError as error:
            raise ConfigurationError((f"ews_ssl_ciphers: OpenSSL knows none of {exchange.ssl_ciphers!r}",)) from error
    if not exchange.ssl_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
