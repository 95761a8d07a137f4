"""The tree that the parser builds of an answer: what is finished of it is taken out while the rest still arrives. Pure.

So there is never more of a tree than the piece that has just come, and the record that it ends in.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import getrandbits
from sys import getsizeof
from typing import TYPE_CHECKING

from ews_sync.sources.ews.codes import NO_ERROR, NO_RESPONSE_CODE
from ews_sync.sources.ews.encoding import MESSAGES_NS, SOAP_NS
from ews_sync.sources.ews.operations import ResponseMessage
from ews_sync.sources.ews.records import (
    TYPES,
    boolean,
    change_record,
    folder_record,
    item_record,
    listed_record,
    own_text,
    parse_count,
    parse_integer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ews_sync.model import Mime
    from ews_sync.sources.ews.records import Element

_S = f"{{{SOAP_NS}}}"
_M = f"{{{MESSAGES_NS}}}"
ENVELOPE = f"{_S}Envelope"
"""The name of an answer's outermost element."""
_HEADER = f"{_S}Header"
_BODY = f"{_S}Body"
_FAULT = f"{_S}Fault"
_SERVER_VERSION = f"{TYPES}ServerVersionInfo"
RESPONSE_MESSAGES = f"{_M}ResponseMessages"
_RESPONSE_CODE = f"{_M}ResponseCode"
_MESSAGE_TEXT = f"{_M}MessageText"
_MESSAGE_XML = f"{_M}MessageXml"
_SYNC_STATE = f"{_M}SyncState"
_ROOT_FOLDER = f"{_M}RootFolder"
FETCHED_ITEMS = f"{_M}Items"
_LISTED_ITEMS = f"{TYPES}Items"
_FOLDERS = frozenset({f"{_M}Folders", f"{TYPES}Folders"})
_CONTAINERS = _FOLDERS | {FETCHED_ITEMS, _LISTED_ITEMS, f"{_M}Changes"}
_LAST = frozenset({f"{_M}IncludesLastItemInRange", f"{_M}IncludesLastFolderInRange"})

_MAX_MESSAGES = 10_000
_MAX_FOREIGN = 5000
"""Elements that are none of EWS's. The parser keeps each name that it has met."""
_MAX_NAMES = 500
"""Different names in records. Honest ones have some sixty. The parser never forgets one, whatever becomes of it."""
_MAX_MEMORY = 32 * 1024 * 1024
"""What is taken of an answer may have besides messages' bytes."""
_RECORD = 600
"""Bytes that a record takes, however little is in it."""
_LONGEST_BACKOFF = 24 * 3600 * 1000
"""Milliseconds. Whoever asks for more is broken, and would stop the mailbox for good."""
_LONGEST_CODE = 100


class RefusedError(Exception):
    """What came is no EWS answer."""


@dataclass(frozen=True, slots=True)
class MimeRead:
    """What came as an item's message: nothing where it was `damaged`."""

    mime: Mime | None = None
    damaged: bool = False


_NO_MIME = MimeRead()


@dataclass(frozen=True, slots=True)
class Fault:
    """What a SOAP fault says. `backoff` is in seconds, None where absent."""

    code: str
    text: str
    backoff: float | None


class AnswerTree:
    """Takes what is finished out of the tree of one answer: envelope, body, response, response messages, records.

    `mimes` are the messages that have come, by their item's element: each is taken with its item.
    """

    def __init__(self, mimes: dict[Element, MimeRead]) -> None:
        self._mimes = mimes
        self._message: ResponseMessage | None = None
        """The response message that is not at its end yet."""
        self.messages: list[ResponseMessage] = []
        self.fault: Fault | None = None
        self.server_version = ""
        self.saw_body = False
        self.steps = 0
        """Grows with all that is taken out of the tree."""
        self._memory = 0
        self._foreign = 0
        self._names: set[str] = set()
        """Of what is in records."""
        self._wide = False

    def discard(self) -> None:
        """Give back the messages that came with items."""
        for message in (*self.messages, *([self._message] if self._message else [])):
            for item in message.items:
                if item.mime is not None:
                    item.mime.close()

    def take(self, envelope: Element, size: int, *, whole: bool, wide: bool) -> None:
        """Take what is finished: everything when the answer is `whole`, else all but what the parser has open.

        `size` is how many bytes of XML have come since the last time; `wide` tells that they need not be ASCII. Raises
        `RefusedError` when there is more than any server makes.
        """
        self._count(size)
        self._wide = wide
        for part, finished in self._parts(envelope, whole=whole):
            if part.tag == _BODY:
                self.saw_body = True
                self._take_body(part, whole=finished)
            elif part.tag == _HEADER and finished:
                self._take_header(part)
            elif finished:
                self._pass_by()

    def _parts(self, element: Element, *, whole: bool) -> Iterable[tuple[Element, bool]]:
        """Give an element's children, each with whether it is finished.

        The last child of one that is not `whole` may be what the parser has open. Those before it are taken out of the
        tree; what is whole goes with its parent.
        """
        if whole:
            return [(child, True) for child in element]
        children = list(element)
        if element.text:
            element.text = None
            self.steps += 1
        if len(children) > 1:
            del element[:-1]
            self.steps += 1
        return [(child, child is not children[-1]) for child in children]

    def _take_header(self, header: Element) -> None:
        for version in header.iterchildren(_SERVER_VERSION):
            self.server_version = ".".join(
                version.get(key, "?")[:20]
                for key in ("MajorVersion", "MinorVersion", "MajorBuildNumber", "MinorBuildNumber")
            )

    def _take_body(self, body: Element, *, whole: bool) -> None:
        for response, finished in self._parts(body, whole=whole):
            if response.tag == _FAULT:
                if finished:
                    self.fault = _fault(response)
                continue
            for part, part_finished in self._parts(response, whole=finished):
                if part.tag == RESPONSE_MESSAGES:
                    self._take_messages(part, whole=part_finished)
                elif part_finished:
                    self._pass_by()

    def _take_messages(self, messages: Element, *, whole: bool) -> None:
        for element, finished in self._parts(messages, whole=whole):
            if not str(element.tag).startswith(_M):
                if finished:
                    self._pass_by()
                continue
            if self._message is None:
                if len(self.messages) >= _MAX_MESSAGES:
                    raise RefusedError("has more response messages than anybody asked for")
                self._message = ResponseMessage(response_class=element.get("ResponseClass", "Success")[:40])
            self._take_message(element, self._message, whole=finished)
            if finished:
                self._end_message(self._message)

    def _end_message(self, message: ResponseMessage) -> None:
        if message.response_class == "Error" and message.code in {NO_ERROR, ""}:
            message.code = NO_RESPONSE_CODE
        self.messages.append(message)
        self._message = None

    def _take_message(self, element: Element, message: ResponseMessage, *, whole: bool) -> None:
        for part, finished in self._parts(element, whole=whole):
            if part.tag == _ROOT_FOLDER:
                message.last = boolean((part.get("IncludesLastItemInRange") or "").strip())
                message.total = parse_count(part.get("TotalItemsInView"))
                for container, container_finished in self._parts(part, whole=finished):
                    self._take_records(container, message, whole=container_finished)
            elif part.tag in _CONTAINERS:
                self._take_records(part, message, whole=finished)
            elif finished:
                self._take_field(message, part)

    def _take_records(self, container: Element, message: ResponseMessage, *, whole: bool) -> None:
        kind = str(container.tag)
        if kind not in _CONTAINERS:
            if whole:
                self._pass_by()
            return
        for element, finished in self._parts(container, whole=whole):
            if not finished:
                return
            if not str(element.tag).startswith(TYPES):
                self._pass_by()
                continue
            self._count(_RECORD + (sum(map(getsizeof, element.itertext())) if self._wide else 0))
            self._note_names(element)
            if kind == FETCHED_ITEMS:
                read = self._mimes.pop(element, _NO_MIME)
                message.items.append(item_record(element, read.mime, mime_damaged=read.damaged))
            elif kind == _LISTED_ITEMS:
                message.items.append(listed_record(element))
            elif kind in _FOLDERS:
                message.folders.append(folder_record(element))
            elif (change := change_record(element)) is not None:
                message.changes.append(change)

    def _take_field(self, message: ResponseMessage, element: Element) -> None:
        tag = element.tag
        if tag == _RESPONSE_CODE:
            message.code = own_text(element)[:_LONGEST_CODE]
        elif tag == _MESSAGE_TEXT:
            message.text = own_text(element)
        elif tag == _MESSAGE_XML:
            message.backoff = _backoff(element)
        elif tag == _SYNC_STATE:
            message.sync_state = own_text(element) or None
        elif tag in _LAST:
            message.last = boolean(own_text(element))
        else:
            self._pass_by()

    def _pass_by(self) -> None:
        """Take note of an element that is none of EWS's, or none that matters."""
        self._foreign += 1
        if self._foreign > _MAX_FOREIGN:
            raise RefusedError("has names that are none of EWS's")

    def _note_names(self, record: Element) -> None:
        """Take note of the names in one record of eight, of which nobody can know which it is: it takes its time."""
        if getrandbits(3):
            return
        for element in record.iter():
            self._names.add(element.tag)  # type: ignore[arg-type]
            self._names.update(element.keys())
        if len(self._names) > _MAX_NAMES:
            raise RefusedError("has names that are none of EWS's")

    def _count(self, size: int) -> None:
        self._memory += size
        if self._memory > _MAX_MEMORY:
            raise RefusedError("is larger than any server makes it")


def _fault(fault: Element) -> Fault:
    """Find code, text and back-off in a SOAP fault, wherever in its detail a server puts them."""
    found: dict[str, str] = {}
    backoff: float | None = None
    for element in fault.iter():
        name = str(element.tag).rpartition("}")[2]
        if name == "MessageXml":
            backoff = _backoff(element)
        elif text := own_text(element):
            found.setdefault(name, text)
    # The code is where Microsoft puts it; else what stands in its place, as long as it is a name.
    fault_code = found.get("faultcode", "").rpartition(":")[2]
    code = found.get("ResponseCode") or (fault_code if fault_code.startswith("Error") else "")
    text = found.get("faultstring") or found.get("Message", "")
    return Fault(code[:_LONGEST_CODE] or "SoapFault", text, backoff)


def _backoff(message_xml: Element) -> float | None:
    for element in message_xml.iter():
        if element.get("Name") == "BackOffMilliseconds":
            milliseconds = parse_integer(own_text(element))
            return None if milliseconds is None else min(max(0, milliseconds), _LONGEST_BACKOFF) / 1000
    return None
