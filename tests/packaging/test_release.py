"""What a release says of itself: the version has one place, and the changelog has the shape of Keep a Changelog."""

from __future__ import annotations

import hashlib
import re
import tomllib
from importlib import metadata

import pytest

from ews_sync import __version__
from tests.packaging.root import ROOT

KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
VERSION = re.compile(r"(?P<version>\d+\.\d+\.\d+) - (?P<day>\d{4}-\d\d-\d\d)")


def wrong_with(changelog: str, version: str) -> list[str]:
    """Give what is not as Keep a Changelog 1.1.0 has it, and whether `version` is accounted for."""
    head, *sections = re.split(r"^## ", changelog, flags=re.MULTILINE)
    wrong = [] if head.startswith("# Changelog\n") else ["does not begin with # Changelog"]
    names = [section.partition("\n")[0].replace("[", "").replace("]", "") for section in sections]
    if "Unreleased" in names[1:]:
        wrong.append("Unreleased does not come first")
    releases = {name: VERSION.fullmatch(name) for name in names if name != "Unreleased"}
    wrong += [f"{name}: neither Unreleased nor a version and its day" for name, found in releases.items() if not found]
    order = [(*map(int, found["version"].split(".")), found["day"]) for found in releases.values() if found]
    if order != sorted(order, reverse=True):
        wrong.append("the newest release does not come first")
    if "Unreleased" not in names and version not in {found["version"] for found in releases.values() if found}:
        wrong.append(f"{version} has no section, and there is none for what is unreleased")
    for section in sections:
        wrong += wrong_with_kinds(re.findall(r"^### (.*)$", section, re.MULTILINE))
    return wrong


def wrong_with_kinds(kinds: list[str]) -> list[str]:
    strange = [f"{kind}: not one of {', '.join(KINDS)}" for kind in kinds if kind not in KINDS]
    return strange + [f"{kind}: twice in one release" for kind in KINDS if kinds.count(kind) > 1]


def test_the_changelog() -> None:
    assert wrong_with((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Changes\n\n## [Unreleased]\n", "does not begin with # Changelog"),
        ("# Changelog\n\n## [Unreleased]\n\n## [1.0] - 2026-01-02\n", "neither Unreleased nor a version"),
        ("# Changelog\n\n## [2.0.0] - 2026-01-02\n\n## [Unreleased]\n", "Unreleased does not come first"),
        ("# Changelog\n\n## [Unreleased]\n\n### New\n", "New: not one of Added, "),
        ("# Changelog\n\n## [Unreleased]\n\n### Fixed\n\n### Fixed\n", "Fixed: twice in one release"),
        ("# Changelog\n\n## [Unreleased]\n\n## [1.9.0] - 2026-01-02\n\n## [1.10.0] - 2026-01-01\n", "newest release"),
        ("# Changelog\n\n## [1.0.0] - 2026-01-02\n", "2.0.0 has no section"),
    ],
)
def test_what_is_wrong_with_a_changelog_is_seen(text: str, complaint: str) -> None:
    (found,) = wrong_with(text, "2.0.0")
    assert complaint in found


def test_the_version_has_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "ews_sync/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)


def test_what_is_installed_is_this_version() -> None:
    # An environment that is older than the version tells the wrong one everywhere: make it anew.
    assert metadata.version("ews-sync") == __version__


def test_what_is_installed_has_its_licence() -> None:
    found = metadata.metadata("ews-sync")
    assert found["License-Expression"] == "Apache-2.0"
    assert found.get_all("License-File") == ["LICENSE"]


def test_the_licence_is_whole() -> None:
    # As published at https://www.apache.org/licenses/LICENSE-2.0.txt.
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
