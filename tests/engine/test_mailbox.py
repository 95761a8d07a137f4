"""One mailbox kept in step, on virtual time: what is stored, how often, and at what cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import ConnectionFailedError, FolderGoneError, ProtocolError, SourceError
from ews_sync.model import ChangeKind, FolderCheckpoint, FolderStatus, MailboxCheckpoint, StartFrom
from ews_sync.telemetry.status import Phase
from tests.engine.exchange import Item
from tests.engine.virtual_time import START, run
from tests.engine.world import LONG_AGO, QUICK, SLOW, A, B, World, fails

if TYPE_CHECKING:
    from ews_sync.model import Folder

EVERY_SINK = pytest.mark.parametrize("sink", ["files", "platform", "lines"])


@EVERY_SINK
def test_old_and_new_mail_is_stored_once(sink: str) -> None:
    async def story() -> None:
        world = World(sink=sink)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 300)
        await world.run()
        assert not world.missing()
        world.mail(inbox, "new")
        await world.run()
        assert not world.missing()
        assert not world.repeated()
        await world.restart()
        await world.run()
        assert not world.repeated()
        assert world.source.count("fetch") == 0
        await world.stop()

    run(story())


def test_mail_moved_into_a_folder_whose_newest_is_newer() -> None:
    async def story() -> None:
        world = World()
        inbox, archive = world.exchange.folder("Inbox"), world.exchange.folder("Archive")
        first, *_ = world.old_mail(inbox, 5)
        world.mail(archive, "newest")
        await world.run()
        world.exchange.move(inbox, first, archive)
        await world.run()
        assert not world.missing()
        assert world.repeated() == {"old-0": 2}, "once in each folder"
        await world.stop()

    run(story())


@EVERY_SINK
@pytest.mark.parametrize("number", [0, 40, 399])
def test_mail_moved_in_around_the_position_of_the_backfill_is_stored_once(
    sink: str,
    number: int,
) -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10), sink=sink)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 400)
        await world.run(20)
        assert 50 < len(world.stored()) < 350, "in the middle of the backfill"
        world.mail(inbox, "moved", at=LONG_AGO + timedelta(seconds=number * 60))
        await world.run(80)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_page_that_the_feed_would_bring_too_is_not_stored_twice() -> None:
    """The feed is read while most of a listed page is still to be stored."""

    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10), sink="lines")
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 200)
        moved = False

        async def hook(name: str, _: Folder | None) -> None:
            nonlocal moved
            if name == "items" and not moved:
                # After the mark, before the page: both the feed and the listing have it.
                moved = True
                world.mail(inbox, "early", at=LONG_AGO + timedelta(seconds=30))
                world.mail(inbox, "late", at=LONG_AGO + timedelta(seconds=150 * 60 + 30))

        world.source.before = hook
        await world.run(80)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_folders_that_appear_later_vanish_and_come_back() -> None:
    async def story() -> None:
        world = World()
        world.mail(world.exchange.folder("Inbox"), "one")
        await world.run()
        late = world.exchange.folder("Inbox/Late")
        world.old_mail(late, 30)
        await world.run(31)
        assert not world.missing()
        world.exchange.remove_folder(late)
        await world.run()
        assert list(world.progress().folders) == ["f1"]
        world.exchange.mailboxes["a@x"][late.id] = late
        world.mail(late, "two")
        await world.run()
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


@pytest.mark.parametrize("call", ["changes", "items", "newest", "fetch"])
@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_folder_that_goes_in_the_middle_of_a_round_holds_up_nothing(call: str, how: str) -> None:
    async def story() -> None:
        world = World(replace(A, folder_denylist=(("Trash",),)), pace=replace(SLOW, reinfer_batch_size=10))
        first = world.exchange.folder("A")
        world.old_mail(first, 300, "a")
        world.old_mail(world.exchange.folder("B"), 20, "b")
        gone = 0

        async def hook(name: str, where: Folder | None) -> None:
            nonlocal gone
            if name == call and where is not None and where.path == ("A",):
                gone += 1
                if gone == 3 or (gone == 1 and call in {"items", "newest"}):
                    if how == "removed":
                        world.exchange.mailboxes["a@x"].pop(first.id, None)
                    else:
                        first.path = ("Trash", "A")

        world.source.before = hook
        await world.run(120)
        assert {name for name in world.stored() if name.startswith("b")} == {f"b-{number}" for number in range(20)}
        assert world.progress().failure is None
        checkpoint = world.disk.checkpoints["a@x"].folders
        assert [folder.status for folder in checkpoint.values() if folder.folder_path == ("B",)] == [
            FolderStatus.UP_TO_DATE
        ]
        await world.stop()

    run(story())


def test_drafts_are_stored_when_they_are_sent() -> None:
    async def story() -> None:
        world = World()
        drafts, sent = world.exchange.folder("Drafts"), world.exchange.folder("Sent")
        old = [world.exchange.add(drafts, Item(f"old-{number}", LONG_AGO, is_draft=True)) for number in range(2)]
        undated = world.exchange.add(drafts, Item("undated", None, LONG_AGO, is_draft=True))
        await world.run()
        new = [world.exchange.add(drafts, Item(f"new-{number}", world.clock.now(), is_draft=True)) for number in (0, 1)]
        dropped = world.exchange.add(drafts, Item("dropped", world.clock.now(), is_draft=True))
        await world.run()
        assert not world.stored()
        await world.restart()
        for item_id in (old[0], new[0], undated):
            world.exchange.send(drafts, item_id)
        for item_id in (old[1], new[1]):
            world.exchange.send(drafts, item_id)
            world.exchange.move(drafts, item_id, sent)
        world.exchange.remove(drafts, dropped)
        await world.run()
        assert not world.missing()
        assert set(world.stored()) == {"old-0", "old-1", "new-0", "new-1", "undated"}
        await world.run()
        assert not world.repeated()
        await world.stop()
        assert all(not folder.drafts for folder in world.disk.checkpoints["a@x"].folders.values())

    run(story())


def test_a_draft_that_the_backfill_read_and_the_feed_brings_as_sent() -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10), small=0)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 300)
        draft = ""

        async def hook(name: str, _: Folder | None) -> None:
            nonlocal draft
            if name == "items" and not draft:
                draft = world.exchange.add(inbox, Item("draft", LONG_AGO, is_draft=True))

        world.source.before = hook
        await world.run(10)
        world.exchange.send(inbox, draft)
        await world.run(60)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_draft_that_is_sent_in_its_place_before_the_listing_comes_to_it() -> None:
    """It jumps over the end of the listing, and the feed tells of it only after the listing is done."""

    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=10))
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 30)
        draft = world.exchange.add(inbox, Item("draft", LONG_AGO + timedelta(days=1), is_draft=True))
        await world.run(10)
        world.mail(inbox, *(f"new-{number}" for number in range(100)))
        world.exchange.send(inbox, draft)
        await world.run(60)
        assert "old-29" in world.stored()
        assert "draft" not in world.stored()
        await world.run(150)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_draft_that_is_sent_between_being_listed_and_being_fetched() -> None:
    """It keeps its received time, so nothing but the feed tells that it is mail now."""

    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10))
        world.exchange.page_size = 500
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 240)
        draft = world.exchange.add(inbox, Item("draft", LONG_AGO + timedelta(minutes=220), is_draft=True))
        await world.run(10)
        assert "old-219" not in world.stored()
        inbox.items[draft].is_draft = False
        world.exchange.update(inbox, draft)
        await world.run(60)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()
        assert all(not folder.drafts for folder in world.disk.checkpoints["a@x"].folders.values())

    run(story())


def test_who_waits_for_a_turn_to_list_follows_new_mail_meanwhile() -> None:
    async def story() -> None:
        world = World(A, B, small=0)
        world.options = replace(world.options, turns=1)
        world.another_engine()
        inboxes = {address: world.exchange.folder("Inbox", address) for address in ("a@x", "b@x")}
        for address, inbox in inboxes.items():
            world.old_mail(inbox, 300, address)
        listed: list[str] = []

        async def hook(name: str, folder: Folder | None) -> None:
            if name == "items" and folder is not None and not listed:
                listed.append(folder.id)
                await asyncio.sleep(100)

        world.source.before = hook
        await world.run(10)
        (waiting,) = (address for address, inbox in inboxes.items() if inbox.id not in listed)
        world.mail(inboxes[waiting], "new")
        await world.run(40)
        assert set(world.stored(waiting)) == {"new"}
        await world.run(300)
        assert not world.missing()
        assert not world.missing("b@x")
        assert not world.repeated()
        await world.stop()

    run(story())


def test_nothing_from_before_the_start_is_stored_whatever_way_it_comes() -> None:
    async def story() -> None:
        start = LONG_AGO + timedelta(hours=1, microseconds=500_000)
        world = World(replace(A, start_timestamp=start))
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 120)
        world.exchange.add(inbox, Item("same second", start + timedelta(microseconds=200_000)))
        world.exchange.add(inbox, Item("undated and old", None, LONG_AGO))
        world.exchange.add(inbox, Item("undated", None, start + timedelta(days=1)))
        await world.run()
        world.mail(inbox, "moved in, old", at=LONG_AGO)
        world.mail(inbox, "moved in", at=start + timedelta(days=2))
        world.mail(inbox, "moved in, same second", at=start - timedelta(microseconds=200_000))
        await world.run()
        assert set(world.stored()) == {f"old-{number}" for number in range(60, 120)} | {
            "same second",
            "undated",
            "moved in",
            "moved in, same second",
        }
        assert not world.repeated()
        await world.stop()

    run(story())


def test_start_from_config_begins_again_at_every_start_and_only_then() -> None:
    async def story() -> None:
        world = World(replace(A, start_from=StartFrom.CONFIG, start_timestamp=LONG_AGO + timedelta(minutes=5)))
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 10)
        await world.run()
        world.source.before = fails(ConnectionFailedError("no"), "folders", times=1)
        await world.run(120)
        assert not world.repeated()
        await world.restart()
        await world.run()
        assert world.repeated() == {f"old-{number}": 2 for number in range(5, 10)}
        await world.stop()
        world.another_engine()
        world.mail(inbox, "new")
        await world.run()
        assert "new" in world.stored()
        assert max(world.disk.uploads.values()) == 2, "a restart inside the process is no start"
        await world.stop()

    run(story())


def test_undated_items_are_stored_once() -> None:
    async def story() -> None:
        world = World()
        world.exchange.page_size = 7
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 20)
        for number in range(20):
            world.exchange.add(inbox, Item(f"undated-{number}", None, LONG_AGO + timedelta(seconds=number // 10)))
        await world.run()
        world.exchange.add(inbox, Item("undated-new", None, LONG_AGO))
        await world.run()
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


@EVERY_SINK
def test_three_thousand_items_in_one_second(sink: str) -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=700), sink=sink)
        inbox = world.exchange.folder("Inbox")
        second = LONG_AGO
        world.old_mail(inbox, 10, "before", apart=-1.0)
        world.old_mail(inbox, 3000, "same", apart=0.0003)
        world.mail(inbox, "after", at=second + timedelta(seconds=5))
        await world.run(200)
        assert not world.missing()
        assert not world.repeated()
        assert world.progress().done == world.progress().total
        await world.stop()

    run(story())


def test_a_forgotten_cursor_with_a_sink_that_remembers() -> None:
    """Mail that was moved in while there was no cursor is found, wherever it lies; the rest is not stored again."""

    async def story() -> None:
        world = World()
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 100)
        await world.run()
        await world.stop()
        world.exchange.forget_cursors()
        world.mail(inbox, "moved in", at=LONG_AGO + timedelta(minutes=7))
        world.mail(inbox, "new")
        world.anew()
        await world.run()
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_cursor_forgotten_in_the_middle_of_a_backfill_with_a_sink_that_remembers() -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10))
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 400)
        await world.run(20)
        world.exchange.forget_cursors()
        world.mail(inbox, "moved in", at=LONG_AGO + timedelta(minutes=7))
        await world.run(120)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


@pytest.mark.parametrize("sink", ["platform", "lines"])
def test_a_forgotten_cursor_with_a_sink_that_does_not_recall_everything(sink: str) -> None:
    async def story() -> None:
        world = World(sink=sink)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 100, apart=60.0)
        last = LONG_AGO + timedelta(minutes=99)
        await world.run()
        await world.stop()
        world.exchange.forget_cursors()
        world.mail(inbox, "delivered late", at=last - timedelta(minutes=5))
        world.mail(inbox, "new")
        world.anew()
        await world.run()
        assert not world.missing()
        overlap = {f"old-{number}" for number in range(89, 100)}
        # A sink that can be asked is asked about the overlap, and about no more than that.
        assert set(world.repeated()) == (set() if sink == "platform" else overlap)
        assert set(world.sink.asked) == (overlap | {"delivered late", "new"} if sink == "platform" else set())
        await world.stop()

    run(story())


def test_a_platform_that_keeps_no_cursors_is_gone_on_with_from_synced_until() -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10), sink="platform")
        inbox, claims = world.exchange.folder("Inbox"), world.exchange.folder("Claims")
        world.old_mail(inbox, 60)
        world.old_mail(claims, 1000, "claim")
        await world.run(20)
        for number in range(3):
            world.mail(inbox, f"new-{number}")
        await world.run(20)
        await world.stop()
        assert world.progress().done < world.progress().total, "in the middle of a backfill"
        for address, checkpoint in world.disk.checkpoints.items():
            folders = {
                key: FolderCheckpoint(key, folder.folder_path, synced_until=folder.synced_until)
                for key, folder in checkpoint.folders.items()
            }
            world.disk.checkpoints[address] = MailboxCheckpoint(folders)
        world.mail(inbox, "meanwhile")
        world.anew()
        await world.run(300)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_cursor_forgotten_before_the_undated_items_were_listed() -> None:
    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10), sink="platform")
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 20)
        for number in range(100):
            world.exchange.add(inbox, Item(f"undated-{number}", None, LONG_AGO + timedelta(seconds=number)))
        await world.run(8)
        assert 20 < len(world.stored()) < 100
        world.exchange.forget_cursors()
        await world.restart()
        await world.run()
        assert not world.missing()
        await world.stop()

    run(story())


def test_a_received_time_in_the_future_does_not_hide_what_comes_later() -> None:
    async def story() -> None:
        world = World(sink="platform")
        inbox = world.exchange.folder("Inbox")
        world.mail(inbox, "first")
        await world.run()
        world.mail(inbox, "from the future", at=START + timedelta(days=9000))
        await world.run()
        await world.stop()
        world.exchange.forget_cursors()
        world.mail(inbox, "second")
        world.anew()
        await world.run()
        assert not world.missing()
        await world.stop()

    run(story())


def test_new_mail_is_not_stuck_behind_a_long_backfill() -> None:
    async def story() -> None:
        world = World(pace=SLOW)
        world.exchange.page_size = 1000
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 5000)
        await world.run(60)
        world.mail(inbox, "new")
        await world.run(35)
        assert "new" in world.stored()
        assert len(world.stored()) < 1500, "one each tenth of a second"
        await world.run(500)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_folders_take_turns() -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=50))
        huge, small = world.exchange.folder("Huge"), world.exchange.folder("Small")
        world.old_mail(huge, 1000, "huge")
        world.old_mail(small, 30, "small")
        await world.run(14)
        names = set(world.stored())
        assert sum(name.startswith("huge") for name in names) == 50
        assert sum(name.startswith("small") for name in names) == 30
        await world.run(330)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_burst_of_new_mail_in_one_folder_takes_turns_too() -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=50))
        first, second = world.exchange.folder("A"), world.exchange.folder("B")
        await world.run(5)
        world.mail(first, *(f"a-{number}" for number in range(200)))
        world.mail(second, "b")
        await world.run(16)
        assert len(world.stored()) == 51
        await world.run(60)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_quiet_mailbox_costs_one_request_a_round() -> None:
    async def story() -> None:
        world = World()
        for number in range(20):
            world.old_mail(world.exchange.folder(f"Folder {number}"), 3, f"f{number}")
        await world.run(60)
        world.source.calls.clear()
        await world.run(600)
        assert {name for name, _ in world.source.calls} == {"folders"}
        assert 39 <= len(world.source.calls) <= 41
        await world.run(3600)
        assert world.source.count("changes") == 20, "a sweep an hour"
        await world.stop()

    run(story())


def test_a_folder_is_read_once_for_its_mark_and_once_more_until_it_counts_as_quiet() -> None:
    async def story() -> None:
        world = World()
        for number in range(20):
            world.old_mail(world.exchange.folder(f"Folder {number}"), 3, f"f{number}")
        await world.run(10)
        assert world.source.count("changes") == 20
        await world.run(60)
        assert world.source.count("changes") == 40
        await world.stop()

    run(story())


def test_a_server_that_does_not_say_what_changed_is_polled() -> None:
    async def story() -> None:
        world = World()
        world.exchange.activity = False
        inbox = world.exchange.folder("Inbox")
        await world.run()
        world.mail(inbox, "new")
        await world.run(16)
        assert not world.missing()
        await world.stop()

    run(story())


def test_two_changes_in_one_second_with_a_slow_answer_between() -> None:
    """Numbers and whole seconds are the same after the second change: only reading again, later, finds it."""

    async def story() -> None:
        world = World(pace=replace(QUICK, poll_frequency=0.1))
        inbox = world.exchange.folder("Inbox")
        (mail,) = world.mail(inbox, "mail")
        draft = world.exchange.add(inbox, Item("draft", world.clock.now(), is_draft=True))
        await world.run(20)

        async def slow(name: str, _: Folder | None) -> None:
            if name == "folders":
                world.source.before = None
                await asyncio.sleep(6 - world.clock.now().microsecond / 1e6)
                world.exchange.update(inbox, mail, ChangeKind.FLAGGED)
                asyncio.get_running_loop().call_later(0.5, world.exchange.send, inbox, draft)

        world.source.before = slow
        await world.run(30)
        assert not world.missing()
        await world.stop()

    run(story())


def test_flags_and_updates_store_nothing_again() -> None:
    async def story() -> None:
        world = World()
        inbox = world.exchange.folder("Inbox")
        ids = world.old_mail(inbox, 50)
        await world.run()
        for item_id in ids:
            world.exchange.update(inbox, item_id, ChangeKind.FLAGGED)
            world.exchange.update(inbox, item_id)
        await world.run()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_what_the_server_cannot_give_is_recorded_and_holds_nothing_up() -> None:
    async def story() -> None:
        world = World()
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 30)
        world.exchange.add(inbox, Item("broken", LONG_AGO, dead="ErrorItemCorrupt"))
        world.exchange.add(inbox, Item("calendar", LONG_AGO, is_mail=False))
        await world.run()
        assert not world.missing()
        assert [letter.code for letter in world.disk.letters["a@x"].values()] == ["ErrorItemCorrupt"]
        assert world.progress().dead_letters == 1
        assert world.progress().phase is Phase.FOLLOWING
        await world.restart()
        await world.run()
        assert world.source.count("fetch") == 0
        await world.stop()

    run(story())


# --- Trouble ---------------------------------------------------------------------------------------------------------


@EVERY_SINK
@pytest.mark.parametrize("call", ["folders", "changes", "newest", "items", "fetch"])
def test_any_call_may_fail_once(call: str, sink: str) -> None:
    async def story() -> None:
        world = World(sink=sink)
        first, second = world.exchange.folder("A"), world.exchange.folder("B")
        world.old_mail(first, 300, "a")
        world.old_mail(second, 100, "b")
        world.source.before = fails(ConnectionFailedError("reset"), call, times=1)
        await world.run()
        assert not world.missing()
        await world.run()
        assert world.progress().failure is None
        assert all(folder.failure is None for folder in world.progress().folders.values())
        if sink == "lines":
            assert len(world.disk.lines["a@x"]) == 400, "no line is there twice"
        await world.stop()

    run(story())


@EVERY_SINK
@pytest.mark.parametrize("call", ["changes", "items", "fetch"])
@pytest.mark.parametrize(
    "error",
    [ProtocolError("nonsense"), SourceError("unwell"), FolderGoneError("gone")],
    ids=["protocol", "sick", "gone"],
)
def test_a_folder_that_fails_for_ever_leaves_the_others_alone(
    call: str,
    error: SourceError,
    sink: str,
) -> None:
    async def story() -> None:
        world = World(sink=sink, small=0)
        names = ["A", "Bad", "C"]
        for name in names:
            world.old_mail(world.exchange.folder(name), 50, name)
        await world.run(0.01)
        world.source.before = fails(error, call, "Bad")
        await world.run()
        for name in names:
            world.mail(world.exchange.folder(name), f"{name}-new")
        await world.run()
        assert all(name.startswith("Bad") for name in world.missing())
        assert world.missing()
        assert world.progress().failure is None
        bad = next(folder for folder in world.progress().folders.values() if folder.path == ("Bad",))
        assert (bad.failure is None) == isinstance(error, FolderGoneError)
        checkpoints = {folder.folder_path: folder for folder in world.disk.checkpoints["a@x"].folders.values()}
        assert checkpoints["A",].status is checkpoints["C",].status is FolderStatus.UP_TO_DATE
        world.source.before = None
        await world.run(400)
        assert not world.missing()
        assert all(folder.failure is None for folder in world.progress().folders.values())
        if sink == "lines":
            assert len(world.disk.lines["a@x"]) == 153
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_feed_page_of_which_some_is_stored_when_the_rest_cannot_be_fetched() -> None:
    """An ordered sink is cut back, so that no line is there twice."""

    async def story() -> None:
        world = World(sink="lines")
        inbox, other = world.exchange.folder("Inbox"), world.exchange.folder("Other")
        await world.run(5)
        fetches = 0

        async def hook(name: str, where: Folder | None) -> None:
            nonlocal fetches
            if name == "fetch" and where is not None and where.path == ("Inbox",):
                fetches += 1
                if fetches == 4:
                    raise SourceError("unwell")

        world.source.before = hook
        world.mail(inbox, *(f"new-{number}" for number in range(60)))
        world.mail(other, "other")
        await world.run(60)
        assert not world.missing()
        assert len(world.disk.lines["a@x"]) == 61
        await world.stop()

    run(story())


def test_two_folders_that_fail_one_after_the_other_are_the_mailbox() -> None:
    async def story() -> None:
        world = World(small=0)
        for name in ("A", "B", "C"):
            world.old_mail(world.exchange.folder(name), 5, name)
        error = SourceError("the store is away", code="ErrorMailboxStoreUnavailable")
        world.source.before = fails(error, "items")
        await world.run()
        assert world.progress().phase is Phase.FAILED
        failure = world.progress().failure
        assert failure is not None
        assert failure.code == "ErrorMailboxStoreUnavailable"
        world.source.before = None
        await world.run(300)
        assert not world.missing()
        assert world.progress().failure is None
        await world.stop()

    run(story())


def test_the_only_folder_that_fails_is_the_mailbox() -> None:
    async def story() -> None:
        world = World()
        world.old_mail(world.exchange.folder("A"), 5)
        world.source.before = fails(SourceError("denied"), "changes")
        for _ in range(10):
            await world.run(33)
            assert world.progress().failure is not None
        await world.stop()

    run(story())


def test_waits_that_a_server_asks_for_are_kept() -> None:
    async def story() -> None:
        world = World()
        world.old_mail(world.exchange.folder("A"), 5)
        world.source.before = fails(SourceError("busy", retry_after=500.0), "folders", times=1)
        await world.run(499)
        assert len(world.source.calls) == 1
        await world.run(30)
        assert not world.missing()
        await world.stop()

    run(story())


def test_a_slow_answer_in_one_folder_while_it_is_marked_again() -> None:
    """A cursor is refused by a look in between, while a page of the same folder is being stored."""

    async def story() -> None:
        world = World(pace=replace(SLOW, reinfer_batch_size=10), sink="platform")
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 600)
        await world.run(16)
        world.exchange.forget_cursors()
        await world.run(20)
        await world.run(120)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


# --- What is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, LONG_AGO + timedelta(minutes=100)])
def test_progress_is_right_before_and_after_a_restart(start: object) -> None:
    async def story() -> None:
        mailbox = replace(A, start_timestamp=start)  # type: ignore[arg-type]
        world = World(mailbox, pace=replace(SLOW, reinfer_batch_size=10), small=0)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 1100)
        total = 1100 if start is None else 1000
        seen = 0
        for number in range(30):
            await world.run(6)
            progress = world.progress()
            assert progress.done <= progress.total
            assert progress.total == total
            assert progress.done >= seen
            seen = progress.done
            world.mail(inbox, f"new-{number}")
            if number == 10:
                await world.restart()
                await world.run(1)
                assert world.progress().total == total
                assert world.progress().done >= seen
        await world.run()
        assert world.progress().done == world.progress().total
        assert {f"new-{number}" for number in range(30)} <= set(world.stored())
        assert len(world.stored()) == total + 30
        assert not world.repeated()
        await world.stop()

    run(story())


def test_phases_are_shown() -> None:
    async def story() -> None:
        world = World(pace=SLOW)
        world.old_mail(world.exchange.folder("A"), 400)
        await world.run(20)
        assert world.progress().phase is Phase.BACKFILLING
        await world.run(60)
        assert world.progress().phase is Phase.FOLLOWING
        assert world.progress().stored == 400
        assert world.progress().newest_received is not None
        assert world.status.ready
        await world.stop()

    run(story())


def test_time_is_virtual() -> None:
    async def story() -> float:
        await asyncio.sleep(86400)
        return asyncio.get_running_loop().time()

    assert run(story()) == 86400
