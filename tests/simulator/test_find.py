from __future__ import annotations

import base64
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from lxml import etree

from ews_sync.simulator.restriction import Compiler, select
from ews_sync.simulator.shapes import item_reader
from ews_sync.simulator.store import ABSENT
from ews_sync.simulator.wire import wire_time
from tests.simulator.soap import START, Client, compare, envelope, find_item, folder_id, page, shape

if TYPE_CHECKING:
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item


def _fill(folder: Folder, count: int, *, step: float = 60.0) -> list[Item]:
    return [
        folder.deliver(f"Subject: {n}\r\n\r\n".encode(), received=START + timedelta(seconds=step * n))
        for n in range(count)
    ]


def test_newest_comes_first_unless_asked_otherwise(client: Client, inbox: Folder) -> None:
    items = _fill(inbox, 5)
    assert client.post(find_item(inbox)).item_ids == [item.id for item in reversed(items)]
    ascending = client.post(find_item(inbox, order=["item:DateTimeReceived"]))
    assert ascending.item_ids == [item.id for item in items]


def test_pages_follow_each_other(client: Client, inbox: Folder) -> None:
    items = _fill(inbox, 25)
    seen: list[str] = []
    for _ in range(3):
        answer = client.post(find_item(inbox, view=page(10, len(seen)), order=["item:DateTimeReceived"]))
        seen += answer.item_ids
        assert answer.attributes("//m:RootFolder", "IndexedPagingOffset") == [str(len(seen))]
        assert answer.attributes("//m:RootFolder", "TotalItemsInView") == ["25"]
        assert answer.is_last == (len(seen) == 25)
    assert seen == [item.id for item in items]
    assert client.post(find_item(inbox, view=page(10, 99))).is_last


def test_pages_from_the_end(client: Client, inbox: Folder) -> None:
    items = _fill(inbox, 5)
    answer = client.post(find_item(inbox, view=page(2, 1, "End"), order=["item:DateTimeReceived"]))
    assert answer.item_ids == [items[2].id, items[3].id]
    assert not answer.is_last


def test_a_page_is_capped_and_more_so_with_a_restriction(client: Client, inbox: Folder) -> None:
    _fill(inbox, 1100)
    unrestricted = client.post(find_item(inbox, view=page(5000)))
    assert (len(unrestricted.item_ids), unrestricted.is_last) == (1000, False)
    since = compare("IsGreaterThanOrEqualTo", "item:DateTimeReceived", wire_time(START))
    restricted = client.post(find_item(inbox, view=page(1000), restriction=since))
    assert (len(restricted.item_ids), restricted.is_last) == (250, False)
    assert restricted.attributes("//m:RootFolder", "TotalItemsInView") == ["1100"]


@pytest.mark.parametrize(
    ("view", "code"),
    [
        (page(0), "ErrorInvalidPagingMaxRows"),
        (page(5, -1), "ErrorInvalidIndexedPagingParameters"),
        ('<m:FractionalPageItemView Numerator="3" Denominator="2"/>', "ErrorInvalidFractionalPagingParameters"),
        ("<m:ContactsView/>", "ErrorInvalidOperation"),
    ],
)
def test_senseless_views_are_refused(client: Client, inbox: Folder, view: str, code: str) -> None:
    assert client.post(find_item(inbox, view=view)).codes == [code]


def test_stored_times_are_more_precise_than_those_on_the_wire(client: Client, inbox: Folder) -> None:
    item = inbox.deliver(b"\r\n", received=START + timedelta(microseconds=500_000))
    (shown,) = client.post(find_item(inbox, item_shape=shape("item:DateTimeReceived"))).texts("//t:DateTimeReceived")
    assert shown == wire_time(START) == "2026-03-01T12:00:00Z"
    for operator, found in {
        "IsEqualTo": [],
        "IsGreaterThan": [item.id],
        "IsGreaterThanOrEqualTo": [item.id],
        "IsLessThanOrEqualTo": [],
    }.items():
        answer = client.post(find_item(inbox, restriction=compare(operator, "item:DateTimeReceived", shown)))
        assert answer.item_ids == found, operator


def test_by_value_paging_sees_every_item_of_a_crowded_second(client: Client, inbox: Folder) -> None:
    rng = random.Random(3)
    items = [inbox.deliver(b"\r\n", received=START + timedelta(seconds=rng.randrange(4))) for _ in range(700)]
    seen: set[str] = set()
    watermark, offset = wire_time(START), 0
    while True:
        restriction = compare("IsGreaterThanOrEqualTo", "item:DateTimeReceived", watermark)
        answer = client.post(
            find_item(
                inbox,
                item_shape=shape("item:DateTimeReceived"),
                view=page(250, offset),
                restriction=restriction,
                order=["item:DateTimeReceived"],
            )
        )
        seen.update(answer.item_ids)
        if answer.is_last:
            break
        last = answer.texts("//t:DateTimeReceived")[-1]
        watermark, offset = (last, 0) if last != watermark else (last, offset + 250)
    assert seen == {item.id for item in items}


def test_restrictions_on_other_properties(client: Client, inbox: Folder) -> None:
    old = inbox.deliver(b"Subject: Hail storm\r\nMessage-ID: <a@x>\r\n\r\n", received=START, is_read=True)
    new = inbox.deliver(b"Subject: other\r\n\r\n", received=START + timedelta(days=1), size=9000)
    draft = inbox.deliver(b"Subject: hail again\r\n\r\n", is_draft=True, received=ABSENT)
    contains = (
        '<t:Contains ContainmentMode="Substring" ContainmentComparison="IgnoreCase">'
        '<t:FieldURI FieldURI="item:Subject"/><t:Constant Value="HAIL"/></t:Contains>'
    )
    exists = '<t:Exists><t:FieldURI FieldURI="{}"/></t:Exists>'
    search_key = "".join(
        (
            '<t:IsEqualTo><t:ExtendedFieldURI PropertyTag="0x300b" PropertyType="Binary"/><t:FieldURIOrConstant>',
            f'<t:Constant Value="{base64.b64encode(old.search_key).decode()}"/>',
            "</t:FieldURIOrConstant></t:IsEqualTo>",
        )
    )
    size = compare("IsGreaterThan", "item:Size", "8000")
    cases = {
        compare("IsEqualTo", "message:InternetMessageId", "&lt;a@x&gt;"): [old],
        compare("IsEqualTo", "item:IsDraft", "true"): [draft],
        compare("IsEqualTo", "message:IsRead", "false"): [new, draft],
        compare("IsLessThan", "item:DateTimeReceived", "2026-03-02T00:00:00Z"): [old],
        size: [new],
        contains: [old, draft],
        exists.format("item:DateTimeReceived"): [new, old],
        search_key: [old],
        f"<t:Not>{contains}</t:Not>": [new],
        f"<t:Or>{size}{contains}</t:Or>": [new, old, draft],
        f"<t:And>{contains}{exists.format('item:DateTimeReceived')}</t:And>": [old],
        compare("IsNotEqualTo", "item:ItemClass", "ipm.note"): [],
    }
    for restriction, expected in cases.items():
        answer = client.post(find_item(inbox, restriction=restriction))
        assert answer.codes == ["NoError"]
        assert sorted(answer.item_ids) == sorted(item.id for item in expected), restriction


@pytest.mark.parametrize(
    ("restriction", "code"),
    [
        (compare("IsEqualTo", "item:Body", "x"), "ErrorUnsupportedPathForQuery"),
        (compare("IsEqualTo", "item:DateTimeReceived", "x"), "ErrorInvalidValueForProperty"),
        (compare("IsEqualTo", "item:Size", "x"), "ErrorInvalidValueForProperty"),
    ],
)
def test_restrictions_that_make_no_sense(client: Client, inbox: Folder, restriction: str, code: str) -> None:
    inbox.deliver(b"Subject: a\r\n\r\n")
    assert client.post(find_item(inbox, restriction=restriction)).codes == [code]


@pytest.mark.parametrize("uri", ["item:Body", "item:MimeContent", "item:Attachments", "message:ToRecipients"])
def test_a_search_cannot_return_bodies_or_recipients(client: Client, inbox: Folder, uri: str) -> None:
    assert client.post(find_item(inbox, item_shape=shape(uri))).codes == ["ErrorInvalidPropertyRequest"]


def test_a_search_returns_only_summaries(client: Client, inbox: Folder) -> None:
    inbox.deliver(b"Subject: " + b"x" * 400 + b"\r\nFrom: A <a@example.com>\r\n\r\n")
    answer = client.post(find_item(inbox, item_shape=shape("item:Subject", "message:From")))
    assert len(answer.text("//t:Subject")) == 255
    assert answer.text("//t:From/t:Mailbox/t:Name") == "A"
    assert not answer.all("//t:EmailAddress")


@pytest.mark.parametrize("direction", ["Ascending", "Descending"])
def test_the_order_of_several_fields_agrees_with_sorting(client: Client, inbox: Folder, direction: str) -> None:
    rng = random.Random(9)
    items = [
        inbox.deliver(
            b"\r\n",
            subject=rng.choice("abcd"),
            received=START + timedelta(seconds=rng.randrange(5)),
            size=rng.randrange(9),
        )
        for _ in range(120)
    ]
    is_descending = direction == "Descending"

    def received(item: Item) -> datetime:
        assert item.received is not None
        return item.received

    items.sort(key=lambda item: (item.properties.subject or "", item.properties.size))
    items.sort(key=received, reverse=is_descending)
    order = [f"item:DateTimeReceived {direction}", "item:Subject", "item:Size"]
    expected = [(item.received, item.properties.subject, item.properties.size) for item in items]
    by_id = {item.id: item for item in items}
    answers = [client.post(find_item(inbox, view=page(7, offset), order=order)) for offset in range(0, 120, 7)]
    listed = [by_id[one] for answer in answers for one in answer.item_ids]
    found = [(item.received, item.properties.subject, item.properties.size) for item in listed]
    assert found == expected


def test_find_folder_tells_what_changed(client: Client, inbox: Folder) -> None:
    claims = inbox.mailbox.folder("Inbox", "Claims")
    client.clock.forward(seconds=90)
    claims.deliver(b"\r\n").delete()
    properties = (
        '<t:ExtendedFieldURI PropertyTag="0x670A" PropertyType="SystemTime"/>'
        '<t:ExtendedFieldURI PropertyTag="0x670B" PropertyType="Integer"/>'
    )
    request = (
        '<m:FindFolder Traversal="Deep"><m:FolderShape><t:BaseShape>AllProperties</t:BaseShape>'
        f"<t:AdditionalProperties>{properties}</t:AdditionalProperties></m:FolderShape>"
        f"<m:ParentFolderIds>{folder_id(inbox)}</m:ParentFolderIds></m:FindFolder>"
    )
    answer = client.post(request)
    assert answer.texts("//t:ExtendedProperty/t:Value") == [wire_time(client.clock.now), "1"]
    assert answer.text("//t:DisplayName") == "Claims"


def test_folders_can_be_restricted_and_paged(client: Client, inbox: Folder) -> None:
    request = (
        '<m:FindFolder Traversal="Deep"><m:FolderShape><t:BaseShape>Default</t:BaseShape></m:FolderShape>'
        '<m:IndexedPageFolderView MaxEntriesReturned="2" Offset="1" BasePoint="Beginning"/><m:Restriction>'
        + compare("IsEqualTo", "folder:FolderClass", "IPF.Note")
        + '</m:Restriction><m:ParentFolderIds><t:DistinguishedFolderId Id="msgfolderroot"/></m:ParentFolderIds>'
        "</m:FindFolder>"
    )
    answer = client.post(request)
    assert answer.texts("//t:DisplayName") == ["Conversation History", "Deleted Items"]
    assert not answer.is_last
    assert inbox.is_deleted is False


def test_a_page_of_a_large_folder_makes_only_its_own_messages(client: Client, inbox: Folder) -> None:
    # Enough items that a cost for each of them would show in how many messages are made.
    made = []

    def make() -> bytes:
        made.append(1)
        return b"Subject: lazy\r\n\r\n"

    for n in range(20_000):
        inbox.deliver(make, received=START + timedelta(seconds=n))
    since = compare("IsGreaterThanOrEqualTo", "item:DateTimeReceived", wire_time(START + timedelta(seconds=19_000)))
    answer = client.post(
        find_item(
            inbox,
            item_shape=shape("item:Subject"),
            view=page(50),
            restriction=since,
            order=["item:DateTimeReceived"],
        )
    )
    assert len(answer.item_ids) == 50
    assert len(made) == 50


def test_an_associated_traversal_finds_nothing(client: Client, inbox: Folder) -> None:
    answer = client.send(envelope(find_item(inbox).replace('Traversal="Shallow"', 'Traversal="Associated"')))
    assert (answer.codes, answer.item_ids) == (["NoError"], [])


def test_items_without_a_received_time_are_a_range_of_the_index(client: Client, inbox: Folder) -> None:
    _fill(inbox, 3)
    undated = []
    for _ in range(3):
        client.clock.forward(seconds=1)
        undated.append(inbox.deliver(b"\r\n", received=ABSENT, in_reply_to="<1>"))
    by_creation = [item.id for item in undated]
    received = '<t:Exists><t:FieldURI FieldURI="item:DateTimeReceived"/></t:Exists>'
    none = f"<t:Not>{received}</t:Not>"
    replies = '<t:Exists><t:FieldURI FieldURI="item:InReplyTo"/></t:Exists>'

    def found(restriction: str, *order: str) -> list[str]:
        return client.post(find_item(inbox, restriction=restriction, order=order)).item_ids

    assert found(none, "item:DateTimeCreated") == by_creation
    assert found(none, "item:DateTimeCreated Descending") == by_creation[::-1]
    assert found(f"<t:And>{none}{replies}</t:And>", "item:DateTimeCreated") == by_creation
    assert len(found(received)) == 3
    assert not set(found(received)) & set(by_creation)
    assert found(f"<t:Not>{none}</t:Not>") == found(received)
    # A test would mean a look at each item of the folder.
    parsed = etree.fromstring(envelope(none)).find("{*}Body/{*}Not")
    assert select(parsed, Compiler(item_reader)).test is None
