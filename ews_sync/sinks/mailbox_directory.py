"""What both formats of local files share: threads, the directory of a mailbox, its lock, its dead letters.

A mailbox's directory belongs to one process at a time, by `flock` on `P/state/<owner>/<bucket>/<mailbox>.lock`. The
lock file is also how a vanished volume is noticed: what is mounted away takes the lock file along, and an empty mount
point must not be filled with mail that nobody will find again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ews_sync.errors import AlreadyRunningError, StorageError
from ews_sync.sinks.dead_letters import DeadLetterFile
from ews_sync.sinks.durable import FILE_MODE, Disk, make_directories, remove_leftovers, try_writing, unmake
from ews_sync.sinks.paths import data_directory, state_file
from ews_sync.sinks.storage_errors import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ews_sync.model import Bucket, DeadLetter, Mailbox

_P = ParamSpec("_P")
_T = TypeVar("_T")


def utc_now() -> datetime:
    """Give the wall clock's time."""
    return datetime.now(UTC)


class DiskThreads:
    """A bounded number of threads for what blocks on a disk, and the place where `OSError` becomes `StorageError`."""

    def __init__(self, prefix: Path, threads: int) -> None:
        self._prefix = prefix
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="disk")

    async def run(self, doing: str, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run `function` in a thread. `doing` says in an error what failed. If cancelled, the thread still finishes."""
        call = partial(function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except OSError as error:
            raise storage_error(error, doing, self._prefix) from error

    async def aclose(self) -> None:
        """Wait for what is running and end the threads."""
        await asyncio.to_thread(self._executor.shutdown)


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
        self._guard = threading.Lock()
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
                make_directories(self._disk, self.temporary)
                remove_leftovers(self._disk, self.temporary)
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
            # In containers every process is number 1: the host's name tells them apart.
            pid, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
            holder = f"process {pid or 'unknown'}" + (f" on {host}" if host else "")
            raise AlreadyRunningError(
                f"mailbox {self._address} is already being synced into {self._prefix} by {holder}",
                hint="stop that one, or give this one another directory, other mailboxes or another shard",
            ) from error


class MailboxDirectories:
    """The mailboxes that a sink has open, each by its bucket and address."""

    def __init__(self, prefix: Path, *, threads: int, disk: Disk | None, now: Callable[[], datetime] | None) -> None:
        self.disk = disk or Disk()
        self.threads = DiskThreads(prefix, threads)
        self._prefix = prefix
        self._now = now or utc_now
        self._directories: dict[tuple[Bucket, str], MailboxDirectory] = {}

    async def open(self, mailbox: Mailbox) -> MailboxDirectory:
        """Take the mailbox's lock and make its directories. Again is fine. `AlreadyRunningError`, `StorageError`."""
        directory = self._directories.setdefault(
            mailbox_key(mailbox), MailboxDirectory(self._prefix, mailbox, self.disk, self._now)
        )
        await self.threads.run(f"opening mailbox {mailbox.address}", directory.open)
        return directory

    def opened(self, mailbox: Mailbox) -> MailboxDirectory:
        """Give the directory of an open mailbox; `RuntimeError` for any other, which is a programming error."""
        directory = self._directories.get(mailbox_key(mailbox))
        if directory is None or not directory.is_open:
            raise RuntimeError(f"mailbox {mailbox.address} is not open")
        return directory

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Record letters, each in its own mailbox's file."""
        by_directory: dict[MailboxDirectory, list[DeadLetter]] = {}
        for letter in letters:
            by_directory.setdefault(self.opened(letter.mailbox), []).append(letter)
        for directory, own in by_directory.items():
            await self.threads.run("recording dead letters", _record, directory, own)

    async def check(self, mailbox: Mailbox) -> None:
        """Try that files can be written for the mailbox, which need not be open."""
        directory = MailboxDirectory(self._prefix, mailbox, self.disk, self._now)
        await self.threads.run(f"writing below {self._prefix}", directory.check)

    async def aclose(self) -> None:
        """Let what is running finish, then give the locks back."""
        await self.threads.aclose()
        for directory in self._directories.values():
            directory.close()


def mailbox_key(mailbox: Mailbox) -> tuple[Bucket, str]:
    """Give what tells mailboxes apart: the same address can feed two buckets."""
    return mailbox.bucket, mailbox.address


def _record(directory: MailboxDirectory, letters: Sequence[DeadLetter]) -> None:
    directory.verify()
    directory.dead_letters.record(letters)
