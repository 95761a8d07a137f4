"""Mail as files: `P/data/<owner>/<bucket>/<mailbox>/<yyyy>/<mm>/<name>.eml`, byte for byte, and `<name>.json`.

`<name>` is the first 32 hexadecimal digits of the SHA-256 of the email's id, yyyy/mm come from its timestamp in UTC.
The `.json` is the platform's NewEmail without `mime_content`; it appears only after its `.eml` is durable, so
whatever has a `.json` is whole. What happens when two messages have one id stands in `placement`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.model import Recall, Receipt
from ews_sync.sinks.disk_threads import DiskThreads
from ews_sync.sinks.durable import write_all
from ews_sync.sinks.mailbox_directory import MailboxDirectories, mailbox_key
from ews_sync.sinks.new_email import json_bytes, new_email
from ews_sync.sinks.placement import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from ews_sync.model import Bucket, DeadLetter, Email, Folder, ItemRef, Mailbox
    from ews_sync.sinks.disk_threads import Patience
    from ews_sync.sinks.durable import Disk
    from ews_sync.sinks.mailbox_directory import MailboxDirectory
    from ews_sync.telemetry.health import Health


class FileSink:
    """Stores mail as `.eml` and `.json` files below `prefix`. A `Sink`; batches of one mailbox may be put at once.

    `threads` bounds how many batches are written at a time, over all mailboxes; `health` hears when the disk no longer
    answers, and `patience` says when that is. Errors are `StorageError` and, from `open`, `AlreadyRunningError`. Using
    a mailbox that was not opened is a `RuntimeError`.
    """

    ordered: bool = False
    recall: Recall = Recall.EVERYTHING

    def __init__(  # noqa: PLR0913 - keyword-only: its place, and what tests hold in their hands
        self,
        prefix: Path,
        *,
        threads: int = 4,
        disk: Disk | None = None,
        now: Callable[[], datetime] | None = None,
        health: Health | None = None,
        patience: Patience | None = None,
    ) -> None:
        disk_threads = DiskThreads(prefix, threads, health=health, patience=patience)
        self._mailboxes = MailboxDirectories(prefix, disk_threads, disk=disk, now=now)
        self._placements: dict[tuple[Bucket, str], Placement] = {}

    async def open(self, mailbox: Mailbox, position: str | None) -> None:  # noqa: ARG002 - files keep no position
        """Take the mailbox's lock, make its directories, remove temporary files that a crash left."""
        directory = await self._mailboxes.open(mailbox)
        self._placements.setdefault(mailbox_key(mailbox), Placement(directory.path, self._mailboxes.disk))

    async def put(self, batch: Sequence[Email]) -> Receipt:
        """Store emails of one mailbox: all files written and flushed, then named, each `.eml` before its `.json`."""
        if batch:
            directory = self._mailboxes.opened(batch[0].mailbox)
            placement = self._placements[mailbox_key(batch[0].mailbox)]
            await self._mailboxes.run(batch[0].mailbox, "storing mail", self._store, directory, placement, batch)
        return Receipt()

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Record emails that could not be had, durably and once each."""
        await self._mailboxes.dead_letter(letters)

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        """Tell for each item whether it is stored with this folder; False where the item does not say enough."""
        directory = self._mailboxes.opened(mailbox)
        placement = self._placements[mailbox_key(mailbox)]
        doing = "looking for stored mail"
        return await self._mailboxes.run(mailbox, doing, self._look, directory, placement, folder, refs)

    async def check(self, mailbox: Mailbox) -> None:
        """Try that the mailbox's directories can be written, and leave nothing behind."""
        await self._mailboxes.check(mailbox)

    async def aclose(self) -> None:
        """Finish what is being written and give the locks back."""
        await self._mailboxes.aclose()

    def _store(self, directory: MailboxDirectory, placement: Placement, batch: Sequence[Email]) -> None:
        directory.verify()
        placed = placement.claim(batch)
        try:
            messages: list[tuple[Path, Iterable[bytes]]] = []
            descriptions: list[tuple[Path, Iterable[bytes]]] = []
            for place, email in placed:
                description = json_bytes(new_email(email, email_id=place.email_id), indent=2) + b"\n"
                messages.append((place.eml, email.mime.chunks()))
                descriptions.append((place.json, (description,)))
            write_all(self._mailboxes.disk, directory.temporary, [messages, descriptions])
        finally:
            placement.release(place for place, _ in placed)
        # A volume that went away in the middle has taken some of it along.
        directory.verify()

    def _look(
        self, directory: MailboxDirectory, placement: Placement, folder: Folder, refs: Sequence[ItemRef]
    ) -> Sequence[bool]:
        directory.verify()
        return placement.holds(folder.path, refs)
