"""The process as a whole: what ends it, and what is built anew instead."""

from __future__ import annotations

import asyncio
import importlib
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from ews_sync.app import Appliance, spare_the_search_for
from ews_sync.assembly import CLEAR_TEXT, NO_VERIFICATION, warnings_of
from ews_sync.clock import SystemClock
from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConfigurationError,
    EwsSyncError,
    SinkError,
)
from ews_sync.settings.exchange import BasicAuth
from ews_sync.settings.load import settings_from
from ews_sync.settings.values import RemoteConfig, RunOptions, Shard
from ews_sync.simulator.faults import HttpError
from tests.end_to_end.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ews_sync.settings.values import Settings

MAIL = b"Subject: one\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"


class HurriedClock(SystemClock):
    """Waits a hundredth of what it is asked to, and remembers what that was."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(seconds / 100)


class Shelf:
    """Where a config is loaded from: what lies there one after the other, the last of it for good."""

    def __init__(self, *configs: Settings | EwsSyncError) -> None:
        self.configs = list(configs)
        self.loads = 0
        self.open = asyncio.Event()
        self.open.set()

    async def load(self) -> Settings:
        self.loads += 1
        await self.open.wait()
        config = self.configs[0] if len(self.configs) == 1 else self.configs.pop(0)
        if isinstance(config, EwsSyncError):
            raise config
        return config


def options_of(settings: Settings) -> RunOptions:
    """The options alone, with a config that has to be fetched."""
    given = {field.name: getattr(settings, field.name) for field in fields(RunOptions)}
    return RunOptions(**given | {"config_place": RemoteConfig("bank", "ews")})


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
    appliance = Appliance(wrong, clock, Shelf(wrong, mended).load)
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


# --- A config that has to be fetched ---------------------------------------------------------------------------------


async def test_the_probes_answer_before_there_is_a_config(world: World) -> None:
    shelf = Shelf(SinkError("the platform does not answer", hint="look at the network"), world.settings())
    appliance = Appliance(options_of(world.settings()), HurriedClock(), shelf.load)
    world.task = asyncio.create_task(appliance.run())
    await world.until(lambda: appliance.status.config_failure is not None, "the first try")
    shelf.open.clear()
    async with httpx.AsyncClient(base_url=f"http://{appliance.server.address}", trust_env=False) as client:
        probed = await client.get("/readyz")
        assert probed.status_code == 503
        assert probed.json()["reasons"] == [
            "there is no config yet: the platform does not answer - look at the network"
        ]
        assert (await client.get("/healthz")).status_code == 200
        assert "remote config bank/ews, not loaded yet" in (await client.get("/status?format=text")).text
        shelf.open.set()
        await world.until(world.stored, "the email")
        await world.until(lambda: appliance.status.ready, "readiness")
        assert (await client.get("/status")).json()["config_loaded_at"] is not None
    appliance.stop()
    await world.task


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError(("host: missing",)),
        SinkError("the token is refused", asks=Asks.STOP, code="HTTP 401"),
    ],
)
async def test_without_a_usable_config_it_ends(world: World, error: EwsSyncError) -> None:
    appliance = Appliance(options_of(world.settings()), HurriedClock(), Shelf(error).load)
    with pytest.raises(type(error)) as caught:
        await appliance.run()
    assert caught.value is error


@pytest.mark.parametrize("moment", ["fetching", "waiting"])
async def test_it_can_be_stopped_before_there_is_a_config(world: World, moment: str) -> None:
    shelf = Shelf(SinkError("the platform does not answer"))
    if moment == "fetching":
        shelf.open.clear()
    appliance = Appliance(options_of(world.settings()), SystemClock(), shelf.load)
    world.task = asyncio.create_task(appliance.run())
    await world.until(lambda: shelf.loads if moment == "fetching" else appliance.status.config_failure, moment)
    appliance.stop()
    await asyncio.wait_for(world.task, 10)


# --- Another config while it runs ------------------------------------------------------------------------------------


async def test_another_config_is_put_in_force_without_an_end(world: World) -> None:
    before = world.settings()
    world.mailbox("new@example.com").folder("Inbox").deliver(MAIL)
    after = world.settings(ews_ssl_verify=False)
    shelf = Shelf(before, after)
    appliance = Appliance(before, SystemClock(), shelf.load)
    world.task = asyncio.create_task(appliance.run())
    await world.until(world.stored, "the first mailbox")
    loaded_at = appliance.status.config_loaded_at
    appliance.reload()
    await world.until(lambda: shelf.loads == 1, "the first look, which finds nothing new")
    assert appliance.status.config_loaded_at == loaded_at
    appliance.reload()
    async with httpx.AsyncClient(base_url=f"http://{appliance.server.address}", trust_env=False) as client:
        async with asyncio.timeout(60):
            while not world.stored("new@example.com"):
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/status")).status_code == 200
                assert not world.task.done()
        await world.until(lambda: appliance.status.ready, "readiness")
        status = (await client.get("/status")).json()
    assert {mailbox["mailbox"] for mailbox in status["mailboxes"]} == {"abc@example.com", "new@example.com"}
    assert status["stopping"] is False
    assert status["config_loaded_at"] is not None
    assert any("NOT verified" in warning for warning in status["warnings"])
    appliance.stop()
    await world.task


async def test_a_wrong_config_is_reported_and_the_old_one_stays(world: World) -> None:
    settings = world.settings()
    shelf = Shelf(ConfigurationError(("host: missing",)), settings)
    appliance = Appliance(settings, SystemClock(), shelf.load)
    world.task = asyncio.create_task(appliance.run())
    await world.until(world.stored, "the email")
    appliance.reload()
    await world.until(lambda: appliance.status.config_failure is not None, "the report")
    await world.until(lambda: appliance.status.ready, "readiness")
    rounds = appliance.status.mailboxes["abc@example.com"].rounds
    await world.until(lambda: appliance.status.mailboxes["abc@example.com"].rounds > rounds, "another round")
    appliance.reload()
    await world.until(lambda: appliance.status.config_failure is None, "the end of it")
    appliance.stop()
    await world.task


async def test_it_can_be_asked_and_stopped_at_any_moment(world: World) -> None:
    settings = world.settings()
    shelf = Shelf(*(world.settings(poll_frequency=number) for number in range(1, 30)), settings)
    appliance = Appliance(settings, SystemClock(), shelf.load)
    appliance.reload()
    world.task = asyncio.create_task(appliance.run())
    await appliance.listening.wait()
    for turn in range(1, 12):
        appliance.reload()
        appliance.reload()
        await world.until(lambda turn=turn: shelf.loads >= turn, "a look")  # type: ignore[misc]
        for _ in range(turn):
            await asyncio.sleep(0)
    appliance.stop()
    appliance.reload()
    await asyncio.wait_for(world.task, 30)


async def test_another_config_ends_the_wait_after_a_refusal(world: World) -> None:
    right = replace(world.settings(), restart_on_unrecoverable_errors=True)
    wrong = replace(right, exchange=replace(right.exchange, auth=BasicAuth("svc@example.com", SecretStr("wrong"))))
    appliance = Appliance(wrong, SystemClock(), Shelf(right).load)
    world.task = asyncio.create_task(appliance.run())
    await world.until(lambda: appliance.status.failure is not None, "the refusal")
    appliance.reload()
    await world.until(world.stored, "the email, minutes before the wait would have ended")
    appliance.stop()
    await world.task


async def test_a_shard_says_what_is_its_own(world: World) -> None:
    for number in range(6):
        world.mailbox(f"m{number}@example.com")
    own = []
    for number in range(2):
        settings = replace(world.settings(), shard=Shard(f"ews-{number}", number, 2))
        appliance = Appliance(settings, SystemClock())
        world.task = asyncio.create_task(appliance.run())
        await world.until(lambda ready=appliance.status: ready.ready, "readiness")  # type: ignore[misc]
        shard = appliance.status.shard
        assert shard is not None
        assert (shard.number, shard.mailboxes_in_config) == (number, 7)
        assert shard.mailboxes == len(appliance.status.mailboxes)
        own += list(appliance.status.mailboxes)
        appliance.stop()
        await world.task
    assert sorted(own) == sorted(world.exchange.mailboxes)


async def test_a_shard_without_a_mailbox_idles_ready(world: World) -> None:
    settings = replace(world.settings(), shard=Shard("ews-999", 999, 1000))
    appliance = Appliance(settings, SystemClock())
    world.task = asyncio.create_task(appliance.run())
    await world.until(lambda: appliance.status.ready, "readiness")
    assert str(appliance.status.shard).endswith("none of the config's 1 mailbox, so there is nothing to do here")
    assert world.server.log.of("FindFolder") == []
    appliance.stop()
    await world.task


@pytest.mark.parametrize(
    ("endpoint", "verify", "expected"),
    [
        ("https://exchange.example.com/EWS/Exchange.asmx", "true", ()),
        ("https://exchange.example.com/EWS/Exchange.asmx", "false", (NO_VERIFICATION,)),
        ("http://exchange.example.com/EWS/Exchange.asmx", "true", (CLEAR_TEXT,)),
        ("http://127.0.0.1:8080/EWS/Exchange.asmx", "true", ()),
    ],
)
def test_what_is_allowed_and_should_not_be_is_said(endpoint: str, verify: str, expected: tuple[str, ...]) -> None:
    config = {
        "ews_endpoint": endpoint,
        "ews_ssl_verify": verify,
        "auth_type": "basic",
        "auth_user": "u",
        "auth_password": "p",
        "mailboxes": {"a@example.com": {"bucket": {"owner": "o", "name": "n"}}},
    }
    assert warnings_of(settings_from(config, {"local_files_prefix": "/x"})) == expected


def test_a_package_that_is_not_installed_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    class Searched:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            searched.append(name)

    # Whatever happens to the cache of modules is undone at the end.
    monkeypatch.setitem(sys.modules, "nobody_has_this", None)
    del sys.modules["nobody_has_this"]
    monkeypatch.setattr(sys, "meta_path", [Searched, *sys.meta_path])
    spare_the_search_for("nobody_has_this")
    spare_the_search_for("json")
    assert searched == ["nobody_has_this"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("nobody_has_this")
    assert searched == ["nobody_has_this"]
    assert importlib.import_module("json").loads("1") == 1, "what is there stays"
