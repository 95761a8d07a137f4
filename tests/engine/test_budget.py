"""Room in memory: never more than there is, and fair between mailboxes, whatever they ask for."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.engine.budget import PASSES, ByteBudget, Reservation
from ews_sync.engine.fetching import FetchOrder, FetchWindow
from ews_sync.engine.ledger import Step
from ews_sync.errors import SourceError
from ews_sync.model import Fetched, Folder, ItemRef
from tests.engine.virtual_time import VirtualClock, run, until_idle

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Folder("f", ("Inbox",))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_budget_is_never_exceeded_and_never_leaks(seed: int) -> None:
    async def story() -> None:
        dice = random.Random(seed)
        budget = ByteBudget(100)

        async def worker(number: int) -> None:
            reserved = await budget.reserve(dice.choice([1, 30, 60, 100, 500]), number % 7)
            try:
                assert budget.used <= 100
                await asyncio.sleep(dice.random())
            finally:
                budget.release(reserved)

        tasks = [asyncio.create_task(worker(number)) for number in range(30)]
        for _ in range(12):
            await asyncio.sleep(dice.random())
            for task in dice.sample(tasks, k=3):
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert budget.used == 0
        assert budget.try_reserve(100, "somebody else")

    run(story())


def test_room_is_given_in_the_order_in_which_it_was_asked_for() -> None:
    async def story() -> None:
        budget = ByteBudget(10)
        first = await budget.reserve(10, "first")
        order: list[Reservation] = []

        async def ask(size: int) -> None:
            order.append(await budget.reserve(size, size))

        tasks = [asyncio.create_task(ask(size)) for size in (9, 1, 5)]
        await until_idle()
        assert budget.try_reserve(1, "late") is None
        budget.release(first)
        await until_idle()
        assert [reserved.size for reserved in order] == [9, 1]
        budget.release(order[0])
        await until_idle()
        assert [reserved.size for reserved in order] == [9, 1, 5]
        await asyncio.gather(*tasks)

    run(story())


@pytest.mark.parametrize("granted_first", [False, True])
def test_a_wait_that_is_cancelled_as_the_room_comes_free(granted_first: bool) -> None:  # noqa: FBT001
    async def story() -> None:
        budget = ByteBudget(10)
        first = await budget.reserve(10, "a")
        waiting = asyncio.create_task(budget.reserve(5, "b"))
        behind = asyncio.create_task(budget.reserve(10, "c"))
        await until_idle()
        if granted_first:
            budget.release(first)
            waiting.cancel()
        else:
            waiting.cancel()
            budget.release(first)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await behind
        assert budget.used == 10

    run(story())


def test_who_gives_up_waiting_lets_those_behind_go_on() -> None:
    async def story() -> None:
        budget = ByteBudget(100)
        await budget.reserve(20, "a")
        large = asyncio.create_task(budget.reserve(100, "b"))
        await until_idle()
        for number in range(PASSES):
            small = budget.try_reserve(1, number)
            assert small is not None
            budget.release(small)
        behind = asyncio.create_task(budget.reserve(1, "c"))
        await until_idle()
        assert not behind.done(), "enough have gone ahead"
        large.cancel()
        await until_idle()
        assert behind.done()

    run(story())


# --- Fairness --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Wait:
    """A demand of somebody who holds nothing, how many waited already, and how many were granted meanwhile."""

    older: int
    others: int = 0


class Watched(ByteBudget):
    """A budget that counts, for everybody who waits, what others are granted."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.waits: dict[object, Wait] = {}
        self.ended: list[Wait] = []

    async def ask(self, size: int, owner: object) -> Reservation:
        if not self._held.get(owner):
            self.waits[owner] = Wait(len(self._waiting))
        return await self.reserve(size, owner)

    def _take(self, wanted: Reservation, passed: list[object]) -> bool:  # type: ignore[override]
        taken = super()._take(wanted, passed)  # type: ignore[arg-type]
        if taken:
            mine = self.waits.pop(wanted.owner, None)
            self.ended += [mine] if mine is not None else []
            for wait in self.waits.values():
                wait.others += 1
        return taken


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), mailboxes=st.integers(2, 40), greedy=st.integers(0, 40))
def test_nobody_waits_for_more_than_those_before_him_and_a_few_more(seed: int, mailboxes: int, greedy: int) -> None:
    """Any demands: of large pieces all the time, of small ones, of both, kept for long or not."""

    async def story() -> None:
        dice = random.Random(seed)
        budget = Watched(1000)

        async def mailbox(number: int) -> None:
            large = number < greedy
            for _ in range(12):
                size = dice.choice([400, 700, 1000, 5000]) if large else dice.choice([1, 5, 20, 60])
                reserved = await budget.ask(size, number)
                await asyncio.sleep(dice.random() * (5 if large else 1))
                budget.release(reserved)
                await asyncio.sleep(dice.choice([0, 0, dice.random()]))

        await asyncio.gather(*(mailbox(number) for number in range(mailboxes)))
        assert len(budget.ended) == mailboxes * 12
        for wait in budget.ended:
            assert wait.others <= wait.older + PASSES

    run(story())


@pytest.mark.parametrize("stuck", [1, 2, 3])
def test_who_holds_on_to_what_he_has_leaves_room_for_others(stuck: int) -> None:
    """A bucket that is throttled for minutes must not take the memory of all the other mailboxes."""

    async def story() -> None:
        budget = ByteBudget(10_000)
        waiting = []
        for owner in range(stuck):
            while budget.try_reserve(10, owner):
                pass
            waiting.append(asyncio.create_task(budget.reserve(10, owner)))
        await until_idle()
        for _ in range(20):
            reserved = budget.try_reserve(10_000 // 3**stuck - 20, "another")
            assert reserved is not None
            budget.release(reserved)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(story())


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 10_000, 2_000_000, 150_000_000, 10**10]), min_size=1, max_size=40),
    mailboxes=st.integers(1, 6),
)
def test_sizes_that_are_wrong_block_nobody_for_ever(sizes: list[int], mailboxes: int) -> None:
    async def story() -> None:
        budget = ByteBudget(6 * 1024 * 1024)
        clock = VirtualClock()
        handed: list[ItemRef] = []

        async def fetch(folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
            assert folder is FOLDER
            assert 0 < budget.used <= 6 * 1024 * 1024
            await clock.sleep(1)
            return [Fetched(ref) for ref in refs]

        async def hand_on(order: FetchOrder, fetched: Sequence[Fetched] | SourceError, reserved: Reservation) -> None:
            assert not isinstance(fetched, SourceError)
            handed.extend(order.refs)
            asyncio.get_running_loop().call_later(3, budget.release, reserved)

        async def mailbox(number: int) -> None:
            window = FetchWindow(fetch, hand_on, budget, clock, at_once=4, pause=0)
            for place, size in enumerate(sizes):
                refs = (ItemRef(f"{number}-{place}", size=size),)
                await window.add(FetchOrder(FOLDER, Step(FOLDER), refs, None))
            await window.flush()

        # A loop in which everybody waits for somebody is an error at once.
        await asyncio.gather(*(mailbox(number) for number in range(mailboxes)))
        assert len(handed) == len(sizes) * mailboxes
        await asyncio.sleep(10)
        assert budget.used == 0

    run(story())
