from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import example, given, strategies as st
from lxml import etree

from ews_sync.errors import Asks, ProtocolError
from ews_sync.model import Order
from ews_sync.sources.ews.encoding import encode
from ews_sync.sources.ews.operations import (
    Access,
    FindFolder,
    FindItem,
    GetFolder,
    GetItem,
    Operation,
    SyncFolderHierarchy,
    SyncFolderItems,
)
from tests.sources.support import SOAP, TYPES

SINCE = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)
OPERATIONS: list[Operation] = [
    FindFolder(),
    FindFolder(offset=1000, limit=10),
    GetFolder(),
    SyncFolderHierarchy(),
    SyncFolderHierarchy("H4sI="),
    *(
        FindItem("f", order, since, offset=3, descending=descending)
        for order, since, descending in product(Order, (None, SINCE), (False, True))
    ),
    *(SyncFolderItems("f", state, ids_only=ids_only) for state, ids_only in product((None, "H4sI="), (False, True))),
    GetItem(("a",)),
    GetItem(("a", "b+/=", "c"), with_mime=False),
]
ACCESSES = [Access("claims@example.com", impersonate=True), Access("claims@example.com", impersonate=False)]


@pytest.mark.parametrize("access", ACCESSES, ids=["impersonation", "delegate"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_request_follows_microsofts_schema(operation: Operation, access: Access, schema: etree.XMLSchema) -> None:
    root = etree.fromstring(encode(operation, access))
    body = root.find(f"{{{SOAP}}}Body")
    assert body is not None
    assert len(body) == 1
    schema.assertValid(body[0])


@pytest.mark.parametrize("access", ACCESSES, ids=["impersonation", "delegate"])
def test_the_header_says_the_version_first_and_then_on_whose_behalf(access: Access, schema: etree.XMLSchema) -> None:
    root = etree.fromstring(encode(GetFolder(), access))
    header = root[0]
    names = [str(child.tag).rpartition("}")[2] for child in header]
    assert names == ["RequestServerVersion", *(["ExchangeImpersonation"] if access.impersonate else [])]
    assert header[0].get("Version") == "Exchange2010_SP2"
    for child in header:
        schema.assertValid(child)
    if access.impersonate:
        assert header[1].findtext(f".//{{{TYPES}}}PrimarySmtpAddress") == "claims@example.com"


def test_a_delegate_names_the_mailbox_in_the_folder_id_and_nobody_else_does() -> None:
    assert b"EmailAddress>claims@example.com<" in encode(FindFolder(), ACCESSES[1])
    assert b"EmailAddress" not in encode(FindFolder(), ACCESSES[0])


def test_what_comes_from_outside_is_escaped() -> None:
    root = etree.fromstring(encode(GetItem(('a"<&>',)), Access("o'neil&sons@example.com", impersonate=True)))
    assert [node.get("Id") for node in root.iter(f"{{{TYPES}}}ItemId")] == ['a"<&>']


# What is asked for again and again is filled in; with a letter that has to be looked at, it is made like all others.


@given(st.one_of(st.text("aB1.@+-_"), st.text("aB@&<\"'\rü\u2028 ")), st.booleans())
def test_the_look_for_new_mail_is_the_same_as_it_would_be_without_its_shortcut(address: str, impersonate: bool) -> None:  # noqa: FBT001 - drawn
    access = Access(address, impersonate)
    general = encode(FindFolder(offset=987654), access)
    assert encode(FindFolder(), access) == general.replace(b'"987654"', b'"0"')


@given(
    folder=st.text("aB1+/=_-.@"),
    state=st.none() | st.text("aB1+/=_-.@"),
    limit=st.integers(1, 512),
    ids_only=st.booleans(),
    access=st.sampled_from(ACCESSES),
)
def test_a_feed_is_asked_for_as_it_would_be_without_its_shortcut(
    *, folder: str, state: str | None, limit: int, ids_only: bool, access: Access
) -> None:
    general = encode(SyncFolderItems(f"{folder}ü", state, limit, ids_only), access)
    assert encode(SyncFolderItems(folder, state, limit, ids_only), access) == general.replace("ü".encode(), b"")


@example(ids=['a"/><t:ItemId Id="b'], with_mime=True, with_search_key=True, access=ACCESSES[0])
@given(
    ids=st.lists(st.text("aB1+/=_-.@") | st.text("aB\"&<'@"), min_size=1, max_size=3),
    with_mime=st.booleans(),
    with_search_key=st.booleans(),
    access=st.sampled_from(ACCESSES),
)
def test_items_are_asked_for_as_they_would_be_without_a_shortcut(
    *, ids: list[str], with_mime: bool, with_search_key: bool, access: Access
) -> None:
    general = encode(GetItem((*ids, "ü"), with_mime, with_search_key), access)
    assert encode(GetItem(tuple(ids), with_mime, with_search_key), access) == general.replace(
        '<t:ItemId Id="ü"/>'.encode(), b""
    )


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (SINCE, "2026-01-02T03:04:05Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_whole_seconds_in_utc_rounded_down(moment: datetime, text: str) -> None:
    assert f'Value="{text}"'.encode() in encode(FindItem("f", Order.RECEIVED, moment), ACCESSES[0])


@pytest.mark.parametrize("text", ["\x00", "a\x0bb", "\ufffe", "\ud800", "\x1b[0m"])
@pytest.mark.parametrize("place", ["state", "folder", "item", "mailbox"])
def test_what_no_xml_can_hold_is_our_error(text: str, place: str) -> None:
    operations: dict[str, Operation] = {
        "state": SyncFolderItems("f", text),
        "folder": FindItem(text, Order.RECEIVED),
        "item": GetItem(("a", text)),
        "mailbox": GetFolder(),
    }
    with pytest.raises(ProtocolError) as caught:
        encode(operations[place], Access(text if place == "mailbox" else "a@b.c", impersonate=True))
    assert caught.value.asks is Asks.STOP
