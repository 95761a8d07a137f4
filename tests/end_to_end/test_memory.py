"""What the real process takes of memory while a large message goes through it, and what is left of mail afterwards."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ews_sync.model import Email, MimeBytes
from ews_sync.sources.ews.operations import ItemRecord
from tests.end_to_end.platform_world import PlatformWorld, spawned
from tests.end_to_end.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.end_to_end.platform_world import Command

ADDRESS = "abc@example.com"
LARGE = b"From: a@x\r\nMessage-ID: <large@x>\r\n\r\n" + b"0123456789 and so on and so on\r\n" * (32 * 1024 * 32)
SMALL = b"From: a@x\r\nMessage-ID: <small@x>\r\n\r\nsmall\r\n"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PlatformWorld]:
    world = PlatformWorld(tmp_path / "files")
    world.mailbox(ADDRESS)
    async with world.server, world.platform:
        yield world
    world.store.close()


def digests(world: PlatformWorld, sink: str) -> set[bytes]:
    """Give what is stored."""
    if sink == "eml":
        found = [email.mime for email in world.stored(ADDRESS).values()]
    else:
        emails = world.lines(ADDRESS) if sink == "jsonl" else list(world.emails(ADDRESS).values())
        found = [email["mime_content"].encode() for email in emails]
    return {sha256(content).digest() for content in found}


def destination(world: PlatformWorld, sink: str) -> tuple[str, ...]:
    if sink == "platform":
        return ("--reinfer-api-endpoint", world.platform.url)
    return ("--local-files-prefix", str(world.directory), "--local-files-format", sink)


def peak(command: Command) -> int:
    """Give the most bytes that a process has had in memory."""
    status = Path(f"/proc/{command.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


@pytest.mark.parametrize(("sink", "claimed"), [("eml", 1), ("jsonl", len(LARGE)), ("platform", 1)])
async def test_a_large_message_is_never_whole_in_memory(world: PlatformWorld, sink: str, claimed: int) -> None:
    """Not even half of it, whatever the server says that its size is."""
    inbox = world.mailbox(ADDRESS).folder("Inbox")
    inbox.deliver(SMALL)
    variables = world.environment() | {"MALLOC_ARENA_MAX": "2"}
    if sink != "platform":
        del variables["REINFER_API_TOKEN"]
    async with spawned(world, ("--bind", "127.0.0.1:0", *destination(world, sink)), variables) as command:
        await world.until(lambda: sha256(SMALL).digest() in digests(world, sink), "the small one")
        before = peak(command)
        inbox.deliver(LARGE, size=claimed)
        # To read what is stored takes time from the server, which is in this process: once it is told that all is.
        await world.until(lambda: command.events().count("stored new mail") >= 2, "all mail")
        await world.until(lambda: sha256(LARGE).digest() in digests(world, sink), "the large one")
        assert peak(command) - before < len(LARGE) // 2


def mail_alive() -> int:
    return sum(isinstance(thing, Email | ItemRecord | MimeBytes) for thing in gc.get_objects())


@pytest.mark.parametrize("kind", [World, PlatformWorld], ids=["files", "platform"])
async def test_a_round_leaves_no_mail_for_the_collector(kind: type[World], tmp_path: Path) -> None:
    """It may not come by for thousands of emails."""
    world = kind(tmp_path)
    inbox = world.mailbox(ADDRESS).folder("Inbox")
    for number in range(60):
        inbox.deliver(b"From: a@x\r\nMessage-ID: <%d@x>\r\n\r\nbody\r\n" % number)
    gc.collect()
    before = mail_alive()
    gc.disable()
    try:
        async with AsyncExitStack() as stack:
            for server in [world.server, *([world.platform] if isinstance(world, PlatformWorld) else [])]:
                await stack.enter_async_context(server)
            appliance = await stack.enter_async_context(world.running())
            await world.until(lambda: ADDRESS in appliance.status.mailboxes, "the engine")
            await world.until(lambda: appliance.status.mailboxes[ADDRESS].stored >= 60, "all mail")
            await world.rounds(appliance)
            assert mail_alive() == before
    finally:
        gc.enable()
