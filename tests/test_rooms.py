"""The rooms of docs/architecture.md: each imports from those above it, never from one below, never from a sibling."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import ews_sync

ROOT = Path(ews_sync.__file__).parent

ROOMS: tuple[tuple[str, frozenset[str]], ...] = (
    ("errors", frozenset()),
    ("model", frozenset({"errors"})),
    ("clock", frozenset()),
    ("web", frozenset({"errors"})),
    ("settings", frozenset({"errors", "model"})),
    ("telemetry", frozenset({"errors", "model", "settings"})),
    ("sources.auth", frozenset({"errors", "model", "settings", "telemetry", "web"})),
    ("sources.ews", frozenset({"errors", "model", "settings", "telemetry", "web"})),
    ("sinks", frozenset({"errors", "model", "settings", "telemetry", "web"})),
    ("engine", frozenset({"errors", "model", "settings", "telemetry"})),
    ("server", frozenset({"errors", "model", "settings", "telemetry"})),
    ("simulator", frozenset()),
)
"""Each room and the rooms that it may import from, besides itself. What is not listed may import all."""

FOREIGN = {
    "errors": frozenset[str](),
    "model": frozenset[str](),
    "clock": frozenset[str](),
    "web": frozenset({"httpx", "httpcore", "certifi", "cryptography"}),
    "settings": frozenset({"pydantic", "pydantic_core", "pydantic_settings", "annotated_types"}),
    "telemetry": frozenset({"structlog", "pydantic", "prometheus_client"}),
    "sources.auth": frozenset({"httpx", "structlog", "spnego", "msal", "cryptography", "pydantic"}),
    "sources.ews": frozenset({"httpx", "lxml", "pybase64", "structlog"}),
    "sinks": frozenset({"structlog", "httpx", "pydantic"}),
    "engine": frozenset({"structlog"}),
    "server": frozenset({"aiohttp"}),
    "simulator": frozenset({"aiohttp", "lxml", "cryptography"}),
}
"""The third-party packages that a room may use: foreign exceptions stop where these are."""


def room_of(module: str) -> str:
    """Give the room of a module such as `engine.mailbox`; itself where it is in none."""
    return next((room for room, _ in ROOMS if module == room or module.startswith(f"{room}.")), module)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
    return names


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in sorted(ROOT.rglob("*.py"))
    ]


def test_rooms_import_only_from_rooms_above_them() -> None:
    allowed = dict(ROOMS)
    wrong = []
    for module, path in modules():
        room = room_of(module)
        if room not in allowed:
            continue
        for name in imported(path):
            if name.startswith("ews_sync."):
                other = room_of(name.removeprefix("ews_sync."))
                if other != room and other not in allowed[room]:
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_rooms_use_only_the_packages_that_are_theirs() -> None:

    wrong = []
    for module, path in modules():
        foreign = FOREIGN.get(room_of(module))
        if foreign is None:
            continue
        wrong += [
            f"{module} imports {name}"
            for name in imported(path)
            if name.partition(".")[0] not in sys.stdlib_module_names | {"ews_sync"} | foreign
        ]
    assert wrong == []


def test_every_file_has_a_bounded_length() -> None:
    long = {module: count for module, path in modules() if (count := len(path.read_text().splitlines())) > 560}
    assert long == {}
