"""Work that hangs, and what is wrong for everybody at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ews_sync.engine.watchdog import StuckError, Watchdog
from ews_sync.errors import Asks, ConnectionFailedError, Scope, SinkError, StorageError
from ews_sync.settings.values import Pace
from ews_sync.telemetry.health import Health
from ews_sync.telemetry.status import Phase
from tests.engine.exchange import Item
from tests.engine.virtual_time import VirtualClock, run
from tests.engine.world import A, B, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import EventDict

    from ews_sync.model import DeadLetter, Email, Folder, Mailbox
    from ews_sync.telemetry.status import Failure

CLOCK = VirtualClock()


class AwayError(ConnectionFailedError):
    """What a source says that knows its server to be away."""

    scope = Scope.PROCESS


def dog(patience: float = 100.0, *, excused: bool = False) -> tuple[Watchdog, Health]:
    health = Health()
    return Watchdog(health, lambda: excused, patience=patience), health


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def through_thick_and_thin(seconds: float) -> None:
    """Go on for a while, however often it is cancelled."""
    ends_at = CLOCK.monotonic() + seconds
    while (left := ends_at - CLOCK.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


# --- The watchdog ----------------------------------------------------------------------------------------------------


def test_work_without_a_sign_of_life_is_cancelled() -> None:
    async def story() -> None:
        watchdog, health = dog()
        with pytest.raises(StuckError, match="reading: nothing has moved"):
            async with watchdog.over("reading"):
                await for_ever()
        assert CLOCK.monotonic() == pytest.approx(100)
        assert list(health.troubles) == []

    run(story())


def test_work_that_moves_may_take_as_long_as_it_likes() -> None:
    async def story() -> None:
        watchdog, _ = dog()
        async with watchdog.over("reading") as watched:
            for _ in range(50):
                await asyncio.sleep(99)
                watched.sign()
        assert CLOCK.monotonic() > 4000

    run(story())


def test_known_outages_excuse() -> None:
    async def story() -> None:
        watchdog, _ = dog(excused=True)
        async with watchdog.over("reading"):
            await asyncio.sleep(10_000)

    run(story())


def test_a_timeout_of_the_work_itself_is_not_taken_for_being_stuck() -> None:
    async def story() -> None:
        watchdog, _ = dog()
        with pytest.raises(TimeoutError):
            async with watchdog.over("reading"), asyncio.timeout(5):
                await for_ever()

    run(story())


def test_what_cannot_be_cancelled_is_told_until_it_ends() -> None:
    async def story() -> None:
        watchdog, health = dog()

        async def work() -> None:
            async with watchdog.over("reading"):
                await through_thick_and_thin(1000)

        working = asyncio.ensure_future(work())
        await asyncio.sleep(150)
        assert list(health.troubles) == []
        await asyncio.sleep(20)
        assert list(health.troubles) == ["reading"]
        await asyncio.wait([working])
        assert list(health.troubles) == []
        assert isinstance(working.exception(), StuckError | None)

    run(story())


def test_what_must_not_be_cancelled_is_only_told() -> None:
    async def story() -> None:
        watchdog, health = dog()
        with watchdog.over_the_end("giving up"):
            await asyncio.sleep(99)
            assert list(health.troubles) == []
            await asyncio.sleep(2)
            assert list(health.troubles) == ["giving up"]
        assert list(health.troubles) == []

    run(story())


# --- The engine under its watch --------------------------------------------------------------------------------------


def watched_world(sink: str = "files") -> World:
    world = World(A, B, sink=sink, small=0)
    world.options = replace(world.options, patience=600.0)
    world.anew()
    for mailbox in (A, B):
        world.mail(world.exchange.folder("Inbox", mailbox.address), *(f"{mailbox.address}-{n}" for n in range(25)))
    return world


@pytest.mark.parametrize("call", ["folders", "changes", "newest", "items", "fetch"])
@pytest.mark.parametrize("sink", ["files", "lines"])
def test_a_request_that_never_ends_costs_its_mailbox_a_while_and_the_others_nothing(call: str, sink: str) -> None:
    async def story() -> None:
        world = watched_world(sink)
        hung: list[str] = []

        async def hang_once(name: str, _: Folder | None) -> None:
            if name == call and not hung:
                hung.append(name)
                await for_ever()

        world.source.before = hang_once
        await world.run(500)
        assert hung
        assert sum(not world.missing(mailbox.address) for mailbox in (A, B)) == 1
        await world.run(600)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        assert world.repeated() == {}
        assert list(world.status.health.troubles) == []
        await world.stop()

    run(story())


def test_a_put_that_never_ends_is_given_up_and_done_again() -> None:
    async def story() -> None:
        world = watched_world()
        hung: list[int] = []

        async def hang_once(batch: Sequence[Email]) -> None:
            if not hung:
                hung.append(len(batch))
                await for_ever()

        world.sink.before = hang_once
        await world.run(1500)
        assert hung
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())


def test_a_checkpoint_that_is_never_saved_is_saved_again() -> None:
    async def story() -> None:
        world = watched_world()
        hung: list[str] = []

        async def hang_once(mailbox: Mailbox) -> None:
            if not hung:
                hung.append(mailbox.address)
                await for_ever()

        world.store.before = hang_once
        await world.run(1500)
        assert hung
        assert set(world.disk.checkpoints) == {"a@x", "b@x"}
        await world.stop()

    run(story())


def test_a_mailbox_that_cannot_be_freed_is_told_to_the_probe(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = watched_world()
        hung: list[str] = []

        async def hang_once(name: str, _: Folder | None) -> None:
            if name == "changes" and not hung:
                hung.append(name)
                await through_thick_and_thin(5000)

        world.source.before = hang_once
        await world.run(1000)
        [trouble] = world.status.health.troubles
        assert "keeping" in trouble
        await world.run(5000)
        assert list(world.status.health.troubles) == []
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())
    assert sum(entry["event"].startswith("work is stuck") for entry in logs) == 1


def test_a_mailbox_that_waits_for_a_full_disk_is_not_stuck(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = watched_world()

        async def full(_: Sequence[Email]) -> None:
            raise StorageError("the disk is full")

        world.sink.before = full
        await world.run(6 * 3600)
        world.sink.before = None
        await world.run(120)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())
    assert not [entry for entry in logs if "nothing has moved" in str(entry)]


# --- What is wrong for everybody -------------------------------------------------------------------------------------


def shown(world: World) -> Failure:
    failure = world.status.source_failure
    assert failure is not None
    return failure


def test_a_server_that_is_away_is_told_once_and_not_by_every_mailbox(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = watched_world()
        away = True

        async def refuse(_: str, __: Folder | None) -> None:
            if away:
                raise AwayError("the server is away", hint="look for it", retry_after=250.0)

        await world.run(60)
        assert world.status.ready
        world.source.before = refuse
        world.mail(world.exchange.folder("Inbox"), "meanwhile")
        await world.run(3600)
        failure = world.status.source_failure
        assert failure is not None
        assert failure.reason == "the server is away"
        assert any("no mailbox can be read" in reason for reason in world.status.obstacles)
        await world.run(3600)
        assert shown(world).since == failure.since
        away = False
        await world.run(400)
        assert world.status.ready
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        await world.stop()

    run(story())
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    # At once, and then every ten minutes: two hours.
    assert 10 <= len(errors) <= 13
    assert {entry["event"] for entry in errors} == {"no mail can be read; trying again until it can"}
    assert sum(entry["event"] == "mail can be read again" for entry in logs) == 1
    assert not [entry for entry in logs if entry["event"] == "mailbox is well again"]


@pytest.mark.parametrize("boxes", [(A,), (A, B)])
@pytest.mark.parametrize("first", ["source", "sink"])
def test_one_outage_after_the_other_and_both_are_over(boxes: tuple[Mailbox, ...], first: str) -> None:
    async def story() -> None:
        world = World(*boxes)
        for mailbox in boxes:
            world.mail(world.exchange.folder("Inbox", mailbox.address), f"x {mailbox.address}")
        away = {first}

        async def no_sink(_: Mailbox) -> None:
            if "sink" in away:
                raise SinkError("the volume is gone", scope=Scope.PROCESS)

        async def no_source(_: str, __: Folder | None) -> None:
            if "source" in away:
                raise AwayError("the server is away", retry_after=30.0)

        world.sink.before_open, world.source.before = no_sink, no_source
        await world.run(60)
        for sync in world.engine._mailboxes:
            sync._storing._must_open = True
        away = {"source", "sink"} - away
        await world.run(300)
        assert not world.status.ready
        away = set()
        await world.run(400)
        assert world.status.obstacles == ()
        assert not world.missing("a@x")
        await world.stop()

    run(story())


def test_everybody_is_back_soon_after_the_server_is(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = watched_world()
        away = True
        waits = iter([10.0] + [280.0] * 50)

        async def refuse(_: str, __: Folder | None) -> None:
            if away:
                raise AwayError("the server is away", retry_after=next(waits))

        await world.run(60)
        world.source.before = refuse
        await world.run(30)
        away = False
        for mailbox in ("a@x", "b@x"):
            world.mail(world.exchange.folder("Inbox", mailbox), f"meanwhile {mailbox}")
        # The first one is told to come back after ten seconds, or has come by then; the other one is woken by it.
        await world.run(330)
        assert not world.missing("a@x")
        assert not world.missing("b@x")
        back = [name for name in world.disk.uploads if name.startswith("meanwhile")]
        assert len(back) == 2
        await world.stop()

    run(story())
    assert sum(entry["event"] == "mail can be read again" for entry in logs) == 1


def test_a_dead_letter_that_cannot_be_recorded_is_shown_and_told(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = watched_world()
        world.exchange.add(world.exchange.folder("Inbox"), Item("bad", world.clock.now(), dead="ErrorItemCorrupt"))

        async def full(_: Sequence[DeadLetter]) -> None:
            raise StorageError("the disk is full")

        world.sink.before_letters = full
        await world.run(3 * 3600)
        assert any("the disk is full" in reason for reason in world.status.obstacles)
        assert not world.missing("b@x")
        world.sink.before_letters = None
        await world.run(120)
        assert world.status.ready
        assert [letter.email_id for letter in world.disk.letters["a@x"].values()] == ["bad"]
        assert not world.missing("a@x")
        await world.stop()

    run(story())
    told = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert 15 <= told.count("mail cannot be stored; trying again until it can") <= 20
    assert "mail can be stored again" in [entry["event"] for entry in logs]
    assert not [entry for entry in logs if "nothing has moved" in str(entry)]


def test_a_dead_letter_of_one_mailbox_that_is_refused_fails_that_mailbox() -> None:
    async def story() -> None:
        world = watched_world()
        world.exchange.add(world.exchange.folder("Inbox"), Item("bad", world.clock.now(), dead="ErrorItemCorrupt"))

        async def refuse(_: Sequence[DeadLetter]) -> None:
            raise SinkError("not this one")

        world.sink.before_letters = refuse
        await world.run(300)
        failure = world.progress("a@x").failure
        assert failure is not None
        assert failure.reason == "not this one"
        assert not world.missing("b@x")
        assert world.progress("b@x").failure is None
        await world.stop()

    run(story())


@pytest.mark.parametrize("pause", [10.0, 60.0])
def test_a_slow_pace_of_our_own_is_not_stuck(logs: list[EventDict], pause: float) -> None:
    async def story() -> None:
        pace = Pace(poll_frequency=15.0, poll_message_sleep=pause, reinfer_batch_size=1000, emails_per_folder=2520)
        world = World(A, pace=pace)
        world.old_mail(world.exchange.folder("Inbox"), 2000)
        await world.run(40 * 3600)
        assert not world.missing()
        await world.stop()

    run(story())
    assert not [entry for entry in logs if "nothing has moved" in str(entry)]


def test_a_batch_that_gives_up_leaves_no_outage_behind() -> None:
    """Its sink was away for everybody, then refused this mailbox alone."""

    async def story() -> None:
        world = watched_world()
        errors = iter([StorageError("the disk is full"), *[SinkError("not this one", asks=Asks.STOP)] * 3])

        async def fail(batch: Sequence[Email]) -> None:
            if batch[0].mailbox is A and (error := next(errors, None)) is not None:
                raise error

        world.sink.before = fail
        await world.run(3000)
        assert world.status.obstacles == ()
        assert not world.missing("a@x")
        await world.stop()

    run(story())


def test_what_is_stored_of_one_mailbox_says_nothing_of_another_that_cannot_be() -> None:
    async def story() -> None:
        world = watched_world()

        async def full(batch: Sequence[Email]) -> None:
            if batch[0].mailbox is A:
                raise StorageError("no room for these")

        world.sink.before = full
        await world.run(600)
        world.mail(world.exchange.folder("Inbox", "b@x"), "small")
        await world.run(100)
        assert not world.missing("b@x")
        assert any("no room for these" in reason for reason in world.status.obstacles)
        await world.stop()

    run(story())


def test_a_sink_that_cannot_be_opened_for_anybody_is_told_once(logs: list[EventDict]) -> None:
    async def story() -> None:
        world = watched_world()
        away = True

        async def refuse(_: Mailbox) -> None:
            if away:
                raise SinkError("the volume is gone", scope=Scope.PROCESS, asks=Asks.RETRY)

        world.sink.before_open = refuse
        await world.run(1500)
        assert world.progress().phase is Phase.FAILED
        assert any("the volume is gone" in reason for reason in world.status.obstacles)
        away = False
        await world.run(400)
        assert world.status.ready
        assert not world.missing("a@x")
        await world.stop()

    run(story())
    told = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert told.count("mail cannot be stored; trying again until it can") <= 3
    assert "mailbox failed" not in told


def test_an_engine_begins_without_the_outages_of_the_one_before() -> None:
    async def story() -> None:
        world = watched_world()

        async def full(_: Sequence[Email]) -> None:
            raise StorageError("the disk is full")

        world.sink.before = full
        await world.run(60)
        assert any("the disk is full" in reason for reason in world.status.obstacles)
        await world.stop()
        world.sink.before = None
        world.another_engine()
        assert not any("the disk is full" in reason for reason in world.status.obstacles)
        await world.run(60)
        assert not world.missing("a@x")
        await world.stop()

    run(story())
