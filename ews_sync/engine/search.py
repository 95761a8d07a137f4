"""Where to look for mail when a folder's position in the change feed is taken anew. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ews_sync.model import Backfill, Order, Recall

if TYPE_CHECKING:
    from datetime import timedelta

    from ews_sync.model import FolderCheckpoint

_BEGINNING = datetime.min.replace(tzinfo=UTC)


def backfill_for(
    before: FolderCheckpoint | None, *, start: datetime | None, overlap: timedelta, recall: Recall
) -> Backfill:
    """Say what to catch up with in a folder that is marked, for the first time or again.

    `start` is the configured start, `before` what is known of the folder, and `recall` whether the sink can tell what
    it holds. Mail that was moved into the folder while there was no position keeps its old received time: only a sink
    that recalls everything lets the whole folder be looked through again without storing it again. For others the
    search goes on where the listing stood, or begins `overlap` before `synced_until`, because mail is delivered some
    time after it is received; a sink that can be asked one by one is asked about what comes from there.
    """
    if before is None:
        return Backfill(since=start)
    if recall is Recall.EVERYTHING:
        return Backfill(since=start, verify=True)
    verify = recall is not Recall.NOTHING
    # What the feed alone had told of, and was not read to its end, can only be looked through as a whole.
    unfinished = None if before.backfill is None or before.backfill.by_feed else before.backfill
    if unfinished is not None and unfinished.order is Order.RECEIVED:
        return replace(unfinished, until=None, total=0)
    if before.synced_until is None:
        # All that it held had no received time.
        return Backfill(since=start, verify=verify)
    # A server may give any time, also one at which the calendar begins.
    resume = before.synced_until - min(overlap, before.synced_until - _BEGINNING)
    if start is not None:
        resume = max(start, resume)
    if unfinished is not None:
        # The items without a received time were still to come, from the very start.
        return Backfill(since=unfinished.since, position=resume, verify=verify)
    return Backfill(since=resume, verify=verify)
