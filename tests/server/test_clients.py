"""Clients that are slow, many, or ask for much: what they get, and that the others do not feel it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.clock import SystemClock
from ews_sync.errors import SourceError
from ews_sync.server.http import StatusServer
from ews_sync.server.report import Folders, Moment, Wanted, as_json, json_pieces
from ews_sync.settings.values import Bind
from ews_sync.telemetry.status import Failure, FolderProgress, MailboxProgress, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
MOMENT = Moment(NOW, 1000.0)


def large() -> Status:
    """Give the status of many mailboxes with many folders; one folder of each fails."""
    status = Status("1.2.3", NOW - timedelta(hours=1))
    for number in range(200):
        mailbox = MailboxProgress(f"box{number}@x", "bank/mail", source_answered=True, sink_ready=True)
        mailbox.folders = {str(index): FolderProgress(("Inbox", f"Folder {index}")) for index in range(50)}
        mailbox.folders["7"].failure = Failure.of(SourceError("no"), NOW)
        status.mailboxes[mailbox.address] = mailbox
    return status


@pytest.fixture
async def server() -> AsyncIterator[StatusServer]:
    server = StatusServer(Bind("127.0.0.1", 0), large(), SystemClock())
    await server.start()
    yield server
    await server.aclose()


def client(server: StatusServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False, timeout=20)


@pytest.mark.parametrize(
    "wanted",
    [Wanted(), Wanted("box3@x"), Wanted("nobody@x"), Wanted(folders=Folders.FAILING), Wanted(folders=Folders.NONE)],
)
def test_the_pieces_are_the_whole(wanted: Wanted) -> None:
    status = large()
    assert json.loads("".join(json_pieces(status, MOMENT, wanted))) == json.loads(
        json.dumps(as_json(status, MOMENT, wanted))
    )


async def test_what_is_asked_for_is_given(server: StatusServer) -> None:
    async with client(server) as http:
        everything = (await http.get("/status")).json()
        failing = (await http.get("/status?folders=failing")).json()
        one = (await http.get("/status?folders=none&mailbox=box3%40x")).json()
        assert (await http.get("/status?folders=some")).status_code == 400
        nobody = await http.get("/status?mailbox=nobody%40x")
        text = (await http.get("/status?format=text&mailbox=BOX3%40x")).text
    assert (nobody.status_code, nobody.json()) == (404, {"error": "there is no mailbox 'nobody@x' here"})
    assert "box3@x" in text
    assert "box4@x" not in text.partition("FOLDER ")[0]
    assert "Inbox/Folder 49" in text
    assert "FAILED" in text
    assert [len(mailbox["folders"]) for mailbox in everything["mailboxes"]] == [50] * 200
    assert [len(mailbox["folders"]) for mailbox in failing["mailboxes"]] == [1] * 200
    assert [(mailbox["mailbox"], mailbox["folders"]) for mailbox in one["mailboxes"]] == [("box3@x", [])]


async def test_who_does_not_read_his_answer_holds_up_nobody(server: StatusServer) -> None:
    host, _, port = server.address.rpartition(":")
    silent = []
    for _ in range(20):
        _reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        silent.append(writer)
    async with client(server) as http:
        assert len((await http.get("/status")).json()["mailboxes"]) == 200
        assert (await http.get("/healthz")).status_code == 200
    for writer in silent:
        writer.transport.abort()


async def test_a_probe_gets_in_however_many_hold_their_connections_open(server: StatusServer) -> None:
    host, _, port = server.address.rpartition(":")
    # One that begins a request and never ends it, and so on.
    held = [await asyncio.open_connection(host, int(port)) for _ in range(150)]
    for _, writer in held:
        writer.write(b"GET /status HTTP/1.1\r\nHost: ")
        await writer.drain()
    async with client(server) as http:
        assert (await http.get("/healthz")).status_code == 200
    closed = 0
    for reader, _ in held[:51]:
        async with asyncio.timeout(5):
            closed += await reader.read() == b""
    assert closed == 51, "the oldest give way"
    assert not held[-1][0].at_eof()
    for _, writer in held:
        writer.transport.abort()


def connections(server: StatusServer) -> int:
    """Count those that the server really has."""
    assert server._runner is not None
    assert server._runner.server is not None
    return sum(handler.transport is not None for handler in server._runner.server.connections)


async def test_a_burst_leaves_no_more_than_there_may_be(server: StatusServer) -> None:
    host, _, port = server.address.rpartition(":")
    held = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(400)))
    async with client(server) as http, asyncio.timeout(20):
        assert (await http.get("/healthz")).status_code == 200
        while connections(server) > 101:
            await http.get("/healthz")
    for _, writer in held:
        writer.transport.abort()


async def test_who_asks_and_never_reads_is_cut_off_when_there_are_too_many(server: StatusServer) -> None:
    host, _, port = server.address.rpartition(":")
    held = []
    for _ in range(150):
        reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        held.append((reader, writer))
    async with client(server) as http:
        assert (await http.get("/healthz")).status_code == 200
    # Cut off, and not only told to go once they have read what they never will.
    assert connections(server) <= 100
    for _, writer in held:
        writer.transport.abort()


async def test_the_loop_turns_while_a_long_answer_is_made(server: StatusServer) -> None:
    longest = 0.0

    async def turn() -> None:
        nonlocal longest
        while True:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
            longest = max(longest, asyncio.get_running_loop().time() - before)

    turning = asyncio.create_task(turn())
    answers: list[bytes] = []
    async with client(server) as http, http.stream("GET", "/status") as response:
        answers = [piece async for piece in response.aiter_raw()]
    turning.cancel()
    assert len(answers) > 10, "it comes in pieces"
    assert longest < 1.0


async def test_garbage_is_refused_and_nothing_happens(server: StatusServer) -> None:
    host, _, port = server.address.rpartition(":")
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000, b"\r\n" * 1000):
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(garbage)
        writer.close()
    async with client(server) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/" + "x" * 20_000)).status_code in {400, 404, 414}
        assert (await http.get("/healthz", headers={"X-Long": "x" * 20_000})).status_code in {200, 400, 431}
