"""Marking folders: taking a position in a folder's change feed, from which on nothing in it can escape."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.listing import ListingReader
from ews_sync.engine.progress import Marked
from ews_sync.engine.search import backfill_for
from ews_sync.model import Recall
from ews_sync.telemetry.status import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from ews_sync.engine.catching_up import Ask
    from ews_sync.engine.folders import Folders
    from ews_sync.engine.listing import Query
    from ews_sync.engine.showing import Display
    from ews_sync.engine.storing import Parts, Storing
    from ews_sync.errors import SourceError
    from ews_sync.model import Folder, Mailbox


class Marking:
    """Marks one mailbox's folders.

    `start` is the configured start. `list_ahead` asks for a page that will be wanted next.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        mailbox: Mailbox,
        parts: Parts,
        display: Display,
        storing: Storing,
        folders: Folders,
        *,
        start: datetime | None,
        ask: Ask,
        list_ahead: Callable[[Folder, Query], None],
    ) -> None:
        self._mailbox = mailbox
        self._parts = parts
        self._display = display
        self._storing = storing
        self._folders = folders
        self._start = start
        self._ask = ask
        self._list_ahead = list_ahead
        self._log = structlog.get_logger("ews_sync.mailbox").bind(mailbox=mailbox.address)

    async def mark_again(self, folder: Folder, seen_at: float, error: SourceError) -> None:
        """Take a new position after the server has forgotten the old one, and look for what is missing."""
        self._log.warning(
            "the server has forgotten our position in a folder; taking a new one and looking for what is missing",
            folder=folder.path,
            code=error.code,
            found=(
                "everything that is missing"
                if self._parts.sink.recall is Recall.EVERYTHING
                else "what was received lately; older mail that was moved in meanwhile cannot be told apart"
            ),
        )
        # What was read ahead belongs to the old position: let it be confirmed first.
        await self._storing.settle()
        await self.mark(folder, seen_at)

    async def mark(self, folder: Folder, seen_at: float) -> None:
        """Read the folder's feed to its end without fetching, and note what there is to catch up with.

        `seen_at` is when the look was answered that gave the folder.
        """
        before = self._storing.checkpoint.folders.get(folder.id)
        backfill = backfill_for(before, start=self._start, overlap=self._parts.overlap, recall=self._parts.sink.recall)
        self._display.folder(folder).phase = Phase.MARKING
        cursor, count = await self._read_to_end(folder)
        # Only now: what the folder holds at the mark was received no later than this.
        until = await self._ask(self._parts.source.newest(self._mailbox, folder)) if count else None
        total = count if backfill.since is None and backfill.position is None else 0
        rest = replace(backfill, until=until, total=total) if count else None
        reading = self._folders.reading(folder)
        reading.cursor = cursor
        reading.from_start = False
        reading.feed_ended()
        reading.reader = None if rest is None else ListingReader(rest)
        reading.listed = False
        reading.watch.was_read(folder.activity, seen_at, self._parts.clock.monotonic())
        if rest is not None:
            # And not before, or it could lack what was received until then: a draft that was sent meanwhile.
            self._list_ahead(folder, ListingReader(rest).query())
        self._storing.seal(self._storing.begin(folder), Marked(cursor, rest))

    async def _read_to_end(self, folder: Folder) -> tuple[str, int]:
        """Read the feed from its very beginning; give the position at its end, and how many changes there were."""
        progress = self._display.folder(folder)
        cursor: str | None = None
        count = 0
        while True:
            page = await self._ask(self._parts.source.changes(self._mailbox, folder, cursor, ids_only=True))
            cursor = page.cursor
            count += len(page.changes)
            progress.marked = count
            if page.last:
                return cursor, count
