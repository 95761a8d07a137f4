"""What is wrong with a configuration, one line per problem, for whoever has to mend it.

A line is `subject: text`. Values from outside are made harmless first (no control characters, no passwords in
addresses, not endless). The first problem of a subject is the one to mend: those that follow from it are left out.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath = tuple[str | int, ...]
"""The way to a value in the config file: names of keys, and numbers of list entries from 0."""

_PLACEHOLDER = re.compile(r"<[A-Za-z][A-Za-z0-9_-]*>")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_USERINFO = re.compile(r"(?<=://)[^/?#\s\"]*@")
_LONGEST = 80
_LONGEST_KEY = 330
_MOST = 200
"""Problems that are told. Nobody reads more, and a file that is none of ours could have a million."""


@dataclass(slots=True)
class Problems:
    """Collects problems; raises them all at once."""

    _lines: dict[str, str] = field(default_factory=dict)
    _uncounted: int = 0

    def add(self, subject: str, text: str) -> None:
        """Add the line `subject: text`, unless there is one for that subject."""
        self._lines.setdefault(subject, f"{subject}: {text}")

    def more(self, count: int) -> None:
        """Count problems that are not told; there are `enough` others."""
        self._uncounted += count

    @property
    def enough(self) -> bool:
        """Whether there are as many as are told: for one more it is not worth while to find the right words."""
        return len(self._lines) >= _MOST

    def __contains__(self, subject: str) -> bool:
        return subject in self._lines

    def __bool__(self) -> bool:
        return bool(self._lines)

    def raise_if_any(self) -> None:
        """Raise what was collected.

        Raises:
            ConfigurationError: there is at least one problem.
        """
        if self._lines:
            lines = [*self._lines.values()]
            more = len(lines) - _MOST + self._uncounted
            if more > 0:
                lines[_MOST:] = [f"and {more:,} more of them"]
            raise ConfigurationError(tuple(lines))


def spelled(path: KeyPath) -> str:
    """Write a path as people read it: `mailboxes."a@b.c".folder_allowlist[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if len(part) <= _LONGEST_KEY and _PLAIN_KEY.match(part) else shown(part, longest=_LONGEST_KEY)
            text += f".{name}" if text else name
    return text


def plain(text: str) -> str:
    """Make text from outside fit for one line of a terminal: what is not printable is escaped."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def shown(value: object, *, longest: int = _LONGEST) -> str:
    """Write a value as it stands in JSON, shortened; objects and lists are only named."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, str):
        value = _USERINFO.sub("***@", value)
        if len(value) > longest:
            value = value[:longest] + "…"
        return plain(json.dumps(value, ensure_ascii=False))
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else text[:longest] + "…"


def not_allowed(allowed: str, value: object) -> str:
    """Say what is allowed, and what was given."""
    return f"must be {allowed}, not {shown(value)}"


def placeholder_in(text: str, *, whole: bool = False) -> str | None:
    """Find a placeholder such as `<tenant_id>`; with `whole`, only if it is all there is.

    Passwords and names of folders may contain such a thing in earnest, so there it has to be the whole text.
    """
    found = _PLACEHOLDER.fullmatch(text.strip()) if whole else _PLACEHOLDER.search(text)
    return found.group() if found else None


def placeholder_left(placeholder: str) -> str:
    """Say that a placeholder was left in."""
    return f"still has the placeholder {placeholder}: put your own value there"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give ` (did you mean …?)` when something known is close, else ""."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def reason(error: OSError) -> str:
    """Say in a few words what the operating system objects to."""
    return (error.strerror or type(error).__name__).lower()
