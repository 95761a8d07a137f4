from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import AlreadyRunningError, StorageError
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.paths import data_directory, state_file
from ews_sync.sinks.platform.dead_letters import DeadLetterDirectory
from tests.sinks.builders import FULL, MAILBOX, OTHER, FaultyDisk, PowerCutError, a_letter, an_email

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)

HOLD = """
import asyncio, pathlib, sys
from ews_sync.sinks.files import FileSink
from tests.sinks.builders import MAILBOX

async def main():
    sink = FileSink(pathlib.Path(sys.argv[1]))
    await sink.open(MAILBOX, None)
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

FILL = """
import asyncio, pathlib, resource, sys
from ews_sync.errors import StorageError
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.jsonl import JsonlSink
from tests.sinks.builders import MAILBOX, an_email

async def main():
    prefix = pathlib.Path(sys.argv[1])
    for sink in (FileSink(prefix), JsonlSink(prefix)):
        await sink.open(MAILBOX, None)
        await sink.put([an_email("small")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        try:
            await sink.put([an_email("1", data=b"x" * 5_000), an_email("2", data=b"x" * 20_000)])
        except StorageError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        files = sorted(path for path in prefix.joinpath("data").rglob("*") if path.is_file())
        print(*(path.stat().st_size for path in files if path.suffix != ".json"))
        await sink.put([an_email("1", data=b"x" * 5_000), an_email("2", data=b"x" * 20_000)])
        await sink.aclose()

asyncio.run(main())
"""


def letters(prefix: Path) -> list[dict[str, object]]:
    path = data_directory(prefix, MAILBOX) / "dead-letters.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- The lock --------------------------------------------------------------------------------------------------------


async def test_another_process_is_refused_in_one_line_until_it_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program, and the test waits for it anyway
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder, holder.stdin, holder.stdout:
        assert holder.stdout.readline() == "open\n"
        sink = FileSink(tmp_path)
        with pytest.raises(AlreadyRunningError) as caught:
            await sink.open(MAILBOX, None)
        line = str(caught.value)
        assert "\n" not in line
        assert "mailbox abc@example.com" in line
        assert str(tmp_path) in line
        assert f"process {holder.pid} on " in line
        await sink.open(OTHER, None)
        # The lock is the kernel's: it goes with the process, however that ends.
        holder.kill()
        holder.wait()
    await sink.open(MAILBOX, None)
    await sink.put([an_email()])
    await sink.aclose()


async def test_a_lock_file_that_was_removed_stops_the_mailbox(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    state_file(tmp_path, MAILBOX, ".lock").unlink()
    with pytest.raises(StorageError, match="lock file of mailbox"):
        await sink.put([an_email()])
    with pytest.raises(StorageError, match="lock file of mailbox"):
        await sink.dead_letter([a_letter()])
    await sink.aclose()


async def test_a_volume_that_comes_back_is_locked_again_unless_another_process_has_it(tmp_path: Path) -> None:
    sink, other = FileSink(tmp_path), FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    lock = state_file(tmp_path, MAILBOX, ".lock")
    lock.unlink()
    lock.write_bytes(b"")
    await sink.put([an_email()])
    with pytest.raises(StorageError, match="outlived"):
        await other.open(MAILBOX, None)
    lock.unlink()
    await other.open(MAILBOX, None)
    with pytest.raises(StorageError, match="outlived"):
        await sink.put([an_email()])
    await sink.aclose()
    await other.aclose()


async def test_what_a_crash_left_is_removed_when_the_mailbox_is_opened(tmp_path: Path) -> None:
    temporary = data_directory(tmp_path, MAILBOX) / ".tmp"
    temporary.mkdir(parents=True)
    (temporary / ".tmp-1").write_bytes(b"half")
    (temporary / "other").write_bytes(b"not ours")
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.aclose()
    assert [path.name for path in temporary.iterdir()] == ["other"]


async def test_in_shared_directories_only_what_is_nobody_elses_is_removed(tmp_path: Path) -> None:
    state = state_file(tmp_path, MAILBOX, ".json")
    state.parent.mkdir(parents=True)
    ours = [f".tmp-{state.name}", f".tmp-{state.name}.bak", ".tmp-0123456789abcdef", ".tmp-probe-1-2"]
    others = [f".tmp-{OTHER.address}.json", f"{OTHER.address}.json", "notes"]
    for name in (*ours, *others):
        (state.parent / name).write_bytes(b"half")
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.aclose()
    assert {path.name for path in state.parent.iterdir()} == {*others, f"{MAILBOX.address}.lock"}


async def test_beside_the_platform_leftovers_go_before_the_first_letter(tmp_path: Path) -> None:
    leftover = tmp_path / ".tmp-probe-1-2"
    leftover.write_bytes(b"half")
    directory = DeadLetterDirectory(tmp_path)
    await directory.record([a_letter()])
    await directory.aclose()
    assert not leftover.exists()


async def test_an_open_that_failed_halfway_is_done_again_as_a_whole(tmp_path: Path) -> None:
    temporary = data_directory(tmp_path, MAILBOX) / ".tmp"
    temporary.mkdir(parents=True)
    (temporary / ".tmp-1").write_bytes(b"half")
    disk = FaultyDisk(0, FULL, only="flush directory", once=True)
    sink = FileSink(tmp_path, disk=disk)
    with pytest.raises(StorageError):
        await sink.open(MAILBOX, None)
    disk.operations, disk.fails_at, disk.only = 0, 0, "remove"
    with pytest.raises(StorageError):
        await sink.open(MAILBOX, None)
    disk.fails_at = -1
    await sink.open(MAILBOX, None)
    await sink.aclose()
    assert list(temporary.iterdir()) == []


# --- Disk full, as the kernel says it --------------------------------------------------------------------------------


def test_a_limit_of_the_system_tears_nothing_and_passes(tmp_path: Path) -> None:
    result = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    message = "storing mail failed: a file would be larger than is allowed (EFBIG) - raise the limit of file sizes"
    first, sizes, second, more = result.stdout.splitlines()
    assert first.startswith(message)
    assert second.startswith(message)
    assert sizes == "25"
    # The .eml files of the first sink, the line file with its one small email.
    assert min(map(int, more.split())) == 25
    assert len(more.split()) == 4
    assert result.stderr == ""


# --- Dead letters ----------------------------------------------------------------------------------------------------


async def test_a_letter_has_everything_that_is_known(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, now=lambda: NOW)
    await sink.open(MAILBOX, None)
    await sink.dead_letter([a_letter()])
    await sink.aclose()
    line = letters(tmp_path)[0]
    assert line == {
        "id": "AAMk1",
        "message_id": "<1@example.com>",
        "folder": ["Inbox", "Claims"],
        "received": "2020-01-01T00:00:02Z",
        "code": "ErrorItemCorrupt",
        "reason": "the server cannot make MIME of it",
        "recorded_at": "2024-05-06T07:08:09Z",
        "known": {"subject length": "12"},
    }


async def test_a_torn_line_is_cut_off_and_a_damaged_one_is_left_alone(tmp_path: Path) -> None:
    path = data_directory(tmp_path, MAILBOX) / "dead-letters.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'[]\n{"id": 1}\nnonsense\n{"id": "AAMk1", "code": "ErrorItemCorrupt"}\n{"id": "AAM')
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.dead_letter([a_letter("AAMk1"), a_letter("AAMk2")])
    await sink.aclose()
    lines = path.read_bytes().splitlines()
    assert lines[:3] == [b"[]", b'{"id": 1}', b"nonsense"]
    assert [json.loads(line)["id"] for line in lines[3:]] == ["AAMk1", "AAMk2"]


async def test_a_file_that_somebody_emptied_is_begun_anew(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.dead_letter([a_letter()])
    (data_directory(tmp_path, MAILBOX) / "dead-letters.jsonl").unlink()
    await sink.dead_letter([a_letter()])
    await sink.aclose()
    assert len(letters(tmp_path)) == 1


@pytest.mark.parametrize("error", [None, FULL])
async def test_a_letter_is_recorded_once_wherever_it_was_stopped(tmp_path: Path, error: int | None) -> None:
    for step in range(4):
        for same_process in (True, False):
            prefix = tmp_path / f"{step}{same_process}"
            disk = FaultyDisk(error=error)
            sink = FileSink(prefix, disk=disk)
            await sink.open(MAILBOX, None)
            disk.fails_at = disk.operations + step
            with pytest.raises((PowerCutError, StorageError)):
                await sink.dead_letter([a_letter("1"), a_letter("2")])
            disk.fails_at = -1
            if not same_process:
                await sink.aclose()
                sink = FileSink(prefix)
                await sink.open(MAILBOX, None)
            await sink.dead_letter([a_letter("1"), a_letter("2")])
            await sink.aclose()
            assert [letter["id"] for letter in letters(prefix)] == ["1", "2"]
