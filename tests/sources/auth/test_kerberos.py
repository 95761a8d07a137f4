"""Kerberos with a real KDC (MIT's), Apache's mod_auth_gssapi, and GSSAPI as an acceptor for channel bindings."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from ews_sync.errors import Asks, AuthenticationError, ConfigurationError, ConnectionFailedError
from ews_sync.settings.exchange import Exchange as ExchangeSettings, KerberosAuth
from ews_sync.sources.auth.login import log_in
from tests.sources.auth.ntlm_world import ask, ask_often, peer as ntlm_peer
from tests.sources.auth.real_peers import (
    acceptor,
    apache,
    certificate,
    free_port,
    has_apache,
    python_with_gssapi,
    running,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx

SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin"
REALM, USER = "EXAMPLE.TEST", "svc@EXAMPLE.TEST"
HAS_KDC = all(shutil.which(tool, path=SBIN) for tool in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit"))
HAS_PACKAGES = importlib.util.find_spec("gssapi") is not None and importlib.util.find_spec("krb5") is not None
KERBEROS_ONLY = "GssapiAllowedMech krb5\nGssapiCredStore keytab:{keytab}"


def needs(*, present: bool, what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not present, reason=f"needs {what}")


needs_kdc = needs(
    present=HAS_KDC and HAS_PACKAGES, what="krb5-kdc, krb5-admin-server, krb5-user, and the kerberos extra"
)
needs_apache = needs(present=has_apache(), what="apache2 and libapache2-mod-auth-gssapi")


@dataclass(frozen=True, slots=True)
class Realm:
    """A KDC with a client's keytab and a service's."""

    directory: Path

    @property
    def client_keytab(self) -> Path:
        return self.directory / "client.keytab"

    @property
    def service_keytab(self) -> Path:
        return self.directory / "service.keytab"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        environment = configure(directory, free_port())
        port = environment.pop("PORT")

        def run(*command: str) -> None:
            done = subprocess.run(  # noqa: S603 - our own words
                command, check=False, capture_output=True, text=True, env={**os.environ, **environment, "PATH": SBIN}
            )
            assert done.returncode == 0, done.stderr

        run("kdb5_util", "create", "-s", "-P", "master", "-r", REALM)
        services = ("HTTP/localhost", "HTTP/other.localhost")
        for principal in ("svc", *services):
            run("kadmin.local", "-r", REALM, "-q", f"addprinc -randkey {principal}")
        run("kadmin.local", "-r", REALM, "-q", f"ktadd -k {directory}/client.keytab svc")
        run("kadmin.local", "-r", REALM, "-q", f"ktadd -k {directory}/service.keytab HTTP/localhost")
        run("kadmin.local", "-r", REALM, "-q", f"ktadd -k {directory}/other.keytab HTTP/other.localhost")
        for keytab in directory.glob("*.keytab"):
            keytab.chmod(0o644)
        kdc = shutil.which("krb5kdc", path=SBIN) or ""
        with running((kdc, "-n", "-r", REALM), [int(port)], directory / "kdc.out", environment):
            yield Realm(directory)


def configure(directory: Path, port: int) -> dict[str, str]:
    """Write the configuration of the KDC and of its clients."""
    directory.chmod(0o755)
    (directory / "krb5.conf").write_text(f"""
[libdefaults]
default_realm = {REALM}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
[realms]
{REALM} = {{
    kdc = 127.0.0.1:{port}
}}
""")
    (directory / "kdc.conf").write_text(f"""
[realms]
{REALM} = {{
    database_name = {directory}/principal
    key_stash_file = {directory}/stash
    acl_file = {directory}/acl
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
}}
[logging]
    kdc = FILE:{directory}/kdc.log
""")
    return {
        "KRB5_CONFIG": str(directory / "krb5.conf"),
        "KRB5_KDC_PROFILE": str(directory / "kdc.conf"),
        "PORT": str(port),
    }


@pytest.fixture
def tickets(realm: Realm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Realm:
    """A process that has a keytab, and no ticket yet."""
    monkeypatch.setenv("KRB5_CONFIG", str(realm.directory / "krb5.conf"))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/tickets")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(realm.client_keytab))
    return realm


@dataclass(slots=True)
class Behind:
    """The server behind Apache: who asked, and with how large a body."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.headers.get("X-Remote-User", ""), len(await request.read())))
        return web.Response(text="<ok/>", content_type="text/xml")


@asynccontextmanager
async def exchange(keytab: Path) -> AsyncIterator[tuple[str, Behind]]:
    behind = Behind()
    app = web.Application()
    app.router.add_post("/{path:.*}", behind.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with tempfile.TemporaryDirectory() as name:
            location = KERBEROS_ONLY.format(keytab=keytab)
            environment = {"KRB5RCACHETYPE": "none", "KRB5_CONFIG": str(keytab.parent / "krb5.conf")}
            with apache(Path(name), runner.addresses[0][1], location, environment=environment) as port:
                yield f"http://localhost:{port}/EWS/Exchange.asmx", behind
    finally:
        await runner.cleanup()


def kinit(tickets: Realm) -> None:
    subprocess.run(["kinit", "-k", "-t", str(tickets.client_keytab), USER], check=True)  # noqa: S603, S607


def client(url: str, user: str | None = None, bundle: Path | None = None) -> httpx.AsyncClient:
    return log_in(ExchangeSettings(url, KerberosAuth(user), ssl_ca_bundle=bundle)).http


@pytest.mark.kerberos_peer
@needs_kdc
@needs_apache
@pytest.mark.parametrize("user", [None, USER])
async def test_a_keytab_is_enough(tickets: Realm, user: str | None) -> None:
    async with exchange(tickets.service_keytab) as (url, behind), client(url, user) as http:
        assert await ask_often(http, url, 20, at_once=4) == [200] * 20
        assert {name for name, _ in behind.asked} == {USER}
        assert len(behind.asked) == 20
        assert 0 not in {size for _, size in behind.asked}


@pytest.mark.kerberos_peer
@needs_kdc
@needs_apache
async def test_a_ticket_of_kinit_is_enough(tickets: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRB5_CLIENT_KTNAME")
    kinit(tickets)
    async with exchange(tickets.service_keytab) as (url, behind), client(url) as http:
        assert await ask(http, url) == 200
        assert [name for name, _ in behind.asked] == [USER]


@pytest.mark.kerberos_peer
@needs_kdc
@needs_apache
async def test_a_service_that_cannot_read_the_ticket(tickets: Realm) -> None:
    async with exchange(tickets.directory / "other.keytab") as (url, behind), client(url) as http:
        with pytest.raises(AuthenticationError, match=r"refused the Kerberos ticket.*HTTP/localhost is registered"):
            await ask(http, url)
        assert behind.asked == []


@pytest.mark.kerberos_peer
@needs_kdc
async def test_without_keytab_and_ticket(tickets: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(tickets.directory / "missing.keytab"))
    async with client("http://localhost:1/EWS/Exchange.asmx") as http:
        with pytest.raises(AuthenticationError, match=r"no Kerberos ticket for HTTP/localhost: .*KRB5_CLIENT_KTNAME"):
            await ask(http, "http://localhost:1/EWS/Exchange.asmx")


@pytest.mark.kerberos_peer
@needs_kdc
@pytest.mark.usefixtures("tickets")
async def test_a_service_that_the_kdc_does_not_know() -> None:
    async with client("http://unknown.test:1/EWS/Exchange.asmx") as http:
        with pytest.raises(AuthenticationError, match=r"register HTTP/unknown.test"):
            await ask(http, "http://unknown.test:1/EWS/Exchange.asmx")


@pytest.mark.kerberos_peer
@needs_kdc
async def test_a_kdc_that_is_down_is_asked_again(
    tickets: Realm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(tmp_path, free_port())
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    assert tickets.client_keytab.exists()
    async with client("http://localhost:1/EWS/Exchange.asmx") as http:
        with pytest.raises(ConnectionFailedError, match=r"KDC") as caught:
            await ask(http, "http://localhost:1/EWS/Exchange.asmx")
    assert caught.value.asks is Asks.RETRY


@pytest.mark.kerberos_peer
@needs_kdc
@needs(present=python_with_gssapi() is not None, what="python3-gssapi and gss-ntlmssp")
@pytest.mark.parametrize(("algorithm", "status"), [("sha256", 200), ("sha512", None)])
async def test_tickets_are_bound_to_the_certificate(
    tickets: Realm, tmp_path: Path, algorithm: str, status: int | None
) -> None:
    pem = certificate(tmp_path, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha256")
    service = {"KRB5_KTNAME": str(tickets.service_keytab), "KRB5RCACHETYPE": "none"}
    with acceptor(tmp_path, pem, algorithm, service) as url:
        async with client(url, bundle=pem) as http:
            if status is not None:
                assert await ask_often(http, url, 6, at_once=2) == [status] * 6
                return
            with pytest.raises(AuthenticationError, match=r"refused the Kerberos ticket"):
                await ask(http, url)


@needs(present=HAS_PACKAGES, what="the kerberos extra")
async def test_a_server_that_does_not_offer_it() -> None:
    async with ntlm_peer(schemes=("NTLM",)) as server, client(server.url) as http:
        http._transport._log_on._ticket = lambda: b"ticket"  # type: ignore[attr-defined]
        with pytest.raises(AuthenticationError, match=r'does not offer Negotiate; it offers NTLM.*auth_type to "ntlm"'):
            await ask(http, server.url)


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError) as caught:
        client("https://mail.example.com/EWS/Exchange.asmx")
    assert str(caught.value) == (
        "auth_type \"kerberos\" needs packages that are not installed - pip install 'ews-sync[kerberos]'"
    )
