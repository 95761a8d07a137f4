"""The moving parts by themselves: pipeline, fetching ahead, saving checkpoints, tasks."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.engine.budget import ByteBudget
from ews_sync.engine.checkpoints import CheckpointKeeper
from ews_sync.engine.fetching import FetchOrder, FetchWindow, batches, reserved_bytes
from ews_sync.engine.ledger import Step
from ews_sync.engine.outages import sink_outage
from ews_sync.engine.pipeline import Batch, Lane, Pipeline
from ews_sync.engine.tasks import all_of
from ews_sync.engine.watchdog import Watchdog
from ews_sync.errors import Asks, Scope, SinkError, SourceError, StorageError
from ews_sync.model import Email, Fetched, Folder, ItemRef, MailboxCheckpoint, Metadata
from ews_sync.telemetry.status import RATE_WINDOW, Rate, Status
from tests.engine.exchange import OpenMail, TrackedMime
from tests.engine.stores import Disk, MemoryCheckpoints, MemorySink
from tests.engine.virtual_time import START, VirtualClock, run, until_idle
from tests.engine.world import A, B

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ews_sync.engine.budget import Reservation
    from ews_sync.model import Mailbox, Receipt

FOLDER = Folder("f", ("Inbox",))
CLOCK = VirtualClock()


# --- Pipeline --------------------------------------------------------------------------------------------------------


class Shop:
    """A pipeline with its sink, and emails to put into it."""

    def __init__(self, *, workers: int = 2, kind: str = "files") -> None:
        self.disk = Disk()
        self.sink = MemorySink(self.disk, CLOCK, kind)
        self.budget = ByteBudget(1000)
        self.status = Status("test", START)
        self.pipeline = Pipeline(
            self.sink,
            self.budget,
            CLOCK,
            sink_outage(CLOCK, self.status),
            Watchdog(self.status.health, lambda: False),
            workers=workers,
            jitter=lambda: 0.0,
        )
        self.opened = OpenMail()
        self.confirmed: list[str] = []
        self.task = asyncio.get_running_loop().create_task(self.pipeline.run())

    def lane(self) -> Lane:
        return Lane(self._confirm)

    def _confirm(self, _step: Step, emails: Sequence[Email], _receipt: Receipt) -> None:
        self.confirmed += [email.id for email in emails]

    def batch(self, lane: Lane, *names: str, mailbox: Mailbox = A) -> Batch:
        self.disk.lines.setdefault(mailbox.address, [])
        self.sink._confirmed.setdefault(mailbox.address, 0)
        emails = tuple(
            Email(name, mailbox, START, TrackedMime(b"x", self.opened), Metadata(("Inbox",))) for name in names
        )
        reserved = self.budget.try_reserve(10, lane)
        assert reserved is not None
        return Batch(lane, Step(FOLDER), emails, reserved)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.budget.used == 0
        assert self.opened.count == 0
        assert self.pipeline._in_flight == 0


def test_versions_of_one_email_stay_in_order_and_others_do_not_wait() -> None:
    async def story() -> None:
        shop = Shop(workers=3)
        lane, other = shop.lane(), shop.lane()

        async def slow_first(batch: Sequence[Email]) -> None:
            if not shop.sink.puts and batch[0].id == "a":
                await asyncio.sleep(10)

        shop.sink.before = slow_first
        first = asyncio.create_task(shop.pipeline.submit(shop.batch(lane, "a", "b")))
        await until_idle()
        again = asyncio.create_task(shop.pipeline.submit(shop.batch(lane, "c", "a")))
        await shop.pipeline.submit(shop.batch(other, "d", mailbox=B))
        await asyncio.sleep(1)
        assert shop.confirmed == ["d"]
        await asyncio.gather(first, again)
        await lane.settled()
        assert shop.confirmed == ["d", "a", "b", "c", "a"]
        assert not lane._latest
        await shop.close()

    run(story())


def test_batches_of_an_ordered_lane_come_one_after_the_other_and_hold_no_worker() -> None:
    async def story() -> None:
        shop = Shop(workers=2, kind="lines")
        lane, other = shop.lane(), shop.lane()
        shop.sink.latency = 1.0

        async def mailbox() -> None:
            for number in range(5):
                await shop.pipeline.submit(shop.batch(lane, f"{number}"))

        task = asyncio.create_task(mailbox())
        await until_idle()
        await shop.pipeline.submit(shop.batch(other, "other", mailbox=B))
        await asyncio.sleep(1.1)
        assert shop.confirmed == ["0", "other"]
        await task
        await lane.settled()
        assert shop.confirmed == ["0", "other", "1", "2", "3", "4"]
        await shop.close()

    run(story())


def test_in_line_a_batch_is_stored_when_submit_returns() -> None:
    async def story() -> None:
        shop = Shop(workers=0)
        await shop.pipeline.submit(shop.batch(shop.lane(), "a"))
        assert shop.confirmed == ["a"]
        await shop.close()

    run(story())


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["files", "lines"])
def test_a_submit_that_is_cancelled_gives_everything_back_and_holds_nobody_up(workers: int, kind: str) -> None:
    async def story() -> None:
        shop = Shop(workers=workers, kind=kind)
        shop.sink.latency = 5.0
        lane = shop.lane()
        tasks = []
        for _ in range(5):
            tasks.append(asyncio.create_task(shop.pipeline.submit(shop.batch(lane, "same"))))
            await until_idle()
        for task in tasks[1:4]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(100):
            await lane.settled()
        assert 2 <= len(shop.confirmed) <= 3
        assert lane.in_flight == 0
        await shop.close()

    run(story())


def test_a_sink_that_is_unwell_for_everybody_is_tried_for_ever() -> None:
    async def story() -> None:
        shop = Shop()
        lane = shop.lane()
        tries: list[float] = []

        async def fail(_: Sequence[Email]) -> None:
            tries.append(CLOCK.monotonic())
            if len(tries) < 100:
                raise StorageError("full")

        shop.sink.before = fail
        await shop.pipeline.submit(shop.batch(lane, "a"))
        await lane.settled()
        assert lane.failure is None
        assert shop.confirmed == ["a"]
        waits = [later - earlier for earlier, later in pairwise(tries)]
        assert waits[:4] == pytest.approx([0.5, 1, 2, 4])
        assert max(waits) == pytest.approx(60)
        assert shop.status.sink_failure is None
        await shop.close()

    run(story())


def test_what_the_sink_asks_to_wait_is_waited() -> None:
    async def story() -> None:
        shop = Shop()
        lane = shop.lane()
        failed = False

        async def fail(_: Sequence[Email]) -> None:
            nonlocal failed
            if not failed:
                failed = True
                raise SinkError("busy", retry_after=30.0)

        shop.sink.before = fail
        await shop.pipeline.submit(shop.batch(lane, "a"))
        await lane.settled()
        assert shop.confirmed == ["a"]
        assert CLOCK.monotonic() >= 30
        await shop.close()

    run(story())


def test_of_a_batch_that_is_stored_in_part_only_the_rest_is_tried_again() -> None:
    async def story() -> None:
        shop = Shop()
        lane = shop.lane()
        shop.sink.breaks_after = 3
        await shop.pipeline.submit(shop.batch(lane, "a", "b", "c", "d", "e"))
        await until_idle()
        await CLOCK.sleep(1)
        assert shop.confirmed == ["a", "b", "c"], "at once, whatever becomes of the rest"
        await lane.settled()
        assert shop.confirmed == ["a", "b", "c", "d", "e"]
        assert shop.sink.puts == [("a", "b", "c"), ("d", "e")]
        assert CLOCK.monotonic() >= 5, "what the sink asked to wait is waited"
        await shop.close()

    run(story())


@pytest.mark.parametrize("asks", [Asks.STOP, Asks.SKIP, Asks.RETRY])
def test_a_lane_that_fails_stores_nothing_more_until_it_is_forgiven(asks: Asks) -> None:
    async def story() -> None:
        shop = Shop(workers=1)
        lane, other = shop.lane(), shop.lane()

        async def fail(batch: Sequence[Email]) -> None:
            if batch[0].id == "bad":
                raise SinkError("no", asks=asks)

        shop.sink.before = fail
        for name in ("bad", "behind"):
            await shop.pipeline.submit(shop.batch(lane, name))
        await shop.pipeline.submit(shop.batch(other, "other", mailbox=B))
        await lane.settled()
        await other.settled()
        assert shop.confirmed == ["other"]
        assert lane.failure is not None
        assert other.failure is None
        assert CLOCK.monotonic() < 10
        lane.forgive()
        await shop.pipeline.submit(shop.batch(lane, "again"))
        await lane.settled()
        assert shop.confirmed == ["other", "again"]
        await shop.close()

    run(story())


def test_draining_waits_for_what_is_under_way_and_no_longer_than_the_grace() -> None:
    async def story() -> None:
        shop = Shop(workers=1)
        shop.sink.latency = 5.0
        await shop.pipeline.submit(shop.batch(shop.lane(), "a"))
        await shop.pipeline.submit(shop.batch(shop.lane(), "b"))
        assert not await shop.pipeline.drain(7.0)
        assert shop.confirmed == ["a"]
        assert await shop.pipeline.drain(7.0)
        assert shop.confirmed == ["a", "b"]
        await shop.close()

    run(story())


def test_what_is_still_in_the_queue_when_the_workers_end_is_given_back() -> None:
    async def story() -> None:
        shop = Shop(workers=1)
        shop.sink.latency = 5.0
        for name in ("a", "b"):
            await shop.pipeline.submit(shop.batch(shop.lane(), name))
        await until_idle()
        await shop.close()

    run(story())


# --- Fetching --------------------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 9_000_000), max_size=60),
    count=st.integers(1, 20),
)
def test_batches_keep_everything_in_order_and_stay_small(sizes: list[int], count: int) -> None:
    refs = [ItemRef(f"{number}", size=size) for number, size in enumerate(sizes)]
    cut = list(batches(refs, count))
    assert [ref for batch in cut for ref in batch] == refs
    for batch in cut:
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or sum(ref.size for ref in batch) <= 4 * 1024 * 1024
        assert reserved_bytes(batch) <= 6 * 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 10**10])
def test_whatever_sizes_the_server_tells_each_item_counts_and_none_for_more_than_it_can_take(size: int) -> None:
    refs = [ItemRef(f"{number}", size=size) for number in range(1000)]
    cut = list(batches(refs, 1000))
    assert [ref for batch in cut for ref in batch] == refs
    assert max(map(len, cut)) <= 256
    for batch in cut:
        assert len(batch) * 16 * 1024 <= reserved_bytes(batch) <= 6 * 1024 * 1024


class Counter:
    """A fetch window whose fetches end when they are let."""

    def __init__(self, *, at_once: int = 3, pause: float = 0.0, capacity: int = 10**9) -> None:
        self.opened = OpenMail()
        self.budget = ByteBudget(capacity)
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        self.times: list[float] = []
        self.handed: list[str] = []
        self.failing: set[str] = set()
        self.window = FetchWindow(self._fetch, self._hand_on, self.budget, CLOCK, at_once=at_once, pause=pause)

    def order(self, *names: str) -> FetchOrder:
        return FetchOrder(FOLDER, Step(FOLDER), tuple(ItemRef(name, size=100) for name in names), None)

    async def _fetch(self, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        assert folder is FOLDER
        name = refs[0].id
        self.begun.append(name)
        self.times.append(CLOCK.monotonic())
        gate = self.gates.get(name)
        if gate is not None:
            await gate.wait()
        if name in self.failing:
            raise SourceError(f"{name} fails")
        return [
            Fetched(ref, Email(ref.id, A, START, TrackedMime(b"x", self.opened), Metadata(("Inbox",)))) for ref in refs
        ]

    async def _hand_on(
        self, order: FetchOrder, fetched: Sequence[Fetched] | SourceError, reserved: Reservation
    ) -> None:
        self.handed.append(order.refs[0].id if not isinstance(fetched, SourceError) else str(fetched))
        self.budget.release(reserved)
        if not isinstance(fetched, SourceError):
            for outcome in fetched:
                assert outcome.email is not None
                outcome.email.mime.close()

    def clean(self) -> None:
        assert self.opened.count == 0
        assert self.budget.used == 0


def test_fetches_run_side_by_side_and_are_handed_on_in_order() -> None:
    async def story() -> None:
        counter = Counter()
        counter.gates = {"a": asyncio.Event(), "b": asyncio.Event()}
        for name in "abc":
            await counter.window.add(counter.order(name))
        await until_idle()
        assert counter.begun == ["a", "b", "c"]
        fourth = asyncio.create_task(counter.window.add(counter.order("d")))
        counter.gates["b"].set()
        await until_idle()
        assert counter.handed == []
        assert counter.begun == ["a", "b", "c"]
        counter.gates["a"].set()
        await fourth
        assert counter.handed == ["a"]
        await counter.window.flush()
        assert counter.handed == ["a", "b", "c", "d"]
        counter.clean()

    run(story())


def test_a_fetch_that_fails_is_handed_on_in_its_turn_and_the_next_ones_follow() -> None:
    async def story() -> None:
        counter = Counter()
        counter.failing = {"b"}
        for name in "abcd":
            await counter.window.add(counter.order(name))
        await counter.window.flush()
        assert counter.handed == ["a", "b fails", "c", "d"]
        counter.clean()

    run(story())


@pytest.mark.parametrize("turns", range(0, 12, 2))
def test_cancelling_at_any_moment_leaks_nothing(turns: int) -> None:
    async def story() -> None:
        counter = Counter(at_once=2, capacity=250)
        counter.gates = {"b": asyncio.Event()}

        async def work() -> None:
            for name in "abcdef":
                await counter.window.add(counter.order(name, name + "2"))

        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await counter.window.cancel()
        counter.clean()
        await counter.window.add(counter.order("after"))
        await counter.window.flush()
        assert counter.handed[-1] == "after"
        counter.clean()

    run(story())


def test_the_pace_is_so_many_emails_a_second() -> None:
    async def story() -> None:
        counter = Counter(pause=0.1)
        for number in range(10):
            await counter.window.add(counter.order(*(f"{number}-{part}" for part in range(5))))
        await counter.window.flush()
        assert counter.times == pytest.approx([number * 0.5 for number in range(10)])
        await asyncio.sleep(100)
        await counter.window.add(counter.order("late"))
        await counter.window.add(counter.order("later"))
        await counter.window.flush()
        assert counter.times[-1] - counter.times[-2] == pytest.approx(0.1), "what was not used is not saved up"
        counter.clean()

    run(story())


# --- Checkpoints -----------------------------------------------------------------------------------------------------


class Desk:
    def __init__(self) -> None:
        self.disk = Disk()
        self.store = MemoryCheckpoints(self.disk, CLOCK)
        self.status = Status("test", START)
        watchdog = Watchdog(self.status.health, lambda: False)
        self.keeper = CheckpointKeeper(self.store, CLOCK, self.status, watchdog, lambda: 0.0)
        self.task = asyncio.get_running_loop().create_task(self.keeper.run())

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def position(text: str) -> MailboxCheckpoint:
    return MailboxCheckpoint(sink_position=text)


def test_the_last_flush_does_not_wait_for_a_store_that_hangs() -> None:
    async def story() -> None:
        desk = Desk()

        async def hang(_: Mailbox) -> None:
            await asyncio.sleep(1000)

        desk.store.before = hang
        desk.keeper.moved(A, position("1"))
        assert not await desk.keeper.last_flush(4.0)
        assert CLOCK.monotonic() < 5
        desk.store.before = None
        assert await desk.keeper.last_flush(4.0)
        assert desk.disk.checkpoints[A.address] == position("1")
        await desk.close()

    run(story())


def test_checkpoints_are_saved_once_in_a_while_and_the_last_one_wins() -> None:
    async def story() -> None:
        desk = Desk()
        for number in range(50):
            desk.keeper.moved(A, position(f"{number}"))
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        assert desk.store.saves <= 6
        assert desk.disk.checkpoints["a@x"] == position("49")
        saves = desk.store.saves
        await asyncio.sleep(100)
        assert desk.store.saves == saves
        await desk.close()

    run(story())


def test_what_moves_while_it_is_saved_is_saved_again() -> None:
    async def story() -> None:
        desk = Desk()
        desk.keeper.moved(A, position("1"))

        async def move_on(_: Mailbox) -> None:
            desk.store.before = None
            desk.keeper.moved(A, position("2"))

        desk.store.before = move_on
        await asyncio.sleep(5)
        assert desk.disk.checkpoints["a@x"] == position("2")
        await desk.close()

    run(story())


def test_a_store_that_fails_is_tried_again_and_the_others_are_saved(logs: list[dict[str, object]]) -> None:
    async def story() -> None:
        desk = Desk()
        failing = True

        async def fail(mailbox: Mailbox) -> None:
            if failing and mailbox is A:
                raise StorageError("full")

        desk.store.before = fail
        desk.keeper.moved(A, position("1"))
        desk.keeper.moved(B, position("1"))
        await asyncio.sleep(10)
        assert set(desk.disk.checkpoints) == {"b@x"}
        assert not await desk.keeper.flush()
        [warning] = desk.status.warnings
        assert "a@x" in warning
        assert "full" in warning
        failing = False
        assert not await desk.keeper.flush(), "it is not time yet"
        assert await desk.keeper.last_flush(4.0)
        assert desk.disk.checkpoints["a@x"] == position("1")
        assert desk.status.warnings == []
        await desk.close()

    run(story())
    assert [entry["log_level"] for entry in logs].count("error") == 1


def test_a_store_that_fails_is_tried_less_and_less_often() -> None:
    async def story() -> None:
        desk = Desk()
        tries: list[float] = []

        async def fail(_: Mailbox) -> None:
            tries.append(CLOCK.monotonic())
            raise StorageError("full")

        desk.store.before = fail
        desk.keeper.moved(A, position("1"))
        await asyncio.sleep(3600)
        waits = [later - earlier for earlier, later in pairwise(tries)]
        assert len(tries) < 25
        assert max(waits) >= 300
        await desk.close()

    run(story())


def test_a_store_that_asks_for_an_operator_ends_the_keeper() -> None:
    async def story() -> None:
        desk = Desk()

        async def refuse(_: Mailbox) -> None:
            raise SinkError("the token is refused", asks=Asks.STOP, scope=Scope.PROCESS)

        desk.store.before = refuse
        desk.keeper.moved(A, position("1"))
        await asyncio.sleep(10)
        with pytest.raises(SinkError, match="token"):
            desk.task.result()
        assert not await desk.keeper.last_flush(4.0)
        await desk.close()

    run(story())


def test_a_checkpoint_that_no_longer_holds_is_not_saved() -> None:
    async def story() -> None:
        desk = Desk()
        desk.keeper.moved(A, position("1"))
        desk.keeper.forget(A)
        await asyncio.sleep(10)
        assert not desk.disk.checkpoints
        await desk.close()

    run(story())


def test_a_save_that_is_interrupted_is_made_up_for_by_the_flush() -> None:
    async def story() -> None:
        desk = Desk()
        desk.keeper.moved(A, position("1"))
        await asyncio.sleep(1.001)
        await desk.close()
        assert not desk.disk.checkpoints
        assert await desk.keeper.flush()
        assert desk.disk.checkpoints["a@x"] == position("1")

    run(story())


# --- Tasks and rates -------------------------------------------------------------------------------------------------


def test_all_works_are_done_so_many_at_once() -> None:
    async def story() -> None:
        running = most = done = 0

        async def work() -> None:
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            done += 1

        await all_of([work] * 10, 3)
        assert (most, done) == (3, 10)
        await all_of([], 3)

    run(story())


def test_the_first_failure_ends_the_others_and_is_raised_as_it_is() -> None:
    async def story() -> None:
        ended: list[str] = []

        def work(name: str, seconds: float, error: Exception | None) -> Callable[[], Awaitable[None]]:
            async def one() -> None:
                try:
                    await asyncio.sleep(seconds)
                    if error is not None:
                        raise error
                finally:
                    ended.append(name)

            return one

        with pytest.raises(SourceError, match="first"):
            await all_of(
                [
                    work("slow", 9, None),
                    work("fails", 1, SourceError("first")),
                    work("later", 2, SourceError("second")),
                    work("waits", 1, None),
                ],
                3,
            )
        assert {"fails", "later", "slow"} <= set(ended)
        assert CLOCK.monotonic() == pytest.approx(1)

    run(story())


def test_a_rate_is_of_the_last_minute() -> None:
    rate = Rate()
    assert rate.per_second(0.0) == 0
    for second in range(30):
        rate.add(second + 0.5, 4)
    assert rate.per_second(30.0) == pytest.approx(4)
    assert rate.per_second(29 + RATE_WINDOW) == pytest.approx(4 / RATE_WINDOW, rel=0.5)
    assert rate.per_second(1000.0) == 0
