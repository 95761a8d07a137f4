"""Checkpoints as keyed sync states, against the stand-in platform."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import Asks, CheckpointError, SinkError
from ews_sync.model import Backfill, FolderCheckpoint, MailboxCheckpoint
from ews_sync.simulator.platform.faults import CursorForgotten, CursorRefused, RequestTooLarge, api_error
from ews_sync.sinks.platform.states import CURSOR_REFUSED, NO_CURSOR
from tests.sinks.builders import MAILBOX, OTHER

if TYPE_CHECKING:
    from ews_sync.sinks.platform.states import PlatformCheckpointStore
    from tests.sinks.platform.surroundings import Platform

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


def a_folder(key: str = "AAMk1", **changes: object) -> FolderCheckpoint:
    folder = FolderCheckpoint(key, ("Inbox", "Claims"), cursor="position 1", synced_until=UNTIL, last_synced_at=UNTIL)
    return replace(folder, **changes)  # type: ignore[arg-type]


def a_checkpoint(*folders: FolderCheckpoint) -> MailboxCheckpoint:
    return MailboxCheckpoint({folder.folder_id: folder for folder in folders})


def states(platform: Platform) -> list[dict[str, object]]:
    return [dict(state) for state in platform.store.keyed_sync_states("project", "bucket")]


async def test_what_was_saved_is_loaded_by_the_next_process(platform: Platform) -> None:
    mine = a_checkpoint(a_folder(), a_folder("AAMk2", cursor=None, backfill=Backfill(position=UNTIL, done=3, total=9)))
    theirs = a_checkpoint(a_folder("AAMk9"))
    async with platform.checkpoints() as store:
        assert await store.load(MAILBOX) == MailboxCheckpoint()
        await store.save(MAILBOX, mine)
        await store.save(OTHER, theirs)
    async with platform.checkpoints() as store:
        assert await store.load(OTHER) == theirs
        assert await store.load(MAILBOX) == mine
    assert platform.warnings == []


async def test_a_state_is_what_the_platform_knows_and_has_the_documented_id(platform: Platform) -> None:
    async with platform.checkpoints() as store:
        await store.save(MAILBOX, a_checkpoint(a_folder()))
    [state] = states(platform)
    assert isinstance(state.pop("cursor"), str)
    assert state == {
        "mailbox_name": "abc@example.com",
        "folder_id": "AAMk1",
        "folder_path": ["Inbox", "Claims"],
        "status": "UP_TO_DATE",
        "synced_until": "2026-01-01T00:00:00Z",
        "last_synced_at": "2026-01-01T00:00:00Z",
    }
    bucket = platform.store.bucket("project", "bucket")
    assert bucket is not None
    expected = hashlib.sha256(b"abc@example.com\nAAMk1").hexdigest()
    assert platform.store.keyed_sync_state_ids(bucket, MAILBOX.address) == [expected]


async def test_all_mailboxes_of_a_bucket_are_read_with_one_request(platform: Platform) -> None:
    async with platform.checkpoints() as store:
        await asyncio.gather(store.load(MAILBOX), store.load(OTHER))
    assert len(platform.server.log.of("get_keyed_sync_states")) == 1
    assert len(platform.server.log.of("get_bucket")) == 1


async def test_only_folders_that_moved_are_written(platform: Platform) -> None:
    async with platform.checkpoints() as store:
        await store.save(MAILBOX, a_checkpoint(a_folder(), a_folder("AAMk2")))
    async with platform.checkpoints() as store:
        loaded = await store.load(MAILBOX)
        platform.server.log.clear()
        await store.save(MAILBOX, loaded)
        assert not platform.server.log.of("put_keyed_sync_state")
        moved = a_folder("AAMk2", cursor="position 2")
        await store.save(MAILBOX, MailboxCheckpoint({**loaded.folders, "AAMk2": moved}))
    assert len(platform.server.log.of("put_keyed_sync_state")) == 1
    async with platform.checkpoints() as store:
        assert (await store.load(MAILBOX)).folders["AAMk2"] == moved


async def test_of_a_save_that_fails_in_part_the_rest_is_written_the_next_time(platform: Platform) -> None:
    checkpoint = a_checkpoint(*(a_folder(f"AAMk{number}") for number in range(6)))
    platform.server.faults.add(api_error(500), operation="put_keyed_sync_state", nth=(2, 5))
    async with platform.checkpoints() as store:
        with pytest.raises(SinkError, match="HTTP 500"):
            await store.save(MAILBOX, checkpoint)
        assert len(states(platform)) == 4
        platform.server.log.clear()
        platform.server.faults.clear()
        await store.save(MAILBOX, checkpoint)
    assert len(platform.server.log.of("put_keyed_sync_state")) == 2
    assert len(states(platform)) == 6


async def test_a_platform_that_refuses_cursors_gets_the_rest_and_is_told_of_once(platform: Platform) -> None:
    platform.server.faults.add(CursorRefused())
    async with platform.checkpoints() as store:
        await refused_until_it_is_a_habit(platform, store, a_checkpoint(a_folder(), a_folder("AAMk2")))
        platform.server.log.clear()
        await store.save(MAILBOX, a_checkpoint(a_folder(cursor="position 2")))
        await store.save(OTHER, a_checkpoint(a_folder()))
        assert [record.status for record in platform.server.log.of("put_keyed_sync_state")] == [200, 200]
        assert platform.warnings == [CURSOR_REFUSED]
        assert all("cursor" not in state for state in states(platform))
        platform.server.faults.clear()
        platform.clock.seconds += 600
        await store.save(OTHER, a_checkpoint(a_folder(cursor="position 3")))
        assert sum("cursor" in state for state in states(platform)) == 1, "it is tried again once in a while"
    async with platform.checkpoints() as store:
        loaded = await store.load(MAILBOX)
    assert loaded.folders["AAMk1"] == FolderCheckpoint(
        "AAMk1", ("Inbox", "Claims"), synced_until=UNTIL, last_synced_at=UNTIL
    )
    assert platform.warnings == [CURSOR_REFUSED, NO_CURSOR]


async def refused_until_it_is_a_habit(
    platform: Platform, store: PlatformCheckpointStore, checkpoint: MailboxCheckpoint
) -> None:
    for _ in range(2):
        with pytest.raises(SinkError, match="cursor"):
            await store.save(MAILBOX, checkpoint)
        assert len(states(platform)) == len(checkpoint.folders), "the rest is saved at once"
        platform.clock.seconds += 5
    await store.save(MAILBOX, checkpoint)


async def test_a_single_refusal_costs_no_cursor(platform: Platform) -> None:
    platform.server.faults.add(api_error(400), operation="put_keyed_sync_state", times=1)
    checkpoint = a_checkpoint(a_folder(), a_folder("AAMk2"))
    async with platform.checkpoints() as store:
        with pytest.raises(SinkError):
            await store.save(MAILBOX, checkpoint)
        await store.save(MAILBOX, checkpoint)
    assert all("cursor" in state for state in states(platform))
    assert platform.warnings == []


async def test_a_state_that_is_too_large_goes_without_its_cursor_alone(platform: Platform) -> None:
    platform.server.faults.add(RequestTooLarge(2000))
    checkpoint = a_checkpoint(a_folder(cursor="x" * 3000), a_folder("AAMk2"))
    async with platform.checkpoints() as store:
        for _ in range(5):
            await store.save(MAILBOX, checkpoint)
            platform.clock.seconds += 5
    assert sorted("cursor" in state for state in states(platform)) == [False, True]
    assert platform.warnings == []


async def test_of_two_spellings_of_an_address_its_own_counts(platform: Platform) -> None:
    bucket = platform.store.bucket("project", "bucket")
    assert bucket is not None
    for number, (name, until) in enumerate(
        [("abc@example.com", "2025-01-03"), ("ABC@example.com", "2025-01-02"), ("Abc@example.com", "2025-01-09")]
    ):
        state = {"mailbox_name": name, "folder_id": "AAMk1", "folder_path": ["Inbox"], "status": "UP_TO_DATE"}
        times = {"synced_until": f"{until}T00:00:00Z", "last_synced_at": f"{until}T00:00:00Z"}
        platform.store.put_keyed_sync_state(bucket, f"{number}", {**state, **times})
    async with platform.checkpoints() as store:
        folder = (await store.load(MAILBOX)).folders["AAMk1"]
    assert folder.synced_until == datetime(2025, 1, 3, tzinfo=UTC)


async def test_a_platform_that_forgets_cursors_is_told_of_once(platform: Platform) -> None:
    platform.server.faults.add(CursorForgotten())
    async with platform.checkpoints() as store:
        await store.save(MAILBOX, a_checkpoint(a_folder(), a_folder("AAMk2")))
        await store.save(OTHER, a_checkpoint(a_folder()))
    assert platform.warnings == []
    async with platform.checkpoints() as store:
        loaded = [await store.load(MAILBOX), await store.load(OTHER)]
    assert all(folder.synced_until == UNTIL for one in loaded for folder in one.folders.values())
    assert platform.warnings == [NO_CURSOR]


async def test_a_state_that_another_appliance_wrote_is_gone_on_with(platform: Platform) -> None:
    bucket = platform.store.bucket("project", "bucket")
    assert bucket is not None
    platform.store.put_keyed_sync_state(
        bucket,
        "theirs",
        {
            "mailbox_name": "ABC@example.com",
            "folder_id": "AAMk1",
            "folder_path": ["Inbox"],
            "status": "UP_TO_DATE",
            "synced_until": "2025-06-01T12:00:00.123456+02:00",
            "last_synced_at": "2025-06-01T10:00:01Z",
        },
    )
    async with platform.checkpoints() as store:
        folder = (await store.load(MAILBOX)).folders["AAMk1"]
    assert folder.synced_until == datetime(2025, 6, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert folder.cursor is None
    assert platform.warnings == [NO_CURSOR]


async def test_a_damaged_cursor_costs_no_more_than_the_cursor(platform: Platform) -> None:
    bucket = platform.store.bucket("project", "bucket")
    assert bucket is not None
    state = {"mailbox_name": MAILBOX.address, "folder_id": "AAMk1", "folder_path": ["Inbox"], "status": "UP_TO_DATE"}
    times = {"synced_until": "2026-01-01T00:00:00Z", "last_synced_at": "2026-01-01T00:00:00Z"}
    platform.store.put_keyed_sync_state(bucket, "x", {**state, **times, "cursor": '{"version":99}'})
    async with platform.checkpoints() as store:
        assert (await store.load(MAILBOX)).folders["AAMk1"].synced_until == UNTIL


async def test_a_state_of_a_mailbox_as_a_whole_is_passed_by(platform: Platform) -> None:
    bucket = platform.store.bucket("project", "bucket")
    assert bucket is not None
    times = {"synced_until": "2026-01-01T00:00:00Z", "last_synced_at": "2026-01-01T00:00:00Z"}
    state = {"mailbox_name": MAILBOX.address, "folder_id": None, "folder_path": None, "status": "UP_TO_DATE"}
    platform.store.put_keyed_sync_state(bucket, "x", {**state, **times})
    async with platform.checkpoints() as store:
        assert await store.load(MAILBOX) == MailboxCheckpoint()


async def test_a_state_that_makes_no_sense_asks_for_an_operator(platform: Platform) -> None:
    bucket = platform.store.bucket("project", "bucket")
    assert bucket is not None
    platform.store.put_keyed_sync_state(bucket, "x", {"mailbox_name": MAILBOX.address, "folder_id": 7})
    async with platform.checkpoints() as store:
        with pytest.raises(CheckpointError, match=r"abc@example\.com") as caught:
            await store.load(MAILBOX)
        assert caught.value.asks is Asks.STOP
        assert "start_from" in caught.value.hint
        assert await store.load(OTHER) == MailboxCheckpoint(), "the others go on"


async def test_a_bucket_that_was_made_anew_is_found_again(platform: Platform) -> None:
    async with platform.checkpoints() as store:
        await store.save(MAILBOX, a_checkpoint(a_folder()))
        platform.store.delete_bucket("project", "bucket")
        platform.store.create_bucket("project", "bucket")
        with pytest.raises(SinkError):
            await store.save(MAILBOX, a_checkpoint(a_folder(cursor="position 2")))
        await store.save(MAILBOX, a_checkpoint(a_folder(cursor="position 2")))
    assert len(states(platform)) == 1
