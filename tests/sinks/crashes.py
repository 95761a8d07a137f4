"""What a file system may show after a crash: a disk that keeps account of what has been made durable, and what not.

Everything that was not flushed may be there, or not, or partly: bytes of a file since its last flush, and names in a
directory since its last flush, each for itself and in any order, as POSIX allows. `CrashingDisk.after_crash` makes one
such state out of the many.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from tests.sinks.builders import FaultyDisk

if TYPE_CHECKING:
    import random
    from pathlib import Path


@dataclass
class _File:
    current: bytes = b""
    durable: bytes = b""
    lost: list[tuple[int, int]] = field(default_factory=list)
    """What a flush that failed has dropped: no later flush brings it onto the disk."""

    def flush(self) -> None:
        data = bytearray(self.current)
        for start, end in self.lost:
            data[start:end] = b"\0" * (end - start)
        self.durable = bytes(data)

    def fail_to_flush(self) -> None:
        if len(self.current) > len(self.durable):
            self.lost.append((len(self.durable), len(self.current)))

    def truncate(self, size: int) -> None:
        self.current = self.current[:size]
        self.lost = [(start, min(end, size)) for start, end in self.lost if start < size]

    def after_crash(self, chance: random.Random | None) -> bytes:
        if chance is None or self.current == self.durable:
            return self.durable
        # What was flushed and has not been touched since is safe.
        pairs = zip(self.current, self.durable, strict=False)
        safe = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        kept = chance.randint(safe, len(self.current))
        torn = self.current[:kept] + b"\0" * chance.randint(0, len(self.current) - kept)
        return chance.choice([self.durable, self.current, torn])


@dataclass
class _Directory:
    names: dict[str, _File | _Directory] = field(default_factory=dict)
    durable: dict[str, _File | _Directory] = field(default_factory=dict)

    def after_crash(self, chance: random.Random | None) -> dict[str, _File | _Directory]:
        """Give the names that are there: for each that is not durable its old meaning or its new one."""
        result = dict(self.durable)
        for name in self.names.keys() | self.durable.keys():
            if self.names.get(name) is not self.durable.get(name) and chance is not None and chance.random() < 0.5:
                result.pop(name, None)
                if name in self.names:
                    result[name] = self.names[name]
        return result


class CrashingDisk(FaultyDisk):
    """A `FaultyDisk` below `root` that knows what would be left of it. Nothing is really flushed: that takes long."""

    def __init__(self, root: Path, fails_at: int = -1, error: int | None = None, *, once: bool = False) -> None:
        super().__init__(fails_at, error, once=once)
        self._root = root
        self._top = _Directory()
        self._files: dict[int, _File] = {}

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._opened(path, descriptor, new=True)
        return descriptor

    def append(self, path: Path) -> int:
        new = not path.exists()
        descriptor = super().append(path)
        self._opened(path, descriptor, new=new)
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        file = self._files[os.fstat(descriptor).st_ino]
        try:
            super().write(descriptor, data)
        finally:
            size = os.fstat(descriptor).st_size
            file.current += data[: size - len(file.current)]

    def flush(self, descriptor: int) -> None:
        file = self._files[os.fstat(descriptor).st_ino]
        try:
            self._step("flush")
        except OSError:
            file.fail_to_flush()
            raise
        file.flush()

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        self._files[os.fstat(descriptor).st_ino].truncate(size)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        found = self._directory(source.parent).names.pop(source.name)
        if source.exists():
            # Both were names of one file already, and stay.
            self._directory(source.parent).names[source.name] = found
        self._directory(target.parent).names[target.name] = found

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._directory(target.parent).names[target.name] = self._directory(source.parent).names[source.name]

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._directory(path.parent).names.pop(path.name, None)

    def flush_directory(self, path: Path) -> None:
        self._step("flush directory")
        if path.is_relative_to(self._root):
            directory = self._directory(path)
            directory.durable = dict(directory.names)

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        self._directory(path.parent).names[path.name] = _Directory()

    def after_crash(self, target: Path, chance: random.Random | None) -> None:
        """Write a state after a crash to `target`: one of the many, or, without `chance`, with nothing but the safe."""
        _write(self._top, target, chance)

    def _opened(self, path: Path, descriptor: int, *, new: bool) -> None:
        if new:
            file = _File()
            self._files[os.fstat(descriptor).st_ino] = file
            self._directory(path.parent).names[path.name] = file

    def _directory(self, path: Path) -> _Directory:
        here = self._top
        for part in path.relative_to(self._root).parts:
            below = here.names[part]
            assert isinstance(below, _Directory)
            here = below
        return here


def _write(directory: _Directory, target: Path, chance: random.Random | None) -> None:
    target.mkdir(parents=True)
    for name, found in directory.after_crash(chance).items():
        if isinstance(found, _Directory):
            _write(found, target / name, chance)
        else:
            (target / name).write_bytes(found.after_crash(chance))
