"""The real command on real volumes: full, read-only, taken away, replaced by an empty one, and one that is dead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ews_sync.simulator.mail import MailFactory
from tests.end_to_end.platform_world import Command, bare_environment, spawned
from tests.end_to_end.test_process import environment
from tests.end_to_end.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

TROUBLE = "mail cannot be stored; trying again until it can"
WELL = "mail can be stored again"

WEDGED = """
import sys, threading
from functools import partial
from ews_sync.sinks import disk_threads, durable
durable.Disk.flush = lambda disk, descriptor: threading.Event().wait()
disk_threads.Patience = partial(disk_threads.Patience, limit=1.0)
from ews_sync.cli import main
sys.exit(main())
"""
"""The command on a disk that takes what is written and never says that it has it."""


class Volume:
    """A file system in memory, kept alive by a mount that nobody sees, so that it can go from `path` and come back."""

    def __init__(self, directory: Path) -> None:
        self._kept = directory / "kept"
        self.path = directory / "volume"

    def make(self, size: str) -> None:
        for path in (self._kept, self.path):
            path.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self._kept))
        self.attach()

    def resize(self, size: str) -> None:
        run("mount", "-o", f"remount,size={size}", str(self._kept))

    def attach(self, *, writable: bool = True) -> None:
        run("mount", "--bind", str(self._kept), str(self.path))
        if not writable:
            run("mount", "-o", "remount,bind,ro", str(self.path))

    def attach_another(self) -> None:
        run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self.path))

    def detach(self) -> None:
        run("umount", "--lazy", str(self.path))

    def remove(self) -> None:
        for path in (self.path, self._kept):
            while os.path.ismount(path):
                run("umount", "--lazy", str(path))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)  # noqa: S603 - our own words


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a volume")
    volume = Volume(tmp_path)
    try:
        volume.make("2m")
    except (OSError, subprocess.CalledProcessError):
        volume.remove()
        pytest.skip("a volume cannot be mounted here")
    yield volume
    volume.remove()


@pytest.fixture
async def mounted(volume: Volume) -> AsyncIterator[World]:
    """Surroundings whose files are on the volume; the config is beside it."""
    world = World(volume.path)
    async with world.server:
        yield world


@asynccontextmanager
async def appliance(world: World, form: str = "eml") -> AsyncIterator[Command]:
    arguments = ["--local-files-prefix", str(world.directory), "--local-files-format", form, "--bind", "127.0.0.1:0"]
    async with spawned(world, arguments, environment(world)) as command:
        await world.until(command.address, "an address")
        yield command


async def sink_failure(command: Command) -> Any:
    async with httpx.AsyncClient(base_url=command.address(), trust_env=False) as client:
        return (await client.get("/status")).json()["sink_failure"]


async def in_trouble(world: World, command: Command, *, reason: str, hint: str) -> None:
    """Wait until it has said what is wrong; it shows it, and lives."""
    await world.until(lambda: TROUBLE in command.events(), "the trouble")
    line = next(line for line in command.log if line["event"] == TROUBLE)
    assert reason in line["problem"]
    assert hint in line["hint"]
    shown = await sink_failure(command)
    assert reason in shown["reason"]


async def well_again(world: World, command: Command) -> None:
    """See that it has said so once, shows nothing any more, and ends in order."""
    await world.until(lambda: WELL in command.events(), "the recovery")
    assert await sink_failure(command) is None
    assert command.events().count(TROUBLE) == command.events().count(WELL) == 1, "it is said once"
    assert command.process.returncode is None
    command.process.send_signal(signal.SIGTERM)
    assert await command.process.wait() == 0, command.text


def mail(world: World, numbers: range, size: int | None = None) -> None:
    inbox, factory = world.mailbox().folder("Inbox"), MailFactory(3)
    for number in numbers:
        inbox.deliver(factory.email(number, sent=world.exchange.clock(), size=size))


@pytest.mark.parametrize("form", ["eml", "jsonl"])
async def test_a_full_volume_that_is_enlarged(mounted: World, volume: Volume, form: str) -> None:
    mail(mounted, range(40), size=100_000)
    async with appliance(mounted, form) as command:
        await in_trouble(mounted, command, reason="the disk is full", hint=f"free space on the volume of {volume.path}")
        # What has a description is whole, as reading it shows; and most of it cannot be there.
        assert len(mounted.stored()) < 40
        volume.resize("32m")
        if form == "eml":
            await mounted.until(lambda: not mounted.missing(), "all mail")
        else:
            await mounted.until(lambda: len(whole_lines(mounted)) == 40, "all lines")
        await well_again(mounted, command)
    assert list(volume.path.rglob(".tmp-*")) == []
    if form == "jsonl":
        assert len({line["id"] for line in mounted.lines()}) == len(mounted.lines()) == 40


def whole_lines(world: World) -> list[Any]:
    try:
        return world.lines()
    except ValueError:
        # One of them is being written.
        return []


async def test_a_volume_that_turns_read_only_and_back(mounted: World, volume: Volume) -> None:
    mail(mounted, range(5))
    async with appliance(mounted) as command:
        await mounted.until(lambda: not mounted.missing(), "the first mail")
        volume.detach()
        volume.attach(writable=False)
        mail(mounted, range(5, 10))
        await in_trouble(mounted, command, reason="read-only", hint="writable")
        volume.detach()
        volume.attach()
        await mounted.until(lambda: not mounted.missing(), "all mail")
        await well_again(mounted, command)


async def test_a_volume_that_is_read_only_at_the_start_is_said_in_one_line(mounted: World, volume: Volume) -> None:
    mail(mounted, range(1))
    volume.detach()
    volume.attach(writable=False)
    arguments = ["--local-files-prefix", str(mounted.directory), "--bind", "127.0.0.1:0"]
    async with spawned(mounted, arguments, environment(mounted)) as command:
        assert await command.process.wait() == 2
    assert "read-only file system" in command.text.splitlines()[-1]
    assert "Traceback" not in command.text


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_volume_that_is_taken_away_and_comes_back(mounted: World, volume: Volume, *, replaced: bool) -> None:
    mail(mounted, range(5))
    async with appliance(mounted) as command:
        await mounted.until(lambda: not mounted.missing(), "the first mail")
        volume.detach()
        if replaced:
            volume.attach_another()
        mail(mounted, range(5, 10))
        await in_trouble(mounted, command, reason="lock file", hint="still mounted")
        assert list(volume.path.rglob("*")) == [], "nothing is written to where nobody will look for it"
        if replaced:
            volume.detach()
        volume.attach()
        await mounted.until(lambda: not mounted.missing(), "all mail")
        await well_again(mounted, command)


async def test_a_disk_that_never_answers_is_said_and_does_not_keep_the_process_from_ending(world: World) -> None:
    mail(world, range(5))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WEDGED),
        *("--local-files-prefix", str(world.directory), "--bind", "127.0.0.1:0"),
        env=bare_environment() | environment(world),
        stderr=asyncio.subprocess.PIPE,
    )
    command = Command(process)
    reading = asyncio.create_task(command.read())
    world.process = process
    await in_trouble(world, command, reason="storing mail got no answer from the disk", hint="network file system")
    assert world.stored() == {}
    world.process = None
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await process.wait() == 0, command.text
    await reading
