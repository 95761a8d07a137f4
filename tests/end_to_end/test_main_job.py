"""The main job, with the real parts: Exchange's mailboxes to files on disk, by HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from ews_sync.simulator.faults import (
    ConnectionReset,
    IllegalCharacters,
    ItemError,
    Prefixes,
    ResponseError,
    ShortPage,
    SoapFault,
    Truncated,
    WithoutProperties,
    html_page,
)
from ews_sync.simulator.item import ABSENT
from ews_sync.simulator.mail import MailFactory, populate

if TYPE_CHECKING:
    from tests.end_to_end.world import World

ADDRESS = "abc@example.com"
THEN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def simple(number: int, *, message_id: bool = True) -> bytes:
    head = f"Message-ID: <{number}@sender.example>\r\n" if message_id else ""
    return f"From: a@sender.example\r\nSubject: mail {number}\r\n{head}\r\nbody of {number}\r\n".encode()


async def test_two_mailboxes_of_a_thousand_emails_arrive_byte_for_byte(world: World) -> None:
    addresses = [ADDRESS, "xyz@example.com"]
    for number, address in enumerate(addresses):
        populate(world.mailbox(address), 1000, factory=MailFactory(number))
    async with world.running() as app:
        await world.until_stored(app)
        await world.rounds(app)
    for address in addresses:
        assert world.missing(address) == []
        assert len(world.stored(address)) == len(world.expected(address))
        assert world.dead_letters(address) == []


async def test_what_happens_later_is_there_within_two_rounds(world: World) -> None:
    mailbox = world.mailbox()
    inbox, archive = mailbox.folder("Inbox"), mailbox.folder("Archive")
    old = [inbox.deliver(simple(number), received=THEN + timedelta(days=number)) for number in range(30)]
    archive.deliver(simple(999), received=THEN + timedelta(days=400))
    async with world.running() as app:
        await world.until(lambda: not world.missing(), "the first mail")
        inbox.deliver(simple(100))
        # Into a folder whose newest mail is newer: no date watermark would ever see it.
        old[3].move(archive)
        project = mailbox.folder("Inbox", "Project X")
        project.deliver(simple(101), received=THEN - timedelta(days=365))
        old[5].move(project)
        old[7].set_read(True)
        await world.rounds(app, 2)
        assert world.missing() == []
        before = app.status.mailboxes[ADDRESS].stored
        old[8].set_read(True)
        await world.rounds(app, 2)
        assert app.status.mailboxes[ADDRESS].stored == before, "a read flag is no reason to store again"


async def test_three_thousand_items_of_one_second_arrive(world: World) -> None:
    inbox = world.mailbox().folder("Inbox")
    for number in range(3000):
        inbox.deliver(simple(number), received=THEN + timedelta(microseconds=number * 300))
    async with world.running(emails_per_folder=1000):
        await world.until(lambda: len(world.stored()) == 3000, "all items")
    assert world.missing() == []


async def test_items_without_message_id_with_hostile_subjects_and_ids(world: World) -> None:
    inbox = world.mailbox().folder("Inbox")
    inbox.deliver(simple(1, message_id=False), received=THEN)
    inbox.deliver(simple(2, message_id=False), received=THEN, message_id=None)
    inbox.deliver(simple(3), subject="\u202e\u0007 ]]> <&>" + "\U0001f525" * 500)
    for number, name in enumerate(
        ("<../../../etc/passwd>", "<a\nb>", "<" + "x" * 900 + ">", "<\U0001f525@ü>", "."), 10
    ):
        inbox.deliver(simple(number), message_id=name)
    inbox.deliver(simple(30), received=ABSENT)
    evil = world.mailbox().folder("Inbox", "..", "a/b\\c\U0001f525")
    evil.deliver(simple(40))
    world.server.faults.add(IllegalCharacters(), operation="FindItem")
    world.server.faults.add(IllegalCharacters(), operation="GetItem")
    async with world.running() as app:
        await world.until(lambda: len(world.stored()) == 10, "the items")
        await world.rounds(app)
    contents = {email.mime for email in world.stored().values()}
    assert contents == {item.mime() for item in world.expected()}
    everything = list(world.directory.rglob("*"))
    assert all(path.resolve().is_relative_to(world.directory) for path in everything)


async def test_a_moved_email_without_message_id_keeps_its_id(world: World) -> None:
    inbox = world.mailbox().folder("Inbox")
    item = inbox.deliver(simple(1, message_id=False), received=THEN, message_id=None)
    async with world.running() as app:
        await world.until(lambda: len(world.stored()) == 1, "the item")
        item.move(world.mailbox().folder("Archive"))
        await world.rounds(app)
    assert [email.folder for email in world.stored().values()] == [("Archive",)]


async def test_what_the_server_cannot_give_becomes_a_dead_letter(world: World) -> None:
    inbox = world.mailbox().folder("Inbox")
    items = [inbox.deliver(simple(number), received=THEN + timedelta(hours=number)) for number in range(40)]
    bad = {
        items[4].id: "ErrorMimeContentConversionFailed",
        items[9].id: "ErrorItemCorrupt",
        items[20].id: "ErrorBrandNew",
    }
    for item_id, code in bad.items():
        world.server.faults.add(ItemError(code), item=item_id)
    world.server.faults.add(ItemError("ErrorInternalServerError", stops_batch=True), item=items[30].id, times=1)
    async with world.running() as app:
        await world.until(lambda: len(world.stored()) == 37, "the rest")
        await world.rounds(app)
        assert app.status.mailboxes[ADDRESS].dead_letters == 3
    letters = world.dead_letters()
    assert {letter["id"]: letter["code"] for letter in letters} == bad
    assert {letter["message_id"] for letter in letters} == {f"<{n}@sender.example>" for n in (4, 9, 20)}


async def test_a_forgotten_sync_state_heals_itself(world: World) -> None:
    mailbox = world.mailbox()
    inbox, archive = mailbox.folder("Inbox"), mailbox.folder("Archive")
    items = [inbox.deliver(simple(number), received=THEN + timedelta(days=number)) for number in range(20)]
    async with world.running():
        await world.until(lambda: not world.missing(), "the first mail")
    # While nobody looks: new mail, an old item moved, and the server forgets.
    inbox.deliver(simple(100))
    items[2].move(archive)
    mailbox.forget_sync_states()
    world.server.log.clear()
    async with world.running() as app:
        await world.until(lambda: not world.missing(), "what was missed")
        await world.rounds(app)
    fetched = [item for record in world.server.log.of("GetItem") for item in record.item_ids]
    assert len(fetched) == 2, "only what is missing is fetched"


async def test_a_restart_fetches_nothing_again(world: World) -> None:
    populate(world.mailbox(), 300, factory=MailFactory(3))
    async with world.running() as app:
        await world.until_stored(app)
        await world.rounds(app)
    world.server.log.clear()
    async with world.running() as app:
        await world.rounds(app)
    assert world.server.log.of("GetItem") == []
    assert world.server.log.of("FindItem") == []


async def test_a_quiet_mailbox_costs_one_request_a_round(world: World) -> None:
    populate(world.mailbox(), 50)
    async with world.running(poll_frequency=1.2) as app:
        await world.until(lambda: not world.missing(), "the mail")
        # A folder counts as quiet only some seconds after its last change: see engine.watch.
        await world.rounds(app, 4)
        world.server.log.clear()
        await world.rounds(app, 2)
        operations = [record.operation for record in world.server.log]
    assert set(operations) == {"FindFolder"}


async def test_a_server_without_activity_properties_is_polled(world: World) -> None:
    world.server.faults.add(WithoutProperties())
    inbox = world.mailbox().folder("Inbox")
    inbox.deliver(simple(1))
    async with world.running() as app:
        await world.until(lambda: not world.missing(), "the mail")
        await world.rounds(app, 3)
        inbox.deliver(simple(2))
        await world.rounds(app, 2)
    assert world.missing() == []


async def test_mail_arrives_through_all_kinds_of_trouble(world: World) -> None:
    populate(world.mailbox(), 200, factory=MailFactory(5))
    faults = world.server.faults
    for effect in (
        SoapFault("ErrorServerBusy", back_off_ms=50),
        ConnectionReset(),
        ConnectionReset(after=500),
        Truncated(honest=True),
        Truncated(honest=False),
        html_page(502),
        html_page(200),
    ):
        faults.add(effect, probability=0.04)
    faults.add(ResponseError("ErrorServerBusy", back_off_ms=20), operation="GetItem", probability=0.05)
    faults.add(ShortPage(7), operation="FindItem", probability=0.5)
    faults.add(Prefixes(), probability=0.3)
    async with world.running() as app:
        await world.until_stored(app, limit=120)
    assert world.dead_letters() == []


async def test_drafts_are_stored_once_they_are_sent(world: World) -> None:
    mailbox = world.mailbox()
    draft = mailbox.folder("Drafts").deliver(simple(1), is_draft=True)
    other = mailbox.folder("Drafts").deliver(simple(2), is_draft=True)
    mailbox.folder("Inbox").deliver(simple(3))
    async with world.running() as app:
        await world.until(lambda: len(world.stored()) == 1, "the mail that is none")
        await world.rounds(app, 2)
        assert len(world.stored()) == 1
        draft.send()
        other.send_in_place()
        await world.rounds(app, 2)
    assert {email.folder for email in world.stored().values()} == {("Inbox",), ("Sent Items",), ("Drafts",)}


async def test_start_timestamp_and_folder_lists_limit_what_is_stored(world: World) -> None:
    mailbox = world.mailbox()
    for path in (("Inbox",), ("Inbox", "Claims"), ("Inbox", "Private"), ("Archive",)):
        for number in range(3):
            folder = mailbox.folder(*path)
            folder.deliver(simple(hash((path, number)) & 0xFFFFFF), received=THEN + timedelta(days=number))
    mailbox.folder("Calendar", folder_class="IPF.Appointment").deliver(simple(5), item_class="IPM.Appointment")
    keys = {
        "start_timestamp": (THEN + timedelta(days=1)).isoformat(),
        "folder_allowlist": [["Inbox"]],
        "folder_denylist": [["inbox", "private"]],
    }
    async with world.running(mailbox_keys=keys) as app:
        await world.until(lambda: len(world.stored()) == 4, "what is wanted")
        await world.rounds(app, 2)
    assert sorted(email.folder for email in world.stored().values()) == [("Inbox",)] * 2 + [("Inbox", "Claims")] * 2


async def test_jsonl_has_each_email_once(world: World) -> None:
    populate(world.mailbox(), 150, factory=MailFactory(8))
    async with world.running(local_files_format="jsonl") as app:
        await world.until(lambda: len(world.lines()) >= len(world.expected()), "the lines")
        await world.rounds(app)
    lines = world.lines()
    assert len(lines) == len(world.expected())
    assert all(line["mailbox"] == ADDRESS and line["mime_content"] for line in lines)
    async with world.running(local_files_format="jsonl") as app:
        world.mailbox().folder("Inbox").deliver(simple(77))
        await world.until(lambda: len(world.lines()) == len(lines) + 1, "one more line")


@pytest.mark.parametrize("uploads", [0, 1, 32])
async def test_any_number_of_uploads(world: World, uploads: int) -> None:
    populate(world.mailbox(), 60)
    async with world.running(max_concurrent_uploads=uploads, reinfer_batch_size=7, emails_per_folder=25):
        await world.until(lambda: not world.missing(), "the mail")


async def test_metadata_is_what_the_server_said(world: World) -> None:
    inbox = world.mailbox().folder("Inbox", "Claims")
    mail = MailFactory(1).email(4, kind=None)
    inbox.deliver(mail, received=THEN, categories=("Red",), importance="High")
    async with world.running():
        await world.until(world.stored, "the email")
    (email,) = world.stored().values()
    metadata = email.description["metadata"]
    assert email.description["mailbox"] == ADDRESS
    assert metadata["folder"] == ["Inbox", "Claims"]
    assert metadata["received_at"] == "2026-03-01T12:00:00Z"
    assert metadata["categories"] == ["Red"]
    assert metadata["importance"] == "High"
    assert "mime_content" not in email.description


async def test_the_state_can_be_read(world: World) -> None:
    world.mailbox().folder("Inbox").deliver(simple(1), received=THEN)
    async with world.running() as app:
        await world.until(world.stored, "the email")
        await world.rounds(app)
    state = json.loads((world.directory / "state" / "bank" / "mail" / f"{ADDRESS}.json").read_bytes())
    inbox = next(folder for folder in state["folders"] if folder["folder_path"] == ["Inbox"])
    assert inbox["status"] == "UP_TO_DATE"
    assert inbox["synced_until"] == "2026-03-01T12:00:00Z"


async def test_one_mailbox_that_may_not_be_read_leaves_the_others_alone(world: World) -> None:
    world.mailbox().folder("Inbox").deliver(simple(1))
    world.mailbox("xyz@example.com").folder("Inbox").deliver(simple(2))
    world.server.faults.add(SoapFault("ErrorImpersonateUserDenied"), mailbox="xyz@example.com")
    async with world.running() as app:
        await world.until(lambda: not world.missing(), "the mailbox that can be read")
        await world.until(lambda: app.status.mailboxes[ADDRESS].rounds >= 2, "two rounds of the other mailbox")
        failure = app.status.mailboxes["xyz@example.com"].failure
    assert failure is not None
    assert failure.needs_operator
    assert "ApplicationImpersonation" in failure.hint
