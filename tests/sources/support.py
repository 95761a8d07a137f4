"""What the tests of the sources share: a clock held in the hand, and answers as servers write them."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ews_sync.model import Bucket, Folder, ItemRef, Mailbox
from ews_sync.sources.ews.decoding import AnswerReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ews_sync.sources.ews.mime import MimeWriter
    from ews_sync.sources.ews.operations import Answer

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
MESSAGES = "http://schemas.microsoft.com/exchange/services/2006/messages"
TYPES = "http://schemas.microsoft.com/exchange/services/2006/types"
ERRORS = "http://schemas.microsoft.com/exchange/services/2006/errors"

MAILBOX = Mailbox("claims@example.com", Bucket("acme", "mail"))
FOLDER = Folder("folder-1", ("Inbox",))


@dataclass(slots=True)
class FakeClock:
    """Time that passes only when somebody sleeps."""

    time: float = 1000.0
    start: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.time - 1000.0)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        target = self.time + seconds
        await asyncio.sleep(0)
        self.time = max(self.time, target)

    @property
    def waits(self) -> list[float]:
        return [seconds for seconds in self.slept if seconds > 0]


def envelope(body: str, header: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{SOAP}"><s:Header>{header}</s:Header>'
        f'<s:Body xmlns:m="{MESSAGES}" xmlns:t="{TYPES}">{body}</s:Body></s:Envelope>'
    ).encode()


def response(operation: str, *messages: str) -> bytes:
    return envelope(
        f"<m:{operation}Response><m:ResponseMessages>{''.join(messages)}</m:ResponseMessages></m:{operation}Response>"
    )


def message(operation: str, content: str = "", code: str = "NoError", text: str = "", extra: str = "") -> str:
    kind = "Success" if code == "NoError" else "Error"
    said = f"<m:MessageText>{text}</m:MessageText>" if text else ""
    return (
        f'<m:{operation}ResponseMessage ResponseClass="{kind}">{said}<m:ResponseCode>{code}</m:ResponseCode>{extra}'
        f"{content}</m:{operation}ResponseMessage>"
    )


def item_xml(item_id: str = "i1", mime: bytes | None = b"Subject: x\r\n\r\nbody\r\n", **fields: str) -> str:
    """One Message element; `fields` replace or add simple properties, "" takes one away."""
    values = {
        "ItemClass": "IPM.Note",
        "Size": "123",
        "DateTimeReceived": "2026-01-02T03:04:05Z",
        "InternetMessageId": f"&lt;{item_id}@example.com&gt;",
    } | fields
    content = f"<t:MimeContent>{base64.b64encode(mime).decode()}</t:MimeContent>" if mime is not None else ""
    simple = "".join(f"<t:{name}>{value}</t:{name}>" for name, value in values.items() if value)
    return f'<t:Message>{content}<t:ItemId Id="{item_id}" ChangeKey="c"/>{simple}</t:Message>'


def got(content: str, code: str = "NoError", text: str = "", extra: str = "") -> str:
    """One GetItemResponseMessage with items."""
    return message("GetItem", f"<m:Items>{content}</m:Items>", code, text, extra)


def fault(code: str, *, text: str = "Busy.", backoff: str | None = None) -> bytes:
    """A SOAP fault as Microsoft lays it out."""
    xml = (
        f'<t:MessageXml><t:Value Name="BackOffMilliseconds">{backoff}</t:Value></t:MessageXml>'
        if backoff is not None
        else ""
    )
    return envelope(
        f'<s:Fault><faultcode xmlns:a="{TYPES}">a:{code}</faultcode><faultstring xml:lang="en-US">{text}</faultstring>'
        f'<detail><e:ResponseCode xmlns:e="{ERRORS}">{code}</e:ResponseCode>'
        f'<e:Message xmlns:e="{ERRORS}">{text}</e:Message>{xml}</detail></s:Fault>'
    )


def read(pieces: bytes | Iterable[bytes], new_writer: Callable[[], MimeWriter] | None = None) -> Answer:
    """Read a whole answer as the client does: what is half read is given back when it fails."""
    reader = AnswerReader("reading", new_writer) if new_writer else AnswerReader("reading")
    try:
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            reader.feed(piece)
        return reader.close()
    except BaseException:
        reader.discard()
        raise


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def ref(item_id: str) -> ItemRef:
    return ItemRef(item_id)
