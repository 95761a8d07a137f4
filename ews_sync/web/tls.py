"""The certificate authorities that are trusted without being told."""

from __future__ import annotations

import os
import ssl
import urllib.request
from pathlib import Path

import certifi


def system_context() -> ssl.SSLContext:
    """Make a client's context that trusts the system's authorities (SSL_CERT_FILE and SSL_CERT_DIR honoured).

    Making one takes tens of milliseconds: make one for each server, not for each connection.
    """
    context = ssl.create_default_context()
    if not _has_system_store():
        # A minimal image may have no system store.
        context.load_verify_locations(cafile=str(Path(certifi.where())))
    return context


def context_for(url: str) -> ssl.SSLContext:
    """Make a context for the server at a URL: one that trusts nobody where nothing but clear text is spoken."""
    if url.startswith("http:") and not urllib.request.getproxies():
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return system_context()


def _has_system_store() -> bool:
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    try:
        with os.scandir(paths.capath or "") as entries:
            return any(entries)
    except OSError:
        return False
