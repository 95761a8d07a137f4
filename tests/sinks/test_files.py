from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import Asks, StorageError
from ews_sync.model import Folder, ItemRef
from ews_sync.sinks.durable import Disk
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.paths import data_directory
from tests.sinks.builders import FULL, MAILBOX, OTHER, RECEIVED, SENT, FaultyDisk, PowerCutError, an_email

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ews_sync.model import Email, Mailbox

SECOND = timedelta(seconds=1)


def directory(prefix: Path, mailbox: Mailbox = MAILBOX) -> Path:
    return data_directory(prefix, mailbox)


def jsons(prefix: Path) -> dict[str, Path]:
    paths = directory(prefix).rglob("*.json")
    return {json.loads(path.read_bytes())["id"]: path for path in paths}


async def put(prefix: Path, *batches: Sequence[Email]) -> None:
    sink = FileSink(prefix)
    await sink.open(MAILBOX, None)
    for batch in batches:
        await sink.put(batch)
    await sink.aclose()


async def test_paths_are_as_documented_and_the_message_is_there_byte_for_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    sent = datetime(987, 3, 31, 23, 59, tzinfo=UTC)
    await put(tmp_path, [an_email("<x@y>", data=data, sent=sent)])
    name = hashlib.sha256(b"<x@y>").hexdigest()[:32]
    base = tmp_path / "data" / "project" / "bucket" / "abc@example.com" / "0987" / "03"
    assert (base / f"{name}.eml").read_bytes() == data
    description = json.loads((base / f"{name}.json").read_bytes())
    assert description["timestamp"] == "0987-03-31T23:59:00Z"
    assert "mime_content" not in description
    assert list(description) == ["id", "mailbox", "timestamp", "metadata"]


async def test_a_message_in_pieces_is_never_asked_for_whole(tmp_path: Path) -> None:
    class Pieces:
        size = 5

        def chunks(self) -> Iterator[bytes]:
            yield from (b"1", b"", b"234", b"5")

        def close(self) -> None: ...

    email = an_email()
    object.__setattr__(email, "mime", Pieces())
    await put(tmp_path, [email])
    assert next(directory(tmp_path).rglob("*.eml")).read_bytes() == b"12345"


async def test_another_message_with_the_same_id_gets_an_id_of_its_own_and_repeats_find_theirs(tmp_path: Path) -> None:
    one = an_email("<c>", data=b"1")
    two = an_email("<c>", data=b"2", sent=SENT + SECOND, received=RECEIVED + SECOND)
    three = an_email("<c>", data=b"3", sent=SENT + 2 * SECOND, received=RECEIVED + SECOND)
    four = an_email("<c>", data=b"4", sent=SENT + 3 * SECOND, received=None)
    await put(tmp_path, [one], [two, three], [four])
    expected = {
        "<c>",
        "<c>#2020-01-01T00:00:03Z",
        "<c>#2020-01-01T00:00:03Z#2020-01-01T00:00:02Z",
        "<c>##2020-01-01T00:00:03Z",
    }
    found = jsons(tmp_path)
    assert {path.with_suffix(".eml").read_bytes() for path in found.values()} == {b"1", b"2", b"3", b"4"}
    assert found.keys() == expected
    for email_id, path in found.items():
        assert path.stem == hashlib.sha256(email_id.encode()).hexdigest()[:32]
    await put(tmp_path, [three, one], [four, two])
    assert jsons(tmp_path) == found
    assert {path.with_suffix(".eml").read_bytes() for path in found.values()} == {b"1", b"2", b"3", b"4"}


async def test_a_move_or_a_repeat_without_a_received_time_is_the_same_message(tmp_path: Path) -> None:
    await put(tmp_path, [an_email()], [an_email(folder=("Archive",), received=None)])
    assert len(jsons(tmp_path)) == 1


async def test_messages_of_one_id_put_at_the_same_time_do_not_overwrite_each_other(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, threads=8)
    await sink.open(MAILBOX, None)
    emails = [
        an_email("<c>", data=b"%d" % n, sent=SENT + n * SECOND, received=RECEIVED + n * SECOND) for n in range(40)
    ]
    await asyncio.gather(*(sink.put([email]) for email in emails))
    # Who came first differs; that everybody is there does not.
    assert {path.read_bytes() for path in directory(tmp_path).rglob("*.eml")} == {b"%d" % n for n in range(40)}
    refs = [ItemRef("i", received=e.metadata.received_at, email_id="<c>", sent=e.timestamp) for e in emails]
    assert all(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), refs))
    await sink.aclose()


async def test_a_json_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    await put(tmp_path, [an_email(data=b"1")])
    path = next(directory(tmp_path).rglob("*.json"))
    path.write_bytes(b'{"timestamp": ')
    await put(tmp_path, [an_email(data=b"2")], [an_email(data=b"2")])
    assert path.read_bytes() == b'{"timestamp": '
    assert path.with_suffix(".eml").read_bytes() == b"1"
    assert len(list(directory(tmp_path).rglob("*.eml"))) == 2


async def test_holds_wants_the_eml_too(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.put([an_email("<a>", sent=RECEIVED)])
    ref = ItemRef("i", received=RECEIVED, email_id="<a>")
    assert list(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), [ref])) == [True]
    next(directory(tmp_path).rglob("*.eml")).unlink()
    assert list(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), [ref])) == [False]
    await sink.aclose()


async def test_a_crash_at_any_moment_leaves_only_whole_emails_and_the_next_start_cleans_up(tmp_path: Path) -> None:
    batch = [an_email(f"<{number}>", data=b"x" * 100) for number in range(3)]
    dry = FaultyDisk()
    sink = FileSink(tmp_path / "dry", disk=dry)
    await sink.open(MAILBOX, None)
    opened = dry.operations
    await sink.put(batch)
    await sink.aclose()
    for fails_at in range(opened, dry.operations):
        prefix = tmp_path / str(fails_at)
        sink = FileSink(prefix, disk=FaultyDisk(fails_at))
        await sink.open(MAILBOX, None)
        with pytest.raises(PowerCutError):
            await sink.put(batch)
        await sink.aclose()
        for path in directory(prefix).rglob("*.json"):
            assert path.with_suffix(".eml").read_bytes() == b"x" * 100
        await put(prefix, batch)
        assert len(jsons(prefix)) == 3
        assert list((directory(prefix) / ".tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "summary", "hint"),
    [
        (FULL, "storing mail failed: the disk is full", "free space on the volume of"),
        (errno.EROFS, "storing mail failed: the file system is read-only", "writable"),
        (errno.EDQUOT, "storing mail failed: the disk quota is used up", "quota"),
        (errno.EACCES, "storing mail failed: permission is denied", "user"),
        (errno.EIO, "storing mail failed: the disk failed", "log"),
        (errno.ESTALE, "storing mail failed: the network file system no longer knows the file", "mount"),
        (errno.ENOENT, "storing mail failed: a directory is gone", "mounted"),
        (errno.EXDEV, "storing mail failed: Invalid cross-device link", ""),
    ],
)
async def test_what_the_disk_says_becomes_one_line_and_it_goes_on_when_it_heals(
    tmp_path: Path, number: int, summary: str, hint: str
) -> None:
    disk = FaultyDisk(0, number, only="rename")
    sink = FileSink(tmp_path, disk=disk)
    await sink.open(MAILBOX, None)
    with pytest.raises(StorageError) as caught:
        await sink.put([an_email()])
    assert caught.value.summary == summary
    assert hint in caught.value.hint
    assert caught.value.code == errno.errorcode[number]
    assert caught.value.asks is Asks.RETRY
    assert isinstance(caught.value.__cause__, OSError)
    assert "\n" not in str(caught.value)
    assert not jsons(tmp_path)
    assert list((directory(tmp_path) / ".tmp").iterdir()) == []
    disk.fails_at = -1
    await sink.put([an_email()])
    await sink.aclose()
    assert len(jsons(tmp_path)) == 1


@pytest.mark.parametrize("suffix", [".eml", ".json"])
async def test_a_directory_in_the_place_of_a_file_is_named_and_passes_when_it_is_moved_away(
    tmp_path: Path, suffix: str
) -> None:
    await put(tmp_path, [an_email()])
    path = next(iter(jsons(tmp_path).values()))
    for kind in (".eml", ".json"):
        path.with_suffix(kind).unlink()
    wrong = path.with_suffix(suffix)
    wrong.mkdir()
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    with pytest.raises(StorageError, match="a directory is where a file has to be") as caught:
        await sink.put([an_email()])
    assert caught.value.hint == f"move away what is at {wrong}"
    wrong.rmdir()
    await sink.put([an_email()])
    await sink.aclose()
    assert len(jsons(tmp_path)) == 1


async def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    year = directory(tmp_path) / "2020"
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    year.write_bytes(b"")
    with pytest.raises(StorageError, match="a file is where a directory has to be") as caught:
        await sink.put([an_email()])
    assert str(year) in caught.value.hint
    year.unlink()
    await sink.put([an_email()])
    await sink.aclose()


async def test_a_volume_that_goes_away_while_mail_is_written_confirms_nothing(tmp_path: Path) -> None:
    prefix = tmp_path / "mounted"
    prefix.mkdir()

    class Vanishing(Disk):
        gone = False

        def flush_directory(self, path: Path) -> None:
            super().flush_directory(path)
            if path.name == "01" and not self.gone and next(path.glob("*.json"), None):
                self.gone = True
                prefix.rename(tmp_path / "away")
                (directory(prefix) / "2020" / "01").mkdir(parents=True)

    sink = FileSink(prefix, disk=Vanishing())
    await sink.open(MAILBOX, None)
    with pytest.raises(StorageError, match="lock file of mailbox"):
        await sink.put([an_email()])
    await sink.aclose()


async def test_a_path_that_is_too_long_asks_for_an_operator(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, disk=FaultyDisk(0, errno.ENAMETOOLONG, only="make directory"))
    with pytest.raises(StorageError, match="a path is too long") as caught:
        await sink.open(MAILBOX, None)
    assert caught.value.asks is Asks.STOP
    await sink.aclose()


async def test_a_volume_that_goes_away_is_noticed_and_nothing_is_written_below_its_mount_point(tmp_path: Path) -> None:
    prefix = tmp_path / "mounted"
    prefix.mkdir()
    sink = FileSink(prefix)
    await sink.open(MAILBOX, None)
    prefix.rename(tmp_path / "away")
    prefix.mkdir()
    with pytest.raises(StorageError, match="still mounted"):
        await sink.put([an_email()])
    assert list(prefix.iterdir()) == []
    prefix.rmdir()
    (tmp_path / "away").rename(prefix)
    await sink.put([an_email()])
    await sink.aclose()
    assert len(jsons(prefix)) == 1


async def test_a_slow_mailbox_does_not_hold_up_another(tmp_path: Path) -> None:
    release, begun = threading.Event(), threading.Event()

    class Slow(Disk):
        def create(self, path: Path) -> int:
            if OTHER.address in str(path):
                begun.set()
                release.wait(30)
            return super().create(path)

    sink = FileSink(tmp_path, threads=2, disk=Slow())
    await sink.open(MAILBOX, None)
    await sink.open(OTHER, None)
    slow = asyncio.ensure_future(sink.put([an_email(mailbox=OTHER)]))
    await asyncio.to_thread(begun.wait, 30)
    await sink.put([an_email()])
    assert not slow.done()
    release.set()
    await slow
    await sink.aclose()


async def test_check_says_what_is_wrong_and_leaves_nothing_behind(tmp_path: Path) -> None:
    prefix = tmp_path / "new"
    sink = FileSink(prefix)
    await sink.check(MAILBOX)
    assert not prefix.exists()
    await sink.aclose()
    for only in ("make directory", "create", "flush"):
        sink = FileSink(prefix, disk=FaultyDisk(0, errno.EROFS, only=only))
        with pytest.raises(StorageError, match="read-only"):
            await sink.check(MAILBOX)
        assert not prefix.exists()
        await sink.aclose()
