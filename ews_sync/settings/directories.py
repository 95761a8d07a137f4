"""Finding out beforehand whether a directory can be written."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from ews_sync.settings.problems import reason, shown

if TYPE_CHECKING:
    from pathlib import Path


def why_not_writable(directory: Path) -> str | None:
    """Try whether files can be put into `directory`, creating it for the moment if need be.

    Nothing is left behind. Gives the words that fit behind the directory's name, or None when all is well. A file is
    really written: permission bits say nothing to root, nor about a file system that is mounted read-only.
    """
    created: list[Path] = []
    try:
        return _obstacle(directory, created)
    except PermissionError as error:
        return f"cannot be written: {reason(error)}: {shown(str(directory))}{_whose(directory)}"
    except OSError as error:
        return f"cannot be written: {reason(error)}: {shown(str(directory))}"
    except ValueError:
        return f"must be a possible path, not {shown(str(directory))}"
    finally:
        for path in reversed(created):
            try:
                path.rmdir()
            except OSError:
                break  # Somebody has put something there meanwhile: it is theirs now.


def _obstacle(directory: Path, created: list[Path]) -> str | None:
    absolute = directory.absolute()
    for path in (*reversed(absolute.parents), absolute):
        if path.is_dir():
            continue
        if path.exists():
            return f"cannot be a directory: {shown(str(path))} is a file"
        if path.is_symlink():
            return f"cannot be written: {shown(str(path))} is a link to something that does not exist"
        path.mkdir(exist_ok=True)
        created.append(path)
    with tempfile.NamedTemporaryFile(prefix=".reinfer-ews-", dir=absolute) as probe:
        probe.write(b"probe")
    return None


def _whose(directory: Path) -> str:
    """Say whom `directory`, or what of its path is there, belongs to, and what to do; "" where that cannot be seen."""
    for path in (directory.absolute(), *directory.absolute().parents):
        try:
            found = path.stat()
        except OSError:
            continue
        return ownership(path, (found.st_uid, found.st_gid), (os.geteuid(), os.getegid()))
    return ""


def ownership(path: Path, owner: tuple[int, int], this: tuple[int, int]) -> str:
    """Say what helps who runs as user and group `this` to write to `path`, which belongs to `owner`.

    Above all for a directory of the host in a container: the image's user owns nothing there.
    """
    if owner[0] == this[0]:
        return f"; {shown(str(path))} belongs to this user, and does not let it write: chmod u+rwx"
    # To become root for it would be the worse advice.
    become = f", or run as its owner (in a container: docker run --user {owner[0]}:{owner[1]} ...)" if owner[0] else ""
    return (
        f"; {shown(str(path))} belongs to user {owner[0]}, and this runs as user {this[0]}: "
        f"chown -R {this[0]}:{this[1]} the directory (of a container: the one on the host){become}"
    )
