"""What every sink does, written once. A sink's test derives from `SinkContract` and gives the fixture `harness`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import pytest

from ews_sync.errors import SinkError
from ews_sync.model import Bucket, Folder, ItemRef, Mailbox, Recall
from tests.sinks.builders import MAILBOX, OTHER, RECEIVED, SENT, a_letter, an_email

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.model import Sink


@dataclass(frozen=True, slots=True)
class Stored:
    """An email as it is found in the storage; `data` is what a reader of the format gets for its MIME."""

    email_id: str
    folder: tuple[str, ...]
    data: bytes


HOSTILE = ("../../etc/passwd", "", ".", "a\0b\n", "x" * 700, "\ud800\u2028\U0001f600", "~", "%2E", "a/b")


class Harness(Protocol):
    """One storage, and sinks on it one after the other."""

    replaces: bool
    """Whether a repeat takes the place of what was there (else it is added behind it)."""
    recall: Recall
    """Whether the sink can tell what it holds."""
    locks: bool
    """Whether a mailbox has one holder at a time."""
    tells_apart: bool
    """Whether different messages of one id are all kept."""

    names: Sequence[str]
    """Names from outside that have to be stored, and found again as they are."""

    def bucket(self, name: str) -> Bucket:
        """Give a bucket that is there, of that name if that can be."""

    def sink(self) -> Sink:
        """Make a sink on the storage."""

    def stored(self, mailbox: Mailbox) -> Sequence[Stored]:
        """Read what is stored, without the sink's help."""

    def letters(self, mailbox: Mailbox) -> Sequence[tuple[str, str]]:
        """Read the item ids and codes of the recorded dead letters."""


class SinkContract:
    async def test_what_was_put_is_there(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.open(MAILBOX, None)
        receipt = await sink.put([an_email("<a@x>", data=b"Subject: a\r\n\r\n"), an_email("<b@x>", folder=("A", "B"))])
        await sink.aclose()
        assert receipt.refused == ()
        assert (receipt.position is not None) == sink.ordered
        found = {stored.email_id: stored for stored in harness.stored(MAILBOX)}
        assert found["<a@x>"].data == b"Subject: a\r\n\r\n"
        assert found["<b@x>"].folder == ("A", "B")

    async def test_an_empty_batch_is_fine(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.open(MAILBOX, None)
        await sink.put([])
        await sink.dead_letter([])
        await sink.aclose()
        assert harness.stored(MAILBOX) == []

    async def test_a_repeat_replaces(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.open(MAILBOX, None)
        await sink.put([an_email(folder=("Inbox",))])
        await sink.put([an_email(folder=("Archive",))])
        await sink.aclose()
        stored = harness.stored(MAILBOX)
        assert stored[-1].folder == ("Archive",)
        assert len(stored) == (1 if harness.replaces else 2)

    async def test_of_one_key_in_a_batch_the_last_wins(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.open(MAILBOX, None)
        await sink.put([an_email(folder=("Inbox",)), an_email("<2@x>"), an_email(folder=("Archive",))])
        await sink.aclose()
        stored = harness.stored(MAILBOX)
        assert len(stored) == 2
        assert {item.email_id: item.folder for item in stored}["<1@example.com>"] == ("Archive",)

    async def test_different_messages_of_one_id_are_all_kept(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.open(MAILBOX, None)
        second = timedelta(seconds=1)
        emails = [
            an_email(data=b"1"),
            an_email(data=b"2", sent=SENT + second, received=RECEIVED + second),
            an_email(data=b"3", sent=SENT + second * 2, received=RECEIVED + second),
            an_email(data=b"4", received=RECEIVED + second * 3),
        ]
        await sink.put(emails[:3])
        await sink.put(emails[3:])
        await sink.aclose()
        expected = [b"1", b"2", b"3", b"4"] if harness.tells_apart else [b"4"]
        assert sorted(stored.data for stored in harness.stored(MAILBOX)) == expected

    async def test_holds_what_it_can_tell(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.open(MAILBOX, None)
        await sink.put([an_email("<a@x>")])
        refs = [
            ItemRef("i1", received=RECEIVED, email_id="<a@x>", sent=SENT),
            ItemRef("i2", received=RECEIVED, email_id="<b@x>", sent=SENT),
            ItemRef("i3", received=RECEIVED),
        ]
        assert sink.recall == harness.recall
        tells = harness.recall is not Recall.NOTHING
        assert list(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), refs)) == [tells, False, False]
        assert not any(await sink.holds(MAILBOX, Folder("g", ("Elsewhere",)), refs))
        await sink.aclose()

    async def test_dead_letters_are_recorded_once_each_also_across_restarts(self, harness: Harness) -> None:
        for _ in range(2):
            sink = harness.sink()
            await sink.open(MAILBOX, None)
            await sink.open(OTHER, None)
            await sink.dead_letter([a_letter("i1"), a_letter("i1"), a_letter("i1", mailbox=OTHER)])
            await sink.dead_letter([a_letter("i1"), a_letter("i2"), a_letter("i1", code="ErrorCorruptData")])
            await sink.aclose()
        expected = [("i1", "ErrorCorruptData"), ("i1", "ErrorItemCorrupt"), ("i2", "ErrorItemCorrupt")]
        assert sorted(harness.letters(MAILBOX)) == expected
        assert harness.letters(OTHER) == [("i1", "ErrorItemCorrupt")]

    async def test_a_mailbox_has_one_holder(self, harness: Harness) -> None:
        if not harness.locks:
            pytest.skip("this storage cannot tell who writes to it")
        first, second = harness.sink(), harness.sink()
        await first.open(MAILBOX, None)
        await first.open(MAILBOX, None)
        with pytest.raises(SinkError, match="abc@example"):
            await second.open(MAILBOX, None)
        await second.open(OTHER, None)
        await first.aclose()
        await second.open(MAILBOX, None)
        await second.aclose()

    async def test_a_mailbox_must_be_open(self, harness: Harness) -> None:
        sink = harness.sink()
        with pytest.raises(RuntimeError, match="not open"):
            await sink.put([an_email()])
        with pytest.raises(RuntimeError, match="not open"):
            await sink.dead_letter([a_letter()])
        await sink.aclose()

    async def test_check_stores_nothing(self, harness: Harness) -> None:
        sink = harness.sink()
        await sink.check(MAILBOX)
        await sink.open(MAILBOX, None)
        await sink.check(MAILBOX)
        await sink.aclose()
        assert harness.stored(MAILBOX) == []

    async def test_mailboxes_are_kept_apart(self, harness: Harness) -> None:
        sink = harness.sink()
        elsewhere = Mailbox(MAILBOX.address, Bucket("project", "bucket2"))
        mailboxes = [MAILBOX, OTHER, elsewhere]
        await asyncio.gather(*(sink.open(mailbox, None) for mailbox in mailboxes))
        await asyncio.gather(
            *(sink.put([an_email(mailbox=mailbox, data=b"%d" % number)]) for number, mailbox in enumerate(mailboxes))
        )
        await sink.aclose()
        assert [harness.stored(mailbox)[0].data for mailbox in mailboxes] == [b"0", b"1", b"2"]

    async def test_any_names_and_ids_are_stored(self, harness: Harness) -> None:
        sink = harness.sink()
        mailboxes = [Mailbox(name, harness.bucket(name)) for name in harness.names]
        for mailbox in mailboxes:
            await sink.open(mailbox, None)
            await sink.put([an_email(name, mailbox=mailbox, folder=(name,)) for name in harness.names])
        await sink.aclose()
        for mailbox in mailboxes:
            stored = harness.stored(mailbox)
            assert sorted(item.email_id for item in stored) == sorted(harness.names)
            assert all(item.folder == (item.email_id,) for item in stored)
