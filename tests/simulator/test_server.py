from __future__ import annotations

import asyncio
import base64
import gzip
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from lxml import etree

from ews_sync.simulator.access import Account
from ews_sync.simulator.faults import (
    BrokenXml,
    Compressed,
    ConnectionReset,
    Effect,
    FaultPlan,
    Hang,
    HttpError,
    ItemError,
    Latency,
    Truncated,
    html_page,
)
from ews_sync.simulator.mail import MailFactory
from ews_sync.simulator.server import BasicAuthenticator, ExchangeServer
from ews_sync.simulator.store import Exchange
from tests.simulator.soap import envelope, find_item, get_item, impersonating, shape

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web import Request

    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item

_WITH_MIME = shape(flags="<t:IncludeMimeContent>true</t:IncludeMimeContent>")


class Web:
    """A server with a client that is logged on."""

    def __init__(self, server: ExchangeServer, session: aiohttp.ClientSession, inbox: Folder) -> None:
        self.server = server
        self.session = session
        self.inbox = inbox

    def post(self, body: str, **headers: str) -> aiohttp.client._RequestContextManager:
        named = {
            "Content-Type": "text/xml; charset=utf-8",
            "Authorization": aiohttp.encode_basic_auth("svc", "pass:word"),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        request = envelope(body, header=impersonating("owner@example.com"))
        return self.session.post(self.server.url, data=request, headers=named)


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Web]:
    exchange = Exchange()
    inbox = exchange.create_mailbox("owner@example.com").folder("Inbox")
    inbox.deliver(b"Subject: x\r\n\r\n")
    account = Account("svc", "pass:word", may_impersonate=True)
    async with (
        ExchangeServer(exchange, [account], FaultPlan()) as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Web(server, session, inbox)


async def test_requests_are_answered_and_written_down(web: Web) -> None:
    asked = {"client_request_id": "abc", "return_client_request_id": "true", "X_AnchorMailbox": "owner@example.com"}
    async with web.post(find_item(web.inbox), User_Agent="test/1", **asked) as response:
        assert response.status == 200
        assert response.headers["client-request-id"] == "abc"
        assert response.content_type == "text/xml"
        etree.fromstring(await response.read())
    (record,) = web.server.log
    assert (record.operation, record.mailbox, record.account) == ("FindItem", "owner@example.com", "svc")
    assert (record.status, record.client_request_id, record.user_agent) == (200, "abc", "test/1")
    assert (record.folders, record.anchor_mailbox, record.fault) == (("Inbox",), "owner@example.com", None)
    assert web.server.log.counts["FindItem"] == 1
    async with web.post(get_item(web.inbox.items())) as response:
        assert "client-request-id" not in response.headers
    assert [one.item_count for one in web.server.log.of("GetItem")] == [1]


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic", "Basic !!", "Bearer x", aiohttp.encode_basic_auth("svc", "x"), aiohttp.encode_basic_auth("y", "x")],
)
async def test_strangers_are_refused(web: Web, authorization: str) -> None:
    async with web.post(find_item(web.inbox), Authorization=authorization) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert web.server.log[0].status == 401


async def test_what_is_no_post_of_xml_is_refused(web: Web) -> None:
    logged_on = {"Authorization": aiohttp.encode_basic_auth("svc", "pass:word")}
    async with web.session.get(web.server.url, headers=logged_on) as response:
        assert response.status == 405
    async with web.post(find_item(web.inbox), Content_Type="application/json") as response:
        assert response.status == 415


async def test_large_messages_are_streamed_whole(web: Web) -> None:
    mail = MailFactory(1).email(0, size=5_000_000)
    item = web.inbox.deliver(mail)
    async with web.post(get_item([item], _WITH_MIME)) as response:
        root = etree.fromstring(await response.read(), etree.XMLParser(huge_tree=True))
        assert response.headers["Transfer-Encoding"] == "chunked"
    assert base64.b64decode(root.findtext(".//{*}MimeContent") or "") == mail.mime()


async def test_an_answer_in_several_pieces_says_how_long_it_is(web: Web) -> None:
    mail = [MailFactory(1).email(n, size=200_000) for n in range(3)]
    items = [web.inbox.deliver(one) for one in mail]
    async with web.post(get_item(items, _WITH_MIME)) as response:
        body = await response.read()
        assert int(response.headers["Content-Length"]) == len(body) > 600_000
        assert "Transfer-Encoding" not in response.headers
    texts = [found.text or "" for found in etree.fromstring(body).iter("{*}MimeContent")]
    assert [base64.b64decode(text) for text in texts] == [one.mime() for one in mail]
    assert web.server.log[0].bytes_sent == len(body)
    async with web.post(get_item(items, _WITH_MIME), Accept_Encoding="gzip") as response:
        assert "Content-Encoding" not in response.headers
    web.server.faults.add(Compressed())
    async with web.post(get_item(items, _WITH_MIME), Accept_Encoding="gzip") as response:
        assert len(gzip.decompress(await response.read())) == len(body)


async def test_a_client_that_leaves_is_no_defect(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    class Watching(BasicAuthenticator):
        def authenticate(self, request: Request) -> Account | None:
            transports.append(request.transport)
            return super().authenticate(request)

    def leave(_item: Item) -> bool:
        """The connection ends while the answer is being made."""
        transports[-1].abort()
        return False

    transports: list[Any] = []
    plan = FaultPlan()
    plan.add(ItemError("ErrorItemCorrupt"), item=leave)
    account = Account("svc", "pass:word", may_impersonate=True)
    async with ExchangeServer(web.server.exchange, faults=plan, authenticator=Watching([account])) as server:
        other = Web(server, web.session, web.inbox)
        with pytest.raises(aiohttp.ClientError):
            async with other.post(get_item(web.inbox.items(), _WITH_MIME)):
                pass
        plan.clear()
        async with other.post(find_item(web.inbox)) as response:
            assert response.status == 200
    assert caplog.records == []


@pytest.mark.parametrize(
    ("effect", "status", "text"),
    [
        (HttpError(503, retry_after="7"), 503, ""),
        (HttpError(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), 429, ""),
        (HttpError(401), 401, ""),
        (HttpError(403, body="EWS is blocked", content_type="text/plain"), 403, "EWS is blocked"),
        (html_page(502), 502, "<!DOCTYPE html>"),
        (html_page(200), 200, "<!DOCTYPE html>"),
    ],
)
async def test_other_answers_than_soap(web: Web, effect: HttpError, status: int, text: str) -> None:
    web.server.faults.add(effect, operation="FindItem", times=1)
    async with web.post(find_item(web.inbox)) as response:
        assert response.status == status
        assert (await response.text()).startswith(text)
        assert response.headers.get("Retry-After") == effect.retry_after
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
    async with web.post(find_item(web.inbox)) as response:
        assert response.status == 200
    assert [record.effects for record in web.server.log] == [("HttpError",), ()]


@pytest.mark.parametrize(
    "effect", [ConnectionReset(), ConnectionReset(after=100), Truncated(honest=False), Truncated(keep=0, honest=False)]
)
async def test_connections_that_break(web: Web, effect: Effect) -> None:
    web.server.faults.add(effect)
    with pytest.raises(aiohttp.ClientError):
        async with web.post(find_item(web.inbox)) as response:
            await response.read()


@pytest.mark.parametrize("effect", [Truncated(keep=0.5), BrokenXml()])
async def test_bodies_that_are_no_xml(web: Web, effect: Effect) -> None:
    web.server.faults.add(effect)
    async with web.post(find_item(web.inbox)) as response:
        body = await response.read()
        assert int(response.headers["Content-Length"]) == len(body)
    with pytest.raises(etree.XMLSyntaxError):
        etree.fromstring(body)


async def test_a_hanging_request_lets_the_others_through_and_the_server_stop(web: Web) -> None:
    web.server.faults.add(Hang(), times=1)

    async def hang() -> None:
        async with web.post(find_item(web.inbox)):
            raise AssertionError("it was answered")

    hanging = asyncio.create_task(hang())
    while not web.server.log.in_flight["owner@example.com"]:  # noqa: ASYNC110 - the log has no event to wait for
        await asyncio.sleep(0)
    async with web.post(find_item(web.inbox)) as response:
        assert response.status == 200
    assert web.server.log.most_in_flight["owner@example.com"] == 2
    await web.server.stop()
    with pytest.raises(aiohttp.ClientError):
        await hanging


async def test_too_many_requests_at_once_are_refused(web: Web) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        started.set()
        await go_on.wait()

    plan = FaultPlan()
    plan.add(Latency(1), times=1)
    account = Account("svc", "pass:word", may_impersonate=True)
    server = ExchangeServer(web.server.exchange, [account], plan, max_concurrent=1, sleep=sleep)
    async with server:
        other = Web(server, web.session, web.inbox)

        async def ask() -> int:
            async with other.post(find_item(web.inbox)) as response:
                return response.status

        first = asyncio.create_task(ask())
        await started.wait()
        assert await ask() == 500
        go_on.set()
        assert await first == 200
    assert [record.fault for record in server.log] == ["ErrorExceededConnectionCount", None]


async def test_latency_waits_with_what_it_is_given() -> None:
    exchange = Exchange()
    exchange.create_mailbox("a@example.com")
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    plan = FaultPlan()
    plan.add(Latency(3.5))
    server = ExchangeServer(exchange, [Account("a@example.com", "x")], plan, sleep=sleep)
    async with server, aiohttp.ClientSession() as session:
        headers = {"Content-Type": "text/xml", "Authorization": aiohttp.encode_basic_auth("a@example.com", "x")}
        async with session.post(server.url, data=b"<x/>", headers=headers) as response:
            assert response.status == 500
    assert waited == [3.5]


async def test_gzip_when_the_client_takes_it(web: Web) -> None:
    web.server.faults.add(Compressed())
    async with web.post(find_item(web.inbox), Accept_Encoding="gzip") as response:
        assert response.headers["Content-Encoding"] == "gzip"
        etree.fromstring(gzip.decompress(await response.read()))
    async with web.post(find_item(web.inbox), Accept_Encoding="identity") as response:
        etree.fromstring(await response.read())


async def test_rules_match_mailbox_folder_and_count(web: Web) -> None:
    plan = web.server.faults
    plan.add(HttpError(503), mailbox="OWNER@example.com", folder="inbox", nth={2, 3})
    plan.add(HttpError(502), mailbox="other@example.com")
    plan.add(HttpError(502), folder="Archive")
    statuses = []
    for _ in range(4):
        async with web.post(find_item(web.inbox)) as response:
            statuses.append(response.status)
    assert statuses == [200, 503, 503, 200]


async def test_a_server_starts_again_on_its_port(web: Web) -> None:
    before = web.server.url
    await web.server.stop()
    await web.server.start()
    assert web.server.url == before
    async with web.post(find_item(web.inbox)) as response:
        assert response.status == 200
