"""`reinfer-ews status`."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime

import pytest

from ews_sync.clock import SystemClock
from ews_sync.errors import ConfigurationError
from ews_sync.live_status import NoAnswerError, address_of, fetch, fitted, watch
from ews_sync.server.http import StatusServer
from ews_sync.settings.values import Bind
from ews_sync.telemetry.status import MailboxProgress, Status


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/status?format=text"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000/status?format=text"),
        ("[::]:8000", "http://[::1]:8000/status?format=text"),
        ("http://ews.example", "http://ews.example/status?format=text"),
        ("https://ews.example:444/", "https://ews.example:444/status?format=text"),
        ("http://proxy/ews/status", "http://proxy/ews/status?format=text"),
    ],
)
def test_addresses(given: str, expected: str) -> None:
    assert address_of(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "ftp://x",
        "http://x:port",
        "http://x:99999",
        "http://[::1",
        "http://no such host:80",
        "http://user:secret@x",
        "18606",
    ],
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address of an appliance") as caught:
        address_of(given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\news", "does not end its answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\news-s",
            "does not end its answer",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<h1>\x1b</h1>", "is not ews-sync"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello", "is not ews-sync"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
        (b"", "RemoteDisconnected"),
    ],
)
async def test_whatever_answers_there_is_one_clear_line(answer: bytes, reason: str) -> None:
    async def say_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say_it, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(NoAnswerError, match="no appliance answers at") as caught:
        await asyncio.to_thread(fetch, address_of(f"127.0.0.1:{port}"))
    server.close()
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class EnoughError(Exception):
    """The watcher has seen enough."""


async def test_a_running_one_is_shown_again_and_again() -> None:
    status = Status("1.2.3", datetime.now(UTC), sink="/var/mail")
    status.mailboxes["a@x"] = MailboxProgress("a@x", "bank/mail")
    status.warn("careful")
    server = StatusServer(Bind("127.0.0.1", 0), status, SystemClock())
    await server.start()
    url = address_of(server.address)
    once = io.StringIO()
    assert await asyncio.to_thread(watch, url, once) == 0
    assert "a@x" in once.getvalue()
    assert "\x1b" not in once.getvalue()

    screen = Screen()
    seen: list[str] = []

    def look(_: float) -> None:
        seen.append(screen.getvalue())
        if len(seen) == 1:
            asyncio.run_coroutine_threadsafe(server.aclose(), loop).result()
        else:
            raise EnoughError

    loop = asyncio.get_running_loop()
    with pytest.raises(EnoughError):
        await asyncio.to_thread(watch, url, screen, look)
    first = seen[0]
    assert first.index("! careful") < first.index("MAILBOX"), "what is wrong is above what may not fit"
    assert f"no appliance answers at http://{server.address}" in seen[1], "it goes on looking"


def test_nobody_there_says_what_to_do() -> None:
    with pytest.raises(NoAnswerError, match=r"no appliance answers at http://127\.0\.0\.1:9") as caught:
        fetch(address_of("127.0.0.1:9"))
    assert "reinfer-ews status http://127.0.0.1:8000" in str(caught.value)


def test_what_is_wrong_is_whole_and_leaves_room_for_the_table() -> None:
    url = "http://127.0.0.1:8000/status?format=text"
    rows = "\n".join(f"box{number}@x  following" for number in range(50))
    note = "! box1@x: the server says no - grant the role to the service account, and then wait for a while"
    shown = fitted(f"ews-sync 1: running\n\nMAILBOX  STATE\n{rows}\n\n{note}", 40, 20, url).splitlines()
    assert len(shown) <= 20
    assert max(map(len, shown[:-1])) <= 40
    text = " ".join(" ".join(shown).split())
    assert note in text
    assert "box0@x following" in text
    assert shown[-1].startswith("... 38 more: curl 'http://127.0.0.1:800")
    many = "\n".join(f"{note} {number}" for number in range(100))
    crowded = fitted(f"ews-sync 1: running\n\nMAILBOX  STATE\n{rows}\n\n{many}", 80, 24, url)
    assert "! ... and more; all of it" in crowded
    assert "box0@x  following" in crowded


def test_what_fits_is_shown_as_it_is() -> None:
    assert fitted("ews-sync 1\n\ntable\nrow", 40, 10, "url") == "ews-sync 1\n\ntable\nrow"
