"""Answers that break HTTP, or lie about themselves: one of our errors, soon, and no credentials for anybody else."""

from __future__ import annotations

import asyncio
import base64
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from ews_sync.errors import Asks, SourceError
from ews_sync.settings.exchange import AccessType, BasicAuth, Exchange, NtlmAuth
from ews_sync.sources.auth.login import log_in
from ews_sync.sources.ews.client import Call, Client, RetryPolicy
from ews_sync.sources.ews.decoding import AnswerReader
from tests.fuzz.hostile_server import hostile_server
from tests.fuzz.test_readers import CHALLENGE
from tests.sources.support import FakeClock, got, item_xml, response
from tests.sources.test_decoding import ITEMS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ews_sync.settings.exchange import Auth
    from ews_sync.sources.ews.operations import Answer

USER, PASSWORD = "svc@example.com", "swordfish"
XML = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def ask(url: str, auth: Auth | None = None, *, answer_within: float = 5.0) -> Answer:
    exchange = Exchange(url, auth or BasicAuth(USER, SecretStr(PASSWORD)), AccessType.IMPERSONATION)
    client = Client(url, log_in(exchange).http, FakeClock(), retry=RetryPolicy(attempts=1), answer_within=answer_within)
    try:
        async with asyncio.timeout(30):
            return await client.send(Call("asking", b"<x/>", "p"), lambda: AnswerReader("asking"))
    finally:
        await client.aclose()


def says(*pieces: bytes, close: bool = True) -> Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        if close:
            await writer.drain()
            writer.close()

    return answer


async def refused(answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]) -> SourceError:
    async with hostile_server(answer) as server:
        with pytest.raises(SourceError) as caught:
            await ask(server.url, answer_within=0.5)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1000
    assert PASSWORD not in line
    return caught.value


def sized(body: bytes, length: int) -> bytes:
    return XML + b"Content-Length: %d\r\n\r\n" % length + body


HALF = ITEMS[: len(ITEMS) // 2]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00" * 1000,
        b"HTTP/1.1",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type\r\n\r\n",
        XML + b"X: a\x00b\r\n\r\n",
        XML + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
        XML + b"".join(b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 60) for n in range(20_000)) + b"\r\n",
        XML + b"Content-Length: -5\r\n\r\n",
        XML + b"Content-Length: 5, 6\r\n\r\n",
        XML + b"Content-Length: 99999999999999999999999999\r\n\r\n" + ITEMS,
        sized(ITEMS, len(ITEMS) + 1),
        sized(ITEMS, len(ITEMS) - 1),
        sized(HALF, len(ITEMS)),
        XML + b"\r\n" + HALF,
        XML + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + ITEMS,
        XML + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + ITEMS,
        XML + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 200_000 + b"\r\n",
        XML + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(ITEMS), ITEMS),
        XML + b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(ITEMS),
        XML + b"Content-Encoding: br\r\n\r\n" + ITEMS,
        XML + b"Content-Encoding: gzip\r\n\r\n" + ITEMS,
        XML + b"Content-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(gzip.compress(ITEMS)),
        XML + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(ITEMS)[:-60],
        XML + b"\r\n" + ITEMS.decode().encode("utf-16"),
        b"HTTP/1.1 200 OK\r\n\r\n" + ITEMS,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>log in</html>",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<html>log in</html>",
        b"HTTP/1.1 200 \x9b31m\r\n\r\n",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: " + b'"\\' * 40_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: " + b"9" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\x9b31m\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none(answer: bytes) -> None:
    await refused(says(answer))


@pytest.mark.parametrize(
    ("charset", "data"),
    [
        (b"utf-16", ITEMS),
        (b"iso-8859-1", ITEMS),
        (b"\xff\x9b", ITEMS),
        (b"utf-8", b"\xef\xbb\xbf" + ITEMS),
        (b"utf-8", ITEMS.replace(b"utf-8", b"iso-8859-1")),
        (
            b"iso-8859-1",
            response("GetItem", got(item_xml("i1", ConversationTopic="caf\u00e9"))).decode().encode("latin-1"),
        ),
    ],
)
async def test_a_charset_that_is_not_the_one_that_is_declared_costs_no_mail(charset: bytes, data: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=" + charset + b"\r\n\r\n"
    async with hostile_server(says(head, data)) as server:
        answer = await ask(server.url)
    item = answer.messages[0].items[0]
    assert item.ref.id == "i1"
    assert item.mime is not None


async def test_a_server_that_says_nothing_after_its_headers_is_given_up() -> None:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(XML + b"Content-Length: 1000\r\n\r\n" + HALF)

    error = await refused(answer)
    assert "in time" in error.summary


@pytest.mark.parametrize("kind", ["headers", "informational", "trailers"])
async def test_what_does_not_end_before_or_behind_the_body(kind: str) -> None:
    begin, more = {
        "headers": (XML, b"X-More: and more\r\n" * 1000),
        "informational": (b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 120_000, b"x" * 1000),
        "trailers": (XML + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: and more\r\n" * 1000),
    }[kind]

    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not writer.is_closing():
            writer.write(more)
            await writer.drain()

    await refused(answer)


async def test_ten_gigabytes_of_zeros_in_ten_megabytes() -> None:
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = [squeeze.compress(b"\0" * 65536) for _ in range(16 * 100)]

    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(XML + b"Content-Encoding: gzip\r\n\r\n")
        # 100 MB of zeros behind 100 KB, a hundred times: as long as anybody listens.
        for _ in range(100):
            writer.writelines(bomb)
            await writer.drain()

    await refused(answer)


# --- Redirects -------------------------------------------------------------------------------------------------------

NTLM_CHALLENGE = b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM %s\r\nContent-Length: 0\r\n\r\n" % base64.b64encode(
    CHALLENGE
)
LOGINS: dict[str, Auth] = {
    "basic": BasicAuth(USER, SecretStr(PASSWORD)),
    "ntlm": NtlmAuth(USER, SecretStr(PASSWORD)),
    "ntlm, in the middle of it": NtlmAuth(USER, SecretStr(PASSWORD)),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("login", LOGINS)
async def test_a_redirect_to_another_host_is_told_and_not_followed(login: str, status: int) -> None:
    async with hostile_server(says(sized(ITEMS, len(ITEMS)))) as thief:
        redirect = b"HTTP/1.1 %d Gone\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, thief.url.encode())

        async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
            begun = len(server.heads) == 1 and login == "ntlm, in the middle of it"
            writer.write(NTLM_CHALLENGE if begun else redirect)

        async with hostile_server(answer) as server:
            with pytest.raises(SourceError) as caught:
                await ask(server.url, LOGINS[login])
            assert caught.value.asks is Asks.STOP
            assert "redirects to" in caught.value.summary
            assert len(server.heads) == (2 if "middle" in login else 1)
        assert thief.heads == []
