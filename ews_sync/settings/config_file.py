"""Reading the JSON config file: bytes to a tree of plain values, and where each value came from."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ews_sync.settings.problems import KeyPath, Problems, placeholder_in, placeholder_left, plain, reason, spelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LARGEST = 16 * 1024 * 1024
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
    """The config's values, `source` (for people), and the variables that replaced a top-level key of the file.

    `complain` files a problem under the name of whatever the value came from; `is_bad` tells whether a value, anything
    in it or anything around it has a problem already.
    """

    values: dict[str, Any]
    source: str
    problems: Problems
    variables: dict[str, str] = field(default_factory=dict)
    bad: set[KeyPath] = field(default_factory=set)

    def complain(self, path: KeyPath, text: str) -> None:
        """Add a problem with the value at `path`, unless one is known."""
        if path in self.bad:
            return
        self.bad.add(path)
        variable = self.variables.get(str(path[0])) if path else None
        if variable:
            self.problems.add(variable, text)
        elif path:
            self.problems.add(spelled(path), f"{text} (in {self.source})")
        else:
            self.problems.add(self.source, text)

    def is_bad(self, *path: str | int) -> bool:
        """Tell whether there is a problem at `path`, below it or above it."""
        return any(known[: len(path)] == path or path[: len(known)] == known for known in self.bad)

    def healthy(self) -> dict[str, Any]:
        """Give a copy without the top-level keys and mailboxes that have a problem."""
        kept = {key: value for key, value in self.values.items() if key == "mailboxes" or not self.is_bad(key)}
        if isinstance(mailboxes := kept.get("mailboxes"), dict):
            kept["mailboxes"] = {
                address: entry for address, entry in mailboxes.items() if not self.is_bad("mailboxes", address)
            }
        elif "mailboxes" in kept:
            del kept["mailboxes"]
        return kept

    def override(self, key: str, value: str, variable: str) -> None:
        """Put a value from the environment in place of the file's, whose problems no longer matter."""
        self.values[key] = value
        self.variables[key] = variable


def read_tree(path: Path, source: str, problems: Problems) -> Tree:
    """Read the config at `path`. What cannot be read or is no JSON is added to `problems`, and the tree is empty."""
    tree = Tree({}, source, problems)
    data = _read(path, tree)
    if data is None:
        return tree
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        tree.complain((), f"line {line}: not UTF-8: save the file as UTF-8")
        return tree
    if not text.strip():
        tree.complain((), "the file is empty: it must hold a JSON object")
        return tree
    try:
        values = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        tree.complain((), f"line {error.lineno}, column {error.colno}: {_expected(error)}")
    except (RecursionError, ValueError):
        tree.complain((), "not a config: nested too deeply, or with a number of thousands of digits")
    else:
        if isinstance(values, dict):
            tree.values = values
        else:
            kind = "a list" if isinstance(values, list) else "a single value"
            tree.complain((), f'must hold a JSON object, {{"mailboxes": …}}, not {kind}')
    return tree


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
            data = file.read(_LARGEST + 1)
    except OSError as error:
        tree.complain((), f"cannot be read: {reason(error)}")
        return None
    except ValueError:
        tree.complain((), "cannot be read: that is not a possible path")
        return None
    if len(data) > _LARGEST:
        tree.complain((), "is larger than 16 MiB: that cannot be the config")
        return None
    return data


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


def report_repeated(tree: Tree) -> None:
    """Add a problem for every key that an object of the file has more than once."""

    def walk(value: object, path: KeyPath) -> None:
        if isinstance(value, _Object):
            for key, times in value.repeated.items():
                if not (not path and key in tree.variables):
                    tree.complain((*path, key), f"is there {times} times: keep one")
        _into(value, path, walk)

    walk(tree.values, ())


def report_placeholders(tree: Tree) -> None:
    """Add a problem for every key and text that still has a placeholder of the documentation's examples."""

    def walk(value: object, path: KeyPath) -> None:
        if path and isinstance(path[-1], str) and (left := placeholder_in(path[-1])):
            tree.complain(path, placeholder_left(left))
        if isinstance(value, str):
            whole = any(part in _WHOLE_ONLY for part in path)
            if left := placeholder_in(value, whole=whole):
                tree.complain(path, placeholder_left(left))
        _into(value, path, walk)

    walk(tree.values, ())


def _into(value: object, path: KeyPath, walk: Callable[[object, KeyPath], None]) -> None:
    if isinstance(value, dict):
        for key, below in value.items():
            walk(below, (*path, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            walk(below, (*path, number))


def without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out keys whose value is null, at every level: null is how JSON says that a key is not given."""
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }
