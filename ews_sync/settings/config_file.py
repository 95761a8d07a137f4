"""Reading the JSON config, from a file or from the platform.

Bytes to a tree of plain values, and where each value came from.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ews_sync.settings.problems import KeyPath, Problems, placeholder_in, placeholder_left, plain, reason, spelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ews_sync.settings.environment import Given

LARGEST = 2 * 1024 * 1024
"""Bytes of a config."""
_MOST_VALUES = 250_000
"""Enough for more than 10,000 mailboxes, and few enough to be read beside everything else in 128 MiB of memory."""
_MOST_KEYS = 1000
"""Of one object, but for the one that has the mailboxes: far more than there are keys."""
_DEEPEST = 100
"""Levels of nesting: far more than a config has, and far fewer than Python's stack."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_A_CONFIG = "not a config: nested too deeply, or with a number of thousands of digits"
_WHOLE_ONLY = frozenset(
    {
        "auth_password",
        "auth_oauth_client_secret",
        "auth_oauth_client_credential_private_key",
        "folder_allowlist",
        "folder_denylist",
    }
)
"""Keys whose values may contain `<word>` in earnest."""


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were written more than once, and how often."""

    repeated: dict[str, int]


@dataclass(slots=True)
class Tree:
    """The config: the file's `values`, its `source` (for people), and by key what the environment gives instead.

    `complain` files a problem under the name of whatever the value came from; `is_bad` tells whether a value, anything
    in it or anything around it has a problem already.
    """

    values: dict[str, Any]
    source: str
    problems: Problems
    overrides: dict[str, Given] = field(default_factory=dict)
    bad: set[KeyPath] = field(default_factory=set)
    _around_bad: set[KeyPath] = field(default_factory=set, init=False)

    def mark(self, path: KeyPath) -> None:
        """Remember that there is a problem at `path`."""
        self.bad.add(path)
        self._around_bad.update(path[:length] for length in range(len(path)))

    def complain(self, path: KeyPath, text: str) -> None:
        """Add a problem with the value at `path`, unless one is known."""
        if path in self.bad:
            return
        self.mark(path)
        override = self.overrides.get(str(path[0])) if path else None
        if override:
            self.problems.add(override.label, text)
        elif path:
            self.problems.add(spelled(path), f"{text} (in {self.source})")
        else:
            self.problems.add(self.source, text)

    def has(self, key: str) -> bool:
        """Tell whether a top-level key was given, be it right or wrong."""
        return key in self.overrides or key in self.values

    def is_bad(self, *path: str | int) -> bool:
        """Tell whether there is a problem at `path`, below it or above it."""
        return path in self._around_bad or any(path[:length] in self.bad for length in range(len(path) + 1))

    def environment(self) -> dict[str, str]:
        """Give the values of the environment."""
        return {key: given.text for key, given in self.overrides.items()}

    def healthy(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give a copy of `values` without the top-level keys and mailboxes that have a problem."""
        kept = {key: value for key, value in values.items() if key == "mailboxes" or not self.is_bad(key)}
        if isinstance(mailboxes := kept.get("mailboxes"), dict):
            kept["mailboxes"] = {
                address: entry for address, entry in mailboxes.items() if not self.is_bad("mailboxes", address)
            }
        elif "mailboxes" in kept:
            del kept["mailboxes"]
        return kept


def read_file(path: Path, source: str, problems: Problems) -> Tree:
    """Read the config at `path`. What cannot be read or is no JSON is added to `problems`, and the tree is empty."""
    tree = Tree({}, source, problems)
    data = _read(path, tree)
    if data is not None:
        _parse(data, tree)
    return tree


def read_bytes(data: bytes, source: str, problems: Problems) -> Tree:
    """Read a config that is there already, like `read_file`."""
    tree = Tree({}, source, problems)
    _parse(data, tree)
    return tree


def _parse(data: bytes, tree: Tree) -> None:
    """Put the JSON object that `data` is into the tree."""
    text = _text(data, tree)
    if text is None:
        return
    try:
        values = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        tree.complain((), f"line {error.lineno}, column {error.colno}: {_expected(error)}")
    except (RecursionError, ValueError):
        tree.complain((), _NOT_A_CONFIG)
    else:
        if not isinstance(values, dict):
            kind = "a list" if isinstance(values, list) else "a single value"
            tree.complain((), f'must hold a JSON object, {{"mailboxes": …}}, not {kind}')
        elif any(len(path) > _DEEPEST for path, _ in _walk(values)):
            tree.complain((), _NOT_A_CONFIG)
        elif len(values) > _MOST_KEYS or any(_is_crowded(path, value) for path, value in _walk(values)):
            tree.complain((), f"has an object with more than {_MOST_KEYS:,} keys: that cannot be the config")
        elif (halved := _halved(text, values)) is not None:
            tree.complain((), f"{spelled(halved)}: has half a character: a \\ud… that stands alone")
        else:
            tree.values = values


def _text(data: bytes, tree: Tree) -> str | None:
    """Give what could be JSON, and not too much of it to be read."""
    # Each value but the outermost stands behind one of these. It has to be known before they fill the memory.
    count = sum(data.count(sign) for sign in (b",", b":", b"[", b"{"))
    if len(data) > LARGEST:
        tree.complain((), "is larger than 2 MiB: that cannot be the config")
    elif count > _MOST_VALUES:
        tree.complain((), f"holds more than {_MOST_VALUES:,} values: that cannot be the config")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            tree.complain((), f"line {line}: not UTF-8: save the file as UTF-8")
        else:
            if text.strip():
                return text
            tree.complain((), "the file is empty: it must hold a JSON object")
    return None


def _halved(text: str, values: dict[str, Any]) -> KeyPath | None:
    """Find a key or a value that no UTF-8 can hold: a UTF-16 surrogate without the other half of its pair."""
    if "\\ud" not in text and "\\uD" not in text:
        return None
    return next(
        (
            path
            for path, value in _walk(values)
            if any(isinstance(part, str) and _SURROGATE.search(part) for part in (path[-1], value))
        ),
        None,
    )


def _is_crowded(path: KeyPath, value: object) -> bool:
    return isinstance(value, dict) and len(value) > _MOST_KEYS and path != ("mailboxes",)


def _read(path: Path, tree: Tree) -> bytes | None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            tree.complain((), "is a directory: give the path of the config file in it")
            return None
        if not stat.S_ISREG(mode):
            # Reading a pipe could wait for ever, and the command promises to answer within a second.
            tree.complain((), "is not a regular file")
            return None
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        tree.complain((), f"cannot be read: {reason(error)}")
    except ValueError:
        tree.complain((), "cannot be read: that is not a possible path")
    return None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    result = _Object()
    result.repeated = {}
    for key, value in pairs:
        if key in result:
            result.repeated[key] = result.repeated.get(key, 1) + 1
        result[key] = value
    return result


def _expected(error: json.JSONDecodeError) -> str:
    """Say what JSON wants there. The text of the file is not quoted: there may be a password in it."""
    following = error.doc[error.pos : error.pos + 2]
    before = error.doc[: error.pos].rstrip()[-1:]
    if not following.strip() and not error.doc[error.pos :].strip():
        return "the file ends too early: a closing } or ] or a quote is missing"
    if following in {"//", "/*"} or following[:1] == "#":
        return "JSON has no comments: remove this one"
    if following[:1] in {"}", "]"} and before == ",":
        return "a comma before a closing } or ] is not allowed: remove the comma"
    if error.msg.startswith("Illegal trailing comma"):
        return "a comma before a closing } or ] is not allowed: remove the comma"
    texts = {
        "Expecting property name enclosed in double quotes": 'expected a key in double quotes, such as "mailboxes"',
        "Expecting ',' delimiter": "expected a comma before this, or a closing } or ]",
        "Expecting ':' delimiter": "expected a colon between key and value",
        "Expecting value": "expected a value: text in double quotes, a number, true, false, null, { or [",
        "Extra data": "expected the end of the file: the config is one object",
        "Unterminated string starting at": "the text that starts here has no closing quote",
        "Invalid control character at": "a text must not go over the end of a line, or hold a tab: write \\n or \\t",
    }
    if error.msg.startswith("Invalid \\"):
        return "a backslash in a text is written twice: \\\\"
    return texts.get(error.msg, plain(error.msg))


def report_placeholders(tree: Tree) -> None:
    """Add a problem for every key and text that still has a placeholder of the documentation's examples."""
    for path, value in _counting(tree):
        if isinstance(path[-1], str) and (left := placeholder_in(path[-1])):
            tree.complain(path, placeholder_left(left))
        if isinstance(value, str):
            whole = any(part in _WHOLE_ONLY for part in path)
            if left := placeholder_in(value, whole=whole):
                tree.complain(path, placeholder_left(left))


def report_repeated(tree: Tree) -> None:
    """Add a problem for every key that an object of the file has more than once."""
    if isinstance(tree.values, _Object):
        for key, times in tree.values.repeated.items():
            if key not in tree.overrides:
                tree.complain((key,), _kept(times))
    for path, value in _counting(tree):
        if isinstance(value, _Object):
            for key, times in value.repeated.items():
                tree.complain((*path, key), _kept(times))


def _kept(times: int) -> str:
    return f"is there {times} times: keep one"


def _counting(tree: Tree) -> Iterator[tuple[KeyPath, Any]]:
    """Go through everything in the file; what is wrong with a value that the environment replaces does not matter."""
    return ((path, value) for path, value in _walk(tree.values) if path[0] not in tree.overrides)


def _walk(values: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """Go through everything in a tree, in its order, with the way there."""
    waiting: list[tuple[KeyPath, Iterator[tuple[str | int, Any]]]] = [((), iter(values.items()))]
    while waiting:
        above, rest = waiting[-1]
        for key, value in rest:
            path = (*above, key)
            yield path, value
            if isinstance(value, (dict, list)):
                waiting.append((path, iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))))
                break
        else:
            waiting.pop()


def without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out keys whose value is null, at every level: null is how JSON says that a key is not given."""
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }
