"""EWS answers from bytes, as they arrive. Pure: no I/O.

The reader is a SAX target: it never holds a tree of the response, only the one record (an item, a folder, a change)
that is being read, and it decodes a message's base64 piece by piece straight into what keeps the message. Names are
matched by namespace, never by prefix. A document type declaration ends the reading, so there are no entities to
expand; external ones are never fetched.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Protocol

from lxml import etree

from ews_sync.errors import ConnectionFailedError, ProtocolError
from ews_sync.model import Mime, MimeBytes
from ews_sync.sources.ews.codes import error_for
from ews_sync.sources.ews.encoding import MESSAGES_NS, SOAP_NS, TYPES_NS
from ews_sync.sources.ews.operations import Answer, ResponseMessage
from ews_sync.sources.ews.records import Node, change_record, folder_record, item_record
from ews_sync.sources.ews.wire import XmlMender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_M = f"{{{MESSAGES_NS}}}"
_T = f"{{{TYPES_NS}}}"
_ENVELOPE = f"{{{SOAP_NS}}}Envelope"
_BODY = f"{{{SOAP_NS}}}Body"
_FAULT = f"{{{SOAP_NS}}}Fault"
_MIME_CONTENT = f"{_T}MimeContent"
_SERVER_VERSION = f"{_T}ServerVersionInfo"
_ROOT_FOLDER = f"{_M}RootFolder"

_MESSAGE_DEPTH = 4
"""Envelope, Body, XxxResponse, ResponseMessages, XxxResponseMessage: the depth of the last, the first being 0."""
_MAX_DEPTH = 64
_MAX_RECORD_NODES = 50_000
_MAX_RECORD_TEXT = 8 * 1024 * 1024


class MimeWriter(Protocol):
    """Takes a message's bytes as they come off the wire."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> Mime:
        """Give the whole message."""

    def discard(self) -> None:
        """Throw away what came so far."""


class MemoryWriter:
    """Keeps the message in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(data)

    def finish(self) -> Mime:
        """Give the whole message."""
        return MimeBytes(b"".join(self._pieces))

    def discard(self) -> None:
        """Throw away what came so far."""
        self._pieces.clear()


class Base64Reader:
    """Decodes base64 text that arrives in pieces cut anywhere.

    White space is passed by, anything else foreign is damage.
    """

    def __init__(self, writer: MimeWriter) -> None:
        self._writer = writer
        self._rest = b""
        self.damaged = False

    def feed(self, text: str) -> None:
        """Take the next characters."""
        if self.damaged:
            return
        try:
            data = text.encode("ascii")
        except UnicodeEncodeError:
            self.damaged = True
            return
        if b"\n" in data or b" " in data or b"\r" in data or b"\t" in data:
            data = data.translate(None, b" \t\r\n")
        if self._rest:
            data = self._rest + data
        cut = len(data) - len(data) % 4
        self._rest = data[cut:]
        if cut:
            try:
                self._writer.write(binascii.a2b_base64(data[:cut], strict_mode=True))
            except binascii.Error:
                self.damaged = True

    def finish(self) -> Mime | None:
        """Give the message, or None when its base64 was damaged or cut short."""
        if self.damaged or self._rest:
            self.damaged = True
            self._writer.discard()
            return None
        return self._writer.finish()


class AnswerReader:
    """Reads one answer: `feed` what arrives, then `close` for the `Answer`.

    `doing` names the request in errors. Raises `ProtocolError` or `ConnectionFailedError` when the bytes are no EWS
    answer, and the error that the server's code asks for when the answer is a SOAP fault; a code in a single response
    message is the caller's to look at.
    """

    def __init__(self, doing: str, new_writer: Callable[[], MimeWriter] = MemoryWriter) -> None:
        self._doing = doing
        self._mender = XmlMender()
        self._target = _Target(new_writer)
        self._parser = etree.XMLParser(
            target=self._target,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=True,
            encoding="utf-8",
        )
        self._received = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the response's body."""
        self._received += len(data)
        self._parse(self._mender.feed(data))

    def close(self) -> Answer:
        """End the reading."""
        self._parse(self._mender.close())
        if not self._received:
            raise ConnectionFailedError(f"{self._doing}: the server's answer was empty")
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            raise ConnectionFailedError(
                f"{self._doing}: the server's answer was cut short after {self._received} bytes",
                hint="a proxy or load balancer on the way may have ended it",
            ) from error
        target = self._target
        if target.fault is not None:
            code, text, backoff = _fault_facts(target.fault)
            raise error_for(code, text, doing=self._doing, backoff=backoff)
        if not target.saw_body:
            raise ProtocolError(f"{self._doing}: the server's answer has no SOAP body")
        return Answer(tuple(target.messages), target.server_version)

    def discard(self) -> None:
        """Give back what was read of an answer that is not wanted any more."""
        self._target.discard()

    def _parse(self, data: bytes) -> None:
        if not data:
            return
        try:
            self._parser.feed(data)
        except etree.XMLSyntaxError as error:
            raise ProtocolError(
                f"{self._doing}: the server's answer is not well-formed XML ({_place(error)})",
                hint="a proxy or load balancer on the way may have answered in the server's place",
            ) from error
        except _RefusedError as error:
            raise ProtocolError(f"{self._doing}: the server's answer {error}") from None


class _RefusedError(Exception):
    """What came is no EWS answer."""


def _place(error: etree.XMLSyntaxError) -> str:
    return f"line {error.lineno}, column {error.offset}"


class _Target:
    """What lxml calls as it reads. Keeps the open record as light nodes, and nothing of what is behind it."""

    def __init__(self, new_writer: Callable[[], MimeWriter]) -> None:
        self._new_writer = new_writer
        self._path: list[str] = []
        self._record: list[Node] = []
        self._record_nodes = 0
        self._record_text = 0
        self._mime: Base64Reader | None = None
        self._message: ResponseMessage | None = None
        self.messages: list[ResponseMessage] = []
        self.fault: Node | None = None
        self.server_version = ""
        self.saw_body = False

    def doctype(self, *_: object) -> None:
        raise _RefusedError("has a document type declaration, which EWS never sends")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        path = self._path
        depth = len(path)
        if depth >= _MAX_DEPTH:
            raise _RefusedError("is nested too deeply")
        path.append(tag)
        if self._record:
            self._start_in_record(tag, attributes)
        elif depth > _MESSAGE_DEPTH:
            if tag == _ROOT_FOLDER:
                self._root_folder(attributes)
            elif tag not in _CONTAINERS:
                self._start_record(tag, attributes)
        elif depth == _MESSAGE_DEPTH:
            self._message = ResponseMessage(response_class=attributes.get("ResponseClass", "Success"))
        elif depth == 0 and tag != _ENVELOPE:
            raise _RefusedError(f"is no SOAP envelope but <{tag.rpartition('}')[2][:40]}>")
        elif tag == _SERVER_VERSION:
            self.server_version = ".".join(
                attributes.get(key, "?")
                for key in ("MajorVersion", "MinorVersion", "MajorBuildNumber", "MinorBuildNumber")
            )
        elif depth == 1 and tag == _BODY:
            self.saw_body = True
        elif depth == 2 and tag == _FAULT:
            self._start_record(tag, attributes)

    def end(self, _tag: str) -> None:
        self._path.pop()
        if self._record:
            self._end_in_record()
        elif len(self._path) == _MESSAGE_DEPTH and self._message is not None:
            self.messages.append(self._message)
            self._message = None

    def data(self, text: str) -> None:
        if self._mime is not None:
            self._mime.feed(text)
        elif self._record:
            self._record_text += len(text)
            if self._record_text > _MAX_RECORD_TEXT:
                raise _RefusedError("has a record that is larger than any server makes")
            self._record[-1].pieces.append(text)

    def close(self) -> None:
        """End of the document; lxml wants the method."""

    def discard(self) -> None:
        if self._mime is not None:
            self._mime.damaged = True
            self._mime.finish()
        for message in self.messages + ([self._message] if self._message else []):
            for item in message.items:
                if item.mime is not None:
                    item.mime.close()

    def _start_record(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._record_nodes = self._record_text = 0
        self._record.append(Node(tag, dict(attributes)))

    def _start_in_record(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._record_nodes += 1
        if self._record_nodes > _MAX_RECORD_NODES:
            raise _RefusedError("has a record with more elements than any server makes")
        parent = self._record[-1]
        node = Node(tag, dict(attributes) if attributes else {})
        parent.children.append(node)
        self._record.append(node)
        if tag == _MIME_CONTENT and len(self._record) == 2:
            self._mime = Base64Reader(self._new_writer())

    def _end_in_record(self) -> None:
        node = self._record.pop()
        if self._mime is not None and node.tag == _MIME_CONTENT:
            node.mime = self._mime.finish()
            node.mime_damaged = self._mime.damaged
            self._mime = None
        if not self._record:
            self._finish_record(node)

    def _finish_record(self, node: Node) -> None:
        if node.tag == _FAULT:
            self.fault = node
        elif self._message is not None:
            _take(self._message, self._path[-1], node)

    def _root_folder(self, attributes: Mapping[str, str]) -> None:
        message = self._message
        if message is None:
            return
        message.last = attributes.get("IncludesLastItemInRange", "true").lower() in {"true", "1"}
        message.total = _integer(attributes.get("TotalItemsInView"))
        message.next_offset = _integer(attributes.get("IndexedPagingOffset"))


_CONTAINERS = frozenset({f"{_M}Items", f"{_T}Items", f"{_M}Folders", f"{_T}Folders", f"{_M}Changes"})


def _take(message: ResponseMessage, container: str, node: Node) -> None:
    """Put a finished record where it belongs in its response message."""
    if container in {f"{_M}Items", f"{_T}Items"}:
        message.items.append(item_record(node))
    elif container in {f"{_M}Folders", f"{_T}Folders"}:
        message.folders.append(folder_record(node))
    elif container == f"{_M}Changes":
        change = change_record(node)
        if change is not None:
            message.changes.append(change)
    elif node.tag == f"{_M}ResponseCode":
        message.code = node.text
    elif node.tag == f"{_M}MessageText":
        message.text = node.text
    elif node.tag == f"{_M}MessageXml":
        message.backoff = _backoff(node)
    elif node.tag == f"{_M}SyncState":
        message.sync_state = node.text
    elif node.tag in {f"{_M}IncludesLastItemInRange", f"{_M}IncludesLastFolderInRange"}:
        message.last = node.text.lower() in {"true", "1"}


def _fault_facts(fault: Node) -> tuple[str, str, float | None]:
    """Find code, text and back-off in a SOAP fault, wherever in its detail a server puts them."""
    code, text, backoff, fault_code = "", "", None, ""
    for node in fault.walk():
        name = node.tag.rpartition("}")[2]
        if name == "ResponseCode":
            code = node.text
        elif name == "faultstring":
            text = node.text
        elif name == "faultcode":
            fault_code = node.text.rpartition(":")[2]
        elif name == "MessageXml":
            backoff = _backoff(node)
    if not code and fault_code.startswith("Error"):
        code = fault_code
    return code or "SoapFault", text, backoff


def _backoff(message_xml: Node) -> float | None:
    for node in message_xml.walk():
        if node.attributes.get("Name") == "BackOffMilliseconds":
            milliseconds = _integer(node.text)
            return None if milliseconds is None else max(0, milliseconds) / 1000
    return None


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
