from __future__ import annotations

import random
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from ews_sync.simulator import ids
from ews_sync.simulator.index import CHUNK, SortedIndex
from ews_sync.simulator.item import KnownItems
from ews_sync.simulator.store import ABSENT, Exchange, Mailbox
from tests.simulator.soap import START, Clock

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mailbox(clock: Clock) -> Mailbox:
    return Exchange(clock).create_mailbox("Owner@Example.com")


def test_a_new_mailbox_has_the_usual_folders(mailbox: Mailbox) -> None:
    classes = {folder.path: folder.folder_class for folder in mailbox.folders()}
    assert classes["Inbox"] == classes["Junk Email"] == "IPF.Note"
    assert classes["Calendar"] == "IPF.Appointment"
    assert mailbox.distinguished["sentitems"].path == "Sent Items"
    assert "Finder" not in classes


def test_mailboxes_are_found_in_any_case(mailbox: Mailbox) -> None:
    assert mailbox.exchange.mailbox("OWNER@example.COM") is mailbox
    with pytest.raises(ValueError, match="exists"):
        mailbox.exchange.create_mailbox("owner@example.com")


def test_a_folder_is_made_once(mailbox: Mailbox) -> None:
    claims = mailbox.folder("Inbox", "Claims", folder_class="IPF.Note.Custom")
    assert mailbox.folder("inbox", "CLAIMS") is claims
    assert claims.folder_class == "IPF.Note.Custom"
    assert mailbox.folder("Odd", folder_class=None).folder_class is None


def test_folder_ids_survive_renaming_and_moving(mailbox: Mailbox) -> None:
    claims = mailbox.folder("Inbox", "Claims")
    before = claims.id
    claims.rename("Old claims")
    claims.move(mailbox.folder("Archive"))
    assert (claims.id, claims.path) == (before, "Archive/Old claims")
    with pytest.raises(ValueError, match="itself"):
        claims.parent.move(claims)  # type: ignore[union-attr]


def test_deleting_a_folder_takes_all_below_it(mailbox: Mailbox) -> None:
    item = mailbox.folder("A", "B").deliver(b"Subject: x\r\n\r\n")
    mailbox.folder("A").delete()
    assert item.is_deleted
    assert not list(mailbox.items())


def test_properties_come_from_the_message(mailbox: Mailbox) -> None:
    item = mailbox.folder("Inbox").deliver(
        b"From: =?utf-8?q?Bj=C3=B6rn?= <b@example.com>\r\nTo: a@example.com, C <c@example.com>\r\n"
        b"Subject: Re: =?iso-8859-1?q?H=E4user?=\r\nMessage-ID: <1@x>\r\nDate: Mon, 2 Mar 2026 08:00:00 +0100\r\n"
        b"Importance: high\r\nIn-Reply-To: <0@x>\r\n\r\nHello"
    )
    known = item.properties
    assert known.author is not None
    assert (known.author.name, known.author.email) == ("Björn", "b@example.com")
    assert [address.email for address in known.to] == ["a@example.com", "c@example.com"]
    assert (known.subject, known.conversation_topic) == ("Re: Häuser", "Häuser")
    assert (known.message_id, known.importance, known.in_reply_to) == ("<1@x>", "High", "<0@x>")
    assert known.sent is not None
    assert known.sent.hour == 7


def test_what_is_given_replaces_what_the_message_says(mailbox: Mailbox) -> None:
    inbox = mailbox.folder("Inbox")
    mime = b"Subject: said\r\nMessage-ID: <1@x>\r\n\r\n"
    item = inbox.deliver(mime, subject="given", message_id=None, size=7, received=ABSENT, importance="Low")
    known = item.properties
    assert (known.subject, known.message_id, known.size, known.importance) == ("given", None, 7, "Low")
    assert item.received is None
    with pytest.raises(TypeError, match="colour"):
        inbox.deliver(mime, colour="red")


@pytest.mark.parametrize(
    ("content_type", "item_class"),
    [
        ("text/plain", "IPM.Note"),
        ('multipart/signed; boundary="x"', "IPM.Note.SMIME.MultipartSigned"),
        ("application/pkcs7-mime", "IPM.Note.SMIME"),
        ("multipart/report; report-type=delivery-status", "REPORT.IPM.Note.NDR"),
        ("multipart/report; report-type=disposition-notification", "REPORT.IPM.Note.IPNRN"),
        ("text/calendar; method=REQUEST", "IPM.Schedule.Meeting.Request"),
    ],
)
def test_the_class_follows_the_content_type(mailbox: Mailbox, content_type: str, item_class: str) -> None:
    item = mailbox.folder("Inbox").deliver(f"Content-Type: {content_type}\r\n\r\n".encode())
    assert item.item_class == item_class


def test_lazy_messages_are_made_when_needed(mailbox: Mailbox) -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"Subject: lazy\r\n\r\n"

    item = mailbox.folder("Inbox").deliver(make, item_class="IPM.Note")
    assert (item.item_class, made) == ("IPM.Note", [])
    assert (item.properties.subject, item.properties.size) == ("lazy", 2512)
    assert len(made) == 1


def test_what_messages_say_is_remembered_of_the_last_ones_only(clock: Clock) -> None:
    exchange = Exchange(clock)
    exchange.known_items = KnownItems(capacity=2)
    made: list[int] = []

    def maker(number: int) -> Callable[[], bytes]:
        def make() -> bytes:
            made.append(number)
            return f"Subject: {number}\r\nContent-Disposition: attachment\r\n\r\n".encode()

        return make

    inbox = exchange.create_mailbox("a@example.com").folder("Inbox")
    items = [inbox.deliver(maker(number), subject=f"given {number}") for number in range(3)]
    for item in items:
        assert (len(item.attachments), item.item_class, item.properties.subject) == (
            1,
            "IPM.Note",
            f"given {item.number - items[0].number}",
        )
    assert made == [0, 0, 1, 1, 2, 2]
    assert [item.properties.subject for item in items[1:]] == ["given 1", "given 2"]
    assert items[0].item_class == "IPM.Note"
    assert made == [0, 0, 1, 1, 2, 2]
    assert (items[0].properties.subject, len(items[0].attachments)) == ("given 0", 1)
    assert made == [0, 0, 1, 1, 2, 2, 0, 0]


def test_moving_changes_the_id_and_little_else(mailbox: Mailbox, clock: Clock) -> None:
    inbox, archive = mailbox.folder("Inbox"), mailbox.folder("Archive")
    item = inbox.deliver(b"Message-ID: <1@x>\r\n\r\n", is_read=True, categories=("red",))
    clock.forward(hours=1)
    moved = item.move(archive)
    assert moved.id != item.id
    assert (moved.received, moved.search_key, moved.categories) == (item.received, item.search_key, ("red",))
    assert item.is_deleted
    assert (len(inbox), len(archive), inbox.deleted_count) == (0, 1, 1)
    with pytest.raises(KeyError):
        item.delete()


def test_a_copy_shares_search_key_and_message_id(mailbox: Mailbox) -> None:
    item = mailbox.folder("Inbox").deliver(b"Message-ID: <1@x>\r\n\r\n")
    copy = item.copy(mailbox.folder("Archive"))
    assert copy.id != item.id
    assert copy.search_key == item.search_key
    assert copy.properties.message_id == "<1@x>"
    assert not item.is_deleted


def test_sending_a_draft(mailbox: Mailbox, clock: Clock) -> None:
    draft = mailbox.folder("Drafts").deliver(b"Subject: d\r\n\r\n", is_draft=True)
    clock.forward(days=1)
    sent = draft.send()
    assert (sent.folder.path, sent.is_draft, sent.received) == ("Sent Items", False, clock.now)
    other = mailbox.folder("Drafts").deliver(b"Subject: d\r\n\r\n", is_draft=True)
    before = other.id
    other.send_in_place()
    assert (other.id, other.is_draft, other.folder.path) == (before, False, "Drafts")


def test_unread_and_commit_times_are_counted(mailbox: Mailbox, clock: Clock) -> None:
    inbox = mailbox.folder("Inbox")
    item = inbox.deliver(b"\r\n")
    assert inbox.unread == 1
    clock.forward(seconds=5)
    item.set_read()
    item.set_read()
    assert (inbox.unread, inbox.local_commit_time_max) == (0, clock.now)
    clock.forward(seconds=-60)
    item.set_read(False)
    assert inbox.local_commit_time_max == START + timedelta(seconds=5)


def test_ids_are_long_case_sensitive_and_can_be_read_back() -> None:
    space = ids.mailbox_space("a@example.com", 0)
    known = [ids.item_id(space, number) for number in range(1000)]
    assert {len(one) for one in known} == {ids.ITEM_ID_LENGTH}
    assert len({one.casefold() for one in known}) < len(set(known)) == 1000
    assert [ids.parse(one).number for one in known] == list(range(1000))
    assert ids.parse(ids.folder_id(space, 7)) == ids.ParsedId(space, "folder", 7)
    assert ids.parse_attachment(ids.attachment_id(known[5], 3)) == (ids.ParsedId(space, "item", 5), 3)


@pytest.mark.parametrize("spoil", [str.lower, lambda one: one[:-1], lambda one: one[:-1] + "*", lambda _: "x"])
def test_spoiled_ids_are_malformed(spoil: object) -> None:
    good = ids.item_id(ids.mailbox_space("a@example.com", 0), 5)
    assert callable(spoil)
    with pytest.raises(ids.MalformedIdError):
        ids.parse(spoil(good))


class Entry:
    def __init__(self, key: int) -> None:
        self.sort_key = key


def test_the_index_agrees_with_a_sorted_list() -> None:
    rng = random.Random(5)
    keys = rng.sample(range(100_000), 4 * CHUNK)
    entries = {key: Entry(key) for key in keys}
    index: SortedIndex[Entry] = SortedIndex()
    for key in keys:
        index.add(entries[key])
    for key in keys[::3]:
        index.remove(entries.pop(key))
    expected = sorted(entries)
    assert [entry.sort_key for entry in index] == expected
    for place in (0, 1, CHUNK, len(expected) - 1, len(expected)):
        assert [entry.sort_key for entry in islice(index.ascending(place), 5)] == expected[place : place + 5]
        below = expected[max(0, place - 5) : place][::-1]
        assert [entry.sort_key for entry in islice(index.descending_from(place), 5)] == below
    for key in (-1, expected[0], expected[7] + 1, 50_000, 100_001):
        assert index.position(key) == sum(1 for known in expected if known < key)
        assert next(index.descending(key), None) is (
            entries[max(k for k in expected if k < key)] if key > expected[0] else None
        )
    with pytest.raises(KeyError):
        index.remove(Entry(expected[0]))


def test_positions_follow_what_is_added_and_removed() -> None:
    index: SortedIndex[Entry] = SortedIndex()
    for key in range(0, 10 * CHUNK, 2):
        index.add(Entry(key))
    assert index.position(6 * CHUNK) == 3 * CHUNK
    index.add(Entry(1))
    assert index.position(6 * CHUNK) == 3 * CHUNK + 1
    assert next(index.ascending(3 * CHUNK + 1)).sort_key == 6 * CHUNK
    for entry in list(islice(index.ascending(), 3 * CHUNK)):
        index.remove(entry)
    assert index.position(6 * CHUNK) == 1
    assert next(index.descending_from(1)).sort_key == 6 * CHUNK - 2
