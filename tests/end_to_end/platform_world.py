"""A simulated Exchange and a stand-in platform, with the real appliance between them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ews_sync.settings.load import settings_from
from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from tests.end_to_end.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from email.message import Message

    from ews_sync.settings.values import Settings

TOKEN = "correct-horse-battery"
COMMAND = (sys.executable, "-c", "import sys; from ews_sync.cli import main; sys.exit(main())")


@dataclass
class PlatformWorld(World):
    """One test's surroundings, with buckets where `World` has files."""

    store: PlatformStore = field(default_factory=PlatformStore)
    platform: PlatformServer = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store.create_bucket("bank", "mail")
        self.platform = PlatformServer(self.store, [Token(TOKEN)])

    def settings(self, *, arguments: dict[str, str] | None = None, **keys: Any) -> Settings:
        given = {"reinfer_api_endpoint": self.platform.url, "bind": "127.0.0.1:0", **(arguments or {})}
        return settings_from(self.config(**keys), given, {"REINFER_API_TOKEN": TOKEN})

    def emails(self, address: str = "abc@example.com") -> dict[str, dict[str, Any]]:
        """Give what is in the bucket, by the email's id."""
        return {email["id"]: dict(email) for email in self.store.emails("bank", "mail", address)}

    def missing(self, address: str = "abc@example.com") -> list[str]:
        """Say what of the mail is not in the bucket as it should be."""
        expected = self.expected(address)
        # Reading messages is dear, so it is done once there are as many as there must be.
        count = self.store.count("bank", "mail", address)
        wanted = len({item.properties.message_id or item.id for item in expected})
        if count < wanted:
            return [f"{wanted - count} emails are not there"]
        stored: dict[str, list[dict[str, Any]]] = {}
        for email in self.emails(address).values():
            stored.setdefault(content_key(email["mime_content"].encode()), []).append(email)
        problems = []
        for item in expected:
            path = item.folder.path.split("/")
            mime = item.mime()
            alike = stored.get(content_key(mime), [])
            found = [email for email in alike if is_same(mime, email["mime_content"])]
            if not found:
                problems.append(f"{item.properties.subject!r} in {path} is not there")
            elif all(email["metadata"]["folder"] != path for email in found):
                problems.append(f"{item.properties.subject!r} is in {path}, but not in the bucket")
        return problems

    def uploads(self, address: str = "abc@example.com") -> dict[str, int]:
        """Give how often each email was uploaded."""
        return {
            email_id: count
            for (mailbox, email_id), count in self.store.uploads("bank", "mail").items()
            if mailbox == address
        }

    def states(self) -> list[dict[str, Any]]:
        return [dict(state) for state in self.store.keyed_sync_states("bank", "mail")]

    # --- The real command --------------------------------------------------------------------------------------------

    def environment(self, **keys: Any) -> dict[str, str]:
        path = self.directory.parent / "config.json"
        path.write_text(json.dumps(self.config(**keys)))
        return bare_environment() | {"REINFER_EWS_CONFIG": str(path), "REINFER_API_TOKEN": TOKEN}

    @asynccontextmanager
    async def command(self, *arguments: str, variables: dict[str, str] | None = None) -> AsyncIterator[Command]:
        """Run the command; whatever happens, it is gone at the end."""
        given = ("--reinfer-api-endpoint", self.platform.url, "--bind", "127.0.0.1:0", *arguments)
        async with spawned(self, given, self.environment() if variables is None else variables) as command:
            yield command


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REINFER")}


@asynccontextmanager
async def spawned(world: World, arguments: Iterable[str], variables: dict[str, str]) -> AsyncIterator[Command]:
    """Run the command with nothing but these variables; whatever happens, it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=variables, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    command = Command(process)
    reading = asyncio.create_task(command.read())
    world.process = process
    try:
        yield command
    finally:
        world.process = None
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@dataclass
class Command:
    """A running command, and what it has logged so far."""

    process: asyncio.subprocess.Process
    log: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.text += line.decode()
            if line.startswith(b"{"):
                self.log.append(json.loads(line))

    def events(self) -> list[str]:
        return [str(line.get("event")) for line in self.log]

    def address(self) -> str:
        """Give where it listens; "" when that is not known yet."""
        return next((str(line["listening"]) for line in self.log if "listening" in line), "")


@lru_cache(maxsize=4096)
def content_key(data: bytes) -> str:
    """Give what stays the same when a message is made into Unicode: its parts' bytes."""
    message: Message = message_from_bytes(data)
    return repr([part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()])


def is_same(item: bytes, stored: str) -> bool:
    """Tell whether a stored message is what it should be, given that its parts are the same."""
    try:
        return item.decode() == stored
    except UnicodeDecodeError:
        return True
