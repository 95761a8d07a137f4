"""Names from outside as path components: reversible, without collisions, and never able to leave their directory.

ASCII letters, digits and `@ . _ - +` stay as they are, so that ordinary addresses and project names can be read in a
directory listing; every other byte of the name's UTF-8 is written `%XX`. A dot in front is encoded too, so nothing is
hidden and `.` and `..` cannot be made. A name too long for one component goes on in the next: each component but the
last ends in `~`, which no name can contain otherwise, and so a name's first component is never another name's last.

All of it is ASCII, so a file system that changes the form of Unicode (NFC, NFD) changes nothing here. For volumes that
are shared from Windows, a dot at the end and the first letter of a device's name (`con`, `nul`, ...) are encoded, too.
Names that differ only in upper and lower case get paths that differ only in case. Where a file system does not keep
those apart, mailboxes do not meet all the same: the config has no two addresses that differ only in case.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from ews_sync.model import Mailbox

LONGEST_COMPONENT = 202
"""Bytes of the longest component made here. File systems take 255: the rest is room for suffixes like `.json.bak`."""
_FULL = LONGEST_COMPONENT - 2
"""Two are kept back for what is encoded once the component is there."""

_LITERAL = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-+")
_EMPTY = "%"
_CONTINUED = "~"
_DOT = "%2E"
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever stands behind a dot (learn.microsoft.com, "Naming Files, Paths")."""


def safe_parts(name: str) -> tuple[str, ...]:
    """Give the path components, one or more, that stand for `name`: any text, lone surrogates and all."""
    parts: list[str] = []
    current: list[str] = []
    length = 0
    for byte in name.encode("utf-8", "surrogatepass"):
        shown = chr(byte) if byte in _LITERAL else f"%{byte:02X}"
        # One byte is kept back for the mark that says that the name goes on.
        if length + len(shown) >= _FULL:
            parts.append("".join(current) + _CONTINUED)
            current, length = [], 0
        if shown == "." and not current:
            shown = _DOT
        current.append(shown)
        length += len(shown)
    if current and current[-1] == ".":
        current[-1] = _DOT
    parts.append("".join(current) or _EMPTY)
    return tuple(_no_device(part) for part in parts)


def _no_device(part: str) -> str:
    return f"%{ord(part[0]):02X}{part[1:]}" if _DEVICE.fullmatch(part) else part


def original(parts: Sequence[str]) -> str:
    """Give the name that `safe_parts` made `parts` of. `ValueError` when it made them of none."""
    text = "".join(part.removesuffix(_CONTINUED) for part in parts)
    data = bytearray()
    if text != _EMPTY:
        pieces = text.split("%")
        data += pieces[0].encode("ascii", "strict")
        for piece in pieces[1:]:
            data += bytes.fromhex(piece[:2]) + piece[2:].encode("ascii", "strict")
    name = data.decode("utf-8", "surrogatepass")
    if safe_parts(name) != tuple(parts):
        raise ValueError("not the path of a name")
    return name


def data_directory(prefix: Path, mailbox: Mailbox) -> Path:
    """Give the directory in which all files of the mailbox's mail are."""
    return mailbox_directory(prefix / "data", mailbox)


def mailbox_directory(prefix: Path, mailbox: Mailbox) -> Path:
    """Give the mailbox's own directory `<owner>/<bucket>/<mailbox>` below `prefix`."""
    return prefix.joinpath(*_mailbox_parts(mailbox))


def state_file(prefix: Path, mailbox: Mailbox, suffix: str) -> Path:
    """Give the path of the mailbox's state file that ends in `suffix` (`.json`, `.lock`)."""
    path = prefix.joinpath("state", *_mailbox_parts(mailbox))
    return path.with_name(path.name + suffix)


def email_stem(directory: Path, email_id: str, timestamp: datetime) -> Path:
    """Give the path, without its suffix, of an email's two files. `timestamp` is in UTC."""
    digest = hashlib.sha256(email_id.encode("utf-8", "surrogatepass")).hexdigest()
    return directory / f"{timestamp.year:04}/{timestamp.month:02}/{digest[:32]}"


def _mailbox_parts(mailbox: Mailbox) -> tuple[str, ...]:
    names = (mailbox.bucket.owner, mailbox.bucket.name, mailbox.address)
    return tuple(part for name in names for part in safe_parts(name))
