"""Emails and mailboxes for the tests of this room, and a disk that fails or stops where it is told to."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ews_sync.model import Attachment, Bucket, DeadLetter, Email, Mailbox, Metadata, MimeBytes
from ews_sync.sinks.durable import Disk

if TYPE_CHECKING:
    from pathlib import Path

MAILBOX = Mailbox("abc@example.com", Bucket("project", "bucket"))
OTHER = Mailbox("other@example.com", Bucket("project", "bucket"))
SENT = datetime(2020, 1, 1, tzinfo=UTC)
RECEIVED = datetime(2020, 1, 1, 0, 0, 2, tzinfo=UTC)


def an_email(
    email_id: str = "<1@example.com>",
    *,
    mailbox: Mailbox = MAILBOX,
    data: bytes = b"Subject: hello\r\n\r\nworld\r\n",
    folder: tuple[str, ...] = ("Inbox",),
    sent: datetime = SENT,
    received: datetime | None = RECEIVED,
    attachments: tuple[Attachment, ...] = (),
) -> Email:
    return Email(
        id=email_id,
        mailbox=mailbox,
        timestamp=sent,
        mime=MimeBytes(data),
        metadata=Metadata(folder=folder, received_at=received, size=len(data)),
        attachments=attachments,
    )


def a_letter(item_id: str = "AAMk1", code: str = "ErrorItemCorrupt", mailbox: Mailbox = MAILBOX) -> DeadLetter:
    return DeadLetter(
        mailbox=mailbox,
        item_id=item_id,
        folder=("Inbox", "Claims"),
        code=code,
        reason="the server cannot make MIME of it",
        email_id="<1@example.com>",
        received=RECEIVED,
        known={"subject length": "12"},
    )


class PowerCutError(BaseException):
    """The process is gone: nothing that it would still do happens."""


class FaultyDisk(Disk):
    """A disk on which the operation number `fails_at` (from 0) and, unless it is `once`, every later one fails.

    With an `error` number it fails as a disk does; without, it is a power cut. `operations` counts.
    """

    def __init__(self, fails_at: int = -1, error: int | None = None, *, once: bool = False, only: str = "") -> None:
        self.fails_at = fails_at
        self.error = error
        self.once = once
        self.only = only
        self.operations = 0
        self.log: list[str] = []

    def create(self, path: Path) -> int:
        self._step("create")
        return super().create(path)

    def append(self, path: Path) -> int:
        self._step("append")
        return super().append(path)

    def read(self, path: Path) -> bytes:
        self._step("read")
        return super().read(path)

    def write(self, descriptor: int, data: bytes) -> None:
        try:
            self._step("write")
        except BaseException:
            # A full disk and a power cut leave half of what was written.
            os.write(descriptor, data[: len(data) // 2])
            raise
        super().write(descriptor, data)

    def flush(self, descriptor: int) -> None:
        self._step("flush")
        super().flush(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate")
        super().truncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._step("link")
        super().link(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove")
        super().remove(path)

    def flush_directory(self, path: Path) -> None:
        self._step("flush directory")
        super().flush_directory(path)

    def make_directory(self, path: Path) -> None:
        self._step("make directory")
        super().make_directory(path)

    def _step(self, name: str) -> None:
        if self.only and name != self.only:
            return
        number = self.operations
        self.operations += 1
        self.log.append(name)
        if self.fails_at >= 0 and (number == self.fails_at or (number > self.fails_at and not self.once)):
            if self.error is None:
                raise PowerCutError
            raise OSError(self.error, os.strerror(self.error))


FULL = errno.ENOSPC
