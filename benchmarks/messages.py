"""The messages of a benchmark: ordinary ones, and those that cost the most for their size. The same bytes each time."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

_LINE = b"The quick brown fox jumps over the lazy dog, and the mail goes on and on; 0123456789.\r\n"
_TEXT = "Content-Type: text/plain; charset=utf-8"

Maker = Callable[[str, int], bytes]
"""Makes a message from the lines of its header that say who and when, and its size in bytes."""


def _plain(head: str, size: int) -> bytes:
    start = f"{head}{_TEXT}\r\n\r\n".encode()
    return start + _LINE * max(1, (size - len(start)) // len(_LINE))


def _eight_bit(head: str, size: int) -> bytes:
    """Give one line of bytes that are no text in any charset that is known."""
    start = f"{head}Content-Type: text/plain; charset=x-nobody-knows\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    return start.encode() + bytes(range(0x80, 0x100)) * (size // 128)


def _one_line(head: str, size: int) -> bytes:
    return f"{head}{_TEXT}\r\n\r\n".encode() + b"x" * size


def _twice_encoded(head: str, size: int) -> bytes:
    inner = base64.encodebytes(b"\0" * (size * 9 // 16))
    return f"{head}Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode() + (
        base64.encodebytes(inner)
    )


def _long_header(head: str, size: int) -> bytes:
    """Give a header of 5 MB with a word that is no text in it, before a body of the rest."""
    header = min(size // 2, 5_000_000)
    return b"X-Long: \xff" + b"word " * (header // 5) + b"\r\n" + _plain(head, size - header)


def _attachments(head: str, size: int) -> bytes:
    """Give 2,000 attachments, each with a byte in it that is no text."""
    line = _LINE * max(1, size // 2000 // len(_LINE))
    parts = b"".join(
        b"--=_b\r\nContent-Type: application/octet-stream\r\n"
        b'Content-Disposition: attachment; filename="%d.bin"\r\n\r\n\xff%b\r\n' % (number, line)
        for number in range(2000)
    )
    return f'{head}Content-Type: multipart/mixed; boundary="=_b"\r\n\r\n'.encode() + parts + b"--=_b--\r\n"


def _nested(head: str, size: int) -> bytes:
    """Give a part inside a part inside a part, 500 deep, around what is no text."""
    depth = 500
    opening = b"".join(
        b'Content-Type: multipart/mixed; boundary="=_%d"\r\n\r\n--=_%d\r\n' % (number, number)
        for number in range(depth)
    )
    body = b"Content-Type: text/plain; charset=x-nobody-knows\r\n\r\n" + b"\xff\xfe" * (size // 2) + b"\r\n"
    return head.encode() + opening + body + b"".join(b"--=_%d--\r\n" % number for number in reversed(range(depth)))


PLAIN = "plain"
MAKERS: Mapping[str, Maker] = {
    PLAIN: _plain,
    "8-bit in no charset": _eight_bit,
    "one line": _one_line,
    "base64 of base64": _twice_encoded,
    "header of 5 MB": _long_header,
    "2,000 attachments": _attachments,
    "nested 500 deep": _nested,
}
"""The kinds of messages."""


def message(kind: str, address: str, number: int, size: int) -> bytes:
    """Give message `number` to an address, of about `size` bytes."""
    head = (
        f"From: sender@bench.example\r\nTo: {address}\r\nSubject: message {number}\r\n"
        f"Message-ID: {message_id(address, number)}\r\nDate: Mon, 5 Jan 2026 08:00:00 +0000\r\n"
    )
    return MAKERS[kind](head, size)


def message_id(address: str, number: int) -> str:
    """Give the Message-ID of a message."""
    return f"<{number}.{address}>"
