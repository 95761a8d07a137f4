"""What both formats of local files share: the directory of a mailbox, its lock, its dead letters.

A mailbox's directory belongs to one process at a time, by `flock` on `P/state/<owner>/<bucket>/<mailbox>.lock`. The
lock file is also how a vanished volume is noticed: what is mounted away takes the lock file along, and an empty mount
point must not be filled with mail that nobody will find again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ews_sync.errors import AlreadyRunningError, StorageError
from ews_sync.sinks.dead_letters import DeadLetterFile
from ews_sync.sinks.durable import (
    FILE_MODE,
    Disk,
    flush_names,
    make_directories,
    remove_leftovers,
    try_writing,
    unmake,
)
from ews_sync.sinks.paths import data_directory, state_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ews_sync.model import Bucket, DeadLetter, Mailbox
    from ews_sync.sinks.disk_threads import DiskThreads

_P = ParamSpec("_P")
_T = TypeVar("_T")


def utc_now() -> datetime:
    """Give the wall clock's time."""
    return datetime.now(UTC)


class MailboxDirectory:
    """The directory of one mailbox's mail, and its lock. Methods block; they raise `OSError` besides what they say."""

    def __init__(self, prefix: Path, mailbox: Mailbox, disk: Disk, now: Callable[[], datetime]) -> None:
        self.path = data_directory(prefix, mailbox)
        self.temporary = self.path / ".tmp"
        self.dead_letters = DeadLetterFile(disk, self.path, now)
        self._address = mailbox.address
        self._prefix = prefix
        self._disk = disk
        self._lock_path = state_file(prefix, mailbox, ".lock")
        self._state_name = state_file(prefix, mailbox, ".json").name
        self._guard = threading.Lock()
        self._ready = False
        self._descriptor: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the lock is held."""
        return self._descriptor is not None

    def open(self) -> None:
        """Take the lock (`AlreadyRunningError`), make the directories, remove what a crash left. Again is fine."""
        with self._guard:
            if self._descriptor is None:
                make_directories(self._disk, self._lock_path.parent)
                self._descriptor = self._locked(os.O_CREAT)
            if not self._ready:
                make_directories(self._disk, self.temporary)
                for directory in (self._lock_path.parent, self.path):
                    flush_names(self._disk, directory, self._prefix)
                remove_leftovers(self._disk, self.temporary)
                remove_leftovers(self._disk, self._lock_path.parent, of=self._state_name, shared=True)
                self._ready = True
        self.verify()

    def verify(self) -> None:
        """See that the volume is still the one that was opened. `StorageError` when it is not there."""
        with self._guard:
            if self._descriptor is None:
                raise RuntimeError(f"mailbox {self._address} is not open")
            try:
                there = self._lock_path.stat(follow_symlinks=False)
            except FileNotFoundError as error:
                raise StorageError(
                    f"the lock file of mailbox {self._address} is gone",
                    code="ENOENT",
                    hint=f"see whether the volume of {self._prefix} is still mounted, "
                    "or restart if it was emptied on purpose",
                ) from error
            if os.path.samestat(there, os.fstat(self._descriptor)):
                return
            # The volume went and came back: our lock is on a file that nobody sees any more.
            renewed = self._locked(0)
            os.close(self._descriptor)
            self._descriptor = renewed

    def check(self) -> None:
        """Try that files can be written for this mailbox, and leave nothing behind."""
        made: list[Path] = []
        try:
            for directory in (self._lock_path.parent, self.temporary):
                try_writing(self._disk, directory, made)
        finally:
            unmake(made)

    def close(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        with self._guard:
            if self._descriptor is not None:
                # Whatever a network file system says of it, the descriptor is gone.
                with contextlib.suppress(OSError):
                    os.close(self._descriptor)
                self._descriptor = None

    def _locked(self, create: int) -> int:
        """Give a descriptor of the lock file that holds the lock."""
        while True:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | create
            descriptor = os.open(self._lock_path, flags, FILE_MODE)
            try:
                self._claim(descriptor)
                if os.path.samestat(self._lock_path.stat(follow_symlinks=False), os.fstat(descriptor)):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            # Somebody removed the file between our open and our lock, and it is worth nothing: take the one that is
            # there.
            os.close(descriptor)

    def _claim(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if _is_own(descriptor):
                raise StorageError(
                    f"a call to the disk for mailbox {self._address} has outlived what it was made for",
                    hint=f"this goes on once it comes back: see whether the volume of {self._prefix} answers",
                ) from error
            # In containers every process is number 1: the host's name tells them apart.
            pid, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
            holder = f"process {pid or 'unknown'}" + (f" on {host}" if host else "")
            raise AlreadyRunningError(
                f"mailbox {self._address} is already being synced into {self._prefix} by {holder}",
                hint="stop that one, or give this one another directory, other mailboxes or another shard",
            ) from error


class MailboxDirectories:
    """The mailboxes that a sink has open, each by its bucket and address."""

    def __init__(
        self, prefix: Path, threads: DiskThreads, *, disk: Disk | None, now: Callable[[], datetime] | None
    ) -> None:
        self.disk = threads.watched(disk or Disk())
        self._threads = threads
        self._prefix = prefix
        self._now = now or utc_now
        self._directories: dict[tuple[Bucket, str], MailboxDirectory] = {}

    async def open(self, mailbox: Mailbox) -> MailboxDirectory:
        """Take the mailbox's lock and make its directories. Again is fine. `AlreadyRunningError`, `StorageError`."""
        directory = self._directories.setdefault(
            mailbox_key(mailbox), MailboxDirectory(self._prefix, mailbox, self.disk, self._now)
        )
        await self.run(mailbox, f"opening mailbox {mailbox.address}", directory.open)
        return directory

    async def run(
        self, mailbox: Mailbox, doing: str, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run `function`, which is about the mailbox's files, in a thread; see `DiskThreads.run`."""
        return await self._threads.run(mailbox_key(mailbox), doing, function, *args, **kwargs)

    def opened(self, mailbox: Mailbox) -> MailboxDirectory:
        """Give the directory of an open mailbox; `RuntimeError` for any other, which is a programming error."""
        directory = self._directories.get(mailbox_key(mailbox))
        if directory is None or not directory.is_open:
            raise RuntimeError(f"mailbox {mailbox.address} is not open")
        return directory

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Record letters, each in its own mailbox's file."""
        for own in by_mailbox(letters):
            directory = self.opened(own[0].mailbox)
            await self.run(own[0].mailbox, "recording dead letters", _record, directory, own)

    async def check(self, mailbox: Mailbox) -> None:
        """Try that files can be written for the mailbox, which need not be open."""
        directory = MailboxDirectory(self._prefix, mailbox, self.disk, self._now)
        await self.run(mailbox, f"writing below {self._prefix}", directory.check)

    async def aclose(self) -> None:
        """Let what is running come to its end, and give the locks back.

        That of a mailbox on whose files a thread is stuck stays until the thread comes back, or the process ends.
        """
        await self._threads.aclose({key: directory.close for key, directory in self._directories.items()})


def mailbox_key(mailbox: Mailbox) -> tuple[Bucket, str]:
    """Give what tells mailboxes apart: the same address can feed two buckets."""
    return mailbox.bucket, mailbox.address


def by_mailbox(letters: Sequence[DeadLetter]) -> list[list[DeadLetter]]:
    """Put the letters of each mailbox together."""
    found: dict[tuple[Bucket, str], list[DeadLetter]] = {}
    for letter in letters:
        found.setdefault(mailbox_key(letter.mailbox), []).append(letter)
    return list(found.values())


def _record(directory: MailboxDirectory, letters: Sequence[DeadLetter]) -> None:
    directory.verify()
    directory.dead_letters.record(letters)
    directory.verify()


def _is_own(descriptor: int) -> bool:
    """Tell whether this very process has the file open a second time; False where the system does not say."""
    wanted = os.fstat(descriptor)
    with contextlib.suppress(OSError):
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if int(path.name) != descriptor and os.path.samestat(os.fstat(int(path.name)), wanted):
                    return True
    return False
