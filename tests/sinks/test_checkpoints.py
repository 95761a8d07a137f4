from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.errors import Asks, CheckpointError, StorageError
from ews_sync.model import Backfill, FolderCheckpoint, MailboxCheckpoint, Order
from ews_sync.sinks.durable import Disk
from ews_sync.sinks.file_checkpoints import FileCheckpointStore
from ews_sync.sinks.keyed_state import FolderState, from_keyed_state, to_keyed_state
from ews_sync.sinks.paths import state_file
from tests.sinks.builders import FULL, MAILBOX, OTHER, FaultyDisk, PowerCutError

if TYPE_CHECKING:
    from pathlib import Path


def opened(prefix: Path) -> Path:
    """Make the directories that a sink makes for its locks."""
    for mailbox in (MAILBOX, OTHER):
        state_file(prefix, mailbox, ".lock").parent.mkdir(parents=True, exist_ok=True)
    return prefix


@pytest.fixture(autouse=True)
def _opened(tmp_path: Path) -> None:
    opened(tmp_path)


TIME = datetime(2020, 1, 1, tzinfo=UTC)
TEXTS = st.text(max_size=20)
TIMES = st.datetimes(timezones=st.just(UTC))
DIGESTS = st.frozensets(TEXTS, max_size=3)
BACKFILLS = st.builds(
    Backfill,
    order=st.sampled_from(Order),
    since=st.none() | TIMES,
    until=st.none() | TIMES,
    position=st.none() | TIMES,
    seen=st.dictionaries(TIMES, DIGESTS, max_size=3),
    done=st.integers(0, 2**40),
    total=st.integers(0, 2**40),
    verify=st.booleans(),
)
CHECKPOINTS = st.builds(
    FolderCheckpoint,
    folder_id=TEXTS,
    folder_path=st.lists(TEXTS, max_size=3).map(tuple),
    cursor=st.none() | TEXTS,
    synced_until=st.none() | TIMES,
    last_synced_at=st.none() | TIMES,
    newest=st.none() | TIMES,
    backfill=st.none() | BACKFILLS,
    drafts=DIGESTS,
)

FOLDER = FolderCheckpoint(
    "AAMk",
    ("Inbox", "Claims"),
    cursor="H4sI",
    synced_until=TIME,
    last_synced_at=TIME + timedelta(seconds=5),
    backfill=Backfill(position=TIME, seen={TIME: frozenset({"d2", "d1"})}, done=3, total=10),
)


# --- KeyedSyncState --------------------------------------------------------------------------------------------------


def test_it_has_the_platforms_shape() -> None:
    state = to_keyed_state("abc@example.com", FOLDER)
    cursor = state.pop("cursor")
    assert isinstance(cursor, str)
    assert json.loads(cursor)["position"] == "H4sI"
    assert state == {
        "mailbox_name": "abc@example.com",
        "folder_id": "AAMk",
        "folder_path": ["Inbox", "Claims"],
        "status": "IN_PROGRESS",
        "synced_until": "2020-01-01T00:00:00Z",
        "last_synced_at": "2020-01-01T00:00:05Z",
    }
    assert "synced_until" not in to_keyed_state("m", FolderCheckpoint("f", ()))


@given(TEXTS, CHECKPOINTS, st.booleans())
def test_any_checkpoint_comes_back(mailbox: str, checkpoint: FolderCheckpoint, readable: bool) -> None:  # noqa: FBT001
    state = json.loads(json.dumps(to_keyed_state(mailbox, checkpoint, readable=readable)))
    assert from_keyed_state(state | {"id": "ours to ignore"}) == FolderState(mailbox, checkpoint)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "[]", "null", "{}", '{"version":2,"position":"x"}', '{"version":1,"backfill":{}}', 7, [], "[" * 100_000,
     '{"version":1,"position":7}', '{"version":1,"newest":"yesterday"}', '{"version":1,"backfill":{"order":"x"}}'],
)  # fmt: skip
def test_a_cursor_that_is_not_understood_leaves_the_time(cursor: object) -> None:
    read = from_keyed_state(to_keyed_state("m", FOLDER) | {"cursor": cursor})
    assert read.cursor_damaged
    assert read.checkpoint == FolderCheckpoint(
        "AAMk", ("Inbox", "Claims"), synced_until=TIME, last_synced_at=FOLDER.last_synced_at
    )


def test_a_cursor_that_the_server_forgot_is_no_damage() -> None:
    state = to_keyed_state("m", FOLDER)
    del state["cursor"]
    read = from_keyed_state(state)
    assert not read.cursor_damaged
    assert read.checkpoint.cursor is None
    assert read.checkpoint.synced_until == TIME


@pytest.mark.parametrize(
    "change", [{"folder_id": 7}, {"folder_path": 7}, {"synced_until": "x"}, {"mailbox_name": None}]
)
def test_a_state_without_its_folder_is_an_error(change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        from_keyed_state(to_keyed_state("m", FOLDER) | change)


# --- Files -----------------------------------------------------------------------------------------------------------

ONE = MailboxCheckpoint({"AAMk": FOLDER}, sink_position='{"file":1,"bytes":2}')
TWO = MailboxCheckpoint({"AAMk": FolderCheckpoint("AAMk", ("Inbox",), cursor="x")})


async def saved(prefix: Path, checkpoint: MailboxCheckpoint) -> Path:
    store = FileCheckpointStore(prefix)
    await store.save(MAILBOX, checkpoint)
    await store.aclose()
    return state_file(prefix, MAILBOX, ".json")


async def loaded(prefix: Path) -> MailboxCheckpoint:
    store = FileCheckpointStore(prefix)
    try:
        return await store.load(MAILBOX)
    finally:
        await store.aclose()


async def test_what_was_saved_comes_back_in_a_file_that_people_can_read(tmp_path: Path) -> None:
    assert await loaded(tmp_path) == MailboxCheckpoint()
    path = await saved(tmp_path, ONE)
    assert path == tmp_path / "state" / "project" / "bucket" / "abc@example.com.json"
    assert await loaded(tmp_path) == ONE
    state = json.loads(path.read_bytes())
    assert state["version"] == 1
    assert state["folders"][0]["cursor"]["backfill"]["seen"] == {"2020-01-01T00:00:00Z": ["d1", "d2"]}
    assert path.read_text().count("\n") > 20


async def test_the_version_before_stays(tmp_path: Path) -> None:
    await saved(tmp_path, ONE)
    path = await saved(tmp_path, TWO)
    assert await loaded(tmp_path) == TWO
    path.with_name(path.name + ".bak").replace(path)
    assert await loaded(tmp_path) == ONE


async def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    disk = FaultyDisk()
    store = FileCheckpointStore(tmp_path, disk=disk)
    await store.save(MAILBOX, ONE)
    operations = disk.operations
    await store.save(MAILBOX, MailboxCheckpoint(dict(ONE.folders), ONE.sink_position))
    assert disk.operations == operations
    await store.save(MAILBOX, TWO)
    await store.save(MAILBOX, ONE)
    await store.aclose()
    assert await loaded(tmp_path) == ONE


async def test_a_mapping_that_changes_under_way_is_saved_again(tmp_path: Path) -> None:
    store = FileCheckpointStore(tmp_path)
    folders = dict(ONE.folders)
    checkpoint = MailboxCheckpoint(folders)
    await store.save(MAILBOX, checkpoint)
    folders["new"] = FolderCheckpoint("new", ("New",))
    await store.save(MAILBOX, checkpoint)
    await store.aclose()
    assert set((await loaded(tmp_path)).folders) == {"AAMk", "new"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\0" * 512, b"[]", b"{}", b'{"version": 2, "folders": []}', b'{"version": 1}', b"[" * 100_000,
     b'{"version": 1, "folders": [{}]}', b'{"version": 1, "folders": [], "sink_position": 7}', b"\xff"],
)  # fmt: skip
async def test_a_damaged_file_says_what_to_do_and_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = await saved(tmp_path, ONE)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="the state file of mailbox abc@example") as caught:
        await loaded(tmp_path)
    assert ".bak in the place of" in caught.value.hint
    assert caught.value.asks is Asks.STOP
    assert path.read_bytes() == content


@pytest.mark.parametrize(("change", "value"), [("mailbox_name", "other@example.com"), ("cursor", {"version": 9})])
async def test_a_folder_that_was_edited_wrongly_is_damage_too(tmp_path: Path, change: str, value: object) -> None:
    path = await saved(tmp_path, ONE)
    state = json.loads(path.read_bytes())
    state["folders"][0][change] = value
    path.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="holds a folder that cannot be read"):
        await loaded(tmp_path)


@pytest.mark.parametrize("error", [None, FULL])
async def test_wherever_a_save_stops_the_old_or_the_new_is_there(tmp_path: Path, error: int | None) -> None:
    for fails_at in range(9):
        prefix = opened(tmp_path / str(fails_at))
        await saved(prefix, ONE)
        store = FileCheckpointStore(prefix, disk=FaultyDisk(fails_at, error))
        with contextlib.suppress(PowerCutError, StorageError):
            await store.save(MAILBOX, TWO)
        await store.aclose()
        assert await loaded(prefix) in (ONE, TWO)
        await saved(prefix, TWO)
        assert await loaded(prefix) == TWO


async def test_a_failed_save_is_tried_again(tmp_path: Path) -> None:
    disk = FaultyDisk(error=FULL, only="rename")
    store = FileCheckpointStore(tmp_path, disk=disk)
    disk.fails_at = 0
    with pytest.raises(StorageError, match="saving the checkpoint failed: the disk is full"):
        await store.save(MAILBOX, ONE)
    disk.fails_at = -1
    await store.save(MAILBOX, ONE)
    await store.aclose()
    assert await loaded(tmp_path) == ONE


@pytest.mark.parametrize("saved_before", [True, False])
async def test_a_directory_that_goes_away_is_not_made_again(tmp_path: Path, *, saved_before: bool) -> None:
    prefix = opened(tmp_path / "mounted")
    store = FileCheckpointStore(prefix)
    if saved_before:
        await store.save(MAILBOX, ONE)
    prefix.rename(tmp_path / "away")
    with pytest.raises(StorageError, match="still mounted"):
        await store.save(MAILBOX, TWO)
    assert not prefix.exists()
    await store.aclose()


async def test_a_cancelled_save_does_not_undo_a_later_one(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    class Slow(Disk):
        def flush(self, descriptor: int) -> None:
            begun.set()
            release.wait(30)
            super().flush(descriptor)

    store = FileCheckpointStore(tmp_path, threads=4, disk=Slow())
    first = asyncio.ensure_future(store.save(MAILBOX, ONE))
    await asyncio.to_thread(begun.wait, 30)
    first.cancel()
    later = asyncio.ensure_future(store.save(MAILBOX, TWO))
    release.set()
    await later
    await store.aclose()
    assert await loaded(tmp_path) == TWO


async def test_many_saves_at_once_end_with_the_last_one_asked_for(tmp_path: Path) -> None:
    store = FileCheckpointStore(tmp_path, threads=8)
    checkpoints = [MailboxCheckpoint(sink_position=str(number)) for number in range(50)]
    await asyncio.gather(*(store.save(mailbox, item) for item in checkpoints for mailbox in (MAILBOX, OTHER)))
    assert await store.load(MAILBOX) == await store.load(OTHER) == checkpoints[-1]
    await store.aclose()
