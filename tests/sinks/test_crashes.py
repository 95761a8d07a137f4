"""Every operation on the disk, for every method of a sink: a fault at each in turn, and a crash at each in turn.

What is in the end, or after the restart, on the disk: whatever has a `.json` is whole, nothing that was confirmed is
missing, lines are whole and once, and a checkpoint is the old one or the new one.
"""

from __future__ import annotations

import errno
import json
import random
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

from ews_sync.errors import Asks, StorageError
from ews_sync.model import Folder, FolderCheckpoint, ItemRef, MailboxCheckpoint
from ews_sync.sinks.durable import Disk
from ews_sync.sinks.file_checkpoints import FileCheckpointStore
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.jsonl import JsonlSink
from ews_sync.sinks.paths import data_directory
from tests.sinks.builders import MAILBOX, RECEIVED, SENT, PowerCutError, a_letter, an_email
from tests.sinks.crashes import CrashingDisk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from ews_sync.model import DeadLetter, Email

    Work = tuple[Email, ...] | DeadLetter
    Found = tuple[str, tuple[str, ...], str]

T = TypeVar("T")

ERRORS = (
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENOTCONN,
    errno.EMFILE, errno.EFBIG, errno.EUCLEAN, errno.EBUSY, errno.ENOMEM,
)  # fmt: skip
STATES = 2
"""How many states after each crash are looked at, besides the one in which only what is safe is left."""


def later(email_id: str, folder: str = "Inbox") -> Email:
    return an_email(email_id, folder=(folder,), sent=SENT + timedelta(days=40), data=f"x: {email_id}\n\n".encode())


WORK: tuple[Work, ...] = (
    (an_email("<1>", data=b"one"), an_email("<2>", data=b"two")),
    a_letter("letter 1"),
    (later("<3>"), an_email("<1>", data=b"one", folder=("Archive",))),
    (later("<4>"),),
)
"""A move, another month, and a letter in between."""


class Unflushed(Disk):
    """A disk that does not wait: what is looked at has been through its crash already."""

    def flush(self, descriptor: int) -> None: ...

    def flush_directory(self, path: Path) -> None: ...


@dataclass
class Process:
    """The appliance's way with a sink: put, then save how far it is; what fails is tried again."""

    kind: type[FileSink | JsonlSink]
    prefix: Path
    disk: Disk
    confirmed: int = 0
    """How much of the work is confirmed."""
    saving: int = 0
    """How much of it is confirmed according to the last checkpoint that was given to be saved, and the last saved."""
    saved: int = 0
    began_at: int = 0
    errors: list[StorageError] = field(default_factory=list)

    async def run(self) -> None:
        """Do the work from where the checkpoint says. A power cut leaves everything as it is."""
        lines = self.kind is JsonlSink
        sink = JsonlSink(self.prefix, disk=self.disk, full_file=400) if lines else FileSink(self.prefix, disk=self.disk)
        store = FileCheckpointStore(self.prefix, disk=self.disk)
        try:
            checkpoint = await self._patiently(lambda: store.load(MAILBOX))
            position = checkpoint.sink_position
            self.began_at = self.confirmed = self.saving = self.saved = steps_of(checkpoint)
            await self._patiently(lambda: sink.open(MAILBOX, position))
            for work in WORK[self.saved :]:
                position = await self._patiently(partial(store_one, sink, work)) or position
                self.confirmed = self.saving = self.saving + 1
                await self._patiently(partial(store.save, MAILBOX, checkpoint_of(self.saving, position)))
                self.saved = self.saving
        finally:
            await store.aclose()
            await sink.aclose()

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await step()
            except StorageError as error:
                self.errors.append(error)
                assert len(self.errors) < 10, "it does not heal"
                if isinstance(self.disk, CrashingDisk):
                    self.disk.fails_at = -1


async def store_one(sink: FileSink | JsonlSink, work: Work) -> str | None:
    if isinstance(work, tuple):
        return (await sink.put(work)).position
    await sink.dead_letter([work])
    return None


def checkpoint_of(steps: int, position: str | None) -> MailboxCheckpoint:
    return MailboxCheckpoint({"f": FolderCheckpoint("f", ("Inbox",), cursor=str(steps))}, position)


def steps_of(checkpoint: MailboxCheckpoint) -> int:
    return int(checkpoint.folders["f"].cursor or 0) if checkpoint.folders else 0


# --- What is there ---------------------------------------------------------------------------------------------------


def emails_of(work: Sequence[Work]) -> list[Found]:
    """Give the emails of some of the work, in order: id, folder, content."""
    batches = [batch for batch in work if isinstance(batch, tuple)]
    return [
        (email.id, email.metadata.folder, b"".join(email.mime.chunks()).decode())
        for batch in batches
        for email in batch
    ]


def letters_of(work: Sequence[Work]) -> list[str]:
    return [letter.item_id for letter in work if not isinstance(letter, tuple)]


def files(prefix: Path) -> list[Found]:
    """Give what has a `.json`; what has no `.eml` beside it, or cannot be read, is an error."""
    found = []
    for path in data_directory(prefix, MAILBOX).rglob("*.json"):
        description = json.loads(path.read_bytes())
        content = path.with_suffix(".eml").read_bytes().decode()
        found.append((description["id"], tuple(description["metadata"]["folder"]), content))
    return found


def lines(prefix: Path) -> list[Found]:
    """Give what stands in whole lines."""
    paths = data_directory(prefix, MAILBOX).glob("emails-*.jsonl")
    data = b"".join(path.read_bytes() for path in sorted(paths))
    emails = []
    for line in data.split(b"\n")[:-1]:
        try:
            email = json.loads(line)
        except ValueError:
            break
        emails.append((email["id"], tuple(email["metadata"]["folder"]), email["mime_content"]))
    return emails


def letters(prefix: Path) -> list[str]:
    path = data_directory(prefix, MAILBOX) / "dead-letters.jsonl"
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            found.append(json.loads(line)["id"])
        except ValueError:
            break
    return found


def must_be_whole(kind: type[FileSink | JsonlSink], prefix: Path, confirmed: int) -> None:
    """See, before anything is mended, that what was confirmed is there, and nothing torn passes for an email."""
    assert letters(prefix)[: len(letters_of(WORK[:confirmed]))] == letters_of(WORK[:confirmed])
    if kind is JsonlSink:
        expected = emails_of(WORK[:confirmed])
        assert lines(prefix)[: len(expected)] == expected
        return
    found, all_of_it = files(prefix), emails_of(WORK)
    contents = {(email_id, content) for email_id, _, content in all_of_it}
    for email_id, folder, content in found:
        # While a newer version is under way its message may be there before its description.
        assert (email_id, content) in contents
        assert (email_id, folder) in {(one, where) for one, where, _ in all_of_it}
    versions = {email_id: folder for email_id, folder, _ in emails_of(WORK[:confirmed])}
    newer = {(email_id, folder) for email_id, folder, _ in emails_of(WORK[confirmed:])}
    stored = {email_id: folder for email_id, folder, _ in found}
    for email_id, folder in versions.items():
        assert stored.get(email_id) == folder or (email_id, stored.get(email_id)) in newer, "confirmed, and gone"


def must_be_complete(kind: type[FileSink | JsonlSink], prefix: Path) -> None:
    """See that all of the work is there, once."""
    assert letters(prefix) == letters_of(WORK)
    if kind is JsonlSink:
        assert lines(prefix) == emails_of(WORK)
    else:
        latest = {email_id: (email_id, folder, content) for email_id, folder, content in emails_of(WORK)}
        assert sorted(files(prefix)) == sorted(latest.values())


# --- The tests -------------------------------------------------------------------------------------------------------


def fresh(directory: Path) -> Path:
    directory.mkdir()
    return directory


async def operations(kind: type[FileSink | JsonlSink], prefix: Path) -> int:
    disk = CrashingDisk(fresh(prefix))
    await Process(kind, prefix, disk).run()
    must_be_complete(kind, prefix)
    return disk.operations


@pytest.mark.parametrize("kind", [FileSink, JsonlSink])
async def test_after_a_power_cut_at_any_moment_all_that_was_confirmed_is_there_and_no_checkpoint_is_ahead_of_it(
    tmp_path: Path, kind: type[FileSink | JsonlSink]
) -> None:
    for number in range(await operations(kind, tmp_path / "dry")):
        prefix = fresh(tmp_path / str(number))
        disk = CrashingDisk(prefix, number)
        before = Process(kind, prefix, disk)
        with pytest.raises(PowerCutError):
            await before.run()
        for state in range(STATES + 1):
            after = tmp_path / f"{number}-{state}"
            disk.after_crash(after, random.Random(f"{number}-{state}") if state else None)
            must_be_whole(kind, after, before.confirmed)
            again = Process(kind, after, Unflushed())
            await again.run()
            assert again.began_at in {before.saved, before.saving}, "the old checkpoint, or the new one"
            assert again.began_at <= before.confirmed
            must_be_complete(kind, after)
            assert list(after.rglob(".tmp-*")) == [], "what the crash left is removed"


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("kind", [FileSink, JsonlSink])
async def test_whatever_the_disk_says_at_any_operation_it_goes_on_when_it_heals(
    tmp_path: Path, kind: type[FileSink | JsonlSink], *, once: bool
) -> None:
    failed = 0
    for number in range(await operations(kind, tmp_path / "dry")):
        error = ERRORS[(number + once) % len(ERRORS)]
        prefix = fresh(tmp_path / str(number))
        disk = CrashingDisk(prefix, number, error, once=once)
        process = Process(kind, prefix, disk)
        await process.run()
        failed += bool(process.errors)
        assert all(one.code == errno.errorcode[error] and one.asks is Asks.RETRY for one in process.errors)
        must_be_complete(kind, prefix)
        # Nothing of what failed may be taken for done: with a power cut now all of it is still there.
        disk.after_crash(tmp_path / f"{number}-after", None)
        must_be_complete(kind, tmp_path / f"{number}-after")
    assert failed > 50


async def test_what_a_killed_process_left_counts_as_stored_only_once_it_is_on_the_disk(tmp_path: Path) -> None:
    folder = Folder("f", ("Inbox",))
    refs = [
        ItemRef(email.id, received=RECEIVED, email_id=email.id, sent=email.timestamp)
        for batch in WORK
        if isinstance(batch, tuple)
        for email in batch
    ]
    held = 0
    for number in range(await operations(FileSink, tmp_path / "dry")):
        prefix = fresh(tmp_path / str(number))
        disk = CrashingDisk(prefix, number)
        with pytest.raises(PowerCutError):
            await Process(FileSink, prefix, disk).run()
        # Only the process is gone: what it has written is still there for all to see.
        disk.fails_at = -1
        sink = FileSink(prefix, disk=disk)
        await sink.open(MAILBOX, None)
        claimed = {
            ref.email_id for ref, holds in zip(refs, await sink.holds(MAILBOX, folder, refs), strict=True) if holds
        }
        await sink.aclose()
        held += len(claimed)
        after = tmp_path / f"{number}-after"
        disk.after_crash(after, None)
        assert claimed <= {email_id for email_id, _, _ in files(after)}
    assert held > 0


@pytest.mark.parametrize("kind", [FileSink, JsonlSink])
async def test_a_power_cut_after_a_kill_and_a_restart_takes_nothing(
    tmp_path: Path, kind: type[FileSink | JsonlSink]
) -> None:
    for number in range(await operations(kind, tmp_path / "dry")):
        prefix = fresh(tmp_path / str(number))
        disk = CrashingDisk(prefix, number)
        with pytest.raises(PowerCutError):
            await Process(kind, prefix, disk).run()
        # What the first process has written and not flushed is there for the second one to see, and to rely on.
        disk.fails_at = -1
        await Process(kind, prefix, disk).run()
        disk.after_crash(tmp_path / f"{number}-after", None)
        must_be_complete(kind, tmp_path / f"{number}-after")
