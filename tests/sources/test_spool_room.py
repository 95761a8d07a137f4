"""What all messages together take of memory: never more than the room, whatever a server said of their sizes."""

from __future__ import annotations

import errno
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import Asks, Scope
from ews_sync.model import MimeBytes
from ews_sync.sources.ews.source import EwsSource
from ews_sync.sources.ews.spool import MimeFile, Room, SpoolError, SpoolWriter
from tests.engine.virtual_time import VirtualClock, run
from tests.sources.support import FOLDER, MAILBOX, cut, got, item_xml, ref, response
from tests.sources.virtual_server import Says, VirtualServer

if TYPE_CHECKING:
    from pathlib import Path

    from ews_sync.model import Mime

KIB = 1024


def test_what_has_no_room_goes_to_a_file_however_small_it_is(tmp_path: Path) -> None:
    room = Room(1000)
    messages: list[Mime] = []
    data = [os.urandom(300) for _ in range(10)]
    for whole in data:
        writer = SpoolWriter(tmp_path, room=room)
        for piece in cut(whole, 70):
            writer.write(piece)
        messages.append(writer.finish())
    assert [isinstance(mime, MimeBytes) for mime in messages] == [True] * 3 + [False] * 7
    assert [b"".join(mime.chunks()) for mime in messages] == data
    assert room.free == 100
    for mime in messages:
        mime.close()
        mime.close()
    assert room.free == 1000, "a message gives its room back, once"


def test_a_message_that_goes_to_a_file_in_its_middle_keeps_no_room(tmp_path: Path) -> None:
    room = Room(10_000)
    writer = SpoolWriter(tmp_path, in_memory=500, room=room)
    writer.write(b"a" * 400)
    assert room.free == 9600
    writer.write(b"b" * 400)
    assert room.free == 10_000
    mime = writer.finish()
    assert isinstance(mime, MimeFile)
    assert mime.read(0, 800) == b"a" * 400 + b"b" * 400
    mime.close()


@pytest.mark.parametrize("directory", ["there", "missing"])
def test_a_message_that_is_thrown_away_gives_its_room_back(tmp_path: Path, directory: str) -> None:
    (tmp_path / "there").mkdir()
    room = Room(10_000)
    writer = SpoolWriter(tmp_path / directory, in_memory=500, room=room)
    writer.write(b"a" * 400)
    if directory == "missing":
        with pytest.raises(SpoolError):
            writer.write(b"b" * 400)
    writer.discard()
    assert room.free == 10_000


def test_hundreds_of_messages_at_once_take_no_more_than_the_room(tmp_path: Path) -> None:
    """As when 200 mailboxes fetch what the server says are a few bytes, and are not."""
    piece = os.urandom(16 * KIB)
    tracemalloc.start()
    try:
        room = Room(1024 * KIB)
        writers = [SpoolWriter(tmp_path, room=room) for _ in range(200)]
        for _ in range(8):
            for writer in writers:
                # Bytes of its own for each, as they come off the wire.
                writer.write(bytes(bytearray(piece)))
        messages = [writer.finish() for writer in writers]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(mime.size for mime in messages) == 200 * 128 * KIB
    assert peak < 2 * 1024 * KIB
    for mime in messages:
        mime.close()
    assert room.free == 1024 * KIB


def test_a_directory_that_is_too_small_is_told_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = SpoolWriter(tmp_path, in_memory=10)
    monkeypatch.setattr(SpoolWriter, "_write_all", full)
    with pytest.raises(SpoolError, match="No space left on device") as caught:
        writer.write(b"x" * 100)
    writer.discard()
    assert f"temporary files go to {tmp_path}, which has " in caught.value.hint
    assert "MiB in all: make it larger than the largest messages" in caught.value.hint


def test_a_message_that_cannot_be_kept_is_the_trouble_of_its_folder_alone(tmp_path: Path) -> None:
    """The other folders of the mailbox, in which there are none so large, can go on."""

    async def scene() -> tuple[SpoolError, int]:
        server = VirtualServer(lambda _: Says(response("GetItem", got(item_xml("a")), got(item_xml("b")))))
        nowhere = tmp_path / "nowhere"
        source = EwsSource(
            server.connect(),
            VirtualClock(),
            impersonate=True,
            account="svc",
            new_writer=lambda: SpoolWriter(nowhere, in_memory=1),
        )
        with pytest.raises(SpoolError) as caught:
            await source.fetch(MAILBOX, FOLDER, [ref("a"), ref("b")])
        return caught.value, len(server.started)

    error, requests = run(scene())
    assert (error.scope, error.asks) == (Scope.FOLDER, Asks.RETRY)
    assert requests == 1, "no use in asking again for what cannot be kept"
