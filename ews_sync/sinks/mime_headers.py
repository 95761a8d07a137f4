"""Header fields with raw 8-bit bytes, written as RFC 2047 and RFC 2231 have it. No byte of a value is lost.

Bytes whose charset is not known are called `unknown-8bit` (RFC 1428), never guessed at: the charset that the same
entity declares for its text is taken when the bytes fit it. Fields that are valid UTF-8 stay as they are.
"""

from __future__ import annotations

import base64
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.sinks.mime_encodings import escaped_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UNKNOWN = "unknown-8bit"

_PARAMETRIC = frozenset({b"content-type", b"content-disposition"})
_ADDRESSES = frozenset(
    {
        b"from",
        b"sender",
        b"reply-to",
        b"to",
        b"cc",
        b"bcc",
        b"return-path",
        b"errors-to",
        b"disposition-notification-to",
    }
    | {b"resent-from", b"resent-sender", b"resent-to", b"resent-cc", b"resent-bcc"}
)

_SPACE = re.compile(rb"[ \t\r\n]+")
_BREAK = re.compile(rb"[\r\n]+")
_WORD = re.compile(rb"[^ \t\r\n]+")
# In addresses, words also end at what has a meaning there.
_ADDRESS_WORD = re.compile(rb'"(?:[^"\\]|\\.){0,998}+"|[^ \t\r\n()<>,;:@"]+', re.DOTALL)
_UNQUOTED_WORD = re.compile(rb'[^ \t\r\n()<>,;:@"]+')
_MANY_ESCAPES = 100
"""Escaped quotes in a field from which on quotes are nothing special: each could be the start of a long search."""
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ENCODED_WORD = re.compile(rb"=\?[!->@-~]+\?[bBqQ]\?[!->@-~]*\?=")
_PARAMETER = re.compile(
    rb";[ \t\r\n]*(?P<name>[^ \t\r\n;=\"]+)[ \t\r\n]*=[ \t\r\n]*(?P<value>\"(?:[^\"\\]|\\.)*\"|[^;]*)", re.DOTALL
)
_SECTION = re.compile(rb"(?P<base>[^*]+)(?:\*(?P<number>[0-9]+))?(?P<extended>\*)?")
_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,39}", re.ASCII)
# RFC 2047, 5 (3): what may stand in an encoded word anywhere, and RFC 2231, 7: in a parameter's value.
_Q_LITERAL = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_PARAMETER_LITERAL = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`{|}~")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
# As many bytes as an encoded word of 75 characters holds as base64 (RFC 2047, 2).
_LONG_WORD = 42
_BESIDE = frozenset(bytes((byte,)) for byte in b" \t\r\n()<>,;:@")


@dataclass(frozen=True, slots=True)
class Field:
    """A header field as it is in the message: name, colon, value, folds and the line end."""

    raw: bytes

    @property
    def name(self) -> bytes:
        """The name in small letters; b"" for a line that only looks like a field."""
        name, colon, _ = self.raw.partition(b":")
        return name.strip(b" \t").lower() if colon else b""


def value_of(field: Field) -> bytes:
    """Give the field's value without folds."""
    return _BREAK.sub(b"", field.raw.partition(b":")[2]).strip(b" \t")


def parameter(field: Field | None, name: bytes) -> bytes | None:
    """Give the first parameter of that name, unquoted, plain or as RFC 2231 has it; None where there is none."""
    if field is None:
        return None
    sections: list[tuple[int, bytes]] = []
    for match in _PARAMETER.finditer(value_of(field)):
        section = _SECTION.fullmatch(match["name"].lower())
        if section is None or section["base"] != name:
            continue
        value = _unquoted(match["value"])
        if section["extended"]:
            value = _percent_decoded(value if section["number"] not in (None, b"0") else value.split(b"'", 2)[-1])
        if section["number"] is None:
            return value.rstrip()
        sections.append((int(section["number"][:9]), value))
    return b"".join(value for _, value in sorted(sections)).rstrip() if sections else None


def usable_charset(declared: bytes | None) -> str | None:
    """Give a declared charset when it can be trusted with header text: known, and a superset of ASCII."""
    name = (declared or b"").decode("ascii", "replace")
    if not _CHARSET.fullmatch(name) or name.lower() in {"utf-7", "us-ascii", "ascii"}:
        return None
    try:
        return name if b"Az09 =?_".decode(name) == "Az09 =?_" and "Az09".encode(name) == b"Az09" else None
    except (LookupError, ValueError):
        return None


def encode_field(field: Field, charset: str | None, newline: bytes) -> bytes:
    """Give the field in valid UTF-8: as it is where it is that already, else with its 8-bit words encoded."""
    if _is_utf8(field.raw):
        return field.raw
    name, colon, rest = field.raw.partition(b":")
    if not colon or not _is_utf8(name):
        return b"".join(escaped_line((field.raw,)))
    value = rest.rstrip(b"\r\n")
    if field.name in _PARAMETRIC:
        encoded = _parametric(value, charset, newline)
    elif field.name in _ADDRESSES:
        word = _ADDRESS_WORD if value.count(b'\\"') <= _MANY_ESCAPES else _UNQUOTED_WORD
        encoded = _words(value, word, charset, newline)
    else:
        encoded = _words(value, _WORD, charset, newline)
    return name + colon + encoded + rest[len(value) :]


def replace_boundary(field: Field, old: bytes, new: bytes) -> Field:
    """Give a Content-Type with another boundary; any other field as it is."""
    if field.name != b"content-type" or parameter(field, b"boundary") != old:
        return field

    def substitute(match: re.Match[bytes]) -> bytes:
        section = _SECTION.fullmatch(match["name"].lower())
        return b"" if section is not None and section["base"] == b"boundary" else match[0]

    value = field.raw.rstrip(b"\r\n")
    return Field(_PARAMETER.sub(substitute, value) + b'; boundary="' + new + b'"' + field.raw[len(value) :])


def long_field_pieces(blocks: Iterable[bytes], newline: bytes) -> Iterator[bytes]:
    """Give a field that is too long to be taken apart: all of its value as encoded words, whatever it holds.

    `blocks` are the whole field, and its name is in the first. Where that is no name, the field is a line of text (see
    `escaped_line`).
    """
    pieces = iter(blocks)
    name, colon, rest = next(pieces, b"").partition(b":")
    if not colon or not _is_utf8(name):
        yield from escaped_line(itertools.chain((name + colon + rest,), pieces))
        return
    yield name + colon + b" "
    ending = rest[-2:]
    rest = _BREAK.sub(b"", rest).removeprefix(b" ")
    between = b""
    for block in pieces:
        ending = (ending + block)[-2:]
        rest += _BREAK.sub(b"", block)
        whole = len(rest) - len(rest) % _LONG_WORD
        if whole:
            yield between + _long_words(rest[:whole], newline)
            rest = rest[whole:]
            between = newline + b" "
    if rest:
        yield between + _long_words(rest, newline)
    yield ending[len(ending.rstrip(b"\r\n")) :]


def _long_words(content: bytes, newline: bytes) -> bytes:
    chunks = (content[start : start + _LONG_WORD] for start in range(0, len(content), _LONG_WORD))
    return (newline + b" ").join(
        b"=?" + UNKNOWN.encode() + b"?b?" + base64.b64encode(chunk) + b"?=" for chunk in chunks
    )


def _words(value: bytes, word: re.Pattern[bytes], charset: str | None, newline: bytes) -> bytes:
    """Encode the runs of words that have 8-bit bytes; `word` is what a word is."""
    words = list(word.finditer(value))
    out: list[bytes] = []
    position = 0
    index = 0
    while index < len(words):
        if words[index][0].isascii():
            index += 1
            continue
        last = index
        while last + 1 < len(words) and not words[last + 1][0].isascii() and _space(value, words, last):
            last += 1
        start, end = words[index].start(), words[last].end()
        pieces = [_space(value, words, number) + _bare(words[number + 1][0], word) for number in range(index, last)]
        content = _bare(words[index][0], word) + b"".join(pieces)
        # Space between encoded words is ignored (RFC 2047, 6.2). Beside one that is there already, ours takes it in.
        if index and _ENCODED_WORD.fullmatch(words[index - 1][0]):
            content = _space(value, words, index - 1) + content
        if last + 1 < len(words) and _ENCODED_WORD.fullmatch(words[last + 1][0]):
            content += _space(value, words, last)
        out.append(value[position:start])
        # An encoded word stands free, but for what surrounds it in a comment or a list.
        if start and value[start - 1 : start] not in _BESIDE:
            out.append(b" ")
        out.append(_encoded(_BREAK.sub(b"", content), charset, newline))
        if end < len(value) and value[end : end + 1] not in _BESIDE:
            out.append(b" ")
        position = end
        index = last + 1
    out.append(value[position:])
    return b"".join(out)


def _space(value: bytes, words: list[re.Match[bytes]], index: int) -> bytes:
    """Give the space between a word and the next, b"" when there is anything else."""
    between = value[words[index].end() : words[index + 1].start()]
    return between if _SPACE.fullmatch(between) else b""


def _bare(text: bytes, word: re.Pattern[bytes]) -> bytes:
    """Give a word's content: in addresses a quoted one without its quotes, where no encoded word may stand."""
    return _unquoted(text) if word is _ADDRESS_WORD else text


def _encoded(content: bytes, charset: str | None, newline: bytes) -> bytes:
    """Give `content` as encoded words, folded."""
    name = charset if charset is not None and _round_trips(content, charset) else UNKNOWN
    room = 75 - len(name) - len("=??b??=")
    most = room // 4 * 3
    if name == UNKNOWN:
        chunks = [content[start : start + most] for start in range(0, len(content), most)]
    else:
        # Each encoded word must hold whole characters (RFC 2047, 5).
        chunks = [b""]
        for character in content.decode(name):
            coded = character.encode(name)
            if len(chunks[-1]) + len(coded) > most:
                chunks.append(b"")
            chunks[-1] += coded
    return (newline + b" ").join(_encoded_word(chunk, name.encode()) for chunk in chunks)


def _encoded_word(chunk: bytes, charset: bytes) -> bytes:
    q_form = b"".join(
        b"_" if byte == 0x20 else bytes((byte,)) if byte in _Q_LITERAL else b"=%02X" % byte for byte in chunk
    )
    b_form = base64.b64encode(chunk)
    kind, text = (b"q", q_form) if len(q_form) <= len(b_form) else (b"b", b_form)
    return b"=?" + charset + b"?" + kind + b"?" + text + b"?="


def _round_trips(content: bytes, charset: str) -> bool:
    try:
        return b"".join(character.encode(charset) for character in content.decode(charset)) == content
    except (LookupError, ValueError):
        return False


def _parametric(value: bytes, charset: str | None, newline: bytes) -> bytes:
    """Encode the parameters that are not valid UTF-8 as RFC 2231 says, and the rest as words."""
    out: list[bytes] = []
    position = 0
    for match in _PARAMETER.finditer(value):
        if not _is_utf8(value[position : match.start()]):
            out.append(_words(value[position : match.start()], _WORD, charset, newline))
        else:
            out.append(value[position : match.start()])
        position = match.end()
        section = _SECTION.fullmatch(match["name"])
        if _is_utf8(match[0]):
            out.append(match[0])
        elif section is None or not match["name"].isascii():
            out.append(_words(match[0], _WORD, charset, newline))
        else:
            out.append(value[match.start() : match.start("name")] + _extended(section, match["value"], charset))
    rest = value[position:]
    out.append(rest if _is_utf8(rest) else _words(rest, _WORD, charset, newline))
    return b"".join(out)


def _extended(section: re.Match[bytes], value: bytes, charset: str | None) -> bytes:
    content = _unquoted(value)
    number = b"" if section["number"] is None else b"*" + section["number"]
    # Encoded already, but with raw bytes in it: those are encoded too, and what was a sign stays one.
    literal = _PARAMETER_LITERAL | frozenset(b"%'") if section["extended"] else _PARAMETER_LITERAL
    text = b"".join(bytes((byte,)) if byte in literal else b"%%%02X" % byte for byte in content)
    if not section["extended"] and number in (b"", b"*0"):
        name = charset if charset is not None and _round_trips(content, charset) else UNKNOWN
        text = name.encode() + b"''" + text
    return section["base"] + number + b"*=" + text


def _unquoted(value: bytes) -> bytes:
    value = _BREAK.sub(b"", value).strip(b" \t")
    quoted = _QUOTED.fullmatch(value)
    return _ESCAPE.sub(rb"\1", quoted[1]) if quoted else value


def _percent_decoded(value: bytes) -> bytes:
    return _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), value)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
