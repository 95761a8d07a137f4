"""What seeds of `tests.simulation` have found, each as a story of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ews_sync.engine.budget import ByteBudget
from ews_sync.engine.fetching import FetchOrder, FetchWindow
from ews_sync.engine.ledger import Step
from ews_sync.errors import Asks, Scope, SinkError, SourceError
from ews_sync.model import Folder, ItemRef
from tests.engine.exchange import Item
from tests.engine.virtual_time import VirtualClock, run
from tests.engine.world import LONG_AGO, QUICK, A, B, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import EventDict

    from ews_sync.model import Fetched, Mailbox


def test_a_sink_that_is_another_one_for_ever_is_not_asked_without_waiting() -> None:
    async def story() -> None:
        world = World(sink="platform")
        world.old_mail(world.exchange.folder("Inbox"), 5)
        asked = 0
        well = False

        async def another(_: Mailbox) -> None:
            nonlocal asked
            asked += 1
            if not well and asked < 100:
                raise SinkError("the bucket was made anew", asks=Asks.RESYNC)

        world.sink.before_open = another
        await world.run(600)
        assert 3 < asked < 15
        well = True
        await world.run(400)
        assert not world.missing()
        await world.stop()

    run(story())


def test_a_checkpoint_that_no_longer_holds_has_its_mailbox_begin_anew() -> None:
    """A bucket is made anew, and saving a checkpoint is the first to notice: no put will say it."""

    async def story() -> None:
        world = World(sink="platform")
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 20)
        await world.run()
        world.disk.emails.clear()
        world.disk.checkpoints.clear()
        another = True

        async def refuse(_: Mailbox) -> None:
            nonlocal another
            if another:
                another = False
                raise SinkError("the bucket was made anew", asks=Asks.RESYNC)

        world.store.before = refuse
        world.mail(inbox, "new")
        await world.run(120)
        assert len(world.stored()) == 21
        assert not world.missing()
        await world.stop()

    run(story())


def test_a_draft_without_a_received_time_that_is_sent_before_the_backfill_has_come_to_it() -> None:
    """It was made after the newest mail was received, and before the mark: neither the listing nor the feed has it."""

    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=3, poll_frequency=5.0))
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 40)
        draft = world.exchange.add(inbox, Item("draft", None, world.clock.now(), is_draft=True))
        await world.run(8)
        world.exchange.send(inbox, draft)
        await world.run(300)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


@pytest.mark.parametrize("after", [0.0, 3.0])
def test_a_draft_without_a_received_time_that_is_sent_while_the_newest_is_asked_for(after: float) -> None:
    """A page that was listed meanwhile does not have it, and the backfill was to go beyond it."""

    async def story() -> None:
        world = World(small=0)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 5)
        draft = world.exchange.add(inbox, Item("draft", None, world.clock.now(), is_draft=True))

        async def send_it(call: str, _: Folder | None) -> None:
            if call == "newest":
                await asyncio.sleep(5)
                world.exchange.send(inbox, draft)
                await asyncio.sleep(after)
                world.mail(inbox, "new")

        world.source.before = send_it
        await world.run(120)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


@pytest.mark.parametrize("late", [True, False], ids=["after", "before"])
def test_a_draft_without_a_received_time_that_is_sent_in_the_second_in_which_the_backfill_ends(*, late: bool) -> None:
    """The last page of the listing was there a moment before, or a moment after."""

    async def story() -> None:
        world = World(small=0)
        inbox = world.exchange.folder("Inbox")
        draft = world.exchange.add(inbox, Item("draft", None, world.clock.now() - timedelta(days=1), is_draft=True))
        world.mail(inbox, "newest")

        async def send_it(call: str, _: Folder | None) -> None:
            # First comes what has a received time, and then what has none.
            if call == "items" and world.source.count("items") == (2 if late else 1):
                world.exchange.send(inbox, draft)

        world.source.before = send_it
        await world.run(120)
        sent, newest = (item.received for item in inbox.items.values())
        assert sent is not None
        assert newest is not None
        assert sent.replace(microsecond=0) == newest.replace(microsecond=0)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_draft_that_is_sent_in_a_folder_without_any_received_time() -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=3, poll_frequency=5.0))
        inbox = world.exchange.folder("Inbox")
        for number in range(30):
            world.exchange.add(inbox, Item(f"undated-{number}", None, LONG_AGO + timedelta(minutes=number)))
        draft = world.exchange.add(inbox, Item("draft", None, world.clock.now(), is_draft=True))
        await world.run(8)
        world.exchange.send(inbox, draft)
        await world.run(300)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_an_item_without_a_received_time_that_the_feed_brings_is_not_listed_once_more() -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=3, poll_frequency=5.0))
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 40)
        await world.run(12)
        world.exchange.add(inbox, Item("made now", None, world.clock.now()))
        world.exchange.add(inbox, Item("made long ago", None, LONG_AGO - timedelta(days=1)))
        await world.run(300)
        assert not world.missing()
        assert not world.repeated()
        await world.restart()
        await world.run(60)
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_stop_while_a_round_is_given_up_gives_back_what_was_being_fetched() -> None:
    """Giving up waits for the fetches to end; cancelled in that wait, it used to forget what they held."""

    async def story() -> None:
        clock, budget = VirtualClock(), ByteBudget(1_000_000)

        async def fetch(folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:  # noqa: ARG001
            try:
                await asyncio.sleep(100)
            finally:
                # A connection takes a moment to close.
                await asyncio.sleep(1)
            return ()

        async def hand_on(order: FetchOrder, fetched: object, reserved: object) -> None: ...

        window = FetchWindow(fetch, hand_on, budget, clock, at_once=2, pause=0.0)
        folder = Folder("f", ("Inbox",))
        await window.add(FetchOrder(folder, Step(folder), (ItemRef("i", size=1000),), None))
        await asyncio.sleep(1)
        giving_up = asyncio.ensure_future(window.cancel())
        await asyncio.sleep(0.5)
        giving_up.cancel()
        await asyncio.gather(giving_up, return_exceptions=True)
        await window.cancel()
        assert budget.used == 0

    run(story())


def test_a_forgotten_position_in_a_folder_without_any_received_time_repeats_nothing() -> None:
    async def story() -> None:
        world = World()
        world.exchange.add(world.exchange.folder("Inbox"), Item("undated", None, LONG_AGO))
        await world.run()
        world.exchange.forget_cursors()
        world.exchange.add(world.exchange.folder("Inbox"), Item("another", None, LONG_AGO))
        await world.run(60)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_folder_that_can_be_listed_and_not_fetched_rests_longer_each_time(logs: list[EventDict]) -> None:
    """Each listing that was answered used to end its rests: it was tried in every round, and told each time."""

    async def story() -> None:
        world = World()
        inbox, sick = world.exchange.folder("Inbox"), world.exchange.folder("Sick")
        world.old_mail(inbox, 3)
        world.old_mail(sick, 5, "sick")
        tries = 0
        ill = True

        async def fail(call: str, folder: Folder | None) -> None:
            nonlocal tries
            if ill and call == "fetch" and folder is not None and folder.id == sick.id:
                tries += 1
                raise SourceError("unwell", scope=Scope.FOLDER)

        world.source.before = fail
        await world.run(3600)
        # In waits that grow to five minutes, while there is a round every 15 seconds.
        assert 10 < tries < 25
        assert world.progress().folders[sick.id].failure is not None
        ill = False
        await world.run(400)
        assert not world.missing()
        assert world.progress().folders[sick.id].failure is None
        await world.stop()

    run(story())
    told = [entry["event"] for entry in logs if entry["event"] in {"folder failed", "folder is well again"}]
    assert told == ["folder failed", "folder is well again"]


def test_a_store_that_asks_for_an_operator_leaves_no_other_save_behind() -> None:
    async def story() -> None:
        world = World(A, B)
        for address in ("a@x", "b@x"):
            world.mail(world.exchange.folder("Inbox", address), f"mail of {address}")

        async def refuse_one(mailbox: Mailbox) -> None:
            if mailbox == A:
                await asyncio.sleep(100_000)
            raise SinkError("the token is refused", asks=Asks.STOP, scope=Scope.PROCESS)

        world.store.before = refuse_one
        with pytest.raises(SinkError, match="token"):
            await world.run(60)
        assert world.clock.monotonic() < 40
        assert asyncio.all_tasks() == {asyncio.current_task()}
        world.clean()

    run(story())


def test_a_checkpoint_that_is_refused_at_the_end_does_not_keep_the_others_from_being_saved() -> None:
    async def story() -> None:
        world = World(A, B)
        for address in ("a@x", "b@x"):
            world.exchange.folder("Inbox", address)
        await world.run()
        before = world.disk.checkpoints.get("a@x")

        async def refuse_one(mailbox: Mailbox) -> None:
            if mailbox == B:
                raise SinkError("the token is refused", asks=Asks.STOP, scope=Scope.PROCESS)
            await asyncio.sleep(0.5)

        for address in ("a@x", "b@x"):
            world.mail(world.exchange.folder("Inbox", address), f"mail of {address}")
        while not {"a@x", "b@x"} <= {mailbox.address for mailbox, _ in world.engine._keeper._due.values()}:
            await world.run(0.1)
        world.store.before = refuse_one
        await world.stop()
        assert world.disk.checkpoints["a@x"] != before

    run(story())


@pytest.mark.parametrize("sink", ["files", "lines"])
def test_what_the_backfill_has_read_ahead_of_the_feed_is_not_stored_again_after_a_crash(sink: str) -> None:
    """It was in the checkpoint, but who asked the feed first after a start did not look there."""

    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=3, poll_frequency=5.0), sink=sink)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 40)
        listings = 0

        async def slip_in(call: str, _: Folder | None) -> None:
            nonlocal listings
            listings += call == "items"
            if call == "items" and listings == 4:
                # Into the last second that this listing is going to store.
                moment = LONG_AGO + timedelta(minutes=len(world.stored()) + 1)
                world.mail(inbox, "moved in", at=moment)

        world.source.before = slip_in
        while "moved in" not in world.stored():
            await world.run(0.5)
        await world.run(2)
        await world.crash()
        await world.run(300)
        assert not world.missing()
        assert world.disk.uploads["moved in"] == 1
        assert len(world.stored()) == 41
        await world.stop()

    run(story())


@pytest.mark.parametrize("sink", ["files", "lines"])
def test_a_draft_that_the_backfill_has_passed_by_is_stored_when_it_is_sent_after_a_crash(sink: str) -> None:
    async def story() -> None:
        world = World(pace=replace(QUICK, emails_per_folder=3, poll_frequency=5.0), sink=sink)
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 40)
        # In the last second of the third slice.
        moment = LONG_AGO + timedelta(minutes=7)
        draft = world.exchange.add(inbox, Item("draft", moment, moment, is_draft=True))
        while "old-7" not in world.stored():
            await world.run(0.5)
        await world.run(2)
        await world.crash()
        world.exchange.send(inbox, draft)
        await world.run(300)
        assert not world.missing()
        assert world.disk.uploads["draft"] == 1
        await world.stop()

    run(story())


@pytest.mark.parametrize("small", [0, 4000])
def test_a_bucket_is_asked_about_what_was_listed_before_a_crash_whatever_came_since(small: int) -> None:
    """New mail that it does not hold, and smaller batches, used to be taken for the end of what it holds."""

    async def story() -> None:
        pace = replace(QUICK, max_concurrent_uploads=1, reinfer_batch_size=20)
        world = World(sink="platform", pace=pace, small=small)
        inbox = world.exchange.folder("Inbox")
        for number in range(4):
            world.exchange.add(inbox, Item(f"dead-{number}", LONG_AGO, dead="ErrorItemCorrupt"))
        world.old_mail(inbox, 30)
        saves = 0

        async def only_the_first(_: Mailbox) -> None:
            nonlocal saves
            saves += 1
            if saves > 1:
                await asyncio.sleep(1000)

        world.store.before = only_the_first
        world.sink.latency = 5.0
        await world.run(15)
        assert len(world.stored()) == 30
        world.options = replace(world.options, pace=replace(pace, emails_per_folder=1))
        await world.crash()
        backfill = next(iter(world.disk.checkpoints["a@x"].folders.values())).backfill
        assert backfill is not None
        assert backfill.position is None
        world.mail(inbox, *(f"new-{number}" for number in range(4)))
        await world.run(1000)
        assert not world.missing()
        assert not world.repeated()
        await world.stop()

    run(story())
