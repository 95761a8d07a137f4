"""A sink with memory for storage: what others test against. It passes the same contract as the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.errors import AlreadyRunningError
from ews_sync.model import Recall, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ews_sync.model import DeadLetter, Email, Folder, ItemRef, Mailbox

Key = tuple[str, "datetime", "datetime | None"]


def key_of(email: Email) -> Key:
    """What tells messages apart: broken senders give different ones the same id."""
    return email.id, email.timestamp, email.metadata.received_at


@dataclass(slots=True)
class MemoryStorage:
    """What outlives a sink: emails and letters by mailbox, and who holds which mailbox."""

    emails: dict[str, dict[Key, tuple[Email, bytes]]] = field(default_factory=dict)
    letters: dict[str, dict[tuple[str, str], DeadLetter]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)


class MemorySink:
    """A `Sink` that stores in a `MemoryStorage`, which outlives it."""

    ordered: bool = False
    recall: Recall = Recall.EVERYTHING

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self._open: set[str] = set()

    async def open(self, mailbox: Mailbox, position: str | None) -> None:  # noqa: ARG002
        key = _key(mailbox)
        if key in self.storage.held and key not in self._open:
            raise AlreadyRunningError(f"mailbox {mailbox.address} is already being synced")
        self.storage.held.add(key)
        self._open.add(key)

    async def put(self, batch: Sequence[Email]) -> Receipt:
        for email in batch:
            stored = self.storage.emails.setdefault(self._opened(email.mailbox), {})
            stored[key_of(email)] = (email, b"".join(email.mime.chunks()))
        return Receipt()

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            recorded = self.storage.letters.setdefault(self._opened(letter.mailbox), {})
            recorded.setdefault((letter.item_id, letter.code), letter)

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        stored = self.storage.emails.get(self._opened(mailbox), {})
        answers = []
        for ref in refs:
            entry = stored.get((ref.email_id or "", ref.sent or ref.received, ref.received))  # type: ignore[arg-type]
            answers.append(entry is not None and entry[0].metadata.folder == folder.path)
        return answers

    async def check(self, mailbox: Mailbox) -> None:
        pass

    async def aclose(self) -> None:
        self.storage.held -= self._open
        self._open.clear()

    def _opened(self, mailbox: Mailbox) -> str:
        key = _key(mailbox)
        if key not in self._open:
            raise RuntimeError(f"mailbox {mailbox.address} is not open")
        return key


def _key(mailbox: Mailbox) -> str:
    return f"{mailbox.bucket}\n{mailbox.address}"
