"""Exchange as a source: the whole room against the simulated Exchange over HTTP."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.errors import (
    Asks,
    CursorRejectedError,
    FolderGoneError,
    ProtocolError,
    Scope,
    SourceError,
    ThrottledError,
)
from ews_sync.model import Bucket, ChangeKind, Folder, ItemRef, Mailbox, Order
from ews_sync.simulator import faults
from ews_sync.simulator.access import Account
from ews_sync.simulator.mail import KINDS, MailFactory
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import ABSENT, Exchange
from ews_sync.sources.ews.client import Client, RetryPolicy
from ews_sync.sources.ews.source import EwsSource
from ews_sync.sources.ews.spool import MimeFile, SpoolWriter
from tests.sources.support import FakeClock
from tests.sources.test_codes import NOTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ews_sync.model import Change, Fetched, ListPage
    from ews_sync.simulator.faults import FaultPlan
    from ews_sync.simulator.folder import Folder as SimulatedFolder

OWNER = Mailbox("owner@example.com", Bucket("acme", "mail"))
START = datetime(2026, 1, 1, tzinfo=UTC)
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Rig:
    exchange: Exchange
    server: ExchangeServer
    source: EwsSource
    clock: FakeClock

    @property
    def faults(self) -> FaultPlan:
        return self.server.faults

    def simulated(self, *path: str) -> SimulatedFolder:
        return self.exchange.mailboxes[OWNER.address].folder(*path)

    async def folder(self, *path: str) -> Folder:
        return next(folder for folder in await self.source.folders(OWNER) if folder.path == path)

    async def refs(self, folder: Folder) -> list[ItemRef]:
        return [change.ref for change in await self.feed(folder)]

    async def feed(self, folder: Folder, cursor: str | None = None, limit: int | None = None) -> list[Change]:
        changes: list[Change] = []
        while True:
            page = await self.source.changes(OWNER, folder, cursor, limit=limit)
            changes += page.changes
            cursor = page.cursor
            if page.last:
                return changes


@pytest.fixture(params=["impersonation", "delegate"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    impersonate = request.param == "impersonation"
    exchange = Exchange()
    for address in (OWNER.address, "svc@example.com", "other@example.com"):
        exchange.create_mailbox(address)
    account = Account(
        "svc@example.com",
        "swordfish",
        may_impersonate=[OWNER.address] if impersonate else False,
        delegate_of=() if impersonate else [OWNER.address],
    )
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ExchangeServer(exchange, [account], use_gzip=True))
        http = httpx.AsyncClient(auth=("svc@example.com", "swordfish"), trust_env=False, verify=NO_TLS)
        client = Client(server.url, http, clock, retry=RetryPolicy(attempts=3), jitter=lambda: 1.0)
        source = EwsSource(
            client,
            clock,
            impersonate=impersonate,
            account="svc@example.com",
            new_writer=lambda: SpoolWriter(tmp_path, in_memory=50_000),
        )
        stack.push_async_callback(source.aclose)
        yield Rig(exchange, server, source, clock)


# --- Folders ---------------------------------------------------------------------------------------------------------


async def test_mail_folders_and_only_those_with_their_paths(rig: Rig) -> None:
    rig.simulated("Inbox", "Claims", "Hail")
    rig.exchange.mailboxes[OWNER.address].folder("Inbox", "Odd", folder_class=None)
    rig.exchange.mailboxes[OWNER.address].folder("Inbox", "Feeds", folder_class="ipf.note.outlookhomepage")
    rig.exchange.mailboxes[OWNER.address].folder("Inbox", "Notebook", folder_class="IPF.Notebook")
    rig.simulated("Inbox").deliver(b"Subject: a\r\n\r\nb")
    folders = {folder.path: folder for folder in await rig.source.folders(OWNER)}
    assert {("Inbox",), ("Inbox", "Claims", "Hail"), ("Inbox", "Odd"), ("Inbox", "Feeds"), ("Archive",)} <= set(folders)
    assert not {("Calendar",), ("Contacts",), ("Inbox", "Notebook"), ("Tasks",)} & set(folders)
    assert len({folder.id for folder in folders.values()}) == len(folders)
    assert folders["Inbox",].total == 1
    assert len(rig.server.log) == 1


async def test_activity_changes_with_every_arrival_and_deletion(rig: Rig) -> None:
    seen = [(await rig.folder("Inbox")).activity]
    item = rig.simulated("Inbox").deliver(b"Subject: a\r\n\r\nb")
    seen.append((await rig.folder("Inbox")).activity)
    item.delete()
    seen.append((await rig.folder("Inbox")).activity)
    assert None not in seen
    assert len(set(seen)) == 3


async def test_folders_that_have_not_changed_are_the_very_same(rig: Rig) -> None:
    first = await rig.source.folders(OWNER)
    assert await rig.source.folders(OWNER) is first
    rig.simulated("Inbox").deliver(b"Subject: a\r\n\r\nb")
    changed = await rig.source.folders(OWNER)
    assert {folder.path for folder in changed if not any(folder is known for known in first)} == {("Inbox",)}
    assert await rig.source.folders(OWNER) is changed


async def test_each_mailbox_has_folders_of_its_own(rig: Rig) -> None:
    account = Mailbox("svc@example.com", OWNER.bucket)
    rig.faults.add(faults.ResponseError("ErrorServerBusy"), mailbox=account.address)
    owners = await rig.source.folders(OWNER)
    with pytest.raises(SourceError):
        await rig.source.folders(account)
    assert await rig.source.folders(OWNER) is owners


async def test_activity_is_absent_where_the_server_does_not_say(rig: Rig) -> None:
    rig.faults.add(faults.WithoutProperties())
    assert (await rig.folder("Inbox")).activity is None


async def test_folders_come_in_pages(rig: Rig) -> None:
    rig.faults.add(faults.ShortPage(3))
    for number in range(10):
        rig.simulated("Inbox", f"F{number}")
    found = {folder.path for folder in await rig.source.folders(OWNER)}
    assert {("Inbox", f"F{number}") for number in range(10)} <= found


@pytest.mark.parametrize("code", ["ErrorInvalidRequest", "ErrorInvalidOperation", "ErrorUnsupportedPropertyDefinition"])
async def test_folders_by_another_way_where_find_folder_is_refused(code: str, rig: Rig) -> None:
    wanted = await rig.source.folders(OWNER)
    rig.faults.add(faults.ResponseError(code), operation="FindFolder")
    assert sorted(await rig.source.folders(OWNER), key=lambda folder: folder.path) == sorted(
        wanted, key=lambda folder: folder.path
    )


async def test_a_hostile_folder_name_costs_nothing(rig: Rig) -> None:
    rig.faults.add(faults.IllegalCharacters())
    folders = await rig.source.folders(OWNER)
    assert any(folder.path[0].startswith("Inbox") or folder.path[0].endswith("Inbox") for folder in folders)


# --- Who may -----------------------------------------------------------------------------------------------------


async def test_a_mailbox_that_is_not_ours_to_read(rig: Rig) -> None:
    with pytest.raises(SourceError) as caught:
        await rig.source.folders(Mailbox("other@example.com", OWNER.bucket))
    assert (caught.value.asks, caught.value.scope) == (Asks.STOP, Scope.MAILBOX)
    assert caught.value.code in {"ErrorImpersonateUserDenied", "ErrorAccessDenied"}
    assert caught.value.hint
    # What an administrator searches the server's logs for.
    assert caught.value.request_id == rig.server.log[-1].client_request_id
    await rig.source.probe(OWNER)


async def test_a_mailbox_that_is_not_there(rig: Rig) -> None:
    with pytest.raises(SourceError) as caught:
        await rig.source.probe(Mailbox("nobody@example.com", OWNER.bucket))
    assert (caught.value.asks, caught.value.code) == (Asks.STOP, "ErrorNonExistentMailbox")


async def test_the_anchor_goes_along_with_impersonation_only(rig: Rig) -> None:
    folder = await rig.folder("Inbox")
    await rig.feed(folder)
    impersonating = rig.source._impersonate
    assert {record.anchor_mailbox for record in rig.server.log} == {OWNER.address if impersonating else None}
    assert {record.status for record in rig.server.log} == {200}


# --- Listings and feeds ----------------------------------------------------------------------------------------------


async def every(rig: Rig, folder: Folder, order: Order, since: datetime | None) -> list[ListPage]:
    pages: list[ListPage] = []
    while not pages or not pages[-1].last:
        offset = sum(len(page.refs) for page in pages)
        pages.append(await rig.source.items(OWNER, folder, order=order, since=since, offset=offset))
    return pages


async def test_items_oldest_first_from_a_time_on_in_pages(rig: Rig) -> None:
    inbox = rig.simulated("Inbox")
    for number in (3, 1, 2, 0, 4):
        inbox.deliver(b"Subject: a\r\n\r\nb", received=START + timedelta(hours=number))
    inbox.deliver(b"Subject: undated\r\n\r\nb", received=ABSENT)
    folder = await rig.folder("Inbox")
    rig.faults.add(faults.ShortPage(2))
    pages = await every(rig, folder, Order.RECEIVED, START + timedelta(hours=1))
    assert [len(page.refs) for page in pages] == [2, 2]
    assert [ref.received for page in pages for ref in page.refs] == [START + timedelta(hours=n) for n in (1, 2, 3, 4)]
    assert pages[0].total == 4
    assert all(ref.size and ref.is_mail and ref.email_id for page in pages for ref in page.refs)
    undated = await every(rig, folder, Order.CREATED, None)
    assert [ref.received for page in undated for ref in page.refs] == [None]
    assert await rig.source.newest(OWNER, folder) == START + timedelta(hours=4)


async def test_the_newest_of_nothing(rig: Rig) -> None:
    assert await rig.source.newest(OWNER, await rig.folder("Archive")) is None


async def test_items_without_a_received_time_where_the_server_cannot_list_them(rig: Rig) -> None:
    rig.faults.add(faults.ResponseError("ErrorUnsupportedPathForQuery"), operation="FindItem")
    folder = await rig.folder("Inbox")
    for _ in range(2):
        page = await rig.source.items(OWNER, folder, order=Order.CREATED, since=None)
        assert (page.refs, page.last) == ((), True)
    assert len(rig.server.log.of("FindItem")) == 1
    with pytest.raises(ProtocolError):
        await rig.source.items(OWNER, folder, order=Order.RECEIVED, since=None)


async def test_a_feed_of_arrivals_moves_flags_and_deletions(rig: Rig) -> None:
    inbox = rig.simulated("Inbox")
    items = [inbox.deliver(b"Subject: a\r\n\r\nb", received=START) for _ in range(5)]
    folder, archive = await rig.folder("Inbox"), await rig.folder("Archive")
    page = await rig.source.changes(OWNER, folder, None, limit=2, ids_only=True)
    assert (len(page.changes), page.last) == (2, False)
    assert {(change.ref.received, change.ref.size) for change in page.changes} == {(None, 0)}
    assert len(await rig.feed(folder, page.cursor, limit=2)) == 3
    mark = (await rig.source.changes(OWNER, folder, None)).cursor
    empty = (await rig.source.changes(OWNER, archive, None)).cursor
    items[0].move(rig.simulated("Archive"))
    items[1].set_read()
    items[2].delete()
    new = inbox.deliver(b"Subject: new\r\n\r\nb", received=START)
    kinds = {change.ref.id: change.kind for change in await rig.feed(folder, mark)}
    assert kinds[new.id] is ChangeKind.CREATED
    assert sorted(kinds.values()) == [ChangeKind.CREATED, ChangeKind.DELETED, ChangeKind.DELETED, ChangeKind.FLAGGED]
    (moved,) = await rig.feed(archive, empty)
    assert (moved.kind, moved.ref.received) == (ChangeKind.CREATED, START)


async def test_a_forgotten_position_is_rejected(rig: Rig) -> None:
    folder = await rig.folder("Inbox")
    cursor = (await rig.source.changes(OWNER, folder, None)).cursor
    rig.exchange.mailboxes[OWNER.address].forget_sync_states()
    with pytest.raises(CursorRejectedError):
        await rig.source.changes(OWNER, folder, cursor)


@pytest.mark.parametrize("cursor", ["garbage", "a\x00b", "\ud800"])
async def test_a_damaged_position_is_rejected(cursor: str, rig: Rig) -> None:
    with pytest.raises(CursorRejectedError) as caught:
        await rig.source.changes(OWNER, await rig.folder("Inbox"), cursor)
    assert caught.value.asks is Asks.RESYNC


async def test_a_folder_that_is_gone_says_so_whatever_it_is_asked(rig: Rig) -> None:
    rig.simulated("Inbox", "Claims")
    folder = await rig.folder("Inbox", "Claims")
    cursor = (await rig.source.changes(OWNER, folder, None)).cursor
    rig.simulated("Inbox", "Claims").delete()
    with pytest.raises(FolderGoneError):
        await rig.source.changes(OWNER, folder, cursor)
    with pytest.raises(FolderGoneError):
        await rig.source.items(OWNER, folder, order=Order.RECEIVED, since=None)
    with pytest.raises(FolderGoneError):
        await rig.source.newest(OWNER, folder)


# --- Fetching --------------------------------------------------------------------------------------------------------


def content(fetched: Fetched) -> bytes:
    assert fetched.email is not None
    data = b"".join(fetched.email.mime.chunks())
    assert len(data) == fetched.email.mime.size
    fetched.email.mime.close()
    return data


async def test_every_kind_of_mail_byte_for_byte(rig: Rig) -> None:
    factory, inbox = MailFactory(7), rig.simulated("Inbox")
    items = {}
    for number, kind in enumerate(KINDS):
        item = inbox.deliver(factory.email(number, kind=kind), received=START + timedelta(minutes=number))
        items[item.id] = item
    item = inbox.deliver(factory.email(99, size=3_000_000), received=START, categories=("a & b",), is_read=True)
    items[item.id] = item
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    fetched = await rig.source.fetch(OWNER, folder, refs)
    assert len(fetched) == len(items)
    for outcome in fetched:
        email = outcome.email
        assert email is not None
        stored = items[outcome.ref.id]
        assert email.id == (stored.properties.message_id or outcome.ref.email_id)
        assert email.metadata.received_at == stored.received
        assert email.metadata.folder == ("Inbox",)
        assert (email.metadata.is_read, email.metadata.categories) == (stored.is_read, stored.categories)
        assert email.timestamp == stored.properties.sent
        assert content(outcome) == stored.mime()
    large = next(outcome.email for outcome in fetched if outcome.ref.id == item.id)
    assert large is not None
    assert isinstance(large.mime, MimeFile)
    assert len(rig.server.log.of("GetItem")) == 1


async def test_drafts_and_what_is_no_mail(rig: Rig) -> None:
    inbox = rig.simulated("Inbox")
    inbox.deliver(b"Subject: draft\r\n\r\nb", received=START, is_draft=True)
    inbox.deliver(b"Subject: person\r\n\r\nb", received=START, item_class="IPM.Contact")
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    assert sorted((ref.is_draft, ref.is_mail) for ref in refs) == [(False, False), (True, True)]
    fetched = await rig.source.fetch(OWNER, folder, refs)
    assert {(outcome.draft, outcome.email, outcome.dead_letter) for outcome in fetched} == {
        (True, None, None),
        (False, None, None),
    }


async def test_a_mailbox_full_of_faults_still_gives_everything(rig: Rig) -> None:
    inbox = rig.simulated("Inbox")
    items = {
        item.id: item
        for item in (
            inbox.deliver(f"Subject: {number}\r\n\r\nbody".encode(), received=START + timedelta(seconds=number))
            for number in range(30)
        )
    }
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    bad = refs[4].id
    rig.faults.seed = 3
    rig.faults.add(faults.SoapFault("ErrorServerBusy", back_off_ms=700), operation="GetItem", times=2)
    rig.faults.add(faults.Truncated(), operation="GetItem", nth={4, 7})
    rig.faults.add(faults.ConnectionReset(after=500), operation="GetItem", nth={5})
    rig.faults.add(faults.html_page(200), operation="GetItem", nth={6})
    rig.faults.add(faults.Prefixes(messages="", types="ns9"), operation="GetItem")
    rig.faults.add(faults.ItemError("ErrorItemCorrupt"), item=bad)
    rig.faults.add(faults.ItemError("ErrorInternalServerError", stops_batch=True), item=refs[9].id, times=1)
    fetched: list[Fetched] = []
    for start in range(0, len(refs), 10):
        fetched += await rig.source.fetch(OWNER, folder, refs[start : start + 10])
    letters = [outcome.dead_letter for outcome in fetched if outcome.dead_letter is not None]
    assert [(letter.item_id, letter.code) for letter in letters] == [(bad, "ErrorItemCorrupt")]
    for outcome in fetched:
        if outcome.email is not None:
            assert content(outcome) == items[outcome.ref.id].mime()
    assert sum(outcome.email is not None for outcome in fetched) == 29


async def test_one_item_that_kills_the_connection_is_found(rig: Rig) -> None:
    inbox = rig.simulated("Inbox")
    for _ in range(6):
        inbox.deliver(b"Subject: a\r\n\r\nb", received=START)
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    rig.faults.add(faults.ConnectionReset(), operation="GetItem", item=refs[2].id)
    fetched = await rig.source.fetch(OWNER, folder, refs)
    assert [outcome.email is None for outcome in fetched] == [ref.id == refs[2].id for ref in refs]
    assert fetched[2].dead_letter is not None
    assert fetched[2].dead_letter.code == "ConnectionFailedError"
    for outcome in fetched:
        if outcome.email is not None:
            outcome.email.mime.close()


async def test_an_outage_in_the_middle_makes_no_dead_letters(rig: Rig) -> None:
    rig.simulated("Inbox").deliver(b"Subject: a\r\n\r\nb", received=START)
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    rig.faults.add(faults.HttpError(502))
    with pytest.raises(SourceError) as caught:
        await rig.source.fetch(OWNER, folder, refs)
    assert caught.value.code == "HTTP 502"


# --- Throttling inside an answer -------------------------------------------------------------------------------------


async def test_busy_inside_an_answer_is_obeyed_and_tried_again(rig: Rig) -> None:
    rig.faults.add(faults.ResponseError("ErrorServerBusy", back_off_ms=8000), operation="FindFolder", times=1)
    await rig.source.folders(OWNER)
    assert rig.clock.waits == [8.0]
    rig.faults.add(faults.ResponseError("ErrorInternalServerTransientError"), operation="FindFolder", times=1)
    await rig.source.folders(OWNER)
    assert rig.clock.waits == [8.0, 1.0]


async def test_busy_for_good_is_told(rig: Rig) -> None:
    rig.faults.add(faults.ResponseError("ErrorServerBusy", back_off_ms=8000))
    with pytest.raises(ThrottledError) as caught:
        await rig.source.probe(OWNER)
    assert caught.value.retry_after == 8.0
    assert caught.value.request_id == rig.server.log[-1].client_request_id


SAID = [code for code, wanted in NOTES.items() if wanted.scope is not Scope.PROCESS and wanted.item != "gone"]


@pytest.mark.parametrize("in_a_fault", [True, False], ids=["fault", "answer"])
@pytest.mark.parametrize("code", SAID)
async def test_a_code_means_the_same_in_a_fault_and_in_an_answer(code: str, in_a_fault: bool, rig: Rig) -> None:  # noqa: FBT001
    rig.faults.add(faults.SoapFault(code, "Words.") if in_a_fault else faults.ResponseError(code, "Words."))
    with pytest.raises(SourceError) as caught:
        await rig.source.probe(OWNER)
    wanted, error = NOTES[code], caught.value
    assert type(error) is wanted.error
    assert (error.asks, error.scope, error.code) == (wanted.asks, wanted.scope, code)
    # The table is the only thing that decides how often a server is asked.
    assert len(rig.server.log) == (3 if wanted.asks is Asks.RETRY else 1)
    assert error.request_id == rig.server.log[-1].client_request_id


async def test_an_unknown_code_of_one_item_is_kept(rig: Rig) -> None:
    rig.simulated("Inbox").deliver(b"Subject: a\r\n\r\nb", received=START)
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    rig.faults.add(faults.ItemError("ErrorOfTheYear2031"), item=refs[0].id)
    (fetched,) = await rig.source.fetch(OWNER, folder, refs)
    assert fetched.dead_letter is not None
    assert fetched.dead_letter.code == "ErrorOfTheYear2031"


@pytest.mark.parametrize(
    "effect", [faults.SoapFault("ErrorTimeoutExpired"), faults.HttpError(504)], ids=["code", "504"]
)
async def test_an_item_that_times_out_in_a_batch_is_asked_for_alone(effect: faults.Effect, rig: Rig) -> None:
    for _ in range(4):
        rig.simulated("Inbox").deliver(b"Subject: a\r\n\r\nb", received=START)
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    # Twice with the others, and once alone.
    rig.faults.add(effect, operation="GetItem", item=refs[2].id, times=3)
    fetched = await rig.source.fetch(OWNER, folder, refs)
    assert [content(outcome) for outcome in fetched] == [b"Subject: a\r\n\r\nb"] * 4


async def test_a_code_from_the_future_is_kept(rig: Rig) -> None:
    rig.faults.add(faults.ResponseError("ErrorOfTheYear2031", "Strange."))
    with pytest.raises(
        SourceError, match=r"opening owner@example.com: the server answered ErrorOfTheYear2031: Strange\."
    ):
        await rig.source.probe(OWNER)


async def test_many_at_once(rig: Rig) -> None:
    inbox = rig.simulated("Inbox")
    for number in range(60):
        inbox.deliver(f"Subject: {number}\r\n\r\nbody".encode(), received=START)
    folder = await rig.folder("Inbox")
    refs = await rig.refs(folder)
    batches = [rig.source.fetch(OWNER, folder, refs[start : start + 5]) for start in range(0, 60, 5)]
    fetched = [outcome for batch in await asyncio.gather(*batches) for outcome in batch]
    assert sorted(content(outcome) for outcome in fetched) == sorted(
        f"Subject: {number}\r\n\r\nbody".encode() for number in range(60)
    )
    assert max(rig.server.log.most_in_flight.values()) <= 8
