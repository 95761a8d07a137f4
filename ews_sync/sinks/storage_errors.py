"""What the operating system says about a disk, as our errors: one line, and what to do about it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ews_sync.errors import Asks, StorageError

if TYPE_CHECKING:
    from pathlib import Path

# errno → what it means here, and what an operator can do. All but the last two can heal while the appliance waits.
_MEANINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free space on the volume of {path}, or inodes (df -i)"),
    errno.EDQUOT: ("the disk quota is used up", "raise the quota or free space on the volume of {path}"),
    errno.EROFS: ("the file system is read-only", "mount the volume of {path} writable"),
    errno.EACCES: ("permission is denied", "let the appliance's user write to {path}"),
    errno.EPERM: ("the operation is not permitted", "let the appliance's user write to {path}"),
    errno.EIO: ("the disk failed", "look at the system's log for what is wrong with the volume of {path}"),
    errno.ESTALE: ("the network file system no longer knows the file", "mount the volume of {path} again"),
    errno.ETIMEDOUT: ("the network file system does not answer", "look at the server of the volume of {path}"),
    errno.EHOSTDOWN: ("the network file system does not answer", "look at the server of the volume of {path}"),
    errno.ENOTCONN: ("the file system is no longer connected", "mount the volume of {path} again"),
    errno.EUCLEAN: ("the file system is damaged", "have the volume of {path} checked (fsck)"),
    errno.ENODEV: ("the device is gone", "mount the volume of {path} again"),
    errno.ENXIO: ("the device is gone", "mount the volume of {path} again"),
    errno.ENOENT: ("a directory is gone", "see whether the volume of {path} is still mounted"),
    errno.EMFILE: ("too many files are open", "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: ("too many files are open in the system", "raise the system's limit of open files"),
    errno.ENOTDIR: ("a file is where a directory has to be", "move away what is at {place}"),
    errno.EEXIST: ("a file is where a directory has to be", "move away what is at {place}"),
    errno.EISDIR: ("a directory is where a file has to be", "move away what is at {place}"),
    errno.ELOOP: ("a symbolic link is where a file has to be", "move away what is at {place}"),
    errno.EFBIG: ("a file would be larger than is allowed", "raise the limit of file sizes (ulimit -f)"),
    errno.ENAMETOOLONG: ("a path is too long", "choose a shorter prefix, owner, bucket or mailbox name"),
    errno.ENOLCK: ("the file system has no locks left", "use a file system that supports flock"),
    errno.EOPNOTSUPP: ("the file system lacks an operation", "use a file system that supports flock and fsync"),
}
_NEVER_HEALS = frozenset({errno.ENAMETOOLONG, errno.EOPNOTSUPP})


def storage_error(error: OSError, doing: str, path: Path) -> StorageError:
    """Give our error for `error`, which happened while `doing` (`storing mail`) at or below `path`."""
    number = error.errno or 0
    # The plain message for what nobody listed: os.strerror has no paths and no content in it.
    meaning, hint = _MEANINGS.get(number, (os.strerror(number) if number else "the disk failed", ""))
    return StorageError(
        f"{doing} failed: {meaning}",
        asks=Asks.STOP if number in _NEVER_HEALS else None,
        code=errno.errorcode.get(number, ""),
        hint=hint.format(path=path, place=error.filename2 or error.filename or path),
    )
