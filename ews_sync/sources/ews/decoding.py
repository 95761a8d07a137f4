"""EWS answers from bytes, as they arrive. Pure: no I/O.

The reader is a SAX target: it never holds a tree of the response, only the one record (an item, a folder, a change)
that is being read, and it decodes a message's base64 piece by piece straight into what keeps the message. Names are
matched by namespace, never by prefix. A document type declaration ends the reading, so there are no entities to
expand; external ones are never fetched.

Nearly all of an answer with messages is base64, of which the parser could make nothing but a text to be decoded. So it
goes past the parser (see `AnswerReader.feed`), which stays the one to say where a message begins and ends.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING

from lxml import etree

from ews_sync.errors import ConnectionFailedError, ProtocolError
from ews_sync.sources.ews.codes import NO_ERROR, NO_RESPONSE_CODE, error_for
from ews_sync.sources.ews.encoding import MESSAGES_NS, SOAP_NS, TYPES_NS
from ews_sync.sources.ews.mime import Base64Reader, MemoryWriter, MimeWriter
from ews_sync.sources.ews.operations import Answer, ResponseMessage
from ews_sync.sources.ews.records import (
    Node,
    boolean,
    change_record,
    folder_record,
    item_record,
    listed_record,
    parse_count,
    parse_integer,
)
from ews_sync.sources.ews.wire import XmlMender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ews_sync.model import Mime

    # Exists only in the stubs.
    _TargetBase = etree.ParserTarget[None]
else:
    _TargetBase = object

_M = f"{{{MESSAGES_NS}}}"
_T = f"{{{TYPES_NS}}}"
_ENVELOPE = f"{{{SOAP_NS}}}Envelope"
_BODY = f"{{{SOAP_NS}}}Body"
_FAULT = f"{{{SOAP_NS}}}Fault"
_MIME_CONTENT = "MimeContent"
_SERVER_VERSION = f"{_T}ServerVersionInfo"
_RESPONSE_MESSAGES = f"{_M}ResponseMessages"
_ROOT_FOLDER = f"{_M}RootFolder"
_FETCHED_ITEMS = f"{_M}Items"
_LISTED_ITEMS = f"{_T}Items"
_FOLDERS = frozenset({f"{_M}Folders", f"{_T}Folders"})
_CHANGES = f"{_M}Changes"
_CONTAINERS = _FOLDERS | {_FETCHED_ITEMS, _LISTED_ITEMS, _CHANGES}
_LAST = frozenset({f"{_M}IncludesLastItemInRange", f"{_M}IncludesLastFolderInRange"})

_MESSAGE_DEPTH = 4
"""Envelope, Body, XxxResponse, ResponseMessages, XxxResponseMessage: the depth of the last, the first being 0."""
_MAX_DEPTH = 64
_MAX_RECORD_NODES = 50_000
_MAX_RECORD_MEMORY = 8 * 1024 * 1024
_MAX_NODES = 500_000
_MAX_MEMORY = 32 * 1024 * 1024
_MAX_MESSAGES = 10_000
"""What an answer can have besides messages' bytes. The largest honest one has a few tens of thousands of elements."""
_RECORD = 600
"""Bytes that a record takes, however little is in it."""
_REFERENCE = 8
_MAX_NAMES = 5000
_LONGEST_NAME = 500
"""Different names, namespaces included, and characters of one: the parser keeps each that it has met. EWS has 1,500."""
_MAX_SILENCE = 4 * 1024 * 1024
"""How many bytes can come without the parser making anything of them: it keeps an unfinished tag or comment whole."""
_LONGEST_BACKOFF = 24 * 3600 * 1000
"""Milliseconds. Whoever asks for more is broken, and would stop the mailbox for good."""
_LONGEST_CODE = 100
_SLASH = ord("/")
_MIME_TAG = _MIME_CONTENT.encode()
_TOO_MANY = "has more elements than any server makes"
_TOO_DEEP = "is nested too deeply"
_TOO_LARGE = "is larger than any server makes it"


class AnswerReader:
    """Reads one answer: `feed` what arrives, then `close` for the `Answer`.

    `doing` names the request in errors. Raises `ProtocolError` or `ConnectionFailedError` when the bytes are no EWS
    answer, and the error that the server's code asks for when the answer is a SOAP fault; a code in a single response
    message is the caller's to look at. What `new_writer` makes can raise a `SourceError` of its own.
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
        self._silence = 0
        self._lane: Base64Reader | None = None
        self._messages: tuple[ResponseMessage, ...] = ()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the response's body.

        A tag that may begin a message is given to the parser by itself. When that was what the parser made of it, there
        is nothing left in its hands, and what follows is the message's alone, up to the next markup.
        """
        self._received += len(data)
        at = self._past_parser(data, 0) if self._lane is not None else 0
        while at < len(data):
            opening, end = _mime_tag(data, at)
            self._parse(data[at:opening])
            before = self._target.reader
            self._parse(data[opening:end])
            at = end
            if self._target.reader is not before:
                self._lane = self._target.reader
                at = self._past_parser(data, at) if self._lane is not None else at

    def _past_parser(self, data: bytes, start: int) -> int:
        """Decode the message's base64, and give where it is the parser's turn again: at markup or a reference."""
        assert self._lane is not None  # noqa: S101 - for the type checker
        end = data.find(b"<", start)
        reference = data.find(b"&", start, end if end >= 0 else len(data))
        end = reference if reference >= 0 else end
        over = end >= 0
        end = end if over else len(data)
        if end > start:
            self._silence = 0
            self._lane.feed_bytes(memoryview(data)[start:end])
        if over:
            self._lane = None
        return end

    def close(self) -> Answer:
        """End the reading."""
        self._parse(b"", final=True)
        if not self._received:
            raise ConnectionFailedError(f"{self._doing}: the server's answer was empty")
        try:
            self._parser.close()
        except (etree.XMLSyntaxError, _RefusedError) as error:
            # At its end the parser makes what it can of half a tag, which may be refused.
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
        # The parser and its target hold each other: what stays with them is there until the collector comes by.
        self._messages = tuple(target.messages)
        target.messages.clear()
        return Answer(self._messages, target.server_version)

    def discard(self) -> None:
        """Give back what was read of an answer that is not wanted any more."""
        self._target.discard()
        _close_messages(self._messages)

    def _parse(self, data: bytes, *, final: bool = False) -> None:
        """Have the parser read on; `final` when nothing follows."""
        if not data and not final:
            return
        mended = self._mender.close() if final else self._mender.feed(data)
        before = self._target.heard
        try:
            self._parser.feed(mended)
        except etree.XMLSyntaxError as error:
            raise ProtocolError(
                f"{self._doing}: the server's answer is not well-formed XML ({_place(error)})",
                hint="a proxy or load balancer on the way may have answered in the server's place",
            ) from error
        except _RefusedError as error:
            raise self._refused(error) from None
        self._silence = 0 if self._target.heard != before else self._silence + len(mended)
        if self._silence > _MAX_SILENCE:
            raise self._refused(_RefusedError("has a tag or a comment that does not end"))

    def _refused(self, error: _RefusedError) -> ProtocolError:
        return ProtocolError(f"{self._doing}: the server's answer {error}")


class _RefusedError(Exception):
    """What came is no EWS answer."""


def _mime_tag(data: bytes, start: int) -> tuple[int, int]:
    """Give where the next tag that may begin a message is, from `<` to behind `>`; at the end of `data` if nowhere.

    It may be none, in a comment, say. One that is cut by the end of `data` is not found, and its message goes through
    the parser.
    """
    at = start
    while (at := data.find(_MIME_TAG, at)) >= 0:
        end = data.find(b">", at)
        if end < 0:
            break
        opening = data.rfind(b"<", start, at)
        if opening >= 0 and data[opening + 1] != _SLASH:
            return opening, end + 1
        at = end
    return len(data), len(data)


def _place(error: etree.XMLSyntaxError) -> str:
    return f"line {error.lineno}, column {error.offset}"


def _close_messages(messages: Iterable[ResponseMessage]) -> None:
    for message in messages:
        for item in message.items:
            if item.mime is not None:
                item.mime.close()


class _Target(_TargetBase):
    """What lxml calls as it reads. Keeps the open record as light nodes, and nothing of what is behind it."""

    def __init__(self, new_writer: Callable[[], MimeWriter]) -> None:
        self._new_writer = new_writer
        # The open elements: those around records, and the open record's own.
        self._path: list[str] = []
        self._record: list[Node] = []
        # What the answer has so far, and may have at most until the open record ends.
        self.nodes = self.memory = self.passing_texts = 0
        self._most_nodes, self._most_memory = _MAX_NODES, _MAX_MEMORY
        # By each name that was met, what it is called in records.
        self._names: dict[str, str] = {}
        # Of the open record: the element with its message, the reader as long as that is open, and what it gave.
        self._mime_node: Node | None = None
        self.reader: Base64Reader | None = None
        self._mime: Mime | None = None
        self._mime_damaged = False
        self._message: ResponseMessage | None = None
        self.messages: list[ResponseMessage] = []
        self.fault: Node | None = None
        self.server_version = ""
        self.saw_body = False

    def doctype(self, *_: object) -> None:
        raise _RefusedError("has a document type declaration, which EWS never sends")

    def pi(self, target: str, _data: str | None = None) -> None:
        # SOAP forbids them, and proxies add them.
        self._count_node()
        self._meet(target)

    def start_ns(self, prefix: str, uri: str) -> None:
        # The parser needs memory for each declaration until the end, whatever becomes of its element.
        self._count_node()
        self._meet(f"{prefix} {uri}")

    # The next three are called for each element: what they write out, rather than call, is so for speed.

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.nodes += 1
        if self.nodes > self._most_nodes:
            raise _RefusedError(_TOO_MANY)
        name = self._names.get(tag) or self._meet(tag)
        if attributes:
            self._take_attributes(attributes)
        record = self._record
        if record:
            if len(record) >= _MAX_DEPTH:
                raise _RefusedError(_TOO_DEEP)
            node = Node(name, attributes)
            record[-1].children.append(node)
            record.append(node)
            if self.reader is not None:
                # An element in the middle of base64: what is around it need not belong together.
                self.reader.damaged = True
            elif name == _MIME_CONTENT and len(record) == 2 and self._path[-1] == _FETCHED_ITEMS:
                self._start_mime(node)
        else:
            self._start_around_records(tag, name, attributes)

    def end(self, _tag: str) -> None:
        record = self._record
        if not record:
            self._path.pop()
            if len(self._path) == _MESSAGE_DEPTH and self._message is not None:
                self._end_message(self._message)
            return
        node = record.pop()
        if node is self._mime_node and self.reader is not None:
            self._mime = self.reader.finish()
            self._mime_damaged = self.reader.damaged
            self.reader = None
        if not record:
            self._finish_record(node)

    def data(self, text: str) -> None:
        # A text can come a character at a time, each with an object around it.
        if self._record and self.reader is None:
            self.memory += getsizeof(text) + _REFERENCE
            if self.memory > self._most_memory:
                raise _RefusedError(_TOO_LARGE)
            self._record[-1].add(text)
            return
        self.passing_texts += 1
        if self.reader is not None:
            self.reader.feed(text)

    def close(self) -> None:
        """End of the document; lxml wants the method."""

    def discard(self) -> None:
        if self.reader is not None:
            self.reader.damaged = True
            self.reader.finish()
            self.reader = None
        self._close_mime()
        _close_messages(self.messages + ([self._message] if self._message else []))

    # --- What it takes -----------------------------------------------------------------------------------------------

    @property
    def heard(self) -> tuple[int, int, int]:
        """What changes whenever the parser has made anything of its bytes."""
        return self.nodes, self.memory, self.passing_texts

    def _count_node(self) -> None:
        self.nodes += 1
        if self.nodes > self._most_nodes:
            raise _RefusedError(_TOO_MANY)

    def _take_attributes(self, attributes: dict[str, str]) -> None:
        self.nodes += len(attributes)
        for name, value in attributes.items():
            if name not in self._names:
                self._meet(name)
            self.memory += getsizeof(value)
        if self.memory > self._most_memory:
            raise _RefusedError(_TOO_LARGE)

    def _meet(self, name: str) -> str:
        """Take note of a name, which may be known; give what it is called in records (see `Node`)."""
        short = name[len(_T) :] if name.startswith(_T) else name if name.startswith("{") else f"{{}}{name}"
        self._names[name] = short
        if len(name) > _LONGEST_NAME or len(self._names) > _MAX_NAMES:
            raise _RefusedError("has names that are none of EWS's")
        return short

    # --- Outside of records ------------------------------------------------------------------------------------------

    def _start_around_records(self, tag: str, name: str, attributes: dict[str, str]) -> None:
        depth = len(self._path)
        if depth > _MESSAGE_DEPTH and self._message is not None and tag not in _CONTAINERS and tag != _ROOT_FOLDER:
            self._start_record(name, attributes)
            return
        if depth >= _MAX_DEPTH:
            raise _RefusedError(_TOO_DEEP)
        self._path.append(tag)
        if depth < _MESSAGE_DEPTH:
            self._start_envelope(depth, tag, attributes)
        elif depth == _MESSAGE_DEPTH:
            self._start_message(tag, attributes)
        elif tag == _ROOT_FOLDER and self._message is not None:
            self._message.last = boolean((attributes.get("IncludesLastItemInRange") or "").strip())
            self._message.total = parse_count(attributes.get("TotalItemsInView"))

    def _start_envelope(self, depth: int, tag: str, attributes: dict[str, str]) -> None:
        if depth == 0 and tag != _ENVELOPE:
            raise _RefusedError(f"is no SOAP envelope but <{tag.rpartition('}')[2][:40]}>")
        if tag == _SERVER_VERSION:
            self.server_version = ".".join(
                attributes.get(key, "?")[:20]
                for key in ("MajorVersion", "MinorVersion", "MajorBuildNumber", "MinorBuildNumber")
            )
        elif depth == 1 and tag == _BODY:
            self.saw_body = True
        elif depth == 2 and tag == _FAULT and self._path[1] == _BODY:
            self._path.pop()
            self._start_record(tag, attributes)

    def _start_message(self, tag: str, attributes: dict[str, str]) -> None:
        if self._path[1] != _BODY or self._path[3] != _RESPONSE_MESSAGES or not tag.startswith(_M):
            return
        if len(self.messages) >= _MAX_MESSAGES:
            raise _RefusedError("has more response messages than anybody asked for")
        self._message = ResponseMessage(response_class=attributes.get("ResponseClass", "Success")[:40])

    def _end_message(self, message: ResponseMessage) -> None:
        if message.response_class == "Error" and message.code in {NO_ERROR, ""}:
            message.code = NO_RESPONSE_CODE
        self.messages.append(message)
        self._message = None

    # --- In records --------------------------------------------------------------------------------------------------

    def _start_record(self, name: str, attributes: dict[str, str]) -> None:
        self.memory += _RECORD
        if self.memory > _MAX_MEMORY:
            raise _RefusedError(_TOO_LARGE)
        self._most_nodes = min(_MAX_NODES, self.nodes + _MAX_RECORD_NODES)
        self._most_memory = min(_MAX_MEMORY, self.memory + _MAX_RECORD_MEMORY)
        self._record.append(Node(name, attributes))

    def _start_mime(self, node: Node) -> None:
        self.reader = Base64Reader(self._new_writer())
        if self._mime_node is not None:
            # Which of the two is the message, or whether each is half of it, nobody can know.
            self._close_mime()
            self.reader.damaged = True
        self._mime_node = node

    def _finish_record(self, node: Node) -> None:
        """Put a finished record where it belongs. Foreign elements belong nowhere."""
        container, message = self._path[-1], self._message
        if message is None:
            self.fault = node
        elif container not in _CONTAINERS:
            _take_field(message, node)
        elif "}" in node.name:
            pass
        elif container == _LISTED_ITEMS:
            message.items.append(listed_record(node))
        elif container == _FETCHED_ITEMS:
            message.items.append(item_record(node, self._mime, mime_damaged=self._mime_damaged))
            self._mime = None
        elif container in _FOLDERS:
            message.folders.append(folder_record(node))
        elif (change := change_record(node)) is not None:
            message.changes.append(change)
        self._close_mime()
        self._mime_node = None
        self._mime_damaged = False
        self._most_nodes, self._most_memory = _MAX_NODES, _MAX_MEMORY

    def _close_mime(self) -> None:
        """Give back what the open record has of a message."""
        if self._mime is not None:
            self._mime.close()
            self._mime = None


def _take_field(message: ResponseMessage, node: Node) -> None:
    tag = node.name
    if tag == f"{_M}ResponseCode":
        message.code = node.text[:_LONGEST_CODE]
    elif tag == f"{_M}MessageText":
        message.text = node.text
    elif tag == f"{_M}MessageXml":
        message.backoff = _backoff(node)
    elif tag == f"{_M}SyncState":
        message.sync_state = node.text or None
    elif tag in _LAST:
        message.last = boolean(node.text)


def _fault_facts(fault: Node) -> tuple[str, str, float | None]:
    """Find code, text and back-off in a SOAP fault, wherever in its detail a server puts them."""
    found: dict[str, str] = {}
    backoff: float | None = None
    for node in fault.walk():
        name = node.name.rpartition("}")[2]
        if name == "MessageXml":
            backoff = _backoff(node)
        elif node.text:
            found.setdefault(name, node.text)
    # The code is where Microsoft puts it; else what stands in its place, as long as it is a name.
    fault_code = found.get("faultcode", "").rpartition(":")[2]
    code = found.get("ResponseCode") or (fault_code if fault_code.startswith("Error") else "")
    return code[:_LONGEST_CODE] or "SoapFault", found.get("faultstring") or found.get("Message", ""), backoff


def _backoff(message_xml: Node) -> float | None:
    for node in message_xml.walk():
        if node.attributes.get("Name") == "BackOffMilliseconds":
            milliseconds = parse_integer(node.text)
            return None if milliseconds is None else min(max(0, milliseconds), _LONGEST_BACKOFF) / 1000
    return None
