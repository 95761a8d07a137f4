"""Small folders, which are read from their feeds alone: what that costs, and what an interruption does to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ews_sync.engine.progress import Begun, Brought, Followed
from ews_sync.errors import Scope, SourceError
from ews_sync.model import Backfill, FolderCheckpoint, FolderStatus, ItemRef
from ews_sync.telemetry.status import Phase
from tests.engine.exchange import Item
from tests.engine.virtual_time import START, run
from tests.engine.world import LONG_AGO, QUICK, SLOW, A, World, fails

if TYPE_CHECKING:
    from ews_sync.model import Folder

EVERY_SINK = pytest.mark.parametrize("sink", ["files", "platform", "lines"])


def checkpoint(world: World, name: str = "Inbox") -> FolderCheckpoint:
    return next(one for one in world.disk.checkpoints["a@x"].folders.values() if one.folder_path == (name,))


@EVERY_SINK
def test_a_small_folder_is_never_listed(sink: str) -> None:
    async def story() -> None:
        world = World(sink=sink)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 300)
        world.exchange.add(inbox, Item("undated", None, LONG_AGO))
        world.exchange.add(inbox, Item("draft", LONG_AGO, is_draft=True))
        world.exchange.add(inbox, Item("task", LONG_AGO, is_mail=False))
        await world.run(10)
        assert not world.missing()
        assert (world.source.count("newest"), world.source.count("items")) == (0, 0)
        # Pages of four batches of ten, or of the least that a page has.
        assert world.source.count("changes") == 5
        world.mail(inbox, "new")
        await world.run(60)
        assert not world.missing()
        assert not world.repeated()
        assert checkpoint(world).status is FolderStatus.UP_TO_DATE
        assert checkpoint(world).synced_until == START.replace(microsecond=0) + timedelta(seconds=10)
        await world.stop()

    run(story())


def test_a_folder_that_is_not_caught_up_in_one_slice_is_listed() -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=50))
        small, large = world.exchange.folder("Small"), world.exchange.folder("Large")
        world.old_mail(small, 50, "small")
        world.old_mail(large, 51, "large")
        listed: set[str] = set()

        async def hook(name: str, folder: Folder | None) -> None:
            if name in {"items", "newest"} and folder is not None:
                listed.add("/".join(folder.path))

        world.source.before = hook
        await world.run(60)
        assert listed == {"Large"}
        assert not world.missing()
        await world.stop()

    run(story())


def test_what_is_older_than_the_start_is_passed_by() -> None:
    async def story() -> None:
        world = World(replace(A, start_timestamp=LONG_AGO + timedelta(minutes=100)))
        world.old_mail(world.exchange.folder("Inbox"), 200)
        await world.run(30)
        assert len(world.stored()) == 100
        assert world.source.count("items") == 0
        await world.stop()

    run(story())


@EVERY_SINK
@pytest.mark.parametrize("after", [1, 7, 20, 33])
def test_a_crash_or_a_stop_in_the_middle_goes_on_where_it_was(sink: str, after: int) -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=20), sink=sink)
        world.old_mail(world.exchange.folder("Inbox"), 400)
        await world.run(after)
        await world.restart()
        await world.run(300)
        assert not world.missing()
        assert not world.repeated()
        assert world.source.count("items") == 0
        assert checkpoint(world).backfill is None
        await world.stop()

    run(story())


def test_a_feed_of_which_nothing_is_left_after_a_restart_is_at_its_end() -> None:
    async def story() -> None:
        world = World()
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 10)
        await world.run(10)
        await world.stop()
        # As it is when the process ends between the last page with anything in it and an empty one.
        (folder_id,) = world.disk.checkpoints["a@x"].folders
        begun = replace(checkpoint(world), backfill=Backfill(done=10, total=10, by_feed=True), synced_until=None)
        world.disk.checkpoints["a@x"] = replace(world.disk.checkpoints["a@x"], folders={folder_id: begun})
        world.anew()
        await world.run(60)
        assert checkpoint(world).status is FolderStatus.UP_TO_DATE
        assert checkpoint(world).synced_until is not None
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_position_that_is_forgotten_in_the_middle() -> None:
    """Files can be asked what they hold, so nothing is stored twice; all that is left is found by listing."""

    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=20))
        world.old_mail(world.exchange.folder("Inbox"), 400)
        await world.run(15)
        assert checkpoint(world).cursor is not None
        world.exchange.forget_cursors()
        await world.run(300)
        assert not world.missing()
        assert not world.repeated()
        assert world.source.count("items") > 0
        await world.stop()

    run(story())


def test_a_folder_that_fails_in_the_middle_is_read_on_later() -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, reinfer_batch_size=20))
        for name in ("A", "B"):
            world.old_mail(world.exchange.folder(name), 300, name)
        world.source.before = fails(SourceError("an item that cannot be read"), "fetch", "A", times=3)
        await world.run(600)
        assert not world.missing()
        assert not world.repeated()
        assert world.source.count("items") == 0
        await world.stop()

    run(story())


@pytest.mark.parametrize("sink", ["files", "platform"])
@pytest.mark.parametrize("scope", [Scope.FOLDER, Scope.PROCESS])
def test_a_new_folder_that_fails_before_anybody_knows_of_it(sink: str, scope: Scope) -> None:
    """That its feed is read waits to be confirmed behind another folder's mail, which is just being stored."""

    async def story() -> None:
        world = World(replace(A, start_timestamp=LONG_AGO - timedelta(days=1)), sink=sink)
        first = world.exchange.folder("First")
        world.old_mail(first, 20, "first")
        await world.run(40)
        world.mail(first, "new")
        world.old_mail(world.exchange.folder("Second"), 300, "second")
        is_slow = True

        async def slowly(_: object) -> None:
            if is_slow:
                await asyncio.sleep(8)

        world.sink.before = slowly
        world.source.before = fails(SourceError("trouble", scope=scope), "fetch", "Second", times=1)
        await world.run(60)
        is_slow = False
        await world.run(7200)
        assert not world.missing()
        await world.stop()

    run(story())


def test_a_start_that_is_changed_in_the_middle_is_for_what_begins_after_it() -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=20))
        world.old_mail(world.exchange.folder("Inbox"), 400)
        await world.run(15)
        assert 0 < len(world.stored()) < 400
        world.mailboxes = (replace(A, start_timestamp=LONG_AGO + timedelta(days=10)),)
        await world.restart()
        await world.run(300)
        assert len(world.stored()) == 400
        await world.stop()

    run(story())


def test_an_empty_folder_costs_nothing_until_there_is_something_in_it_or_an_hour_has_passed() -> None:
    async def story() -> None:
        world = World()
        inbox, other = world.exchange.folder("Inbox"), world.exchange.folder("Other")
        await world.run(600)
        assert world.source.count("changes") == 0
        assert world.progress().phase is Phase.FOLLOWING
        world.mail(inbox, "the first")
        await world.run(60)
        assert set(world.stored()) == {"the first"}
        asked = world.source.count("changes")
        await world.run(3600)
        world.mail(other, "another")
        await world.run(60)
        assert set(world.stored()) == {"the first", "another"}
        # Both are swept, and the one with the new mail is read until it counts as quiet.
        assert world.source.count("changes") == asked + 4
        await world.stop()

    run(story())


# --- The checkpoint --------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_a_feed_that_is_read_from_its_start() -> None:
    now = START
    refs = tuple(ItemRef(name, received=LONG_AGO + timedelta(minutes=number)) for number, name in enumerate("abcd"))
    begun = Begun(Backfill(total=4, by_feed=True)).apply(FolderCheckpoint("f", ("F",)), now)
    assert begun.status is FolderStatus.IN_PROGRESS
    part = Brought(refs[:2]).apply(begun, now)
    assert part.backfill is not None
    assert (part.cursor, part.backfill.done, len(*part.backfill.seen.values())) == (None, 2, 2)
    page = Followed("1", refs[2:3]).apply(part, now)
    assert page.backfill is not None
    assert (page.cursor, page.backfill.done, page.backfill.seen, page.synced_until) == ("1", 3, {}, None)
    end = Followed("2", refs[3:], last=True).apply(page, now)
    assert (end.cursor, end.backfill, end.synced_until) == ("2", None, refs[3].received)
