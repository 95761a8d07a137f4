"""docs/operations.md has every log line at WARNING or above, every alert, and every exit code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import ews_sync
from ews_sync.assembly import CLEAR_TEXT, NO_VERIFICATION
from ews_sync.sinks.platform.states import CURSOR_REFUSED, NO_CURSOR
from tests.docs.pages import DOCS, ROOT, in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(ews_sync.__file__).parent
PAGE = in_one_line((DOCS / "operations.md").read_text(encoding="utf-8"))
LEVELS = {"warning", "error", "exception", "critical"}

INDIRECT = {
    "app.py: warning": (NO_VERIFICATION, CLEAR_TEXT, CURSOR_REFUSED, NO_CURSOR),
    "config_watch.py: event": (
        "there is no config to begin with yet",
        "the config in force stays, since it could not be looked at again",
    ),
    "engine/mailbox.py: error.summary": ("bucket <owner>/<name> was deleted and made anew",),
    "engine/outages.py: self._away": (
        "no mail can be read; trying again until it can",
        "mail cannot be stored; trying again until it can",
    ),
}
"""Where what is logged is not written at the call: the place, and what it can be."""


def is_log(node: ast.expr) -> bool:
    """Tell whether something is a logger: `log`, `self._log`, `structlog.get_logger(…)`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_") in {"log", "logger"}
        case ast.Call(func=ast.Attribute(attr="get_logger" | "getLogger" | "bind")):
            return True
    return False


def logged() -> Iterator[tuple[Path, ast.expr]]:
    """Give the file and the text of each call that logs at one of the levels."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=value, attr=level)) if level in LEVELS and is_log(value):
                    yield path.relative_to(SOURCE), node.args[0]


def texts_of(argument: ast.expr) -> list[str] | None:
    """Give the texts that an argument can be; None when it is none that is written there."""
    match argument:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=orelse):
            both = texts_of(body), texts_of(orelse)
            return None if None in both else [text for texts in both for text in texts or ()]
    return None


def test_there_are_log_lines_to_look_for() -> None:
    assert len(list(logged())) > 25


def test_every_log_line_is_explained() -> None:
    written = [(path, text) for path, argument in logged() for text in texts_of(argument) or ()]
    assert [f"{path}: {text}" for path, text in written if f"#### `{text}`" not in PAGE] == []


def test_what_is_logged_indirectly_is_known_and_explained() -> None:
    found = {f"{path}: {ast.unparse(argument)}" for path, argument in logged() if texts_of(argument) is None}
    assert found == INDIRECT.keys()
    for texts in INDIRECT.values():
        for text in texts:
            # A long one is shortened behind its first half.
            begin = text.partition(": ")[0] if len(text) > 100 else text
            assert f"#### `{begin}" in PAGE


def test_indirect_texts_are_those_of_the_code() -> None:
    for place in ("config_watch.py", "engine/outages.py"):
        text = in_one_line((SOURCE / place).read_text(encoding="utf-8"))
        for key, texts in INDIRECT.items():
            if key.startswith(place):
                assert all(f'"{line}"' in text for line in texts)


def test_what_is_explained_is_still_logged() -> None:
    headings = re.findall(r"^#### `(.+)`$", (DOCS / "operations.md").read_text(encoding="utf-8"), re.MULTILINE)
    known = [text for _, argument in logged() for text in texts_of(argument) or ()]
    known += [text for texts in INDIRECT.values() for text in texts]
    for heading in headings:
        begin = heading.partition("<")[0].rstrip(": ")
        assert any(text.startswith(begin) for text in known), heading


def test_every_alert_has_its_place_and_no_other_is_there() -> None:
    rules = (ROOT / "charts/ews-sync/files/alerts.yaml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    explained = re.findall(r"### (EwsSync\w+) \{#alert-(\w+)\}", PAGE)
    assert sorted(explained) == sorted((name, name.lower()) for name in alerts)
    assert {f"docs/operations.md#alert-{anchor}" for _, anchor in explained} == set(
        re.findall(r"runbook_url: (\S+)", rules)
    )


def test_exit_codes_are_listed() -> None:
    for code in (0, 1, 2, 130, 143):
        assert f"| {code} | " in PAGE
