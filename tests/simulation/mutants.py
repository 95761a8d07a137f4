"""The engine broken on purpose: its source with a few words changed, imported under another name.

What is changed has to be there exactly as often as it says, so that a mutation that no longer applies fails loudly.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.util import spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING

import ews_sync.engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_REAL = "ews_sync.engine"
_FOLDER = Path(ews_sync.engine.__file__).parent


class MutationError(AssertionError):
    """The code to be broken is not there any more: the mutation has to be written anew."""


@dataclass(frozen=True, slots=True)
class Change:
    """In a module of the engine, `before` becomes `after`."""

    module: str
    before: str
    after: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way in which the engine is broken. `name` is that of a Python package."""

    name: str
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        return self.name.replace("_", " ")


class _Loader(SourceLoader):
    def __init__(self, path: Path, package: str, changes: Sequence[Change]) -> None:
        self._path = path
        self._package = package
        self._changes = changes

    def get_filename(self, fullname: str) -> str:
        # No real file, or Python would keep its byte code as that of the unbroken one.
        return f"<{fullname}>"

    def get_data(self, path: str) -> bytes:  # noqa: ARG002
        text = self._path.read_text(encoding="utf-8")
        for change in self._changes:
            if text.count(change.before) != change.times:
                raise MutationError(
                    f"{self._path.name} has this {text.count(change.before)} times, not {change.times}: {change.before}"
                )
            text = text.replace(change.before, change.after)
        return text.replace(_REAL, self._package).encode()


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self.applied: set[Change] = set()

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        package = f"mutant_{self._mutant.name}"
        head, _, module = fullname.partition(".")
        if head != package:
            return None
        changes = [change for change in self._mutant.changes if change.module == module]
        self.applied.update(changes)
        loader = _Loader(_FOLDER / f"{module or '__init__'}.py", package, changes)
        return spec_from_loader(fullname, loader, is_package=not module)


@contextmanager
def broken(mutant: Mutant) -> Iterator[ModuleType]:
    """Give the broken engine's module `engine`. Raises `MutationError` where it cannot be broken like that."""
    finder = _Finder(mutant)
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.import_module(f"mutant_{mutant.name}.engine")
        if len(finder.applied) != len(mutant.changes):
            raise MutationError(f"of {mutant.name} only {len(finder.applied)} changes are of modules that are imported")
        yield module
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == f"mutant_{mutant.name}"]:
            del sys.modules[name]
