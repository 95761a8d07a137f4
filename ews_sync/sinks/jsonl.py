"""Mail as lines: NewEmail after NewEmail in `emails-<n>.jsonl`, as the platform's own command line client takes them.

`n` starts at 1. A file is closed once it has reached 64 MiB, and the next batch begins another. A line is there once:
what was written but is in no checkpoint is cut off when the mailbox is opened, so the sink's position is part of the
checkpoint and batches come one after the other. The position is the JSON text `{"file":3,"bytes":12345}`.

A file that has been taken away as a whole (uploaded, archived) is not missed, be it closed or not: writing goes on in
the next number. A file that is shorter than the checkpoint says is damage, and stops the mailbox.
"""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ews_sync.errors import CheckpointError
from ews_sync.model import Recall, Receipt, StartFrom
from ews_sync.sinks.disk_threads import DiskThreads
from ews_sync.sinks.durable import append
from ews_sync.sinks.mailbox_directory import MailboxDirectories, mailbox_key
from ews_sync.sinks.new_email_json import email_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from ews_sync.model import Bucket, DeadLetter, Email, Folder, ItemRef, Mailbox
    from ews_sync.sinks.disk_threads import Patience
    from ews_sync.sinks.durable import Disk
    from ews_sync.sinks.mailbox_directory import MailboxDirectory
    from ews_sync.telemetry.health import Health

FULL_FILE = 64 * 1024 * 1024
"""Bytes at which a file is closed. One batch is never spread over two files."""

_FILE_NAME = re.compile(r"emails-([1-9][0-9]*)\.jsonl", re.ASCII)
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Position:
    """The first `size` bytes of file number `file`, and all files before it, are confirmed."""

    file: int = 1
    size: int = 0

    def text(self) -> str:
        return json.dumps({"file": self.file, "bytes": self.size}, separators=(",", ":"))


class JsonlSink:
    """Appends mail to line files below `prefix`. A `Sink`; each mailbox's batches come one after the other.

    `threads` bounds how many batches are written at a time, over all mailboxes; `full_file` is the size in bytes at
    which a file is closed; `health` hears when the disk no longer answers, and `patience` says when that is.
    Errors are `StorageError` and, from `open`, `AlreadyRunningError` and `CheckpointError` (a position that does not
    fit the files). Using a mailbox that was not opened is a `RuntimeError`.
    """

    ordered: bool = True
    recall: Recall = Recall.NOTHING

    def __init__(  # noqa: PLR0913 - keyword-only: its place, and what tests hold in their hands
        self,
        prefix: Path,
        *,
        threads: int = 4,
        full_file: int = FULL_FILE,
        disk: Disk | None = None,
        now: Callable[[], datetime] | None = None,
        health: Health | None = None,
        patience: Patience | None = None,
    ) -> None:
        disk_threads = DiskThreads(prefix, threads, health=health, patience=patience)
        self._mailboxes = MailboxDirectories(prefix, disk_threads, disk=disk, now=now)
        self._full_file = full_file
        self._streams: dict[tuple[Bucket, str], _Stream] = {}

    async def open(self, mailbox: Mailbox, position: str | None) -> None:
        """Take the mailbox's lock and cut its files back to `position`.

        Without a position the mailbox starts anew. With `start_from` "bucket" the files that are there were in no
        checkpoint, or it was removed: they are set aside (`emails-<n>.jsonl.aside-<k>`), never deleted, and writing
        begins with file 1. With "config" they stay, and writing goes on behind their last whole line.
        """
        directory = await self._mailboxes.open(mailbox)
        stream = self._streams.setdefault(
            mailbox_key(mailbox), _Stream(directory, self._mailboxes.disk, self._full_file)
        )
        keep = mailbox.start_from is StartFrom.CONFIG
        opening = f"opening mailbox {mailbox.address}"
        stream.confirmed = await self._mailboxes.run(mailbox, opening, stream.go_back, position, keep=keep)

    async def put(self, batch: Sequence[Email]) -> Receipt:
        """Append emails of one mailbox and wait until they are on the disk. `Receipt.position` is behind the last."""
        if not batch:
            return Receipt()
        self._mailboxes.opened(batch[0].mailbox)
        stream = self._streams[mailbox_key(batch[0].mailbox)]
        end = await self._mailboxes.run(batch[0].mailbox, "storing mail", stream.append, batch)
        # Only here, and not in the thread: what a cancelled or failed put has written is behind the confirmed
        # position, and the next put cuts it off.
        stream.confirmed = end
        return Receipt(position=end.text())

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Record emails that could not be had, durably and once each."""
        await self._mailboxes.dead_letter(letters)

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:  # noqa: ARG002
        """Give False for each item: lines are not searched."""
        return [False] * len(refs)

    async def check(self, mailbox: Mailbox) -> None:
        """Try that the mailbox's directories can be written, and leave nothing behind."""
        await self._mailboxes.check(mailbox)

    async def aclose(self) -> None:
        """Finish what is being written and give the locks back."""
        await self._mailboxes.aclose()


class _Stream:
    """One mailbox's line files. Methods block and raise `OSError`; `confirmed` belongs to the event loop."""

    def __init__(self, directory: MailboxDirectory, disk: Disk, full_file: int) -> None:
        self.confirmed = _Position()
        self._directory = directory
        self._disk = disk
        self._full_file = full_file
        # A cancelled put runs to its end in its thread; the next one waits for it here.
        self._lock = threading.Lock()

    def append(self, batch: Sequence[Email]) -> _Position:
        """Write the batch behind the confirmed position, and give the position behind it."""
        with self._lock:
            self._directory.verify()
            at = self.confirmed
            if at.size >= self._full_file or (at.size and not self._file(at.file).exists()):
                at = _Position(at.file + 1)
            end = append(self._disk, self._file(at.file), at.size, _lines(batch))
            # A volume that went away in the middle has taken it along.
            self._directory.verify()
            return _Position(at.file, end)

    def go_back(self, position: str | None, *, keep: bool) -> _Position:
        """Cut the files back to `position`, and give where writing goes on. `CheckpointError` when it does not fit."""
        with self._lock:
            numbers = self._numbers()
            if position is not None:
                return self._cut(_parse(position), numbers)
            if not numbers:
                return _Position()
            if keep:
                last = numbers[-1]
                size = self._whole_lines(last)
                self._truncate(last, size)
                return _Position(last, size)
            self._set_aside(numbers)
            return _Position()

    def _cut(self, position: _Position, numbers: Sequence[int]) -> _Position:
        for number in numbers:
            if number > position.file:
                self._disk.remove(self._file(number))
        if numbers and numbers[-1] > position.file:
            self._disk.flush_directory(self._directory.path)
        path = self._file(position.file)
        if position.file not in numbers:
            return position if not position.size else _Position(position.file + 1)
        size = path.stat().st_size
        if size < position.size:
            raise CheckpointError(
                f"{path.name} has {size} bytes, but the mailbox's checkpoint says that {position.size} are stored",
                hint=f"restore {path}, or move it away as a whole to go on without what it held",
            )
        self._truncate(position.file, position.size)
        return position

    def _truncate(self, number: int, size: int) -> None:
        descriptor = self._disk.append(self._file(number))
        try:
            if os.fstat(descriptor).st_size != size:
                self._disk.truncate(descriptor, size)
                self._disk.flush(descriptor)
        finally:
            os.close(descriptor)

    def _set_aside(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            path = self._file(number)
            attempt = 1
            while (aside := path.with_name(f"{path.name}.aside-{attempt}")).exists():
                attempt += 1
            self._disk.rename(path, aside)
            structlog.get_logger("ews_sync.sinks").warning(
                "no checkpoint says what these lines are; they are set aside, and what they hold is stored anew",
                file=str(aside),
            )
        self._disk.flush_directory(self._directory.path)

    def _whole_lines(self, number: int) -> int:
        """Give the number of bytes up to the end of a file's last whole line."""
        with self._file(number).open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - _BLOCK)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                end = start
        return 0

    def _numbers(self) -> list[int]:
        """Give the numbers of the files that are there, in order."""
        with os.scandir(self._directory.path) as entries:
            matches = [_FILE_NAME.fullmatch(entry.name) for entry in entries]
        return sorted(int(match[1]) for match in matches if match)

    def _file(self, number: int) -> Path:
        return self._directory.path / f"emails-{number}.jsonl"


def _lines(batch: Sequence[Email]) -> Iterator[bytes]:
    """Give one line for each email, made only when it is written; of several versions of one email the last."""
    # The times are part of it because different messages can have one id: see `placement`.
    latest = {(email.id, email.timestamp, email.metadata.received_at): email for email in batch}
    for email in latest.values():
        yield from email_pieces(email)
        yield b"\n"


def _parse(text: str) -> _Position:
    try:
        value = json.loads(text)
        position = _Position(value["file"], value["bytes"])
        fits = type(position.file) is int and type(position.size) is int and position.file >= 1 and position.size >= 0
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("the position in the mailbox's line files cannot be read", hint=_RESTORE) from error
    if not fits:
        raise CheckpointError("the position in the mailbox's line files makes no sense", hint=_RESTORE)
    return position


_RESTORE = "restore the mailbox's state file from a backup, or move it away to start anew"
