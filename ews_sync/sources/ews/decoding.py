"""EWS answers from bytes, as they arrive. Pure: no I/O.

lxml builds a tree, and what is finished is taken out of it with every piece that comes (see `tree`). Names are matched
by namespace, never by prefix. A document type declaration ends the reading before the parser has seen it, so there are
no entities to expand; external ones are never fetched.

Nearly all of an answer with messages is base64, of which the parser could make nothing but a text to be decoded. So it
goes past the parser (see `AnswerReader.feed`), which stays the one to say where a message begins and ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lxml import etree

from ews_sync.errors import ConnectionFailedError, ProtocolError
from ews_sync.sources.ews.codes import error_for
from ews_sync.sources.ews.mime import Base64Reader, MemoryWriter, MimeWriter
from ews_sync.sources.ews.operations import Answer
from ews_sync.sources.ews.records import TYPES
from ews_sync.sources.ews.tree import (
    ENVELOPE,
    FETCHED_ITEMS,
    RESPONSE_MESSAGES,
    AnswerTree,
    MimeRead,
    RefusedError,
)
from ews_sync.sources.ews.wire import XmlMender

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.sources.ews.records import Element

_MIME_CONTENT = f"{TYPES}MimeContent"
_MIME_TAG = b"MimeContent"
_SLASH = ord("/")
_LONGEST_TAG = 1024
"""Bytes of a tag that is kept until it is whole. A message whose tag is longer goes through the parser."""
_PIECE = 64 * 1024
"""Bytes of XML, at most, between two looks at what is finished of it."""
_MAX_OPEN = 8 * 1024 * 1024
"""Bytes of XML of which nothing can be taken yet: of a single record, say, or a comment that does not end."""
_MAX_OPEN_MARKS = 100_000
_MAX_MARKS = 1_000_000
"""Characters `<` and `=`, of which there is one for each element and attribute, at least: those take memory, however
short they are. The largest honest answer has a few tens of thousands."""
_LONGEST_PROLOG = 16 * 1024
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_ROOT = re.compile(rb"<([^\s<>/!?]{1,40})(?:[\s/][^<>]*)?>")
_TOO_LARGE = "is larger than any server makes it"


class AnswerReader:
    """Reads one answer: `feed` what arrives, then `close` for the `Answer`.

    `doing` names the request in errors. Raises `ProtocolError` or `ConnectionFailedError` when the bytes are no EWS
    answer, and the error that the server's code asks for when the answer is a SOAP fault; a code in a single response
    message is the caller's to look at. What `new_writer` makes can raise a `SourceError` of its own.
    """

    def __init__(self, doing: str, new_writer: Callable[[], MimeWriter] = MemoryWriter) -> None:
        self._doing = doing
        self._new_writer = new_writer
        self._mender = XmlMender()
        self._parser = etree.XMLPullParser(
            events=("start", "end"),
            tag=(ENVELOPE, _MIME_CONTENT),
            encoding="utf-8",
            # There are none besides XML's own five: where some could be declared, the reading ends.
            resolve_entities="internal",
            no_network=True,
            load_dtd=False,
            remove_comments=True,
            remove_pis=True,
            collect_ids=False,
        )
        self._prolog = b""
        """What has come so far, until the parser has seen the envelope."""
        self._envelope: Element | None = None
        self._mimes: dict[Element, MimeRead] = {}
        self._tree = AnswerTree(self._mimes)
        self._received = 0
        self._unfinished_tag = b""
        self._marks = 0
        self._open = _Amount()
        """What has come since something could last be taken out of the tree: no more than that is in it."""
        self._recent = _Amount()
        """What has come since that was last tried."""
        self._message: _Message | None = None
        """The message that is being read."""
        self._is_odd = False
        """Whether there was something that looked like a message's beginning, and was none."""
        self._lane: Base64Reader | None = None
        """There while what arrives is a message's alone."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the response's body.

        The parser is given all up to the end of a tag that may begin a message. When that was what it made of the tag,
        there is nothing left in its hands, and what follows is the message's alone, up to the next markup. Once such a
        tag was something else (in a comment, say), each that follows is given to it by itself, to be sure which one it
        was.
        """
        self._received += len(data)
        data = self._unfinished_tag + data
        self._unfinished_tag = b""
        at = 0
        while at < len(data):
            if self._lane is not None:
                at = self._past_parser(self._lane, data, at)
                continue
            opening, end = _mime_tag(data, at)
            if opening == end:
                self._parse_up_to_tag(data[at:opening])
                self._unfinished_tag = data[opening:]
                break
            if self._is_odd:
                self._parse(data[at:opening])
                at = opening
            before = self._message
            self._parse(data[at:end])
            if self._message is not None and self._message is not before:
                self._lane = self._message.reader
            else:
                self._is_odd = True
            at = end
        self._take()

    def _parse_up_to_tag(self, data: bytes) -> None:
        self._parse(data)
        # A tag that is too long to be kept is in the parser's hands, and may yet begin a message.
        self._is_odd = self._is_odd or data.rfind(b"<") > data.rfind(b">")

    def _past_parser(self, lane: Base64Reader, data: bytes, start: int) -> int:
        """Decode the message's base64, and give where it is the parser's turn again: at markup or a reference."""
        end = data.find(b"<", start)
        reference = data.find(b"&", start, end if end >= 0 else len(data))
        end = reference if reference >= 0 else end
        over = end >= 0
        end = end if over else len(data)
        if end > start:
            lane.feed_bytes(memoryview(data)[start:end])
        if over:
            self._lane = None
        return end

    def close(self) -> Answer:
        """End the reading."""
        self._parse(self._unfinished_tag)
        self._give(self._mender.close())
        if not self._received:
            raise ConnectionFailedError(f"{self._doing}: the server's answer was empty")
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            self._check_root()
            raise ConnectionFailedError(
                f"{self._doing}: the server's answer was cut short after {self._received} bytes",
                hint="a proxy or load balancer on the way may have ended it",
            ) from error
        self._hear()
        self._check_root()
        self._take(whole=True)
        tree = self._tree
        if tree.fault is not None:
            raise error_for(tree.fault.code, tree.fault.text, doing=self._doing, backoff=tree.fault.backoff)
        if not tree.saw_body:
            raise ProtocolError(f"{self._doing}: the server's answer has no SOAP body")
        self._drop_mimes()
        return Answer(tuple(tree.messages), tree.server_version)

    def discard(self) -> None:
        """Give back what was read of an answer that is not wanted any more."""
        if self._message is not None:
            self._message.reader.damaged = True
            self._message.reader.finish()
            self._message = self._lane = None
        self._drop_mimes()
        self._tree.discard()

    def _drop_mimes(self) -> None:
        """Give back messages that belong to no item."""
        for read in self._mimes.values():
            if read.mime is not None:
                read.mime.close()
        self._mimes.clear()

    # --- The parser --------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """Have the parser read on."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            if start:
                self._take()
            if self._envelope is None:
                self._look_at_prolog(piece)
            self._give(self._mender.feed(piece))

    def _give(self, mended: bytes) -> None:
        self._count(mended)
        try:
            self._parser.feed(mended)
        except etree.XMLSyntaxError as error:
            self._hear()
            self._check_root()
            raise self._not_well_formed(error) from error
        self._hear()

    def _count(self, piece: bytes) -> None:
        marks = piece.count(b"<") + piece.count(b"=")
        wide = not piece.isascii() or b"&#" in piece
        self._marks += marks
        self._recent.add(len(piece), marks, wide=wide)
        self._open.add(len(piece), marks, wide=wide)
        if self._open.size > _MAX_OPEN:
            raise self._refused(_TOO_LARGE)
        if self._open.marks > _MAX_OPEN_MARKS or self._marks > _MAX_MARKS:
            raise self._refused("has more elements than any server makes")

    def _hear(self) -> None:
        """Hear where the envelope and the messages begin and end, and take what the parser has of a message."""
        for event, element in self._parser.read_events():
            if element.tag == ENVELOPE:
                if element.getparent() is None:
                    self._envelope, self._prolog = element, b""
            elif event == "start":
                self._begin_message(element)
            elif self._message is not None and element is self._message.element:
                self._end_message(self._message)
        if self._message is not None and self._message.drain():
            self._open = replace(self._recent)

    def _begin_message(self, element: Element) -> None:
        """Begin to read a message, if an item's message is what the element is."""
        item = element.getparent()
        if item is None or not _is_items_message(item):
            return
        if self._message is not None:
            # One within another: the outer one is damaged by what is in it.
            return
        self._message = _Message(element, Base64Reader(self._new_writer()))
        earlier = self._mimes.pop(item, None)
        if earlier is not None:
            # Which of the two is the message, or whether each is half of it, nobody can know.
            self._message.reader.damaged = True
            if earlier.mime is not None:
                earlier.mime.close()

    def _end_message(self, message: _Message) -> None:
        message.drain()
        item = message.element.getparent()
        mime = message.reader.finish()
        self._message = None
        assert item is not None  # noqa: S101 - for the type checker
        self._mimes[item] = MimeRead(mime, message.reader.damaged)

    def _take(self, *, whole: bool = False) -> None:
        """Take what is finished out of the tree."""
        if self._envelope is None or not (self._recent.size or whole):
            return
        before = self._tree.steps
        try:
            self._tree.take(self._envelope, self._recent.size, whole=whole, wide=self._open.wide)
        except RefusedError as error:
            raise self._refused(str(error)) from None
        if self._tree.steps != before:
            self._open = self._recent
        self._recent = _Amount()

    # --- What is no answer -------------------------------------------------------------------------------------------

    def _look_at_prolog(self, data: bytes) -> None:
        """Raise when a document type declaration begins, before the parser has it, or the envelope does not."""
        if len(self._prolog) > _LONGEST_PROLOG:
            self._check_root()
            raise self._refused(_TOO_LARGE)
        self._prolog += data
        rest = self._prolog[_prolog_end(self._prolog) :][:4]
        if rest.startswith(b"<!") and not b"<!--".startswith(rest):
            raise self._refused("has a document type declaration, which EWS never sends")

    def _check_root(self) -> None:
        """Raise when the outermost element is there, and is no SOAP envelope."""
        if self._envelope is None and (root := _ROOT.match(self._prolog, _prolog_end(self._prolog))) is not None:
            name = root[1].rpartition(b":")[2].decode(errors="replace")
            raise self._refused(f"is no SOAP envelope but <{name}>")

    def _not_well_formed(self, error: etree.XMLSyntaxError) -> ProtocolError:
        if "depth" in str(error):
            return self._refused("is nested too deeply")
        return ProtocolError(
            f"{self._doing}: the server's answer is not well-formed XML (line {error.lineno}, column {error.offset})",
            hint="a proxy or load balancer on the way may have answered in the server's place",
        )

    def _refused(self, why: str) -> ProtocolError:
        return ProtocolError(f"{self._doing}: the server's answer {why}")


@dataclass(slots=True)
class _Amount:
    """How much XML there is: bytes, characters that come with elements and attributes, whether it need not be ASCII."""

    size: int = 0
    marks: int = 0
    wide: bool = False

    def add(self, size: int, marks: int, *, wide: bool) -> None:
        self.size += size
        self.marks += marks
        self.wide = self.wide or wide


@dataclass(slots=True)
class _Message:
    """A message that is being read: its element, and what decodes it."""

    element: Element
    reader: Base64Reader

    def drain(self) -> bool:
        """Take what the parser has read of it out of the tree; tell whether there was anything."""
        if len(self.element):
            # An element in the middle of base64: what is around it need not belong together.
            self.reader.damaged = True
        text = self.element.text
        if not text:
            return False
        self.reader.feed(text)
        self.element.text = None
        return True


def _mime_tag(data: bytes, start: int) -> tuple[int, int]:
    """Give where the next tag that may begin a message is, from `<` to behind `>`.

    It may be none, in a comment, say. Nowhere: twice where the rest begins that may be the beginning of such a tag.
    """
    at = start
    while (at := data.find(_MIME_TAG, at)) >= 0:
        end = data.find(b">", at)
        if end < 0:
            break
        opening = data.rfind(b"<", start, at)
        if opening >= 0 and data[opening + 1] != _SLASH:
            return opening, end + 1
        at += len(_MIME_TAG)
    begun = data.rfind(b"<", max(start, len(data) - _LONGEST_TAG))
    if begun < 0 or data.find(b">", begun) >= 0:
        begun = len(data)
    return begun, begun


def _is_items_message(item: Element) -> bool:
    """Tell whether an element is an item that was asked for, and not one in another's attachments."""
    items = item.getparent()
    message = None if items is None else items.getparent()
    messages = None if message is None else message.getparent()
    return (
        items is not None and items.tag == FETCHED_ITEMS and messages is not None and messages.tag == RESPONSE_MESSAGES
    )


def _prolog_end(data: bytes) -> int:
    behind = _PROLOG.match(data)
    return behind.end() if behind is not None else 0
