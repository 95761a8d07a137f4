"""Taking options from the command line, else from the environment; and secrets from variables or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ews_sync.settings.problems import placeholder_in, placeholder_left, reason, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ews_sync.settings.options import Option, Variable
    from ews_sync.settings.problems import Problems

Value = TypeVar("Value")

_LARGEST_SECRET = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """A text from outside, and what brought it: `--bind` or `REINFER_EWS_BIND`."""

    text: str
    label: str


class Choices:
    """The options as they were given: the command line wins over the environment, where empty counts as unset."""

    def __init__(
        self, options: Iterable[Option], arguments: Mapping[str, str], environ: Mapping[str, str], problems: Problems
    ) -> None:
        self._problems = problems
        self._given: dict[str, Given] = {}
        self._bad: set[str] = set()
        options = tuple(options)
        unknown = arguments.keys() - {option.name for option in options}
        if unknown:
            raise ValueError(f"no such options: {', '.join(sorted(unknown))}")
        for option in options:
            if option.name in arguments:
                self._take(option, Given(arguments[option.name].strip(), option.text))
            elif text := environ.get(option.variable, "").strip():
                self._take(option, Given(text, option.variable))

    def _take(self, option: Option, given: Given) -> None:
        self._given[option.name] = given
        if not given.text:
            self._complain(option.name, given, "must not be empty: give a value, or leave the option out")
        elif left := placeholder_in(given.text):
            self._complain(option.name, given, placeholder_left(left))

    def _complain(self, name: str, given: Given, text: str) -> None:
        self._bad.add(name)
        self._problems.add(given.label, text)

    def get(self, option: Option) -> Given | None:
        """Give what was given for an option, be it right or wrong."""
        return self._given.get(option.name)

    def healthy(self, option: Option) -> Given | None:
        """Give what was given for an option, unless there is a problem with it."""
        return None if option.name in self._bad else self._given.get(option.name)

    def parsed(self, option: Option, parse: Callable[[str], Value]) -> Value | None:
        """Parse what was given. None when nothing was, or when `parse` raised ValueError, whose text is the problem."""
        given = self.healthy(option)
        if given is None:
            return None
        try:
            return parse(given.text)
        except ValueError as error:
            self._complain(option.name, given, str(error))
            return None


def whole_number(allowed: str, low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `low` to `high`, which `allowed` says in words."""

    def parse(text: str) -> int:
        # Not int(): it takes "1_0" and digits of other scripts.
        if text.isascii() and text.isdigit() and len(text) <= 18 and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"must be {allowed}, not {shown(text)}")

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Make a parser that takes one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(shown(word) for word in words)}, not {shown(text)}")
        return text

    return parse


def read_secret(variable: Variable, environ: Mapping[str, str], problems: Problems) -> tuple[Given | None, bool]:
    """Give a secret from its variable or the file that `<NAME>_FILE` names; and whether all is well with it.

    An empty variable counts as none. Line ends behind the secret are not part of it: files end with one.
    """
    text, path = environ.get(variable.name, ""), environ.get(variable.file, "")
    if text and path:
        problems.add(variable.name, f"cannot be given together with {variable.file}: unset one of the two")
        return None, False
    if not path:
        text = text.rstrip("\r\n")
        given = Given(text, variable.name) if text else None
    else:
        try:
            with Path(path).open("rb") as file:
                text = file.read(_LARGEST_SECRET).decode("utf-8-sig").rstrip("\r\n")
        except OSError as error:
            problems.add(variable.file, f"cannot be read: {reason(error)}: {shown(path)}")
            return None, False
        except ValueError:
            problems.add(variable.file, f"must be the path of a text file in UTF-8: {shown(path)} is none")
            return None, False
        if not text:
            problems.add(variable.file, f"must be the path of a file with the secret: {shown(path)} is empty")
            return None, False
        given = Given(text, variable.file)
    if given and (left := placeholder_in(given.text, whole=True)):
        problems.add(given.label, placeholder_left(left))
        return None, False
    return given, True
