"""What is shown of a mailbox's progress: `MailboxProgress`, kept in step with what the engine does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.telemetry.status import Failure, FolderProgress, MailboxProgress, Phase, Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from ews_sync.errors import EwsSyncError
    from ews_sync.model import Email, Folder, Mailbox, MailboxCheckpoint


def progress_after(before: MailboxProgress | None, mailbox: Mailbox) -> MailboxProgress:
    """Begin to show a mailbox; what an earlier engine of this process has counted of it goes on."""
    progress = MailboxProgress(mailbox.address, str(mailbox.bucket))
    if before is not None and before.bucket == progress.bucket:
        progress.stored, progress.stored_bytes = before.stored, before.stored_bytes
        progress.dead_letters, progress.rounds, progress.rate = before.dead_letters, before.rounds, before.rate
        progress.newest_received, progress.last_stored_at = before.newest_received, before.last_stored_at
        progress.last_success_at = before.last_success_at
    return progress


class Display:
    """Writes one mailbox's progress."""

    def __init__(self, progress: MailboxProgress) -> None:
        self.progress = progress

    def folder(self, folder: Folder) -> FolderProgress:
        """Give the folder's progress; also that of one which has vanished meanwhile, where nobody sees it."""
        return self.progress.folders.get(folder.id) or FolderProgress(folder.path)

    def folders(self, folders: Sequence[Folder], checkpoint: MailboxCheckpoint) -> None:
        """Show these folders and no others."""
        known = self.progress.folders
        present = {folder.id for folder in folders}
        for folder_id in [folder_id for folder_id in known if folder_id not in present]:
            del known[folder_id]
        for folder in folders:
            progress = known.setdefault(folder.id, FolderProgress(folder.path))
            progress.path = folder.path
            progress.items = folder.total
        self.positions(checkpoint, known)

    def positions(self, checkpoint: MailboxCheckpoint, folder_ids: Iterable[str]) -> None:
        """Show how far the checkpoint is in the given folders."""
        for folder_id in folder_ids:
            progress = self.progress.folders.get(folder_id)
            known = checkpoint.folders.get(folder_id)
            if progress is None or known is None:
                continue
            progress.synced_until = known.synced_until
            progress.last_synced_at = known.last_synced_at
            if known.backfill is not None:
                progress.phase = Phase.BACKFILLING
                progress.done = known.backfill.done
                progress.total = max(known.backfill.total, known.backfill.done)
            elif known.cursor is not None:
                progress.phase = Phase.FOLLOWING
                progress.done = progress.total = max(progress.done, progress.total)

    def estimated(self, folder: Folder, total: int) -> None:
        """Show how many items a backfill turned out to have."""
        progress = self.folder(folder)
        progress.total = max(total, progress.done)

    def stored(self, folder: Folder, emails: Sequence[Email], at: Moments) -> None:
        """Show that emails of a folder are stored."""
        if not emails:
            return
        progress = self.progress
        count = len(emails)
        progress.stored += count
        progress.stored_bytes += sum(email.mime.size for email in emails)
        progress.rate.add(at[1], count)
        progress.last_stored_at = at[0]
        newest = max(email.metadata.received_at or email.timestamp for email in emails)
        own = self.folder(folder)
        own.stored += count
        own.rate = own.rate or Rate()
        own.rate.add(at[1], count)
        for shown in (progress, own):
            if shown.newest_received is None or newest > shown.newest_received:
                shown.newest_received = newest

    def folder_failed(self, folder: Folder, error: EwsSyncError, now: datetime) -> bool:
        """Show that a folder fails; tell whether that is news."""
        progress = self.folder(folder)
        before = progress.failure
        progress.failure = Failure.of(error, now if before is None else before.since)
        return before is None or before.reason != error.summary

    def folder_well(self, folder: Folder) -> bool:
        """Show that a folder does not fail; tell whether that is news."""
        progress = self.folder(folder)
        was_failing = progress.failure is not None
        progress.failure = None
        return was_failing

    def failed(self, error: EwsSyncError, now: datetime) -> bool:
        """Show that the mailbox fails; tell whether that is news."""
        before = self.progress.failure
        self.progress.failure = Failure.of(error, now if before is None else before.since)
        self.progress.phase = Phase.FAILED
        return before is None or before.reason != error.summary

    def succeeded(self, now: datetime) -> bool:
        """Show that a round went well; tell whether that is news."""
        was_failing = self.progress.failure is not None
        self.progress.failure = None
        self.progress.rounds += 1
        self.progress.last_success_at = now
        behind = any(folder.phase is not Phase.FOLLOWING for folder in self.progress.folders.values())
        self.progress.phase = Phase.BACKFILLING if behind else Phase.FOLLOWING
        return was_failing


Moments = tuple["datetime", float]
"""The same moment on the wall clock and in monotonic seconds."""
