"""What servers put on the wire that XML forbids, mended before the parser sees it. Pure: bytes in, bytes out.

Servers emit character references such as `&#x0;` or `&#xFFFF;`, and at times the raw bytes, inside subjects and
names. One such subject must cost neither the page nor the mailbox, so what XML 1.0 section 2.2 forbids becomes
U+FFFD, and a raw control character the one control character that XML allows. It becomes a space in what people read
(see `records`), but not here: between two letters of base64 a space means nothing, and what came was damage.
"""

from __future__ import annotations

import codecs
import re

MENDED = "\x7f"
"""What stands for a raw control character."""

# The length is bounded so that what is held back at the end of a piece is, too; nobody writes more leading zeros.
_REFERENCE = re.compile(rb"&#(?:[xX]([0-9a-fA-F]{1,64})|([0-9]{1,64}));")
_BEGUN_REFERENCE = re.compile(rb"&(?:#(?:[xX][0-9a-fA-F]{0,64}|[0-9]{0,64}))?\Z")
_LONGEST_REFERENCE = 68
_REPLACEMENT = b"&#xFFFD;"
_FORBIDDEN_BYTES = bytes(byte for byte in range(0x20) if byte not in b"\t\n\r")
_MENDED_BYTES = bytes.maketrans(_FORBIDDEN_BYTES, MENDED.encode() * len(_FORBIDDEN_BYTES))
_NON_CHARACTERS = str.maketrans({0xFFFE: "\ufffd", 0xFFFF: "\ufffd"})


class XmlMender:
    """Mends a UTF-8 response that arrives in pieces; the pieces may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Give what can be given of the response so far."""
        return self._mend(data, final=False)

    def close(self) -> bytes:
        """Give the rest."""
        return self._mend(b"", final=True)

    def _mend(self, data: bytes, *, final: bool) -> bytes:
        pending_character = bool(self._decoder.getstate()[0])
        if pending_character or not data.isascii():
            data = self._decoder.decode(data, final).translate(_NON_CHARACTERS).encode()
        data = (self._carry + data if self._carry else data).translate(_MENDED_BYTES)
        self._carry = b""
        if not final:
            cut = data.rfind(b"&", max(0, len(data) - _LONGEST_REFERENCE))
            if cut >= 0 and _BEGUN_REFERENCE.match(data, cut):
                data, self._carry = data[:cut], data[cut:]
        return _REFERENCE.sub(_mended_reference, data) if b"&#" in data else data


def _mended_reference(match: re.Match[bytes]) -> bytes:
    digits, base = (match[1], 16) if match[1] is not None else (match[2], 10)
    digits = digits.lstrip(b"0")
    return match[0] if 1 <= len(digits) <= 8 and _is_xml_character(int(digits, base)) else _REPLACEMENT


def _is_xml_character(code: int) -> bool:
    return code in {0x9, 0xA, 0xD} or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF
