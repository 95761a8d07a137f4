"""A simulated Exchange, a directory, the real appliance between them; and an independent look at what is on disk."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ews_sync.app import Appliance
from ews_sync.clock import SystemClock
from ews_sync.settings.load import settings_from
from ews_sync.simulator.access import Account
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ews_sync.settings.values import Settings
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.store import Mailbox

USER, PASSWORD = "svc@example.com", "correct horse"
LIMIT = 60.0


@dataclass(frozen=True)
class Stored:
    """An email as it lies on disk."""

    description: dict[str, Any]
    mime: bytes

    @property
    def folder(self) -> tuple[str, ...]:
        return tuple(self.description["metadata"]["folder"])


def written_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a file that may be written to meanwhile: the last one counts once its end is there."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


@dataclass
class World:
    """One test's surroundings."""

    directory: Path
    exchange: Exchange = field(default_factory=Exchange)
    server: ExchangeServer = field(init=False)
    task: asyncio.Task[None] | None = None
    process: Process | None = None

    def __post_init__(self) -> None:
        self.server = ExchangeServer(self.exchange, accounts=[Account(USER, PASSWORD, may_impersonate=True)])

    def mailbox(self, address: str = "abc@example.com") -> Mailbox:
        known = self.exchange.mailbox(address)
        return known if known is not None else self.exchange.create_mailbox(address)

    def config(self, *, mailbox_keys: dict[str, object] | None = None, **keys: object) -> dict[str, object]:
        mailboxes = {
            address: {"bucket": {"owner": "bank", "name": "mail"}} | (mailbox_keys or {})
            for address in self.exchange.mailboxes
        }
        return {
            "ews_endpoint": self.server.url,
            "auth_type": "basic",
            "auth_user": USER,
            "auth_password": PASSWORD,
            "access_type": "impersonation",
            "poll_frequency": 0.2,
            "poll_message_sleep": 0,
            "mailboxes": mailboxes,
        } | keys

    def settings(self, *, local_files_format: str = "eml", **keys: Any) -> Settings:
        arguments = {
            "local_files_prefix": str(self.directory),
            "local_files_format": local_files_format,
            "bind": "127.0.0.1:0",
        }
        return settings_from(self.config(**keys), arguments)

    @asynccontextmanager
    async def running(self, **keys: Any) -> AsyncIterator[Appliance]:
        """Run the appliance, and stop it in an orderly way at the end."""
        appliance = Appliance(self.settings(**keys), SystemClock())
        self.task = asyncio.create_task(appliance.run())
        try:
            yield appliance
        finally:
            appliance.stop()
            await self.task

    def stored(self, address: str = "abc@example.com") -> dict[str, Stored]:
        """Give what is on disk, by the email's id. A `.json` without its `.eml` fails."""
        root = self.directory / "data" / "bank" / "mail" / address
        found: dict[str, Stored] = {}
        for path in root.glob("*/*/*.json"):
            try:
                description = json.loads(path.read_bytes())
                found[description["id"]] = Stored(description, path.with_suffix(".eml").read_bytes())
            except FileNotFoundError:
                if path.exists():
                    raise
        return found

    def lines(self, address: str = "abc@example.com") -> list[dict[str, Any]]:
        """Give the emails of the `.jsonl` files, in order."""
        root = self.directory / "data" / "bank" / "mail" / address
        files = sorted(root.glob("emails-*.jsonl"), key=lambda path: int(path.stem.split("-")[1]))
        return [line for path in files for line in written_lines(path)]

    def dead_letters(self, address: str = "abc@example.com") -> list[dict[str, Any]]:
        path = self.directory / "data" / "bank" / "mail" / address / "dead-letters.jsonl"
        return written_lines(path) if path.exists() else []

    def expected(self, address: str = "abc@example.com") -> list[Item]:
        """Give the items that are mail: in mail folders, sent, of a class that is mail."""
        return [
            item
            for item in self.mailbox(address).items()
            if not item.is_draft
            and (item.folder.folder_class or "IPF.Note").startswith("IPF.Note")
            and item.item_class.startswith(("IPM.Note", "REPORT.", "IPM.Schedule.Meeting.", "IPM.Post"))
        ]

    def missing(self, address: str = "abc@example.com") -> list[str]:
        """Say what of the mail is not on disk as it should be."""
        by_content = {email.mime: email for email in self.stored(address).values()}
        problems = []
        for item in self.expected(address):
            email = by_content.get(item.mime())
            path = tuple(item.folder.path.split("/"))
            if email is None:
                problems.append(f"{item.properties.subject!r} in {path} is not there")
            elif email.folder != path:
                problems.append(f"{item.properties.subject!r} is in {path}, but stored in {email.folder}")
        return problems

    async def until(self, condition: Callable[[], object], what: str = "the condition", limit: float = LIMIT) -> None:
        """Wait until something that other tasks bring about is so; an appliance that died is an error at once."""
        end = time.monotonic() + limit
        while not condition():
            if self.task is not None and self.task.done():
                self.task.result()
            assert self.process is None or self.process.returncode is None, "the appliance ended by itself"
            assert time.monotonic() < end, f"{what} did not come true in {limit} s"
            await asyncio.sleep(0.02)

    async def until_stored(self, appliance: Appliance, limit: float = LIMIT) -> None:
        """Wait until all mail is on disk, byte for byte and with its folder."""
        addresses = list(self.exchange.mailboxes)

        def counted() -> bool:
            mailboxes = appliance.status.mailboxes
            return all(
                address in mailboxes and mailboxes[address].stored >= len(self.expected(address))
                for address in addresses
            )

        # Reading all files is dear, so it is done once the numbers are right.
        await self.until(counted, "as many emails stored as there are", limit)
        await self.until(lambda: not any(self.missing(address) for address in addresses), "all mail on disk", limit)

    async def rounds(self, appliance: Appliance, count: int = 2) -> None:
        """Wait until every mailbox has begun and ended that many more rounds."""
        await self.until(lambda: appliance.status.mailboxes, "the engine")
        mailboxes = list(appliance.status.mailboxes.values())
        goals = {mailbox.address: mailbox.rounds + count + 1 for mailbox in mailboxes}
        await self.until(lambda: all(mailbox.rounds >= goals[mailbox.address] for mailbox in mailboxes), "the rounds")
