from __future__ import annotations

from pathlib import Path

import pytest

from ews_sync.settings import directories

MAIL = Path("/mnt/ews")


@pytest.mark.parametrize(
    ("owner", "become"),
    [((1000, 100), ", or run as its owner (in a container: docker run --user 1000:100 ...)"), ((0, 0), "")],
)
def test_a_directory_of_somebody_else(owner: tuple[int, int], become: str) -> None:
    assert directories.ownership(MAIL, owner, (10001, 10002)) == (
        f'; "/mnt/ews" belongs to user {owner[0]}, and this runs as user 10001: '
        f"chown -R 10001:10002 the directory (of a container: the one on the host){become}"
    )


def test_a_directory_of_ones_own() -> None:
    found = directories.ownership(MAIL, (10001, 7), (10001, 10002))
    assert found == '; "/mnt/ews" belongs to this user, and does not let it write: chmod u+rwx'


def test_it_is_said_of_the_directory_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_directory: Path, _created: list[Path]) -> str | None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(directories, "_obstacle", refuse)
    found = directories.why_not_writable(tmp_path / "a" / "b")
    assert found is not None
    assert found.startswith(f'cannot be written: permission denied: "{tmp_path}/a/b"; "{tmp_path}" belongs to ')
