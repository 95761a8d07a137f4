"""Many mailboxes: starting, stopping, a sink that is unwell, and crashes."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.errors import (
    AlreadyRunningError,
    Asks,
    AuthenticationError,
    CheckpointError,
    Scope,
    SinkError,
    StorageError,
)
from ews_sync.model import Mailbox
from ews_sync.settings.values import Pace
from tests.engine.exchange import Item
from tests.engine.virtual_time import run
from tests.engine.world import BUCKET, LONG_AGO, QUICK, A, B, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import EventDict

    from ews_sync.model import Email, Folder


def two(**options: object) -> World:
    world = World(A, B, **options)  # type: ignore[arg-type]
    for mailbox in ("a@x", "b@x"):
        inbox = world.exchange.folder("Inbox", mailbox)
        world.old_mail(inbox, 100, mailbox)
    return world


def test_two_mailboxes_are_kept_apart() -> None:
    async def story() -> None:
        world = two()
        await world.run()
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())


def test_no_mailbox_idles_until_it_is_stopped() -> None:
    async def story() -> None:
        world = World()
        world.mailboxes = ()
        world.anew()
        await world.run(100)
        assert world.task is not None
        assert not world.task.done()
        await world.stop()

    run(story())


def test_no_upload_workers_means_one_upload_in_line_with_fetching() -> None:
    async def story() -> None:
        world = two(pace=replace(QUICK, max_concurrent_uploads=0))
        await world.run(100)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        assert world.sink.most_at_once == 1
        await world.stop()

    run(story())


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_a_clean_stop_at_any_moment_repeats_nothing(workers: int) -> None:
    async def story() -> None:
        world = two(pace=Pace(15.0, 0.01, workers, 2520, 10))
        world.sink.latency = 1.0
        for number in range(12):
            await world.run(0.37 + number * 0.11)
            world.mail(world.exchange.folder("Inbox"), f"new-{number}")
            await world.restart()
            world.sink.latency = 1.0
        await world.run(200)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_stop_waits_for_a_slow_sink_no_longer_than_the_grace() -> None:
    async def story() -> None:
        world = two()
        world.sink.latency = 1000.0
        await world.run(10)
        before = world.clock.monotonic()
        await world.stop()
        assert 20 < world.clock.monotonic() - before < 26

    run(story())


def test_a_stop_saves_what_was_confirmed_last() -> None:
    async def story() -> None:
        world = World()
        world.store.interval = 1000.0
        world.old_mail(world.exchange.folder("Inbox"), 50)
        await world.run()
        saved = world.store.saves
        world.mail(world.exchange.folder("Inbox"), "later")
        await world.run()
        assert not world.missing()
        assert world.store.saves == saved, "it is not time yet"
        await world.restart()
        await world.run()
        assert world.source.count("fetch") == 0
        await world.stop()

    run(story())


def test_a_sink_that_is_away_at_the_start_is_not_asked_for_every_mailbox_in_turn() -> None:
    async def story() -> None:
        world = two()
        asked: list[str] = []

        async def away(mailbox: Mailbox) -> None:
            asked.append(mailbox.address)
            if len(asked) < 4:
                await asyncio.sleep(60)
                raise SinkError("the platform does not answer", scope=Scope.PROCESS)

        world.sink.before_open = away
        world.start()
        await world.run(61)
        assert asked[:1] == ["a@x"], "the first failure is everybody's"
        assert sorted(asked[1:3]) == ["a@x", "b@x"], "from there on each waits for itself"
        await world.run(200)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())


def test_a_token_that_is_refused_at_the_start_ends_the_engine() -> None:
    async def story() -> None:
        world = two()

        async def refuse(_: Mailbox) -> None:
            raise SinkError("the token is refused", asks=Asks.STOP, scope=Scope.PROCESS)

        world.sink.before_open = refuse
        with pytest.raises(SinkError, match="token"):
            await world.run()

    run(story())


def test_a_stop_does_not_wait_for_a_sink_that_cannot_be_opened() -> None:
    async def story() -> None:
        world = two()

        async def hang(_: Mailbox) -> None:
            await asyncio.sleep(1000)

        world.sink.before_open = hang
        await world.run(5)
        before = world.clock.monotonic()
        await world.stop()
        assert world.clock.monotonic() - before < 1

    run(story())


def test_a_sink_that_is_another_one_is_begun_with_anew() -> None:
    """A bucket was deleted and made again: what the new one knows is what counts."""

    async def story() -> None:
        world = World(sink="platform")
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 50)
        await world.run()
        assert not world.missing()
        world.disk.emails.clear()
        world.disk.checkpoints.clear()
        anew = True

        async def another(_: Sequence[Email]) -> None:
            nonlocal anew
            if anew:
                anew = False
                raise SinkError("the bucket was made anew", asks=Asks.RESYNC)

        world.sink.before = another
        world.mail(inbox, "new")
        await world.run(60)
        assert not world.missing()
        assert len(world.stored()) == 51
        await world.stop()
        assert set(world.repeated()) == {f"old-{number}" for number in range(50)}

    run(story())


def test_an_engine_that_follows_another_in_one_process_counts_on() -> None:
    async def story() -> None:
        world = two()
        await world.run()
        await world.stop()
        status = world.status
        world.mailboxes = (A,)
        world.another_engine()
        world.mail(world.exchange.folder("Inbox"), "new")
        await world.run()
        assert list(status.mailboxes) == ["a@x"]
        assert status.mailboxes["a@x"].stored == 101
        await world.stop()

    run(story())


def test_a_stop_while_the_mailboxes_are_being_opened() -> None:
    async def story() -> None:
        world = World(A, B)
        opened: list[str] = []

        async def slow(mailbox: Mailbox) -> None:
            opened.append(mailbox.address)
            world.engine.stop()

        world.sink.before_open = slow
        await world.run()
        assert opened == ["a@x"]

    run(story())


def test_a_sink_that_is_unwell_for_everybody_is_waited_for(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = two(pace=replace(QUICK, max_concurrent_uploads=2))
        sick = True

        async def full(_: Sequence[Email]) -> None:
            if sick:
                raise StorageError("the disk is full", hint="make room")

        world.sink.before = full
        await world.run(7200)
        assert not world.stored("a@x")
        failure = world.status.sink_failure
        assert failure is not None
        assert failure.hint == "make room"
        assert not world.disk.checkpoints.get("a@x") or not any(
            folder.synced_until for folder in world.disk.checkpoints["a@x"].folders.values()
        )
        fetched = len(world.source.fetched)
        sick = False
        await world.run(120)
        assert world.status.sink_failure is None
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        assert fetched < 200, "what is fetched waits, and no more is"
        assert len(world.source.fetched) == 200
        await world.stop()

    run(story())
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    # At once, and then every ten minutes.
    assert 2 <= len(errors) <= 13
    assert sum(entry["event"] == "mail can be stored again" for entry in logs) == 1


def test_a_stop_while_the_sink_is_unwell_does_not_wait_for_it() -> None:
    async def story() -> None:
        world = two()

        async def full(_: Sequence[Email]) -> None:
            raise StorageError("the disk is full")

        world.sink.before = full
        await world.run(300)
        before = world.clock.monotonic()
        await world.stop()
        assert world.clock.monotonic() - before < 1

    run(story())


@pytest.mark.parametrize(
    "error",
    [
        SinkError("the bucket is gone", asks=Asks.STOP),
        SinkError("quota", asks=Asks.RETRY),
        SinkError("quota", asks=Asks.RETRY, retry_after=3600.0),
    ],
    ids=["stop", "retry", "long wait"],
)
@pytest.mark.parametrize("sink", ["files", "lines"])
def test_a_mailbox_that_cannot_be_stored_leaves_the_others_alone(error: SinkError, sink: str) -> None:
    async def story() -> None:
        world = two(pace=replace(QUICK, max_concurrent_uploads=2), sink=sink, memory=100_000)
        sick = True

        async def refuse(batch: Sequence[Email]) -> None:
            if sick and batch[0].mailbox.address == "a@x":
                raise error

        world.sink.before = refuse
        await world.run(120)
        assert not world.missing("b@x")
        assert not world.stored("a@x")
        failure = world.progress().failure
        assert failure is not None
        assert failure.needs_operator is (error.asks is Asks.STOP)
        for number in range(10):
            world.mail(world.exchange.folder("Inbox", "b@x"), f"new-{number}")
            await world.run(40)
            assert not world.missing("b@x"), "also while the other one is tried again"
        sick = False
        await world.run(4000)
        assert not world.missing("a@x")
        assert world.progress().failure is None
        assert not world.repeated()
        await world.stop()

    run(story())


def test_a_batch_that_is_refused_while_others_of_the_mailbox_are_on_their_way() -> None:
    async def story() -> None:
        world = World()
        inbox = world.exchange.folder("Inbox")
        world.old_mail(inbox, 200)
        failed = False

        async def refuse_one(batch: Sequence[Email]) -> None:
            nonlocal failed
            if not failed and any(email.id == "old-55" for email in batch):
                failed = True
                raise SinkError("no", asks=Asks.STOP)

        world.sink.before = refuse_one
        await world.run(200)
        assert not world.missing()
        assert all(count <= 2 for count in world.repeated().values())
        assert len(world.repeated()) <= 80
        await world.stop()

    run(story())


@pytest.mark.parametrize("where", ["source", "put", "open"])
def test_what_asks_the_whole_process_to_stop_ends_it(where: str) -> None:
    async def story() -> None:
        world = two()
        if where == "source":

            async def refuse(_: str, __: Folder | None) -> None:
                raise AuthenticationError("wrong password")

            world.source.before = refuse
        elif where == "put":

            async def token(_: Sequence[Email]) -> None:
                raise SinkError("token refused", asks=Asks.STOP, scope=Scope.PROCESS)

            world.sink.before = token
        else:

            async def taken(_: Mailbox) -> None:
                raise AlreadyRunningError("another one runs")

            world.sink.before_open = taken
        with pytest.raises((AuthenticationError, SinkError)) as raised:
            await world.run()
        assert raised.value.asks is Asks.STOP
        world.clean()

    run(story())


def test_a_mailbox_whose_checkpoint_cannot_be_read_fails_alone() -> None:
    async def story() -> None:
        world = two()
        broken = True

        async def refuse(mailbox: Mailbox) -> None:
            if broken and mailbox.address == "a@x":
                raise CheckpointError("damaged")

        world.sink.before_open = refuse
        await world.run()
        assert not world.missing("b@x")
        assert world.progress().failure is not None
        broken = False
        await world.run(300)
        assert not world.missing("a@x")
        await world.stop()

    run(story())


def test_a_bug_ends_the_process_and_does_not_wait_for_the_grace() -> None:
    async def story() -> None:
        world = two()

        async def bug(_: Sequence[Email]) -> None:
            raise RuntimeError("a bug")

        world.sink.before = bug
        with pytest.raises(ExceptionGroup):
            await world.run()
        assert world.clock.monotonic() < 5
        world.clean()

    run(story())


def test_checkpoints_that_cannot_be_saved_cost_nothing_but_time() -> None:
    async def story() -> None:
        world = World()
        world.old_mail(world.exchange.folder("Inbox"), 50)
        failing = True

        async def fail(_: Mailbox) -> None:
            if failing:
                raise StorageError("full")

        world.store.before = fail
        await world.run(100)
        assert not world.missing()
        assert not world.disk.checkpoints
        failing = False
        await world.run(5)
        await world.restart()
        await world.run()
        assert not world.repeated()
        await world.stop()

    run(story())


def test_two_mailboxes_share_memory_for_less_than_a_batch() -> None:
    """Whoever waits for room holds none, or both would wait for ever."""

    async def story() -> None:
        world = two(memory=5_000)
        await world.run(200)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())


def test_versions_of_an_email_arrive_in_their_order() -> None:
    """It moves from folder to folder faster than the sink stores it."""

    async def story() -> None:
        world = World(pace=replace(QUICK, poll_frequency=0.1))
        folders = [world.exchange.folder(name) for name in "ABC"]
        (item_id,) = world.mail(folders[0], "traveller")
        await world.run(5)
        delays = iter([3.0, 0.0, 2.0, 0.0] * 20)

        async def uneven(_: Sequence[Email]) -> None:
            await asyncio.sleep(next(delays, 0.0))

        world.sink.before = uneven
        for number in range(20):
            item_id = world.exchange.move(folders[number % 3], item_id, folders[(number + 1) % 3])
            await world.run(0.4)
        await world.run(30)
        assert not world.missing()
        await world.stop()

    run(story())


# --- Crashes ---------------------------------------------------------------------------------------------------------


def people_at_work(world: World, dice: random.Random, number: int) -> None:
    """Change something, as people do."""
    folders = list(world.exchange.mailboxes["a@x"].values())
    folder = dice.choice(folders)
    match dice.randrange(7):
        case 0 | 1:
            world.mail(folder, *(f"new-{number}-{part}" for part in range(dice.randrange(1, 30))))
        case 2 | 3 if folder.items:
            for item_id in dice.sample(sorted(folder.items), k=min(5, len(folder.items))):
                world.exchange.move(folder, item_id, dice.choice(folders))
        case 4:
            moment = LONG_AGO + timedelta(seconds=dice.randrange(400))
            world.mail(folder, f"imported-{number}", at=moment)
        case 5 if folder.items:
            world.exchange.remove(folder, dice.choice(sorted(folder.items)))
        case _:
            world.exchange.add(folder, Item(f"draft-{number}", world.clock.now(), is_draft=True))
            for item_id, item in list(folder.items.items()):
                if item.is_draft and dice.random() < 0.5:
                    world.exchange.send(folder, item_id)


@pytest.mark.parametrize("kind", ["files", "platform", "lines"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_crashes_lose_nothing_and_repeat_little(kind: str, seed: int) -> None:
    async def story() -> None:
        dice = random.Random(seed)
        pace = Pace(
            poll_frequency=dice.choice([1.0, 5.0]),
            poll_message_sleep=dice.choice([0.0, 0.01]),
            max_concurrent_uploads=dice.choice([0, 1, 4]),
            emails_per_folder=dice.choice([7, 40, 2520]),
            reinfer_batch_size=dice.choice([1, 7, 20]),
        )
        world = World(pace=pace, seed=seed, sink=kind)
        world.exchange.page_size = dice.choice([2, 5, 50])
        for name in ("A", "B", "C"):
            folder = world.exchange.folder(name)
            world.old_mail(folder, dice.randrange(80), name, apart=dice.choice([0.01, 0.3, 5.0]))
        crashes = 0
        for number in range(25):
            world.source.jitter = 0.1
            world.sink.latency = dice.random() * 0.5
            await world.run(dice.random() * 3)
            people_at_work(world, dice, number)
            if dice.random() < 0.25:
                crashes += 1
                await world.crash()
            elif dice.random() < 0.1:
                await world.restart()
        await world.run(600)
        assert not world.missing()
        progress = world.progress()
        assert progress.failure is None
        assert progress.done == progress.total
        await world.stop()
        world.source.calls.clear()
        world.anew()
        await world.run(60)
        assert world.source.count("fetch") == 0
        await world.stop()

    run(story())


def test_after_a_crash_a_sink_that_can_be_asked_gets_nothing_twice() -> None:
    async def story() -> None:
        world = World(sink="platform")
        inbox, claims = world.exchange.folder("Inbox"), world.exchange.folder("Claims")
        world.old_mail(inbox, 1500)
        world.old_mail(claims, 500, "claim")
        world.store.interval = 5.0
        world.sink.latency = 0.5
        for number in range(8):
            await world.run(3.3)
            world.mail(inbox, f"new-{number}")
            await world.crash()
            world.store.interval = 5.0
            world.sink.latency = 0.5
        await world.run(100)
        assert not world.missing()
        assert not world.repeated()
        asked = len(world.sink.asked)
        world.mail(inbox, "last")
        await world.run(100)
        assert not world.missing()
        assert len(world.sink.asked) <= asked + 1, "it is not asked for ever"
        await world.stop()

    run(story())


def test_a_crash_repeats_no_more_than_what_was_on_its_way() -> None:
    async def story() -> None:
        world = World()
        world.old_mail(world.exchange.folder("Inbox"), 2000)
        world.sink.latency = 0.5
        for _ in range(8):
            await world.run(2.3)
            await world.crash()
            world.sink.latency = 0.5
        await world.run(100)
        assert not world.missing()
        # Confirmed and not in a checkpoint yet: a second of uploads, and those that were overtaken.
        assert len(world.disk.uploads) == 2000
        assert sum(world.disk.uploads.values()) - 2000 <= 8 * 8 * 10 * 4
        await world.stop()

    run(story())


def test_thousands_of_new_mailboxes_are_not_looked_at_all_at_once() -> None:
    """Each look that waits for a slow server takes memory. Those that never come to their end hold nobody up."""

    async def story() -> None:
        world = World(*(Mailbox(f"{number}@x", BUCKET) for number in range(200)))
        for mailbox in world.mailboxes:
            world.exchange.folder("Inbox", mailbox=mailbox.address)
        answering = asyncio.Event()
        hanging: list[str] = []

        async def hang(call: str, _: Folder | None) -> None:
            hanging.append(call)
            await (answering if len(hanging) > 10 else asyncio.Event()).wait()

        world.source.before = hang
        await world.run(60)
        assert hanging == ["folders"] * 64
        answering.set()
        await world.run(60)
        assert sum(progress.rounds > 0 for progress in world.status.mailboxes.values()) == 190
        await world.stop()

    run(story())
