"""The keeper of tokens by itself, with time in the hand; and what decides when another token is asked for."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from ews_sync.errors import AuthenticationError, ConnectionFailedError, EwsSyncError
from ews_sync.sources.auth.tokens import (
    Freshness,
    Grant,
    TokenKeeper,
    freshness,
    in_thread,
    is_in_vain,
    pause,
    token_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OUTAGE = ConnectionFailedError("nobody there")
EXPIRED = AuthenticationError("no", code="AADSTS7000222", hint="create a new one", request_id="c1")


@dataclass
class World:
    """An identity provider that gives t1, t2, ... when it is let, and fails when it is told to."""

    now: float = 1000.0
    failure: EwsSyncError | None = None
    asked: int = 0
    lifetime: float = 3600.0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.used_until: list[float] = []
        self.keeper = TokenKeeper(self.fetch, taken=self.used_until.append, monotonic=lambda: self.now, run=self.run)

    def fetch(self) -> Grant:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return Grant(f"t{self.asked}", self.lifetime)

    async def run(self, work: Callable[[], Grant]) -> Grant:
        await self.gate.wait()
        return work()

    async def value(self) -> str:
        return (await self.keeper.token()).value


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_shows_it_hears_until_when_each_token_is_used() -> None:
    world = World()
    await world.value()
    await world.value()
    assert world.used_until == [1000 + 3540]
    world.now += 2000
    world.failure = EwsSyncError("away")
    await world.value()
    await settle()
    assert len(world.used_until) == 1
    world.failure = None
    world.now += 60
    await world.value()
    await settle()
    assert world.used_until == [4540, 3060 + 3540]


@pytest.mark.parametrize(
    ("grant", "good_until", "ends_at"),
    [
        (Grant("t", 3600), 1800, 3540),
        (Grant("t", 86400, renew_after=43200), 43200, 86340),
        (Grant("t", 3600, renew_after=999_999), 3540, 3540),
        (Grant("t", 10), 5, 9),
        (Grant("t", 0), 0, 0),
    ],
)
def test_when_another_token_is_wanted(grant: Grant, good_until: float, ends_at: float) -> None:
    token = token_of(grant, 500.0)
    states = [freshness(token, 500.0 + at) for at in (good_until - 0.1, good_until, ends_at - 0.1, ends_at)]
    assert states[1:] == [
        Freshness.AGING if good_until < ends_at else Freshness.ENDED,
        Freshness.AGING if good_until < ends_at else states[2],
        Freshness.ENDED,
    ]
    assert good_until == 0 or states[0] is Freshness.GOOD


def test_how_long_nobody_asks_again() -> None:
    assert [pause(OUTAGE, failures) for failures in (1, 2, 3, 6, 1000)] == [1, 2, 4, 30, 30]
    assert pause(ConnectionFailedError("busy", retry_after=7), 5) == 7
    assert pause(EXPIRED, 1) == 60


async def test_many_at_once_ask_once() -> None:
    world = World()
    world.gate.clear()
    waiting = [asyncio.create_task(world.value()) for _ in range(200)]
    await settle()
    world.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"t1"}
    assert world.asked == 1
    assert await world.value() == "t1"


async def test_many_hear_of_one_failure_and_each_has_an_error_of_its_own() -> None:
    world = World(failure=EXPIRED)
    world.gate.clear()
    waiting = [asyncio.create_task(world.value()) for _ in range(50)]
    await settle()
    world.gate.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert world.asked == 1
    assert len({id(error) for error in errors}) == 50
    for error in errors:
        assert isinstance(error, AuthenticationError)
        assert (error.summary, error.code, error.hint, error.request_id) == (
            EXPIRED.summary,
            "AADSTS7000222",
            "create a new one",
            "c1",
        )


async def test_who_is_cancelled_does_not_take_the_token_from_the_others() -> None:
    world = World()
    world.gate.clear()
    first, second = asyncio.create_task(world.value()), asyncio.create_task(world.value())
    await settle()
    first.cancel()
    await settle()
    world.gate.set()
    assert await second == "t1"
    assert first.cancelled()
    assert world.asked == 1


async def test_renewed_ahead_of_its_end_while_nobody_waits() -> None:
    world = World()
    assert await world.value() == "t1"
    world.now += 1800
    world.gate.clear()
    assert [await world.value() for _ in range(3)] == ["t1"] * 3
    world.gate.set()
    await settle()
    assert await world.value() == "t2"
    assert world.asked == 2


async def test_an_outage_is_not_noticed_while_the_token_is_valid() -> None:
    world = World()
    await world.value()
    world.failure = OUTAGE
    with capture_logs() as logs:
        for _ in range(170):
            world.now += 10
            assert await world.value() == "t1"
            await settle()
        world.now += 1700
        assert await world.value() == "t1"
        await settle()
    assert {entry["log_level"] for entry in logs} <= {"debug"}
    assert world.asked > 1
    world.now += 200
    with pytest.raises(ConnectionFailedError, match="nobody there"):
        await world.value()
    world.failure = None
    world.now += 60
    assert await world.value() == f"t{world.asked}"


async def test_renewals_that_fail_are_spaced_out() -> None:
    world = World()
    await world.value()
    world.failure = OUTAGE
    world.now += 1800
    for _ in range(60):
        await world.value()
        await settle()
        world.now += 1
    # 1, 2, 4, 8, 16, then every 30 seconds.
    assert world.asked - 1 == 6


async def test_what_an_operator_must_do_is_said_once_while_the_token_is_still_valid() -> None:
    world = World()
    await world.value()
    world.failure = EXPIRED
    world.now += 1800
    with capture_logs() as logs:
        for _ in range(10):
            await world.value()
            await settle()
            world.now += 61
        world.failure = None
        await world.value()
        await settle()
    said = [entry for entry in logs if entry["log_level"] != "debug"]
    assert [(entry["log_level"], entry.get("code")) for entry in said] == [("warning", "AADSTS7000222"), ("info", None)]
    assert said[0]["minutes_left"] == 29
    assert "t1" not in str(logs)


async def test_without_a_token_a_failure_is_told_again_without_asking_until_it_is_time() -> None:
    world = World(failure=ConnectionFailedError("busy", retry_after=120))
    for _ in range(5):
        with pytest.raises(ConnectionFailedError, match="busy"):
            await world.value()
    assert world.asked == 1
    world.now += 120
    world.failure = None
    assert await world.value() == "t2"


async def test_a_refused_token_is_replaced_once_for_everybody_and_used_until_then() -> None:
    world = World()
    token = await world.keeper.token()
    world.gate.clear()
    asking = [asyncio.create_task(world.keeper.another(token)) for _ in range(20)]
    await settle()
    assert await world.value() == "t1"
    world.gate.set()
    assert {one.value for one in await asyncio.gather(*asking)} == {"t2"}
    assert await world.value() == "t2"
    assert (await world.keeper.another(token)).value == "t2"
    assert world.asked == 2


async def test_a_refused_token_stays_where_no_other_comes() -> None:
    world = World()
    token = await world.keeper.token()
    world.failure = EXPIRED
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            await world.keeper.another(token)
        assert await world.value() == "t1"
    assert world.asked == 2


async def test_the_token_in_a_refused_ones_place_is_known_as_such_for_a_while() -> None:
    world = World()
    first = await world.keeper.token()
    second = await world.keeper.another(first)
    assert not is_in_vain(first, world.now)
    assert is_in_vain(second, world.now + 59)
    assert not is_in_vain(second, world.now + 61)
    world.now += 1800
    await world.value()
    await settle()
    assert not is_in_vain(await world.keeper.token(), world.now)


async def test_work_in_a_thread_gives_its_result_and_its_error() -> None:
    assert await in_thread(threading.current_thread) is not threading.main_thread()

    def fail() -> None:
        raise EXPIRED

    with pytest.raises(AuthenticationError):
        await in_thread(fail)


async def test_work_in_a_thread_can_be_left_behind() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> threading.Thread:
        begun.set()
        release.wait(10)
        return threading.current_thread()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    assert next(thread for thread in threading.enumerate() if thread.name == "token").daemon
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()


def test_tokens_do_not_show() -> None:
    grant = Grant("very-secret", 60)
    assert "very-secret" not in repr(grant) + repr(token_of(grant, 0))
