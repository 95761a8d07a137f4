"""What seeds of `tests.simulation` have found, each as a story of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ews_sync.engine.budget import ByteBudget
from ews_sync.engine.fetching import FetchOrder, FetchWindow
from ews_sync.engine.ledger import Step
from ews_sync.errors import Asks, SinkError
from ews_sync.model import Folder, ItemRef
from tests.engine.exchange import Item
from tests.engine.virtual_time import VirtualClock, run
from tests.engine.world import LONG_AGO, QUICK, World

if TYPE_CHECKING:
    from collections.abc import Sequence

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
