"""An independent client reads the simulator: what it finds must be what is there."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import exchangelib
import pytest
from exchangelib.version import EXCHANGE_2016, Version

from ews_sync.simulator.access import Account
from ews_sync.simulator.mail import MailFactory, populate
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from tests.simulator.soap import START, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ews_sync.simulator.store import Mailbox


class ServerInThread:
    """The server in a loop of its own, as exchangelib blocks."""

    def __init__(self, exchange: Exchange, accounts: list[Account]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self._run(self._make(exchange, accounts))

    def stop(self) -> None:
        self._run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    async def _make(exchange: Exchange, accounts: list[Account]) -> ExchangeServer:
        server = ExchangeServer(exchange, accounts)
        await server.start()
        return server

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(Clock())


@pytest.fixture
def mailbox(exchange: Exchange) -> Mailbox:
    return exchange.create_mailbox("owner@example.com")


@pytest.fixture
def served(exchange: Exchange) -> Iterator[ServerInThread]:
    accounts = [
        Account("svc@example.com", "secret", may_impersonate=True),
        Account("helper@example.com", "secret", delegate_of={"owner@example.com"}),
        Account("owner@example.com", "secret"),
    ]
    served = ServerInThread(exchange, accounts)
    yield served
    served.stop()


def _log_on(
    served: ServerInThread, user: str = "svc@example.com", access: str = exchangelib.IMPERSONATION
) -> exchangelib.Account:
    exchangelib.protocol.CachingProtocol.clear_cache()
    config = exchangelib.Configuration(
        service_endpoint=served.server.url,
        credentials=exchangelib.Credentials(user, "secret"),
        auth_type=exchangelib.transport.BASIC,
        version=Version(build=EXCHANGE_2016),
        retry_policy=exchangelib.FailFast(),
    )
    return exchangelib.Account(
        "owner@example.com",
        config=config,
        autodiscover=False,
        access_type=access,
        default_timezone=exchangelib.EWSTimeZone("UTC"),
    )


def test_folders_are_walked(served: ServerInThread, mailbox: Mailbox) -> None:
    mailbox.folder("Inbox", "Claims", "2026")
    account = _log_on(served)
    found = account.inbox / "Claims" / "2026"
    assert found.id == mailbox.folder("Inbox", "Claims", "2026").id
    names = {folder.name for folder in account.msg_folder_root.walk()}
    assert {folder.name for folder in mailbox.folders()} <= names


def test_items_are_found_by_filter_and_order(served: ServerInThread, mailbox: Mailbox) -> None:
    inbox = mailbox.folder("Inbox")
    items = [
        inbox.deliver(
            f"Subject: number {n}\r\nMessage-ID: <{n}@x>\r\n\r\n".encode(), received=START + timedelta(hours=n)
        )
        for n in range(30)
    ]
    account = _log_on(served)
    since = exchangelib.EWSDateTime.from_datetime(START + timedelta(hours=20))
    found = account.inbox.filter(datetime_received__gte=since).order_by("datetime_received").only("subject")
    assert [item.id for item in found] == [item.id for item in items[20:]]
    newest = account.inbox.all().order_by("-datetime_received").only("message_id")[:3]
    assert [item.message_id for item in newest] == ["<29@x>", "<28@x>", "<27@x>"]
    assert account.inbox.filter(subject__contains="number 1").count() == 11
    page = account.inbox.all().only("subject")
    page.page_size = 7
    assert len(list(page)) == 30


def test_messages_and_attachments_arrive_byte_for_byte(served: ServerInThread, mailbox: Mailbox) -> None:
    factory = MailFactory(8)
    mail = [factory.email(n) for n in range(40)]
    items = {mailbox.folder("Inbox").deliver(one).id: one for one in mail}
    account = _log_on(served)
    fetched = list(account.fetch([(one, None) for one in items], only_fields=["mime_content", "subject", "author"]))
    assert [one.mime_content for one in fetched] == [one.mime() for one in items.values()]
    for got, one in zip(fetched, items.values(), strict=True):
        author = one.properties().author
        assert author is not None
        assert got.author.email_address == author.email

    parts = (
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n\r\nHello\r\n--x\r\nContent-Type: image/png\r\n'
        b'Content-Disposition: attachment; filename="a.png"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC/w==\r\n'
        b"--x--\r\n"
    )
    item = mailbox.folder("Archive").deliver(parts)
    (full,) = account.fetch([(item.id, None)])
    (attachment,) = full.attachments
    assert (attachment.name, attachment.content_type, attachment.content) == ("a.png", "image/png", b"\x00\x01\x02\xff")


def test_changes_are_followed(served: ServerInThread, mailbox: Mailbox) -> None:
    inbox = mailbox.folder("Inbox")
    populate(mailbox, 60, folders=[("Inbox",)])
    account = _log_on(served)
    folder = account.inbox
    first = list(folder.sync_items(only_fields=["subject"], max_changes_returned=25))
    assert {change for change, _ in first} == {"create"}
    assert {item.id for _, item in first} == {item.id for item in inbox.items()}

    read, updated, deleted, *_ = [item for item in inbox.items() if not item.is_read]
    read.set_read()
    updated.set_categories(["red"])
    gone = deleted.id
    deleted.delete()
    new = inbox.deliver(b"Subject: new\r\n\r\n")
    changes = list(folder.sync_items(only_fields=["subject"]))
    seen = {(kind, thing[0].id if kind == "read_flag_change" else thing.id) for kind, thing in changes}
    assert seen == {
        ("read_flag_change", read.id),
        ("update", updated.id),
        ("delete", gone),
        ("create", new.id),
    }
    assert list(folder.sync_items(only_fields=["subject"])) == []


def test_the_hierarchy_is_followed(served: ServerInThread, mailbox: Mailbox) -> None:
    account = _log_on(served)
    root = account.root
    first = list(root.sync_hierarchy())
    assert len(first) >= len(list(mailbox.folders()))
    new = mailbox.folder("Inbox", "New")
    assert [(kind, folder.id) for kind, folder in root.sync_hierarchy()] == [("create", new.id)]


@pytest.mark.parametrize(
    ("user", "access"), [("helper@example.com", exchangelib.DELEGATE), ("owner@example.com", exchangelib.DELEGATE)]
)
def test_delegates_read_the_mailbox(served: ServerInThread, mailbox: Mailbox, user: str, access: str) -> None:
    item = mailbox.folder("Inbox").deliver(b"Subject: secret\r\n\r\n")
    account = _log_on(served, user, access)
    assert [one.id for one in account.inbox.all()] == [item.id]


def test_strangers_cannot_impersonate(served: ServerInThread, mailbox: Mailbox) -> None:
    mailbox.folder("Inbox").deliver(b"Subject: secret\r\n\r\n")
    account = _log_on(served, "helper@example.com")
    with pytest.raises(exchangelib.errors.ErrorImpersonateUserDenied):
        list(account.inbox.all())


def test_control_characters_do_not_hide_a_page(served: ServerInThread, mailbox: Mailbox) -> None:
    for _ in range(3):
        mailbox.folder("Inbox").deliver(b"\r\n", subject="a\x0bb")
    assert len(list(_log_on(served).inbox.all().only("subject"))) == 3
