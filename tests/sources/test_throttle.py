from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, strategies as st

from ews_sync.sources.ews.throttle import LONGEST_TOLD, Allowance, Gate, LeftAloneError, doubled
from tests.sources.support import FakeClock

# --- Decisions -------------------------------------------------------------------------------------------------------


def test_good_answers_grow_the_limit_slowly_up_to_the_ceiling() -> None:
    allowance = Allowance(limit=4, ceiling=6)
    grown_at = []
    for number in range(1, 200):
        before = allowance.limit
        allowance = allowance.after_success()
        if allowance.limit > before:
            grown_at.append(number)
    assert grown_at == [32, 72]
    assert allowance.limit == 6


def test_busy_halves_and_waits_as_long_as_was_asked() -> None:
    allowance = Allowance(limit=8).after_busy(100.0, 7.5)
    assert (allowance.limit, allowance.not_before, allowance.busy) == (4, 107.5, 1)


@pytest.mark.parametrize("wait", [None, 0.0])
def test_without_a_word_the_wait_doubles_up_to_the_longest(wait: float | None) -> None:
    allowance, now, waits = Allowance(), 0.0, []
    for _ in range(11):
        allowance = allowance.after_busy(now, wait)
        waits.append(allowance.not_before - now)
        now = allowance.not_before
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert allowance.limit == 1
    assert allowance.after_success().after_busy(now, wait).not_before - now == 1


@pytest.mark.parametrize("wait", [LONGEST_TOLD + 1, 1e9, float("inf")])
def test_no_wait_stops_a_mailbox_for_good(wait: float) -> None:
    assert Allowance().after_busy(0.0, wait).not_before == LONGEST_TOLD
    assert Allowance().after_busy(0.0, 10.0).after_busy(5.0, wait).not_before == 5.0 + LONGEST_TOLD


def test_doubling_ends_and_does_not_overflow() -> None:
    assert [doubled(5.0, failures, 300.0) for failures in (-1, 0, 1, 6, 10_000)] == [5.0, 5.0, 10.0, 300.0, 300.0]


def test_a_burst_of_busy_answers_counts_once() -> None:
    allowance = Allowance(limit=8).after_busy(0.0, None)
    for _ in range(7):
        allowance = allowance.after_busy(0.1, None)
    assert (allowance.limit, allowance.not_before) == (4, 1.0)


def test_a_longer_wait_is_obeyed_in_the_middle_of_a_shorter_one() -> None:
    allowance = Allowance().after_busy(0.0, 10.0).after_busy(5.0, 60.0)
    assert allowance.not_before == 65.0
    assert allowance.after_busy(6.0, 1.0).not_before == 65.0


@given(st.lists(st.one_of(st.none(), st.tuples(st.floats(0, 10), st.one_of(st.none(), st.floats(0, 1000))))))
def test_the_limit_stays_in_its_bounds_and_no_wait_is_cut_short(
    events: list[tuple[float, float | None] | None],
) -> None:
    allowance, now = Allowance(), 0.0
    for event in events:
        before = allowance.not_before
        if event is None:
            allowance = allowance.after_success()
        else:
            now += event[0]
            allowance = allowance.after_busy(now, event[1])
            assert allowance.not_before >= now + (event[1] or 0)
            assert allowance.not_before <= max(before, now + max(300.0, event[1] or 0))
        assert allowance.not_before >= before
        assert 1 <= allowance.limit <= allowance.ceiling


# --- The gate --------------------------------------------------------------------------------------------------------


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Requests that hold their place until they are let go."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[int] = []
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._leave: dict[int, asyncio.Event] = {}

    async def come(self, *names: int) -> None:
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._visit(name))
            await asyncio.sleep(0)
        await settle()

    async def go(self, *names: int) -> None:
        for name in names:
            self._leave[name].set()
        await settle()

    async def cancel(self, *names: int) -> None:
        for name in names:
            self.tasks[name].cancel()
        await settle()

    async def _visit(self, name: int) -> None:
        async with self.gate.passage():
            self.inside.append(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)


async def test_requests_enter_in_the_order_in_which_they_came(clock: FakeClock) -> None:
    crowd = Crowd(Gate(clock, Allowance(limit=2)))
    await crowd.come(1, 2, 3, 4, 5)
    assert crowd.inside == [1, 2]
    await crowd.go(2)
    assert crowd.inside == [1, 3]
    await crowd.go(1, 3)
    assert crowd.inside == [4, 5]
    await crowd.go(4, 5)
    assert all(task.done() for task in crowd.tasks.values())


async def test_a_place_is_never_lost_by_cancellation(clock: FakeClock) -> None:
    crowd = Crowd(Gate(clock, Allowance(limit=1)))
    await crowd.come(1, 2, 3, 4)
    await crowd.cancel(2)
    await crowd.cancel(1)
    assert crowd.inside == [3]
    await crowd.go(3)
    assert crowd.inside == [4]
    await crowd.go(4)
    await crowd.come(5)
    assert crowd.inside == [5]
    await crowd.go(5)


async def test_cancelled_at_the_moment_at_which_it_is_let_in(clock: FakeClock) -> None:
    crowd = Crowd(Gate(clock, Allowance(limit=1)))
    await crowd.come(1, 2, 3)
    crowd._leave[1].set()
    await asyncio.wait({crowd.tasks[1]})
    crowd.tasks[2].cancel()
    await settle()
    assert crowd.tasks[2].cancelled()
    assert crowd.inside == [3]
    await crowd.go(3)


async def test_cancelled_at_the_moment_at_which_it_is_passed_by(clock: FakeClock) -> None:
    gate = Gate(clock, Allowance(limit=1))
    crowd = Crowd(gate)
    await crowd.come(1, 2)
    crowd.tasks[2].cancel()
    # The future is cancelled already, and its owner has not run yet.
    gate.allowance = Allowance(limit=2)
    gate.succeeded()
    await settle()
    assert crowd.tasks[2].cancelled()
    await crowd.come(3)
    assert crowd.inside == [1, 3]
    await crowd.go(1, 3)


async def test_cancelled_while_the_server_wants_to_be_left_alone() -> None:
    never = asyncio.Event()

    class Stopped(FakeClock):
        async def sleep(self, _: float) -> None:
            await never.wait()

    gate = Gate(Stopped(), Allowance(limit=1))
    gate.was_busy(60.0)
    crowd = Crowd(gate)
    await crowd.come(1)
    await crowd.cancel(1)
    gate.allowance = Allowance(limit=1)
    await crowd.come(2)
    assert crowd.inside == [2]
    await crowd.go(2)


async def test_nobody_passes_before_the_time_and_a_longer_wait_counts(clock: FakeClock) -> None:
    gate = Gate(clock)
    gate.was_busy(30.0)
    assert gate.wait_left == 30.0
    async with gate.passage():
        assert clock.time == 1030.0
    assert gate.wait_left == 0.0


async def test_who_has_no_patience_hears_at_once_and_keeps_no_place(clock: FakeClock) -> None:
    gate = Gate(clock, Allowance(limit=1))
    gate.was_busy(30.0)
    crowd = Crowd(gate)
    for _ in range(3):
        with pytest.raises(LeftAloneError) as caught:
            await gate.enter(patience=29.0)
        assert caught.value.wait == 30.0
    assert clock.waits == []
    await gate.enter(patience=30.0)
    assert clock.waits == [30.0]
    gate.leave()
    await crowd.come(1)
    assert crowd.inside == [1]
    await crowd.go(1)


async def test_a_wait_that_gets_longer_ends_the_patience(clock: FakeClock) -> None:
    gate = Gate(clock, Allowance(limit=2))
    gate.was_busy(10.0)
    waiting = asyncio.create_task(gate.enter(patience=20.0))
    await asyncio.sleep(0)
    gate.was_busy(100.0)
    with pytest.raises(LeftAloneError):
        await waiting


async def test_a_restart_lets_few_in_and_grows_again(clock: FakeClock) -> None:
    gate = Gate(clock, Allowance(limit=4, ceiling=4, rounds=1))
    crowd = Crowd(gate)
    gate.restart(1)
    await crowd.come(1, 2, 3)
    assert crowd.inside == [1]
    gate.succeeded()
    await settle()
    assert crowd.inside == [1, 2]
    await crowd.go(1, 2, 3)
    gate.restart(3)
    assert gate.allowance.limit == 2


async def test_a_smaller_limit_holds_as_places_come_back(clock: FakeClock) -> None:
    gate = Gate(clock, Allowance(limit=4))
    crowd = Crowd(gate)
    await crowd.come(1, 2, 3, 4, 5, 6)
    gate.was_busy(None)
    await crowd.go(1, 2)
    assert crowd.inside == [3, 4]
    await crowd.go(3)
    assert crowd.inside == [4, 5]
    await crowd.go(4, 5, 6)
    assert all(task.done() for task in crowd.tasks.values())


async def test_hundreds_of_cancellations_lose_no_place() -> None:
    clock = FakeClock()
    gate = Gate(clock, Allowance(limit=3, ceiling=3))

    async def visit(number: int) -> None:
        async with gate.passage():
            for _ in range(number % 4):
                await asyncio.sleep(0)

    tasks = []
    for number in range(600):
        tasks.append(asyncio.create_task(visit(number)))
        if number % 3 == 0:
            tasks[number // 2].cancel()
        if number % 5 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    crowd = Crowd(gate)
    await crowd.come(1, 2, 3, 4)
    assert crowd.inside == [1, 2, 3]
    await crowd.go(1, 2, 3, 4)
