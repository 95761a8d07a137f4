"""NTLM against a server that nobody here wrote: Apache with mod_auth_gssapi and gss-ntlmssp."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from ews_sync.sources.auth.ntlm import Ntlm
from tests.sources.auth.ntlm_world import ask, ask_often, client, lanes
from tests.sources.auth.real_peers import apache, has_apache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PLUGINS = Path("/usr/lib").glob("*/gssntlmssp/gssntlmssp.so")
pytestmark = [
    pytest.mark.ntlm_peer,
    pytest.mark.skipif(
        not (has_apache() and any(PLUGINS)), reason="needs apache2, libapache2-mod-auth-gssapi and gss-ntlmssp"
    ),
]

USERS = {r"DOM\bob": "secret1", r"DOM\alice": "Pässw0rd!", "dave@example.com": "upnpw"}
FILE = "DOM:bob:secret1\nDOM:alice:Pässw0rd!\n:dave@example.com:upnpw\n"
NTLM_ONLY = "GssapiAllowedMech ntlmssp\nGssapiConnectionBound On\nGssapiSignalPersistentAuth On"


@dataclass(slots=True)
class Behind:
    """The server behind Apache: who asked, and with how large a body."""

    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.headers.get("X-Remote-User", ""), len(await request.read())))
        return web.Response(text="<ok/>", content_type="text/xml")


@dataclass(frozen=True, slots=True)
class Line:
    """A request as Apache has logged it."""

    connection: str
    number: int
    user: str
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Peer:
    url: str
    behind: Behind
    directory: Path

    async def log(self, bodies: int) -> list[Line]:
        """Give what Apache has logged, once so many requests with bodies are there.

        It writes a line only after the answer is gone.
        """
        async with asyncio.timeout(10):
            while sum(line.message != "t1" for line in self._lines()) < bodies:  # noqa: ASYNC110 - it is a file
                await asyncio.sleep(0.01)
        return self._lines()

    def _lines(self) -> list[Line]:
        fields = (line.split() for line in (self.directory / "access.log").read_text().splitlines())
        return [Line(port, int(number), user, int(status), message) for port, number, user, status, message in fields]


@asynccontextmanager
async def peer(keep_alive: str = "MaxKeepAliveRequests 0") -> AsyncIterator[Peer]:
    behind = Behind()
    app = web.Application()
    app.router.add_post("/{path:.*}", behind.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with workplace() as directory:
            users = directory / "users.txt"
            users.write_text(FILE)
            users.chmod(0o644)
            environment = {"NTLM_USER_FILE": str(users), "NETBIOS_DOMAIN_NAME": "DOM", "NETBIOS_COMPUTER_NAME": "EXCH1"}
            started = apache(
                directory, runner.addresses[0][1], NTLM_ONLY, keep_alive=keep_alive, environment=environment
            )
            with started as port:
                yield Peer(f"http://127.0.0.1:{port}/EWS/Exchange.asmx", behind, directory)
    finally:
        await runner.cleanup()


@contextmanager
def workplace() -> Iterator[Path]:
    # pytest's own directories are closed to other users, and Apache's workers are others.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("user", USERS)
async def test_everybody_gets_in(user: str) -> None:
    async with peer() as server, client(server.url, user=user, password=USERS[user]) as http:
        assert await ask_often(http, server.url, 20, at_once=4) == [200] * 20
        assert len(server.behind.asked) == 20
        assert {name.split("@")[0].split("\\")[-1] for name, _ in server.behind.asked} <= {"bob", "alice", "dave"}
        assert {size for _, size in server.behind.asked} != {0}


async def test_one_handshake_for_each_connection() -> None:
    async with peer() as server, client(server.url, user=r"DOM\bob", password="secret1") as http:
        assert await ask_often(http, server.url, 300, at_once=16) == [200] * 300
        log = await server.log(300)
        connections = {line.connection for line in log}
        messages = Counter(line.message for line in log)
        assert messages["t1"] == messages["t3"] == len(connections) <= 16
        assert len(log) == 300 + len(connections)
        assert [line.status for line in log].count(401) == len(connections)


async def test_keep_alive_limits_are_no_errors() -> None:
    async with (
        peer("MaxKeepAliveRequests 5") as server,
        client(server.url, user=r"DOM\bob", password="secret1") as http,
    ):
        assert await ask_often(http, server.url, 60, at_once=4) == [200] * 60
        log = await server.log(60)
        connections = {line.connection for line in log}
        assert len(connections) >= 12
        assert [line.message for line in log].count("t3") == len(connections)
        # No body went out without a log-in: every 401 answers a first leg.
        assert {line.message for line in log if line.status == 401} == {"t1"}


async def test_idle_closes_are_no_errors() -> None:
    async with peer("KeepAliveTimeout 1") as server, client(server.url, user=r"DOM\bob", password="secret1") as http:
        assert await ask(http, server.url) == 200
        (lane,) = lanes(http)._free
        pool = getattr(lane._client._transport, "_pool")  # noqa: B009 - the socket is deep inside
        async with asyncio.timeout(10):
            while not pool.connections[0].has_expired():  # noqa: ASYNC110 - a socket raises no event of ours
                await asyncio.sleep(0.05)
        assert await ask(http, server.url) == 200
        assert [line.message for line in await server.log(2)] == ["t1", "t3", "t1", "t3"]


async def test_a_wrong_password_reaches_it_once() -> None:
    async with peer() as server, client(server.url, user=r"DOM\bob", password="wrong") as http:
        results = await asyncio.gather(*(ask(http, server.url) for _ in range(8)), return_exceptions=True)
        assert results.count(401) == 1
        assert [line.message for line in await server.log(1)].count("t3") == 1
        assert server.behind.asked == []


async def test_cancellations_leave_nothing_behind() -> None:
    async with peer() as server, client(server.url, user=r"DOM\bob", password="secret1") as http:
        cancelled = 0
        for turns in range(60):
            tasks = [asyncio.create_task(ask(http, server.url)) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert cancelled > 100
        assert await ask_often(http, server.url, 100, at_once=16) == [200] * 100


async def test_negotiate_with_ntlm_inside() -> None:
    async with peer() as server, client(server.url, user=r"DOM\alice", password="Pässw0rd!") as http:
        # It offers both; this is what a server that offers Negotiate alone leads to.
        log_on = lanes(http)._log_on
        assert isinstance(log_on, Ntlm)
        log_on._scheme = "Negotiate"
        assert await ask_often(http, server.url, 10, at_once=2) == [200] * 10
        assert len({line.connection for line in await server.log(10)}) == 2
