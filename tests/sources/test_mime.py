"""A message's bytes: from base64 on the wire to memory or a temporary file."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.errors import Asks, Scope
from ews_sync.model import MimeBytes
from ews_sync.sources.ews.mime import Base64Reader, MemoryWriter
from ews_sync.sources.ews.spool import MimeFile, SpoolError, SpoolWriter
from tests.sources.support import cut, got, item_xml, read, response

if TYPE_CHECKING:
    from pathlib import Path


def decode(pieces: list[str]) -> bytes | None:
    reader = Base64Reader(MemoryWriter())
    for piece in pieces:
        reader.feed(piece)
    mime = reader.finish()
    assert reader.damaged is (mime is None)
    return b"".join(mime.chunks()) if mime is not None else None


def pieces_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@given(st.binary(max_size=300), st.integers(1, 80), st.integers(1, 20), st.sampled_from(["\n", "\r\n", " ", "\t\r\n"]))
def test_what_was_encoded_comes_back_with_any_breaks_and_cuts(data: bytes, line: int, size: int, eol: str) -> None:
    text = eol.join(["", *pieces_of(base64.b64encode(data).decode(), line), ""])
    assert decode(pieces_of(text, size)) == data


@pytest.mark.parametrize(
    "text", ["SGk", "SGk=x", "SGk==", "S=Gk", "SGk=SGk=", "SG!k", "SGkü", "====", "=", "SGk=\n=", "SGkA\ufffd", "SG-_"]
)
def test_damage_is_seen_wherever_the_cuts_are(text: str) -> None:
    for size in range(1, len(text) + 1):
        assert decode(pieces_of(text, size)) is None


@given(st.text(alphabet="SGkA=+/ \n-!ü", max_size=16), st.integers(1, 6))
def test_the_cuts_make_no_difference(text: str, size: int) -> None:
    assert decode(pieces_of(text, size)) == decode([text])


def test_a_damaged_message_costs_neither_its_neighbours_nor_its_properties() -> None:
    bad = item_xml("bad").replace("<t:MimeContent>", "<t:MimeContent>!")
    first, second = read(response("GetItem", got(bad), got(item_xml("good")))).messages
    assert (first.items[0].mime, first.items[0].mime_damaged, first.items[0].ref.id) == (None, True, "bad")
    assert second.items[0].mime is not None


class Counting(SpoolWriter):
    """Writers that know which of them are still open."""

    made: list[Counting]

    def __init__(self) -> None:
        super().__init__(in_memory=4)
        self.made.append(self)


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    made: list[Counting] = []
    monkeypatch.setattr(Counting, "made", made, raising=False)
    return made


def all_closed(writers: list[Counting]) -> bool:
    return all(writer._file is None or writer._file.closed for writer in writers)


def test_an_answer_that_breaks_off_anywhere_leaves_no_file_open(writers: list[Counting]) -> None:
    data = response("GetItem", got(item_xml("a", b"long enough")), got(item_xml("b", b"long enough")))
    for end in range(0, len(data) - 1, 3):
        with pytest.raises(Exception, match=r"cut short|was empty"):
            read(data[:end], Counting)
    assert writers
    assert all_closed(writers)


@pytest.mark.parametrize(
    "item",
    [
        item_xml("a", b"long enough").replace("</t:Message>", "<t:MimeContent>AAAAAAAA</t:MimeContent></t:Message>"),
        item_xml("a", b"long enough").replace(
            "<t:MimeContent>", "<t:MimeContent><t:MimeContent>AAAAAAAA</t:MimeContent>"
        ),
        item_xml("a", b"long enough").replace("t:Message>", "m:Message>"),
    ],
    ids=["two of them", "one in the other", "in no item"],
)
def test_messages_where_none_belong_leave_no_file_open(item: str, writers: list[Counting]) -> None:
    answer = read(response("GetItem", got(item)), Counting)
    for found in answer.messages[0].items:
        if found.mime is not None:
            found.mime.close()
    assert all_closed(writers)


def test_twenty_megabytes_take_no_memory(tmp_path: Path) -> None:
    block = random.Random(1).randbytes(3 * 65536)
    text = base64.b64encode(block)
    head, _, tail = response("GetItem", got(item_xml(mime=b""))).partition(b"</t:MimeContent>")

    def pieces() -> list[bytes]:
        return [head, *[text] * 107, b"</t:MimeContent>", tail]

    tracemalloc.start()
    try:
        answer = read(pieces(), lambda: SpoolWriter(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    mime = answer.messages[0].items[0].mime
    assert mime is not None
    assert mime.size == 107 * len(block) > 20_000_000
    # The part that is kept in memory before the file is begun, twice, and the pieces on their way.
    assert peak < 8 * 1024 * 1024
    assert b"".join(mime.chunks()) == block * 107
    mime.close()


# --- The spool -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "kind"), [(0, MimeBytes), (100, MimeBytes), (101, MimeFile), (5000, MimeFile)])
def test_what_is_larger_than_the_threshold_goes_to_a_file(size: int, kind: type, tmp_path: Path) -> None:
    data = os.urandom(size)
    writer = SpoolWriter(tmp_path, in_memory=100)
    for piece in cut(data, 33):
        writer.write(piece)
    mime = writer.finish()
    assert isinstance(mime, kind)
    assert mime.size == size
    assert b"".join(mime.chunks()) == data
    assert b"".join(mime.chunks()) == data
    assert list(tmp_path.iterdir()) == []
    mime.close()
    mime.close()


def test_two_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    data = os.urandom(700_000)
    writer = SpoolWriter(tmp_path, in_memory=10)
    writer.write(data)
    mime = writer.finish()
    one, two = mime.chunks(), mime.chunks()
    first = next(one)
    assert len(first) < len(data)
    assert b"".join(two) == data
    assert first + b"".join(one) == data
    mime.close()


@pytest.mark.parametrize("in_memory", [0, 10_000], ids=["in a file", "in memory"])
def test_any_part_of_it_can_be_read(tmp_path: Path, in_memory: int) -> None:
    data = os.urandom(1000)
    writer = SpoolWriter(tmp_path, in_memory=in_memory)
    writer.write(data)
    mime = writer.finish()
    for start, size in ((0, 1000), (0, 0), (1, 2), (990, 10), (990, 11), (1000, 5), (2000, 1)):
        assert mime.read(start, size) == data[start : start + size]
    mime.close()


def test_a_file_that_lost_its_end_is_an_error_and_no_shorter_message(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, in_memory=0)
    writer.write(bytes(1000))
    file = writer._file
    assert file is not None
    mime = writer.finish()
    file.truncate(600)
    assert mime.read(0, 600) == bytes(600)
    with pytest.raises(OSError, match="ends after 600 of 1000 bytes"):
        mime.read(500, 200)
    with pytest.raises(OSError, match="ends after 600 of 1000 bytes"):
        list(mime.chunks())
    mime.close()


def test_a_writer_that_is_thrown_away_closes_its_file(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, in_memory=1)
    writer.write(b"abc")
    file = writer._file
    assert file is not None
    writer.discard()
    assert file.closed


def test_a_directory_that_is_not_there_is_our_error(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "missing", in_memory=1)
    with pytest.raises(SpoolError, match="No such file") as caught:
        writer.write(b"abc")
    writer.discard()
    assert (caught.value.asks, caught.value.scope) == (Asks.RETRY, Scope.PROCESS)
    assert str(tmp_path / "missing") in caught.value.hint


FULL = """
import resource, signal, sys
from pathlib import Path
from ews_sync.sources.ews.spool import SpoolError, SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
writer = SpoolWriter(Path(sys.argv[1]), in_memory=10)
try:
    for _ in range(100):
        writer.write(b"x" * 10_000)
except SpoolError as error:
    writer.discard()
    print(error)
"""


def test_a_full_disk_is_our_error(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own words
    assert done.stdout.startswith("cannot keep a message in a temporary file: File too large")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_message_that_is_closed_lets_go_of_its_bytes() -> None:
    """Whoever still knows of it, such as a cycle that the collector has not come to, must not keep it in memory."""
    writer = SpoolWriter()
    writer.write(b"x" * 1000)
    mime = writer.finish()
    mime.close()
    assert mime.size == 0
    assert writer._pieces == []
