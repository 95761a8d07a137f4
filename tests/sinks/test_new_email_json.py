"""An email's line in pieces: the same bytes as those of the whole, in a bounded amount of memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, strategies as st

from ews_sync.model import Attachment, MimeBytes
from ews_sync.sinks.mime_text import mime_text
from ews_sync.sinks.new_email import json_bytes, new_email
from ews_sync.sinks.new_email_json import LONGEST_PIECE, email_pieces
from ews_sync.sinks.new_email_unicode import unicode_id
from tests.sinks.builders import an_email
from tests.sinks.messages import entities, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ews_sync.model import Email


def whole(email: Email, data: bytes) -> bytes:
    return json_bytes(new_email(email, mime_content=mime_text(data)))


@given(st.binary() | entities() | st.text().map(str.encode), st.integers(0, 40), st.integers(1, 50))
def test_the_pieces_are_the_line(data: bytes, block: int, longest: int) -> None:
    email = an_email(data=data, attachments=(Attachment("\u00e9.pdf", 1),))
    pieces = list(email_pieces(email, block=block, longest=longest))
    assert b"".join(pieces) == whole(email, data)
    assert list(email_pieces(email, block=block, longest=longest)) == pieces
    assert all(0 < len(piece) <= longest for piece in pieces)
    line = json.loads(b"".join(pieces))
    assert list(line) == ["id", "mailbox", "timestamp", "mime_content", "metadata", "attachments"]


@given(entities(), st.integers(0, 40))
def test_every_part_comes_back_out_of_the_line(data: bytes, block: int) -> None:
    line = json.loads(b"".join(email_pieces(an_email(data=data), block=block)))
    assert parts_of(line["mime_content"].encode()) == parts_of(data)


def test_a_small_email_is_one_piece() -> None:
    assert len(list(email_pieces(an_email(data=b"Subject: x\r\n\r\n" + b"body\r\n" * 4000)))) == 1


@pytest.mark.parametrize("data", [b"\x01" * 200_000, "\u2028".encode() * 50_000, b"\xff" * 100_000 + b"\n"])
def test_no_piece_is_too_long_whatever_is_in_it(data: bytes) -> None:
    pieces = list(email_pieces(an_email(data=data)))
    assert max(len(piece) for piece in pieces) <= LONGEST_PIECE
    assert b"".join(pieces) == whole(an_email(data=data), data)


def test_an_id_of_its_own() -> None:
    assert json.loads(b"".join(email_pieces(an_email("<1>"), email_id="<2>")))["id"] == "<2>"


# --- Memory ----------------------------------------------------------------------------------------------------------


class Repeated:
    """A large message that is in no memory: a beginning, and one block many times."""

    def __init__(self, beginning: bytes, block: bytes, times: int) -> None:
        self._beginning = beginning
        self._block = block
        self.size = len(beginning) + len(block) * times

    def chunks(self) -> Iterator[bytes]:
        raise NotImplementedError

    def read(self, start: int, size: int) -> bytes:
        size = min(size, self.size - start)
        head = self._beginning[start : start + size]
        offset = max(0, start - len(self._beginning)) % len(self._block)
        times = (offset + size) // len(self._block) + 1
        return (head + (self._block * times)[offset:])[:size]

    def close(self) -> None:
        """Nothing to give back."""


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
LATIN = "Gr\u00fc\u00dfe, und eine Zeile, wie sie in Briefen steht, ohne Not lang\r\n".encode("latin-1") * 500


@pytest.mark.parametrize(
    ("beginning", "block"),
    [
        (MIXED + b"Subject: a\r\n\r\n", LATIN),
        (b"Content-Type: text/plain\r\n\r\n", LATIN.replace(b"\r\n", b"  ")),
        (b"Content-Type: image/png\r\n\r\n", random.Random(1).randbytes(50_000)),
        (b"Content-Transfer-Encoding: base64\r\n\r\n", (b"QUJD" * 18 + b"\xff\r\n") * 700),
        (b"Subject: ", LATIN.replace(b"\r\n", b"  ")),
        (b"Subject: a\r\n\r\n", "\U0001f525 \u00e9\r\n".encode() * 4000),
    ],
    ids=["latin", "one line", "binary", "junk", "header", "utf-8"],
)
def test_a_large_message_takes_little_memory(beginning: bytes, block: bytes) -> None:
    email = replace(an_email(), mime=Repeated(beginning, block, 3_000_000 // len(block)))
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in email_pieces(email))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 3_000_000 * 0.95
    assert peak < 1_500_000


def test_the_repeated_message_is_what_it_says() -> None:
    data = b"beginning" + b"block" * 30
    mime = Repeated(b"beginning", b"block", 30)
    assert mime.size == len(data)
    for start in range(len(data)):
        for size in (1, 4, 13, 1000):
            assert mime.read(start, size) == MimeBytes(data).read(start, size)


# --- Half characters -------------------------------------------------------------------------------------------------


def test_half_a_character_is_replaced_in_what_people_read() -> None:
    email = an_email("<\ud83d@x>", folder=("In\udd25box", "\ud83d\udd25"), attachments=(Attachment("a\ud83d", 1),))
    line = json.loads(b"".join(email_pieces(email)))
    assert line["id"] == "<\ufffd{d83d}@x>"
    assert line["metadata"]["folder"] == ["In\ufffdbox", "\U0001f525"]
    assert line["attachments"][0]["name"] == "a\ufffd"
    json.dumps(line, ensure_ascii=False).encode()


IDS = st.text(st.sampled_from("\ud83d\udd25\ufffd{}d83\u00e9"), max_size=12)


@given(IDS, IDS)
@example("\ud83d", "\ufffd{d83d}")
def test_different_ids_stay_different(one: str, two: str) -> None:
    same = one.encode("utf-16-le", "surrogatepass") == two.encode("utf-16-le", "surrogatepass")
    assert (unicode_id(one) == unicode_id(two)) == same
    unicode_id(one).encode()


@given(st.text())
def test_an_id_in_unicode_stays_as_it_is(text: str) -> None:
    assert unicode_id(text) == text or "\ufffd{" in text
