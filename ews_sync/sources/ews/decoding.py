"""EWS answers from bytes, as they arrive. Pure: no I/O.

The reader is a SAX target: it never holds a tree of the response, only the one record (an item, a folder, a change)
that is being read, and it decodes a message's base64 piece by piece straight into what keeps the message. Names are
matched by namespace, never by prefix. A document type declaration ends the reading, so there are no entities to
expand; external ones are never fetched.
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
from ews_sync.sources.ews.records import Node, change_record, folder_record, item_record, parse_count, parse_integer
from ews_sync.sources.ews.wire import XmlMender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    # Exists only in the stubs.
    _TargetBase = etree.ParserTarget[None]
else:
    _TargetBase = object

_M = f"{{{MESSAGES_NS}}}"
_T = f"{{{TYPES_NS}}}"
_ENVELOPE = f"{{{SOAP_NS}}}Envelope"
_BODY = f"{{{SOAP_NS}}}Body"
_FAULT = f"{{{SOAP_NS}}}Fault"
_MIME_CONTENT = f"{_T}MimeContent"
_SERVER_VERSION = f"{_T}ServerVersionInfo"
_RESPONSE_MESSAGES = f"{_M}ResponseMessages"
_ROOT_FOLDER = f"{_M}RootFolder"
_ITEMS = frozenset({f"{_M}Items", f"{_T}Items"})
_FOLDERS = frozenset({f"{_M}Folders", f"{_T}Folders"})
_CHANGES = f"{_M}Changes"
_CONTAINERS = _ITEMS | _FOLDERS | {_CHANGES}
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
        self._messages: tuple[ResponseMessage, ...] = ()

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

    def _parse(self, data: bytes) -> None:
        if not data:
            return
        before = self._target.events
        try:
            self._parser.feed(data)
        except etree.XMLSyntaxError as error:
            raise ProtocolError(
                f"{self._doing}: the server's answer is not well-formed XML ({_place(error)})",
                hint="a proxy or load balancer on the way may have answered in the server's place",
            ) from error
        except _RefusedError as error:
            raise self._refused(error) from None
        self._silence = self._silence + len(data) if self._target.events == before else 0
        if self._silence > _MAX_SILENCE:
            raise self._refused(_RefusedError("has a tag or a comment that does not end"))

    def _refused(self, error: _RefusedError) -> ProtocolError:
        return ProtocolError(f"{self._doing}: the server's answer {error}")


class _RefusedError(Exception):
    """What came is no EWS answer."""


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
        self._path: list[str] = []
        self._record: list[Node] = []
        self._record_nodes = self._record_memory = 0
        self._nodes = self._memory = 0
        self._names: set[str] = set()
        self._mime: Base64Reader | None = None
        self._mime_node: Node | None = None
        self._message: ResponseMessage | None = None
        self.messages: list[ResponseMessage] = []
        self.fault: Node | None = None
        self.server_version = ""
        self.saw_body = False
        self.events = 0

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

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.events += 1
        self._count_node()
        self._meet(tag)
        for name in attributes:
            self._count_node()
            self._meet(name)
        path = self._path
        depth = len(path)
        if depth >= _MAX_DEPTH:
            raise _RefusedError("is nested too deeply")
        path.append(tag)
        if self._record:
            self._start_in_record(tag, attributes)
        elif depth > _MESSAGE_DEPTH:
            self._start_in_message(tag, attributes)
        elif depth == _MESSAGE_DEPTH:
            self._start_message(tag, attributes)
        else:
            self._start_envelope(depth, tag, attributes)

    def end(self, _tag: str) -> None:
        self.events += 1
        self._path.pop()
        if self._record:
            self._end_in_record()
        elif len(self._path) == _MESSAGE_DEPTH and self._message is not None:
            self._end_message(self._message)

    def data(self, text: str) -> None:
        self.events += 1
        if self._mime is not None:
            self._mime.feed(text)
        elif self._record:
            # A text can come a character at a time, each with an object around it.
            self._keep(getsizeof(text) + _REFERENCE)
            self._record[-1].pieces.append(text)

    def close(self) -> None:
        """End of the document; lxml wants the method."""

    def discard(self) -> None:
        self._drop_mime()
        _close_messages(self.messages + ([self._message] if self._message else []))

    # --- What it takes -----------------------------------------------------------------------------------------------

    def _count_node(self) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _RefusedError("has more elements than any server makes")

    def _meet(self, name: str) -> None:
        if name not in self._names:
            self._names.add(name)
            if len(name) > _LONGEST_NAME or len(self._names) > _MAX_NAMES:
                raise _RefusedError("has names that are none of EWS's")

    def _keep(self, size: int) -> None:
        """Take note that `size` bytes are kept."""
        self._record_memory += size
        self._memory += size
        if self._record_memory > _MAX_RECORD_MEMORY or self._memory > _MAX_MEMORY:
            raise _RefusedError("is larger than any server makes it")

    # --- Outside of records ------------------------------------------------------------------------------------------

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
            self._start_record(tag, attributes)

    def _start_message(self, tag: str, attributes: dict[str, str]) -> None:
        if self._path[1] != _BODY or self._path[3] != _RESPONSE_MESSAGES or not tag.startswith(_M):
            return
        if len(self.messages) >= _MAX_MESSAGES:
            raise _RefusedError("has more response messages than anybody asked for")
        self._message = ResponseMessage(response_class=attributes.get("ResponseClass", "Success")[:40])

    def _start_in_message(self, tag: str, attributes: dict[str, str]) -> None:
        if self._message is None or tag in _CONTAINERS:
            return
        if tag == _ROOT_FOLDER:
            self._message.last = _boolean(attributes.get("IncludesLastItemInRange"))
            self._message.total = parse_count(attributes.get("TotalItemsInView"))
        else:
            self._start_record(tag, attributes)

    def _end_message(self, message: ResponseMessage) -> None:
        if message.response_class == "Error" and message.code in {NO_ERROR, ""}:
            message.code = NO_RESPONSE_CODE
        self.messages.append(message)
        self._message = None

    # --- In records --------------------------------------------------------------------------------------------------

    def _start_record(self, tag: str, attributes: dict[str, str]) -> None:
        self._record_nodes = self._record_memory = 0
        self._keep(_RECORD)
        self._record.append(self._new_node(tag, attributes))

    def _start_in_record(self, tag: str, attributes: dict[str, str]) -> None:
        node = self._new_node(tag, attributes)
        self._record[-1].children.append(node)
        self._record.append(node)
        if self._mime is not None:
            # An element in the middle of base64: what is around it need not belong together.
            self._mime.damaged = True
        elif tag == _MIME_CONTENT and len(self._record) == 2 and self._path[-3] in _ITEMS:
            self._start_mime(node)

    def _start_mime(self, node: Node) -> None:
        self._mime = Base64Reader(self._new_writer())
        if self._mime_node is not None:
            # Which of the two is the message, or whether each is half of it, nobody can know.
            _spoil(self._mime_node)
            self._mime.damaged = True
        self._mime_node = node

    def _new_node(self, tag: str, attributes: dict[str, str]) -> Node:
        self._record_nodes += 1
        if self._record_nodes > _MAX_RECORD_NODES:
            raise _RefusedError("has more elements than any server makes")
        if attributes:
            self._keep(sum(map(getsizeof, attributes.values())))
        return Node(tag, dict(attributes) if attributes else {})

    def _end_in_record(self) -> None:
        node = self._record.pop()
        if node is self._mime_node and self._mime is not None:
            node.mime = self._mime.finish()
            node.mime_damaged = self._mime.damaged
            self._mime = None
        if not self._record:
            self._finish_record(node)

    def _finish_record(self, node: Node) -> None:
        if self._message is not None:
            _take(self._message, self._path[-1], node)
        elif node.tag == _FAULT:
            self.fault = node
        if self._path[-1] not in _ITEMS or not node.tag.startswith(_T):
            self._drop_mime()
        self._mime_node = None

    def _drop_mime(self) -> None:
        """Give back the message of the open record."""
        if self._mime is not None:
            self._mime.damaged = True
            self._mime.finish()
            self._mime = None
        if self._mime_node is not None:
            _spoil(self._mime_node)


def _spoil(mime_node: Node) -> None:
    """Give a message back that is not to be had from its element."""
    if mime_node.mime is not None:
        mime_node.mime.close()
    mime_node.mime = None
    mime_node.mime_damaged = True


def _take(message: ResponseMessage, container: str, node: Node) -> None:
    """Put a finished record where it belongs in its response message. Foreign elements belong nowhere."""
    if container not in _CONTAINERS:
        _take_field(message, node)
    elif not node.tag.startswith(_T):
        return
    elif container in _ITEMS:
        message.items.append(item_record(node))
    elif container in _FOLDERS:
        message.folders.append(folder_record(node))
    elif (change := change_record(node)) is not None:
        message.changes.append(change)


def _take_field(message: ResponseMessage, node: Node) -> None:
    tag = node.tag
    if tag == f"{_M}ResponseCode":
        message.code = node.text[:_LONGEST_CODE]
    elif tag == f"{_M}MessageText":
        message.text = node.text
    elif tag == f"{_M}MessageXml":
        message.backoff = _backoff(node)
    elif tag == f"{_M}SyncState":
        message.sync_state = node.text or None
    elif tag in _LAST:
        message.last = _boolean(node.text)


def _fault_facts(fault: Node) -> tuple[str, str, float | None]:
    """Find code, text and back-off in a SOAP fault, wherever in its detail a server puts them."""
    found: dict[str, str] = {}
    backoff: float | None = None
    for node in fault.walk():
        name = node.tag.rpartition("}")[2]
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


def _boolean(text: str | None) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get((text or "").strip().lower())
