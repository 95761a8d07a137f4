"""Lanes by themselves: how many there are, who gets which, and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.sources.auth.lanes import KEEP_FOR, LaneTransport, with_authorization, without_body
from tests.sources.support import FakeClock

if TYPE_CHECKING:
    from ews_sync.sources.auth.lanes import Lane

URL = "http://server.test/EWS/Exchange.asmx"


class Plain:
    """Logs nobody in; notes which lane each request went over, and waits at the gate."""

    def __init__(self) -> None:
        self.used: list[Lane] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def send(self, lane: Lane, request: httpx.Request) -> httpx.Response:
        self.used.append(lane)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return await lane.send(request)


class World:
    """A transport over clients that answer from memory."""

    def __init__(self, lanes: int = 3) -> None:
        self.clock = FakeClock()
        self.log_on = Plain()
        self.clients: list[httpx.AsyncClient] = []
        self.transport = LaneTransport(self.log_on, self.new_client, lanes, monotonic=self.clock.monotonic)
        self.http = httpx.AsyncClient(transport=self.transport)

    def new_client(self) -> httpx.AsyncClient:
        self.clients.append(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hi"))))
        return self.clients[-1]

    async def ask(self) -> int:
        return (await self.http.post(URL, content=b"x")).status_code

    async def together(self, count: int) -> list[asyncio.Task[int]]:
        """Start requests, and come back when as many as possible are under way."""
        self.log_on.gate.clear()
        tasks = [asyncio.create_task(self.ask()) for _ in range(count)]
        for _ in range(10):
            await asyncio.sleep(0)
        return tasks


async def test_a_quiet_appliance_has_one_lane() -> None:
    world = World()
    for _ in range(5):
        assert await world.ask() == 200
    assert len(world.clients) == 1
    assert len(set(world.log_on.used)) == 1


async def test_there_are_as_many_lanes_as_requests_but_no_more_than_allowed() -> None:
    world = World(lanes=3)
    tasks = await world.together(8)
    assert world.transport.busy == len(world.clients) == 3
    world.log_on.gate.set()
    assert await asyncio.gather(*tasks) == [200] * 8
    assert (world.transport.busy, world.transport.free, len(world.clients)) == (0, 3, 3)


async def test_the_lane_that_was_used_last_is_used_next_and_others_are_closed_in_time() -> None:
    world = World()
    tasks = await world.together(3)
    world.log_on.gate.set()
    await asyncio.gather(*tasks)
    last = world.log_on.used[-1]
    world.clock.time += KEEP_FOR - 1
    await world.ask()
    assert (world.log_on.used[-1], world.transport.free) == (last, 3)
    world.clock.time += 2
    await world.ask()
    assert (world.log_on.used[-1], world.transport.free) == (last, 1)
    await asyncio.sleep(0)
    assert [client.is_closed for client in world.clients].count(True) == 2


async def test_a_lane_that_failed_is_never_used_again() -> None:
    world = World()
    world.log_on.error = httpx.ReadError("broken")
    with pytest.raises(httpx.ReadError):
        await world.ask()
    assert (world.transport.busy, world.transport.free) == (0, 0)
    world.log_on.error = None
    assert await world.ask() == 200
    assert world.log_on.used[0] is not world.log_on.used[1]
    await asyncio.sleep(0)
    assert world.clients[0].is_closed


async def test_the_lane_of_a_cancelled_request_is_replaced_without_a_wait() -> None:
    world = World(lanes=1)
    (first, second) = await world.together(2)
    first.cancel()
    world.log_on.gate.set()
    assert await second == 200
    assert first.cancelled()
    assert world.log_on.used[0] is not world.log_on.used[1]


async def test_a_lane_is_held_until_the_answer_is_closed() -> None:
    world = World(lanes=1)
    response = await world.http.send(world.http.build_request("POST", URL), stream=True)
    waiting = await world.together(1)
    world.log_on.gate.set()
    assert len(world.log_on.used) == 1
    assert await response.aread() == b"hi"
    assert await waiting[0] == 200
    assert world.log_on.used[0] is world.log_on.used[1]


async def test_closing_closes_all_and_turns_away_who_waits() -> None:
    world = World(lanes=2)
    tasks = await world.together(3)
    await world.http.aclose()
    world.log_on.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {RuntimeError}
    assert all(client.is_closed for client in world.clients)
    assert (world.transport.busy, world.transport.free) == (0, 0)


async def test_a_lane_that_cannot_be_made_costs_nobody_his_place() -> None:
    world = World(lanes=1)
    world.log_on.error = httpx.ReadError("broken")
    with pytest.raises(httpx.ReadError):
        await world.ask()
    world.log_on.error = None
    good, world.transport._new_client = world.transport._new_client, refuse
    with pytest.raises(ValueError, match="proxy"):
        await world.ask()
    world.transport._new_client = good
    assert await world.ask() == 200


def refuse() -> httpx.AsyncClient:
    raise ValueError("no such proxy")


def test_the_first_leg_says_nothing_of_the_body() -> None:
    headers = {"Content-Type": "text/xml", "X-AnchorMailbox": "a@b"}
    request = httpx.Request("POST", URL, content=b"body", headers=headers)
    first = without_body(request, "NTLM abc")
    assert first.headers["authorization"] == "NTLM abc"
    assert first.headers["content-length"] == "0"
    assert first.headers["x-anchormailbox"] == "a@b"
    assert "content-type" not in first.headers
    second = with_authorization(request, "NTLM def")
    assert (second.headers["authorization"], second.headers["content-length"]) == ("NTLM def", "4")
    assert "abc" not in str(request.headers)
