from __future__ import annotations

import contextlib
import errno
import stat
from typing import TYPE_CHECKING

import pytest

from ews_sync.sinks.durable import Disk, append, make_directories, remove_leftovers, replace, write_all
from tests.sinks.builders import FULL, FaultyDisk, PowerCutError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OLD = {"a/1.eml": b"old", "a/1.json": b"old"}
NEW = {"a/1.eml": b"new", "a/1.json": b"new", "b/c/2.eml": b"new", "b/c/2.json": b"new"}


def stages(root: Path, files: dict[str, bytes]) -> list[list[tuple[Path, Iterable[bytes]]]]:
    return [
        [(root / name, [data[:1], data[1:]]) for name, data in files.items() if name.endswith(suffix)]
        for suffix in (".eml", ".json")
    ]


def visible(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".tmp" not in path.parts
    }


def steps(root: Path) -> int:
    disk = FaultyDisk()
    write_all(Disk(), root / ".tmp", stages(root, OLD))
    write_all(disk, root / ".tmp", stages(root, NEW))
    return disk.operations


@pytest.mark.parametrize("error", [None, FULL])
def test_whatever_stops_it_no_file_is_torn_and_no_json_is_without_its_eml(tmp_path: Path, error: int | None) -> None:
    for fails_at in range(steps(tmp_path / "dry")):
        root = tmp_path / str(fails_at)
        temporary = root / ".tmp"
        write_all(Disk(), temporary, stages(root, OLD))
        with pytest.raises((PowerCutError, OSError)):
            write_all(FaultyDisk(fails_at, error), temporary, stages(root, NEW))
        found = visible(root)
        assert all(found[name] in (OLD.get(name), NEW[name]) for name in found)
        assert OLD.keys() <= found.keys()
        assert all(found[name.replace(".json", ".eml")] == b"new" for name in found if found[name] == b"new")
        # After the restart: what is left over goes, and a repeat stores everything.
        remove_leftovers(Disk(), temporary)
        assert list(temporary.iterdir()) == []
        write_all(Disk(), temporary, stages(root, NEW))
        assert visible(root) == NEW


def test_a_failure_leaves_no_temporary_files(tmp_path: Path) -> None:
    for fails_at in range(steps(tmp_path / "dry")):
        root = tmp_path / str(fails_at)
        write_all(Disk(), root / ".tmp", stages(root, OLD))
        with pytest.raises(OSError, match="No space left"):
            write_all(FaultyDisk(fails_at, FULL, once=True), root / ".tmp", stages(root, NEW))
        assert list((root / ".tmp").iterdir()) == []


def test_everything_is_flushed_before_it_gets_its_name_and_its_directory_after(tmp_path: Path) -> None:
    disk = FaultyDisk()
    files = {f"d/{number}.eml": b"x" for number in range(100)} | {f"d/{number}.json": b"x" for number in range(100)}
    write_all(disk, tmp_path / ".tmp", stages(tmp_path, files))
    first = disk.log.index("rename")
    assert disk.log[:first].count("flush") == 200
    assert "flush" not in disk.log[first:]
    renames = [step for step in disk.log[first:] if step in ("rename", "flush directory")]
    assert renames == (["rename"] * 100 + ["flush directory"]) * 2 + ["flush directory"]


def test_directories_are_flushed_from_the_first_that_was_missing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    assert make_directories(disk, tmp_path / "a" / "b") == [tmp_path / "a", tmp_path / "a" / "b"]
    assert disk.log == ["make directory", "flush directory"] * 2
    assert make_directories(disk, tmp_path / "a" / "b") == []


def test_mail_is_nobody_elses(tmp_path: Path) -> None:
    write_all(Disk(), tmp_path / ".tmp", [[(tmp_path / "d" / "f", [b"x"])]])
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) & ~0o750 == 0
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) & ~0o640 == 0


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "log").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic links") as caught:
        append(Disk(), tmp_path / "log", 0, [b"x"])
    assert caught.value.errno == errno.ELOOP
    write_all(Disk(), tmp_path / ".tmp", [[(tmp_path / "log", [b"x"])]])
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "log").read_bytes() == b"x"


def test_of_one_path_twice_the_last_wins(tmp_path: Path) -> None:
    write_all(Disk(), tmp_path / ".tmp", [[(tmp_path / "f", [b"1"]), (tmp_path / "f", [b"2"])]])
    assert (tmp_path / "f").read_bytes() == b"2"


@pytest.mark.parametrize("error", [None, FULL])
def test_replace_is_whole_or_not_at_all_and_keeps_the_old(tmp_path: Path, error: int | None) -> None:
    dry = FaultyDisk()
    replace(dry, tmp_path / "dry", b"x", spare=".bak")
    for fails_at in range(dry.operations + 2):
        path = tmp_path / f"{fails_at}.json"
        replace(Disk(), path, b"one", spare=".bak")
        replace(Disk(), path, b"two", spare=".bak")
        try:
            replace(FaultyDisk(fails_at, error), path, b"three", spare=".bak")
        except (PowerCutError, OSError):
            assert path.read_bytes() in (b"two", b"three")
            assert path.with_name(path.name + ".bak").read_bytes() in (b"one", b"two")
        replace(Disk(), path, b"four", spare=".bak")
        assert path.read_bytes() == b"four"
        assert path.with_name(path.name + ".bak").read_bytes() in (b"two", b"three")
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("error", [None, FULL])
def test_append_goes_on_where_it_was_whatever_stopped_it(tmp_path: Path, error: int | None) -> None:
    for fails_at in range(4):
        path = tmp_path / f"d{fails_at}" / "log"
        end = append(Disk(), path, 0, [b"one\n"])
        with contextlib.suppress(PowerCutError, OSError):
            append(FaultyDisk(fails_at, error), path, end, [b"two\n", b"three\n"])
        assert path.read_bytes().startswith(b"one\n")
        assert append(Disk(), path, end, [b"four\n"]) == len(b"one\nfour\n")
        assert path.read_bytes() == b"one\nfour\n"


def test_append_cuts_back_at_once_when_the_disk_is_full(tmp_path: Path) -> None:
    end = append(Disk(), tmp_path / "log", 0, [b"one\n"])
    with pytest.raises(OSError, match="No space left"):
        append(FaultyDisk(2, FULL, once=True), tmp_path / "log", end, [b"two\n", b"three\n"])
    assert (tmp_path / "log").read_bytes() == b"one\n"


def test_append_does_not_write_behind_a_hole(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"o")
    with pytest.raises(OSError, match="shorter"):
        append(Disk(), tmp_path / "log", 4, [b"two\n"])


def test_lines_are_written_together_in_blocks_of_bounded_size(tmp_path: Path) -> None:
    disk = FaultyDisk()
    assert append(disk, tmp_path / "log", 0, [b"x" * 999 + b"\n"] * 300) == 300_000
    assert disk.log.count("write") == 3
    assert (tmp_path / "log").read_bytes() == (b"x" * 999 + b"\n") * 300
