"""Requests written by hand, and answers taken apart: what the tests talk to the simulator with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lxml import etree

from ews_sync.simulator.access import Account
from ews_sync.simulator.exchange import ExchangeService, Reply
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ews_sync.simulator.faults import FaultPlan
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item

NS = {
    "s": "http://schemas.xmlsoap.org/soap/envelope/",
    "m": "http://schemas.microsoft.com/exchange/services/2006/messages",
    "t": "http://schemas.microsoft.com/exchange/services/2006/types",
    "e": "http://schemas.microsoft.com/exchange/services/2006/errors",
}
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ID_ONLY = "<m:ItemShape><t:BaseShape>IdOnly</t:BaseShape></m:ItemShape>"


class Clock:
    """A clock that tests turn."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **step: float) -> None:
        self.now += timedelta(**step)


def envelope(body: str, *, header: str = "", version: str = "Exchange2010_SP2") -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{namespace}"' for prefix, namespace in NS.items())
    return (
        f'<s:Envelope {declared}><s:Header><t:RequestServerVersion Version="{version}"/>{header}</s:Header>'
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def impersonating(address: str, how: str = "PrimarySmtpAddress") -> str:
    inner = f"<t:ConnectingSID><t:{how}>{address}</t:{how}></t:ConnectingSID>"
    return f"<t:ExchangeImpersonation>{inner}</t:ExchangeImpersonation>"


def folder_id(folder: Folder) -> str:
    return f'<t:FolderId Id="{folder.id}"/>'


def shape(*paths: str, base: str = "IdOnly", flags: str = "") -> str:
    fields = "".join(path if path.startswith("<") else f'<t:FieldURI FieldURI="{path}"/>' for path in paths)
    additional = f"<t:AdditionalProperties>{fields}</t:AdditionalProperties>" if paths else ""
    return f"<m:ItemShape><t:BaseShape>{base}</t:BaseShape>{flags}{additional}</m:ItemShape>"


def find_item(
    folder: Folder, *, item_shape: str = ID_ONLY, view: str = "", restriction: str = "", order: Iterable[str] = ()
) -> str:
    orders = "".join(
        f'<t:FieldOrder Order="{path.partition(" ")[2] or "Ascending"}">'
        f'<t:FieldURI FieldURI="{path.partition(" ")[0]}"/></t:FieldOrder>'
        for path in order
    )
    sort = f"<m:SortOrder>{orders}</m:SortOrder>" if orders else ""
    restricted = f"<m:Restriction>{restriction}</m:Restriction>" if restriction else ""
    parents = f"<m:ParentFolderIds>{folder_id(folder)}</m:ParentFolderIds>"
    return f'<m:FindItem Traversal="Shallow">{item_shape}{view}{restricted}{sort}{parents}</m:FindItem>'


def page(most: int, offset: int = 0, base: str = "Beginning") -> str:
    return f'<m:IndexedPageItemView MaxEntriesReturned="{most}" Offset="{offset}" BasePoint="{base}"/>'


def compare(operator: str, path: str, value: str) -> str:
    constant = f'<t:FieldURIOrConstant><t:Constant Value="{value}"/></t:FieldURIOrConstant>'
    return f'<t:{operator}><t:FieldURI FieldURI="{path}"/>{constant}</t:{operator}>'


def get_item(items: Iterable[Item | str], item_shape: str = ID_ONLY) -> str:
    ids = "".join(f'<t:ItemId Id="{item if isinstance(item, str) else item.id}"/>' for item in items)
    return f"<m:GetItem>{item_shape}<m:ItemIds>{ids}</m:ItemIds></m:GetItem>"


def sync_items(folder: Folder, state: str | None = None, most: int = 512, item_shape: str = ID_ONLY) -> str:
    known = f"<m:SyncState>{state}</m:SyncState>" if state else ""
    return (
        f"<m:SyncFolderItems>{item_shape}<m:SyncFolderId>{folder_id(folder)}</m:SyncFolderId>{known}"
        f"<m:MaxChangesReturned>{most}</m:MaxChangesReturned></m:SyncFolderItems>"
    )


class Answer:
    """A reply, parsed."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.raw = b"".join(reply.chunks())
        parser = etree.XMLParser(recover=True, huge_tree=True)
        self.root = etree.fromstring(self.raw, parser)

    def all(self, path: str) -> list[etree._Element]:
        found = self.root.xpath(path, namespaces=NS)
        assert isinstance(found, list)
        return [element for element in found if isinstance(element, etree._Element)]

    def texts(self, path: str) -> list[str]:
        return [element.text or "" for element in self.all(path)]

    def text(self, path: str) -> str:
        (only,) = self.texts(path)
        return only

    def attributes(self, path: str, name: str) -> list[str]:
        return [element.get(name, "") for element in self.all(path)]

    @property
    def codes(self) -> list[str]:
        return self.texts("//m:ResponseCode")

    @property
    def fault(self) -> str | None:
        return next(iter(self.texts("//s:Fault/detail/e:ResponseCode")), None)

    @property
    def payload(self) -> etree._Element:
        (only,) = self.all("/s:Envelope/s:Body/*")
        return only

    @property
    def item_ids(self) -> list[str]:
        return self.attributes("//t:Items/*/t:ItemId | //m:Items/*/t:ItemId", "Id")

    @property
    def is_last(self) -> bool:
        values = [
            *self.attributes("//m:RootFolder", "IncludesLastItemInRange"),
            *self.texts("//m:IncludesLastItemInRange"),
        ]
        return values == ["true"]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What a sync brought: (Create, id), ..."""
        return [
            (str(change.tag).rpartition("}")[2], change.xpath("string(.//t:ItemId/@Id)", namespaces=NS))
            for change in self.all("//m:Changes/*")
        ]


class Client:
    """Talks to the service without HTTP."""

    def __init__(
        self, exchange: Exchange | None = None, account: Account | None = None, faults: FaultPlan | None = None
    ) -> None:
        self.clock = Clock()
        self.exchange = exchange or Exchange(self.clock)
        self.service = ExchangeService(self.exchange)
        self.account = account or Account("owner@example.com", "secret")
        self.faults = faults

    def post(self, body: str, *, header: str = "", version: str = "Exchange2010_SP2") -> Answer:
        return self.send(envelope(body, header=header, version=version))

    def send(self, request: bytes) -> Answer:
        read = self.service.read(request)
        disturbed = None
        if self.faults is not None:
            disturbed = self.faults.disturb(self.service.describe(read, self.account))
        return Answer(self.service.answer(read, self.account, disturbed))

    def sync(self, folder: Folder, state: str | None = None, most: int = 512) -> tuple[list[tuple[str, str]], str]:
        """Sync to the end."""
        changes: list[tuple[str, str]] = []
        while True:
            answer = self.post(sync_items(folder, state, most))
            assert answer.codes == ["NoError"]
            changes += answer.changes
            state = answer.text("//m:SyncState")
            if answer.is_last:
                return changes, state
