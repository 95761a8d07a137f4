"""Servers that are not Microsoft's, or are out of their minds: what they say is written out here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.errors import ProtocolError
from ews_sync.model import Order
from ews_sync.sources.ews.client import Client, RetryPolicy
from ews_sync.sources.ews.source import EwsSource
from tests.sources.support import FOLDER, MAILBOX, FakeClock, item_xml, message, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Script:
    """Answers each operation with what is written for it, in turn; the last one stays."""

    def __init__(self, **answers: list[bytes]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = request.content.decode()
        operation = next(name for name in self.answers if f"<m:{name}" in body)
        self.asked.append(operation)
        said = self.answers[operation]
        content = said.pop(0) if len(said) > 1 else said[0]
        return httpx.Response(200, stream=httpx.ByteStream(content), headers={"Content-Type": "text/xml"})


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def source(script: Script, clock: FakeClock) -> AsyncIterator[EwsSource]:
    http = httpx.AsyncClient(transport=httpx.MockTransport(script))
    client = Client("https://exchange.test/EWS/Exchange.asmx", http, clock, retry=RetryPolicy(attempts=1))
    opened = EwsSource(client, clock, impersonate=True, account="svc")
    yield opened
    await opened.aclose()


def folder(number: int, parent: str = "top") -> str:
    return (
        f'<t:Folder><t:FolderId Id="f{number}"/><t:ParentFolderId Id="{parent}"/>'
        f"<t:DisplayName>F{number}</t:DisplayName></t:Folder>"
    )


def find_folder(*folders: str, attributes: str = "") -> bytes:
    content = f"<m:RootFolder {attributes}><t:Folders>{''.join(folders)}</t:Folders></m:RootFolder>"
    return response("FindFolder", message("FindFolder", content))


def find_item(*items: str, attributes: str = "") -> bytes:
    content = f"<m:RootFolder {attributes}><t:Items>{''.join(items)}</t:Items></m:RootFolder>"
    return response("FindItem", message("FindItem", content))


def hierarchy(state: str, *changes: str, last: str = "false") -> bytes:
    return response(
        "SyncFolderHierarchy",
        message(
            "SyncFolderHierarchy",
            f"<m:SyncState>{state}</m:SyncState><m:IncludesLastFolderInRange>{last}</m:IncludesLastFolderInRange>"
            f"<m:Changes>{''.join(changes)}</m:Changes>",
        ),
    )


def sync_items(state: str | None, *changes: str, last: str | None = "true") -> bytes:
    content = f"<m:SyncState>{state}</m:SyncState>" if state is not None else ""
    content += f"<m:IncludesLastItemInRange>{last}</m:IncludesLastItemInRange>" if last else ""
    return response(
        "SyncFolderItems", message("SyncFolderItems", f"{content}<m:Changes>{''.join(changes)}</m:Changes>")
    )


REFUSED = response("FindFolder", message("FindFolder", code="ErrorInvalidOperation"))


async def test_a_wait_that_comes_with_the_same_folders_is_heard_each_time(
    script: Script, source: EwsSource, clock: FakeClock
) -> None:
    told = '<m:MessageXml><t:Value Name="BackOffMilliseconds">7000</t:Value></m:MessageXml>'
    content = f'<m:RootFolder IncludesLastItemInRange="true"><t:Folders>{folder(1)}</t:Folders></m:RootFolder>'
    script.answers = {"FindFolder": [response("FindFolder", message("FindFolder", content, extra=told))]}
    for number in range(4):
        assert [found.path for found in await source.folders(MAILBOX)] == [("F1",)]
        assert clock.waits == [7.0] * number, "before the next request"


async def test_a_list_of_folders_that_does_not_say_whether_it_is_whole(script: Script, source: EwsSource) -> None:
    script.answers = {"FindFolder": [find_folder(folder(1), folder(2)), find_folder(folder(3)), find_folder()]}
    assert [found.path for found in await source.folders(MAILBOX)] == [("F1",), ("F2",), ("F3",)]
    script.answers = {"FindFolder": [find_folder(folder(1), folder(2), attributes='TotalItemsInView="2"')]}
    assert len(await source.folders(MAILBOX)) == 2


async def test_a_server_that_gives_the_same_page_for_ever(script: Script, source: EwsSource) -> None:
    script.answers = {"FindFolder": [find_folder(folder(1), attributes='IncludesLastItemInRange="false"')]}
    with pytest.raises(ProtocolError, match="does not end"):
        await source.folders(MAILBOX)
    assert len(script.asked) == 2


async def test_a_hierarchy_in_pages_with_later_changes(script: Script, source: EwsSource) -> None:
    pages = [
        hierarchy("1", f"<t:Create>{folder(1)}</t:Create>", f"<t:Create>{folder(2)}</t:Create>"),
        hierarchy("2", f"<t:Update>{folder(1)}</t:Update>", f"<t:Create>{folder(3, 'f1')}</t:Create>"),
        hierarchy("3", '<t:Delete><t:FolderId Id="f2"/></t:Delete>', last="true"),
    ]
    script.answers = {"FindFolder": [REFUSED], "SyncFolderHierarchy": pages}
    assert [found.path for found in await source.folders(MAILBOX)] == [("F1",), ("F1", "F3")]


async def test_a_hierarchy_that_goes_round_in_circles(script: Script, source: EwsSource) -> None:
    script.answers = {"FindFolder": [REFUSED], "SyncFolderHierarchy": [hierarchy("1")]}
    with pytest.raises(ProtocolError, match="does not end"):
        await source.folders(MAILBOX)
    assert len(script.asked) == 3


async def test_folders_that_are_each_others_parents_and_folders_without_an_id(
    script: Script, source: EwsSource
) -> None:
    odd = "<t:Folder><t:DisplayName>no id</t:DisplayName></t:Folder>"
    page = find_folder(folder(1, "f2"), folder(2, "f1"), folder(3, "f3"), odd, attributes='IncludesLastItemInRange="1"')
    script.answers = {"FindFolder": [page]}
    assert {found.path for found in await source.folders(MAILBOX)} == {("F2", "F1"), ("F1", "F2"), ("F3",)}


async def test_a_listing_that_does_not_say_whether_it_is_whole_is_asked_for_more(
    script: Script, source: EwsSource
) -> None:
    script.answers = {"FindItem": [find_item(item_xml("a")), find_item()]}
    assert not (await source.items(MAILBOX, FOLDER, order=Order.RECEIVED, since=None)).last
    assert (await source.items(MAILBOX, FOLDER, order=Order.RECEIVED, since=None, offset=1)).last
    script.answers = {"FindItem": [find_item(item_xml("a"), attributes='TotalItemsInView="3"')]}
    assert not (await source.items(MAILBOX, FOLDER, order=Order.RECEIVED, since=None)).last
    assert (await source.items(MAILBOX, FOLDER, order=Order.RECEIVED, since=None, offset=2)).last


async def test_items_without_an_id_cannot_be_fetched_and_are_passed_by(script: Script, source: EwsSource) -> None:
    nameless = item_xml("x").replace('<t:ItemId Id="x" ChangeKey="c"/>', "")
    script.answers = {"FindItem": [find_item(nameless, item_xml("a"))]}
    page = await source.items(MAILBOX, FOLDER, order=Order.RECEIVED, since=None)
    assert [ref.id for ref in page.refs] == ["a"]


@pytest.mark.parametrize("state", [None, ""])
async def test_a_feed_without_a_position(state: str | None, script: Script, source: EwsSource) -> None:
    script.answers = {"SyncFolderItems": [sync_items(state)]}
    with pytest.raises(ProtocolError, match="no SyncState"):
        await source.changes(MAILBOX, FOLDER, None)


async def test_a_feed_that_goes_round_in_circles(script: Script, source: EwsSource) -> None:
    script.answers = {"SyncFolderItems": [sync_items("1", last="false")]}
    assert not (await source.changes(MAILBOX, FOLDER, None)).last
    with pytest.raises(ProtocolError, match="round in circles"):
        await source.changes(MAILBOX, FOLDER, "1")


async def test_a_feed_that_does_not_say_whether_it_is_at_its_end(script: Script, source: EwsSource) -> None:
    change = '<t:Delete><t:ItemId Id="a"/></t:Delete>'
    script.answers = {"SyncFolderItems": [sync_items("2", change, last=None), sync_items("2", last=None)]}
    assert not (await source.changes(MAILBOX, FOLDER, "1")).last
    assert (await source.changes(MAILBOX, FOLDER, "2")).last


async def test_changes_that_nobody_has_heard_of_are_passed_by(script: Script, source: EwsSource) -> None:
    strange = '<t:Archived><t:ItemId Id="a"/></t:Archived>'
    script.answers = {"SyncFolderItems": [sync_items("2", strange, '<t:Delete><t:ItemId Id="b"/></t:Delete>')]}
    assert [change.ref.id for change in (await source.changes(MAILBOX, FOLDER, "1")).changes] == ["b"]


async def test_an_answer_without_a_response_message(script: Script, source: EwsSource) -> None:
    script.answers = {"GetFolder": [response("GetFolder")]}
    with pytest.raises(ProtocolError, match=r"opening claims@example\.com: the answer has no response message"):
        await source.probe(MAILBOX)


async def test_a_position_with_line_breaks_is_kept_as_it_is(script: Script, source: EwsSource) -> None:
    script.answers = {"SyncFolderItems": [sync_items("AAAA\nBBBB")]}
    page = await source.changes(MAILBOX, FOLDER, None)
    assert page.cursor == "AAAA\nBBBB"
    assert (await source.changes(MAILBOX, FOLDER, page.cursor)).last
