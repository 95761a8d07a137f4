"""The process as a whole: what ends it, and what is built anew instead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from ews_sync.app import Appliance
from ews_sync.clock import SystemClock
from ews_sync.errors import AlreadyRunningError, AuthenticationError
from ews_sync.settings.exchange import BasicAuth
from ews_sync.simulator.faults import HttpError
from tests.end_to_end.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MAIL = b"Subject: one\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"


class HurriedClock(SystemClock):
    """Waits a hundredth of what it is asked to, and remembers what that was."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(seconds / 100)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "mail")
    async with world.server:
        world.mailbox().folder("Inbox").deliver(MAIL)
        yield world


async def test_refused_credentials_end_it(world: World) -> None:
    world.server.faults.add(HttpError(401))
    with pytest.raises(AuthenticationError, match="refused"):
        await Appliance(world.settings(), HurriedClock()).run()


async def test_with_restarts_everything_is_built_anew_and_the_probes_answer_all_along(world: World) -> None:
    clock = HurriedClock()
    mended = replace(world.settings(), restart_on_unrecoverable_errors=True)
    wrong = replace(mended, exchange=replace(mended.exchange, auth=BasicAuth("svc@example.com", SecretStr("wrong"))))
    given = iter([wrong, mended])
    appliance = Appliance(wrong, clock, lambda: next(given))
    world.task = asyncio.create_task(appliance.run())
    await world.until(lambda: appliance.status.failure is not None, "the failure")
    assert not appliance.status.ready
    await world.until(world.stored, "the email after the restart")
    await world.until(lambda: appliance.status.ready, "readiness")
    appliance.stop()
    await world.task
    assert world.server.log.statuses[401] == 2, "a wrong password is tried once each time"
    assert [wait for wait in clock.waits if wait >= 300] == [300, 300], "accounts get locked by more"


async def test_it_can_be_stopped_while_it_waits_to_begin_again(world: World) -> None:
    world.server.faults.add(HttpError(401))
    appliance = Appliance(replace(world.settings(), restart_on_unrecoverable_errors=True), SystemClock())
    world.task = asyncio.create_task(appliance.run())
    await world.until(lambda: appliance.status.failure is not None, "the failure")
    appliance.stop()
    await world.task


async def test_a_second_one_on_the_same_mailbox_refuses_to_start(world: World) -> None:
    async with world.running():
        await world.until(world.stored, "the first one's work")
        with pytest.raises(AlreadyRunningError, match=r"mailbox abc@example\.com is already being synced"):
            await Appliance(world.settings(), SystemClock()).run()


async def test_a_disk_that_is_away_for_a_while_costs_nothing_but_time(world: World) -> None:
    clock = HurriedClock()
    appliance = Appliance(world.settings(), clock)
    world.task = asyncio.create_task(appliance.run())
    await world.until(world.stored, "the first email")
    lock = next((world.directory / "state").rglob("*.lock"))
    hidden = lock.with_name("hidden")
    # As when the volume is unmounted: see sinks.mailbox_directory.
    lock.rename(hidden)
    world.mailbox().folder("Inbox").deliver(MAIL.replace(b"<1@x>", b"<2@x>"))
    await world.until(lambda: appliance.status.sink_failure is not None, "the failure to store")
    assert len(world.stored()) == 1
    hidden.rename(lock)
    await world.until(lambda: len(world.stored()) == 2, "the second email")
    await world.until(lambda: appliance.status.sink_failure is None, "well again")
    appliance.stop()
    await world.task
