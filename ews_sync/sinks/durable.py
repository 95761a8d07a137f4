"""Files that are whole or not there, whatever happens: written beside, flushed, and only then given their name.

Everything here blocks and belongs in a thread. `OSError` passes through; whoever knows what was being done makes it
ours (see `storage_errors`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ews_sync.sinks.pieces import gathered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TEMPORARY = ".tmp-"
"""What the name of every temporary file begins with. No name from outside can: see `paths`."""

# Mail is confidential: the group may read (a backup, an operator), nobody else.
FILE_MODE = 0o640
DIRECTORY_MODE = 0o750

_ATTEMPTS = 20

# How many files are open at once. A process has 1024 descriptors by default, and sockets need theirs.
_OPEN_FILES = 64

_BLOCK = 128 * 1024
"""Bytes that are put together before they are appended."""


class Disk:
    """The file operations that durability is made of, one method each, so that a test can fail or stop at any."""

    def create(self, path: Path) -> int:
        """Make a new file and give its descriptor; a link or file that is there already is an error."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, FILE_MODE)

    def append(self, path: Path) -> int:
        """Open a file to write at its end, making it where it is not there, and give its descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, FILE_MODE)

    def read(self, path: Path) -> bytes:
        """Read a file as a whole."""
        return path.read_bytes()

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def start_flush(self, descriptor: int) -> None:
        """Let the system begin to write the file out, without waiting for it."""
        # On Linux this advice starts the write-out of dirty pages. With all files of a batch under way before the first
        # fsync, one journal commit covers many: measured at twice the emails a second. It also keeps mail that nobody
        # will read soon from pushing other things out of the page cache. It is advice: a refusal changes nothing.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def flush(self, descriptor: int) -> None:
        """Wait until the file is on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what has it."""
        os.replace(source, target)  # noqa: PTH105 - Path's makes another path, which takes longer than to rename

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        target.hardlink_to(source)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is fine."""
        path.unlink(missing_ok=True)

    def flush_directory(self, path: Path) -> None:
        """Wait until the names in a directory are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(self, path: Path) -> None:
        """Make one directory, whose parent is there."""
        path.mkdir(mode=DIRECTORY_MODE)


def make_directories(disk: Disk, path: Path) -> list[Path]:
    """Make `path` and the parents that it lacks, durably. Gives those that were made, outermost first."""
    missing = []
    current = path
    while not current.is_dir():
        missing.append(current)
        if current.parent == current:
            break
        current = current.parent
    made: list[Path] = []
    for directory in reversed(missing):
        try:
            disk.make_directory(directory)
        except FileExistsError:
            # Somebody else was faster (a mailbox of the same bucket). Theirs counts; a file in its place does not.
            if not directory.is_dir():
                raise
        else:
            made.append(directory)
        # Also where somebody else made it: whether they have flushed the name by now is not known here.
        disk.flush_directory(directory.parent)
    return made


def flush_names(disk: Disk, directory: Path, root: Path) -> None:
    """Make the names of `directory` and of all above it, up to those in `root`, durable.

    A directory that is there need not be durable: a process that was killed, or a flush that failed, may have left it.
    """
    disk.flush_directory(directory)
    for above in directory.parents:
        if not above.is_relative_to(root):
            break
        disk.flush_directory(above)


def try_writing(disk: Disk, directory: Path, made: list[Path]) -> None:
    """Try that files can be written in a directory; those that have to be made for it are added to `made`."""
    probe = directory / f"{TEMPORARY}probe-{os.getpid()}-{threading.get_ident()}"
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            made += make_directories(disk, directory)
            write_all(disk, directory, [[(probe, [b"probe\n"])]])
        except FileNotFoundError:
            # Somebody else who only tried has just removed a directory that both had to make.
            if not attempts_left:
                raise
        else:
            return
        finally:
            with contextlib.suppress(OSError):
                disk.remove(probe)


def unmake(made: Sequence[Path]) -> None:
    """Remove directories that were made to try something, given outermost first."""
    for directory in reversed(made):
        # Not empty any more: somebody has begun to use it, and so it stays.
        with contextlib.suppress(OSError):
            directory.rmdir()


def write_all(disk: Disk, temporary: Path, stages: Sequence[Sequence[tuple[Path, Iterable[bytes]]]]) -> None:
    """Write files, each whole or not at all, replacing what has their names. `OSError` when it cannot be done.

    Each file is its path and its bytes in pieces. The files of a stage get their names, durably, only after those of
    the stages before; within one stage the order is open. `temporary` is a directory on the same file system for what
    is not finished; it is made where it is missing, and so are the files' own, whose names below the directory that it
    is in are durable in the end.
    """
    root = temporary.parent
    make_directories(disk, temporary)
    fresh = _temporary_names(temporary)
    waiting: list[list[tuple[Path, Path]]] = []
    try:
        for stage in stages:
            waiting.append([])
            _write_temporary(disk, fresh, stage, waiting[-1])
        made: set[Path] = set()
        for renames in waiting:
            # By their text, which is there for the rename anyway: to compare that many paths takes longer.
            touched = {Path(name) for name in {os.path.dirname(target) for _, target in renames}}  # noqa: PTH120
            for directory in touched - made:
                make_directories(disk, directory)
            made |= touched
            renames.reverse()
            while renames:
                source, target = renames[-1]
                disk.rename(source, target)
                renames.pop()
            for directory in touched:
                disk.flush_directory(directory)
        for above in {above for directory in made for above in directory.parents if above.is_relative_to(root)}:
            disk.flush_directory(above)
    except BaseException:
        for source, _ in (rename for renames in waiting for rename in renames):
            with contextlib.suppress(OSError):
                disk.remove(source)
        raise


def replace(disk: Disk, path: Path, data: bytes, *, spare: str) -> None:
    """Write one file whole or not at all; what it replaces stays under its name and the suffix `spare`. `OSError`.

    Only one at a time for one path: the temporary names are made of the file's own, so that a crash leaves at most
    two, and the next call removes them. The directory must be there.
    """
    fresh = path.with_name(TEMPORARY + path.name)
    old = path.with_name(TEMPORARY + path.name + spare)
    try:
        disk.remove(fresh)
        descriptor = disk.create(fresh)
        try:
            disk.write(descriptor, data)
            disk.flush(descriptor)
        finally:
            os.close(descriptor)
        disk.remove(old)
        # No file yet, or no hard links here: the spare is a convenience, what matters is the file itself.
        with contextlib.suppress(OSError):
            disk.link(path, old)
            disk.rename(old, path.with_name(path.name + spare))
            # When both are names of one file already, a rename leaves both.
            disk.remove(old)
        disk.rename(fresh, path)
        disk.flush_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(fresh)
        raise


def append(disk: Disk, path: Path, end: int, pieces: Iterable[bytes]) -> int:
    """Write `pieces` durably behind the first `end` bytes of a file, cutting off what else is there. Gives the new end.

    The file is made where `end` is 0 and it is missing. When it fails (`OSError`) the file is cut back at once if it
    can be; whether or not that worked, the next call with the same `end` does it again.
    """
    make_directories(disk, path.parent)
    descriptor = disk.append(path)
    try:
        size = os.fstat(descriptor).st_size
        if size < end:
            raise OSError(errno.EIO, "the file is shorter than what was written to it")
        if size > end:
            disk.truncate(descriptor, end)
        new_end = end
        try:
            # With a write for each line, a thread lets go of the interpreter as often, and has to get it back.
            for block in gathered(pieces, _BLOCK):
                disk.write(descriptor, block)
                new_end += len(block)
            disk.flush(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                disk.truncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
    if end == 0:
        disk.flush_directory(path.parent)
    return new_end


def remove_leftovers(disk: Disk, directory: Path, *, of: str = "", shared: bool = False) -> int:
    """Remove the temporary files in `directory` (not below) that a crash left; tell how many there were.

    In a directory that is `shared` those of `replace` stay for other files than the one named `of`.
    """
    removed = 0
    for path in _listing(directory):
        if not path.name.startswith(TEMPORARY):
            continue
        if not shared or path.suffix == "" or (of and path.name.startswith(TEMPORARY + of)):
            disk.remove(path)
            removed += 1
    return removed


def _listing(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield directory / entry.name
    except FileNotFoundError:
        return


def _write_temporary(
    disk: Disk, fresh: Iterator[Path], files: Iterable[tuple[Path, Iterable[bytes]]], renames: list[tuple[Path, Path]]
) -> None:
    """Write `files` under `fresh` names, which are added to `renames`, and flush them."""
    descriptors: list[int] = []
    try:
        for target, chunks in files:
            source = next(fresh)
            descriptor = disk.create(source)
            descriptors.append(descriptor)
            renames.append((source, target))
            for chunk in chunks:
                disk.write(descriptor, chunk)
            disk.start_flush(descriptor)
            if len(descriptors) == _OPEN_FILES:
                _flush_and_close(disk, descriptors)
        _flush_and_close(disk, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _flush_and_close(disk: Disk, descriptors: list[int]) -> None:
    while descriptors:
        disk.flush(descriptors[-1])
        os.close(descriptors.pop())


def _temporary_names(directory: Path) -> Iterator[Path]:
    """Yield names that nobody else has."""
    start = f"{TEMPORARY}{secrets.token_hex(8)}"
    return (directory / f"{start}-{number}" for number in itertools.count())
