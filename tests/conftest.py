"""What tests of several rooms share."""

from __future__ import annotations

import importlib.util
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lxml import etree


@pytest.fixture(scope="session")
def schema() -> etree.XMLSchema:
    """Microsoft's published schemas, where they lie beside the repository."""
    loader = Path(__file__).resolve().parents[1].parent / "shared" / "ews-schema" / "ews_schema.py"
    if not loader.exists():
        pytest.skip("Microsoft's schemas are not part of this repository")
    spec = importlib.util.spec_from_file_location("ews_schema", loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: etree.XMLSchema = module.load()
    return loaded


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert, both = directory / "key.pem", directory / "cert.pem", directory / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=exchange.test "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)  # noqa: S603 - our own words
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return both


@pytest.fixture(scope="session")
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
