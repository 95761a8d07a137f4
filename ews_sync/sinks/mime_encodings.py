"""Bodies encoded anew, in pieces: what comes out does not depend on where the pieces that come in are cut."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HIGH_BYTES = bytes(range(128, 256))
_HIGH = re.compile(rb"[\x80-\xff]")
_UNSAFE = re.compile(rb"[=\x80-\xff]")
_QP_JUNK = re.compile(rb"==|=?[\x80-\xff]")
# What stands for the 16 half-bytes of an 8-bit byte inside base64: outside its alphabet, so that decoders pass it by.
_HALVES = b"!#$%&'()*,.:;<>?"
_JUNK = {bytes((byte,)): bytes((_HALVES[byte >> 4], _HALVES[byte & 15])) for byte in _HIGH_BYTES}
_ESCAPED = {bytes((byte,)): b"=%02X" % byte for byte in (*b"=", *_HIGH_BYTES)}

# Bytes that are dealt with at a time: where each of them is a match or a line of its own, they take a hundred times as
# much room.
_SLICE = 8 * 1024
_FULL_LINE = b"x" * 75
_BASE64_LINE = 57
"""Bytes that make one line of 76 characters."""


def is_mostly_ascii(blocks: Iterable[bytes]) -> bool:
    """Tell whether quoted-printable is the better encoding: few bytes need it, and none says that this is no text."""
    size = high = 0
    for block in blocks:
        if b"\0" in block:
            return False
        size += len(block)
        if not block.isascii():
            high += len(block) - len(block.translate(None, _HIGH_BYTES))
    return high * 6 <= size


def base64_pieces(blocks: Iterable[bytes], newline: bytes) -> Iterator[bytes]:
    """Encode as base64, in lines of 76 characters."""
    rest = b""
    for block in blocks:
        rest += block
        whole = len(rest) - len(rest) % _BASE64_LINE
        if whole:
            yield base64.encodebytes(rest[:whole]).replace(b"\n", newline)
            rest = rest[whole:]
    if rest:
        yield base64.encodebytes(rest).replace(b"\n", newline)


def quoted_printable_pieces(blocks: Iterable[bytes], newline: bytes) -> Iterator[bytes]:
    """Encode text with each of its line ends kept as it is: LF and CRLF can be mixed, and a lone CR is data."""
    rest = b""
    begun = False
    for data in _slices(blocks):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        out = []
        for line in lines:
            cut = line.endswith(b"\r")
            out.append(newline.join(_soft_lines(line[:-1] if cut else line, begun=begun)))
            out.append(b"\r\n" if cut else b"\n")
            begun = False
        # A line can be as long as the message. Where it breaks depends on what is before, and only its end on what is
        # behind: so all but the last two lines of what there is now are sure.
        soft = _soft_lines(rest, begun=begun)
        if len(soft) > 2:
            out += [line + newline for line in soft[:-2]]
            rest = binascii.a2b_qp(b"\n".join(soft[-2:]))
            begun = True
        yield b"".join(out)
    if rest:
        yield newline.join(_soft_lines(rest, begun=begun))


def without_junk(blocks: Iterable[bytes], encoding: bytes) -> Iterator[bytes]:
    """Give an encoded body without 8-bit bytes, which do not belong there, so that it decodes to the same as before."""
    if encoding == b"base64":
        # Decoders pass by what is not in the alphabet (RFC 2045, 6.8); so the junk stays, in characters that are not.
        for data in _slices(blocks):
            yield data if data.isascii() else _HIGH.sub(lambda match: _JUNK[match[0]], data)
        return
    # Decoders of quoted-printable take 8-bit bytes as they are, and this says the same. In uuencode they can only stand
    # in the file's name, which is for people, or in a line that is damaged anyway.
    rest = b""
    for data in _slices(blocks):
        whole = rest + data
        # Signs go in pairs, and what the last one belongs to when it is alone is in the next slice.
        signs = len(whole) - len(whole.rstrip(b"="))
        rest = b"=" * (signs % 2)
        known = whole[: len(whole) - len(rest)]
        yield known if known.isascii() else _QP_JUNK.sub(_escaped_junk, known)
    yield rest


def escaped_line(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Give a line that no standard has an encoding for as quoted-printable text, without its meaning a boundary."""
    begins = True
    for data in _slices(blocks):
        escaped = _UNSAFE.sub(lambda match: _ESCAPED[match[0]], data)
        yield b"=2D" + escaped[1:] if begins and escaped.startswith(b"-") else escaped
        begins = False


def _slices(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), _SLICE):
            yield block[start : start + _SLICE]


def _escaped_junk(match: re.Match[bytes]) -> bytes:
    found = match[0]
    if found in _ESCAPED:
        return _ESCAPED[found]
    # A sign that encodes nothing must not begin to: it is encoded along with the byte behind it.
    return found if found == b"==" else b"=3D" + _ESCAPED[found[1:]]


def _soft_lines(content: bytes, *, begun: bool) -> list[bytes]:
    """Give `content`, which holds no LF, as lines of quoted-printable; all but the last end in a soft line break.

    When its line has `begun` before, it goes on behind a soft line break.
    """
    # The encoder treats a dot at the very start of what it is given in its own way, so a full line goes before.
    lines = binascii.b2a_qp(_FULL_LINE * begun + content, quotetabs=False, istext=False).split(b"\n")
    # A line of ours must not look like a boundary that was not one before.
    return [b"=2D" + line[1:] if line.startswith(b"-") else line for line in lines[begun:]]
