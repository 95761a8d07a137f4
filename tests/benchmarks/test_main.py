from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import __main__ as command
from benchmarks.report import Table
from tests.docs.pages import DOCS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE = "top\n<!-- measured: good -->\nold\n<!-- end of good -->\n<!-- measured: bad -->\nkept\n<!-- end of bad -->\n"


def good(rounds: int) -> Sequence[Table]:
    return [Table(f"Rounds: {rounds}", ("", "emails/s"), [("ours", "4,000")])]


def bad(rounds: int) -> Sequence[Table]:
    raise SystemExit(f"broken in {rounds}")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "GROUPS", {"bad": bad, "good": good})
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--rounds", "2", "--write", str(page)])
    return page


def test_a_group_that_fails_keeps_its_old_figures_and_the_others_are_written(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="could not be measured: bad"):
        command.main()
    written = page.read_text()
    assert "kept" in written
    assert "old" not in written
    assert "**Rounds: 2**\n\n|  | emails/s |" in written
    shown = capsys.readouterr()
    assert "4,000" in shown.out
    assert "bad failed: SystemExit: broken in 2" in shown.err


def test_a_page_without_a_section_is_refused_before_anything_is_measured(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page.write_text(PAGE.replace("measured: good", "measured: other"))
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "measured: good" in shown.err
    assert "bad failed" not in shown.err


def test_the_handbook_has_a_section_for_each_group() -> None:
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    for name in command.GROUPS:
        assert f"<!-- measured: {name} -->" in page
        assert f"<!-- end of {name} -->" in page
