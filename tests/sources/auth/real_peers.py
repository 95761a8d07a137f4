"""Servers that nobody here wrote, started for a test: Apache for HTTP, MIT Kerberos for tickets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

APACHE = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MODULES = Path("/usr/lib/apache2/modules")
MODULE_NAMES = (
    "mpm_event", "authn_core", "authz_core", "authz_user", "auth_gssapi", "ssl", "socache_shmcb", "headers",
    "setenvif", "proxy", "proxy_http",
)  # fmt: skip
_PEER = Path(__file__).with_name("channel_binding_peer.py")
_WAIT = 20.0


def has_apache() -> bool:
    """Tell whether Apache and its module for GSSAPI are installed (apache2, libapache2-mod-auth-gssapi)."""
    return APACHE is not None and (MODULES / "mod_auth_gssapi.so").exists()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str],
    ports: Sequence[int],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a server while the block runs; it is there once it listens on its ports (TCP)."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own words
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
    try:
        for port in ports:
            _wait_for(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _WAIT
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        # Nothing tells when another process listens.
        time.sleep(0.02)
    raise AssertionError(f"no server on port {port}: {log.read_text()[-2000:]}")


@contextmanager
def apache(
    directory: Path,
    upstream: int,
    location: str,
    *,
    certificate: Path | None = None,
    keep_alive: str = "MaxKeepAliveRequests 0",
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run Apache in front of a server on port `upstream`, with the directives of `location` for log-ins.

    Gives the port. DIRECTORY/access.log has a line for each request: the client's port, how many-th request on its
    connection, user, status, and which NTLM message it had: t1, t3 or -.
    """
    port = free_port()
    # Its workers may have another user's rights.
    directory.chmod(0o755)
    tls = ""
    if certificate is not None:
        certificate.chmod(0o644)
        tls = f"SSLEngine on\nSSLCertificateFile {certificate}\n"
    loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in MODULE_NAMES)
    user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    (directory / "httpd.conf").write_text(f"""
ServerRoot {directory}
ServerName localhost
PidFile {directory}/httpd.pid
DefaultRuntimeDir {directory}
Mutex file:{directory} default
{loads}
Listen 127.0.0.1:{port}
{user}StartServers 1
ServerLimit 2
ThreadsPerChild 64
MaxRequestWorkers 128
KeepAlive On
{keep_alive}
ErrorLog {directory}/error.log
SetEnvIf Authorization "TlRMTVNTUAABAAAA" ntlm=t1
SetEnvIf Authorization "TlRMTVNTUAADAAAA" ntlm=t3
LogFormat "%{{remote}}p %k %u %>s %{{ntlm}}e" conn
CustomLog {directory}/access.log conn
{tls}
ProxyPass / http://127.0.0.1:{upstream}/
<Location />
AuthType GSSAPI
AuthName EWS
{location}
Require valid-user
RequestHeader set X-Remote-User "expr=%{{REMOTE_USER}}"
RequestHeader unset Authorization
</Location>
""")
    command = (APACHE or "apache2", "-f", str(directory / "httpd.conf"), "-DFOREGROUND")
    with running(command, [port], directory / "apache.out", environment):
        yield port


@cache
def python_with_gssapi() -> str | None:
    """Give a Python that can be the acceptor, where gss-ntlmssp is installed, too."""
    if not any(Path("/usr/lib").glob("*/gssntlmssp/gssntlmssp.so")):
        return None
    for candidate in ("/usr/bin/python3", sys.executable):
        if Path(candidate).exists():
            found = subprocess.run([candidate, "-c", "import gssapi"], check=False, capture_output=True)  # noqa: S603
            if found.returncode == 0:
                return candidate
    return None


def certificate(directory: Path, *options: str) -> Path:
    """Make a certificate for localhost, with its key in the same file."""
    key, cert, both = directory / "key.pem", directory / "cert.pem", directory / "both.pem"
    command = (
        "openssl req -x509 -nodes -days 2 -subj /CN=exchange.test -addext subjectAltName=IP:127.0.0.1,DNS:localhost "
        f"-keyout {key} -out {cert}"
    )
    try:
        subprocess.run([*command.split(), *options], check=True, capture_output=True)  # noqa: S603 - our own words
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return both


@contextmanager
def acceptor(directory: Path, pem: Path, algorithm: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    r"""Run channel_binding_peer, which knows DOM\bob:secret1; gives its address."""
    users = directory / "users.txt"
    users.write_text("DOM:bob:secret1\n")
    port = free_port()
    command = [python_with_gssapi() or "", str(_PEER), str(pem), algorithm, str(port)]
    with running(command, [port], directory / "acceptor.out", {"NTLM_USER_FILE": str(users), **(environment or {})}):
        yield f"https://localhost:{port}/EWS/Exchange.asmx"
