"""What a confirmed piece of work does to a folder's checkpoint. Pure decisions over frozen values.

Effects are applied in the order in which the work was read from the source, and only once all of a piece is
confirmed, so a checkpoint never claims more than what is stored.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from ews_sync.model import Backfill, FolderCheckpoint, ItemRef, Order

if TYPE_CHECKING:
    from collections.abc import Iterable


def digest(item_id: str) -> str:
    """Name an item in 12 characters (72 bits of SHA-256): checkpoints stay small, and a false match is out of reach."""
    return base64.b64encode(hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).digest()[:9]).decode()


def listed_time(ref: ItemRef, order: Order) -> datetime | None:
    """Give the second by which a listing in `order` sorts the item."""
    return _second(ref.received if order is Order.RECEIVED else ref.created)


def feed_time(ref: ItemRef) -> datetime | None:
    """Give the second in which a listing will come upon an item that the feed brought."""
    return _second(ref.received or ref.created)


UNDATED = datetime.max.replace(microsecond=0, tzinfo=UTC)
"""Where a backfill remembers the items that the feed brought and that have no received time, as long as it goes by it.

No position of that listing passes them: the listing by creation time, which begins after it, comes upon them.
"""


class Effect(Protocol):
    """What a piece of work does to its folder's checkpoint once all of it is confirmed."""

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The folder's feed was read to its end without fetching: from `cursor` on, nothing escapes.

    `backfill` is what there is to catch up with.
    """

    cursor: str
    backfill: Backfill | None

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""
        return replace(checkpoint, cursor=self.cursor, backfill=self.backfill, last_synced_at=now)


@dataclass(frozen=True, slots=True)
class Begun:
    """The folder's feed is read from its very start, and all of it fetched."""

    backfill: Backfill

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""
        return replace(checkpoint, backfill=self.backfill, last_synced_at=now)


@dataclass(frozen=True, slots=True)
class Brought:
    """A part of a page is stored, of a feed that is read from its start; the position stays where it is.

    `refs` are the items; `drafts` those of them that are not mail yet.
    """

    refs: tuple[ItemRef, ...]
    drafts: frozenset[str] = frozenset()

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""
        backfill = checkpoint.backfill
        if backfill is None:
            return checkpoint
        # The page is read again should this end before the rest of it is stored.
        seen = backfill.seen.get(UNDATED, frozenset()) | {digest(ref.id) for ref in self.refs}
        return replace(
            checkpoint,
            backfill=_counted(replace(backfill, seen={UNDATED: seen}), len(self.refs)),
            newest=latest(checkpoint.newest, *(ref.received for ref in self.refs)),
            drafts=checkpoint.drafts | self.drafts,
            last_synced_at=now,
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A run of items, in the order of the listing, is stored (or needs not be).

    `drafts` are those that are not mail yet. `total` is how many items the backfill has in all, as it seems by now.
    """

    refs: tuple[ItemRef, ...]
    drafts: frozenset[str] = frozenset()
    total: int = 0

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""
        backfill = checkpoint.backfill
        if backfill is None:
            return checkpoint
        return replace(
            checkpoint,
            backfill=_advanced(backfill, self.refs, self.total),
            synced_until=_past(_synced_until(checkpoint, backfill, self.refs), now),
            drafts=checkpoint.drafts | self.drafts,
            last_synced_at=now,
        )


@dataclass(frozen=True, slots=True)
class BackfillEnded:
    """The listing came to its end: what it lists is stored, and what has no received time comes next, or nothing."""

    order: Order

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""
        backfill = checkpoint.backfill
        if backfill is None or backfill.order is not self.order:
            return checkpoint
        if self.order is Order.RECEIVED:
            following = replace(backfill, order=Order.CREATED, position=None)
            newest = latest(checkpoint.synced_until, backfill.until, checkpoint.newest)
            return replace(checkpoint, backfill=following, synced_until=_past(newest, now), last_synced_at=now)
        return replace(checkpoint, backfill=None, last_synced_at=now)


@dataclass(frozen=True, slots=True)
class Followed:
    """A page of the feed is stored up to `cursor`.

    `created` are the items that it brought; `drafts` those of them that are not mail yet, and `no_drafts` the items
    that are none any more. `last` when that is the end of the feed.
    """

    cursor: str
    created: tuple[ItemRef, ...] = ()
    drafts: frozenset[str] = frozenset()
    no_drafts: frozenset[str] = frozenset()
    last: bool = False

    def apply(self, checkpoint: FolderCheckpoint, now: datetime) -> FolderCheckpoint:
        """Give the checkpoint after the work."""
        newest = latest(checkpoint.newest, *(ref.received for ref in self.created))
        backfill = self._backfill(checkpoint.backfill)
        caught_up = backfill is None or backfill.order is Order.CREATED
        return replace(
            checkpoint,
            cursor=self.cursor,
            newest=newest,
            backfill=backfill,
            synced_until=_past(latest(checkpoint.synced_until, newest), now) if caught_up else checkpoint.synced_until,
            drafts=(checkpoint.drafts | self.drafts) - self.no_drafts,
            last_synced_at=now,
        )

    def _backfill(self, backfill: Backfill | None) -> Backfill | None:
        if backfill is None or not backfill.by_feed:
            return None if backfill is None else _with_seen(backfill, self.created)
        return None if self.last else _counted(replace(backfill, seen={}), len(self.created))


def remembered(checkpoint: FolderCheckpoint) -> set[str]:
    """Give digests of what the backfill remembers to be stored: where the feed brings it, it is nothing new.

    But for drafts, which the backfill has only passed by: the feed may be the only one to say that they were sent.
    """
    seen = () if checkpoint.backfill is None else checkpoint.backfill.seen.values()
    return set().union(*seen) - checkpoint.drafts


def latest(*moments: datetime | None) -> datetime | None:
    """Give the latest of the moments that are known."""
    return max((moment for moment in moments if moment is not None), default=None)


def whole_second(moment: datetime) -> datetime:
    """Give the second that a moment lies in: what sources speak of."""
    return moment.replace(microsecond=0) if moment.microsecond else moment


def _second(moment: datetime | None) -> datetime | None:
    return None if moment is None else whole_second(moment)


def _past(moment: datetime | None, now: datetime) -> datetime | None:
    """Keep a time that an item claims from lying in the future.

    Imported mail can say anything, and a search that began there would pass by all that comes until then.
    """
    return None if moment is None else min(moment, whole_second(now))


def _advanced(backfill: Backfill, refs: tuple[ItemRef, ...], total: int) -> Backfill:
    position = latest(backfill.position, *(listed_time(ref, backfill.order) for ref in refs))
    moved = _with_seen(replace(backfill, position=position), refs)
    done = backfill.done + len(refs)
    return replace(moved, done=done, total=max(total or backfill.total, done))


def _counted(backfill: Backfill, count: int) -> Backfill:
    """Count items that are behind us, of a feed that is read from its start."""
    done = backfill.done + count
    return replace(backfill, done=done, total=max(backfill.total, done))


def _with_seen(backfill: Backfill, refs: Iterable[ItemRef]) -> Backfill:
    """Remember items that the listing will come upon (again), and forget what lies behind its position."""
    seen = {moment: set(names) for moment, names in backfill.seen.items()}
    until = backfill.until if backfill.order is Order.RECEIVED else None
    for ref in refs:
        if backfill.order is Order.RECEIVED and ref.received is None:
            seen.setdefault(UNDATED, set()).add(digest(ref.id))
            continue
        moment = feed_time(ref)
        if moment is not None and (until is None or moment <= until):
            seen.setdefault(moment, set()).add(digest(ref.id))
    position = backfill.position
    kept = {moment: frozenset(names) for moment, names in seen.items() if position is None or moment >= position}
    return replace(backfill, seen=kept)


def _synced_until(checkpoint: FolderCheckpoint, backfill: Backfill, refs: tuple[ItemRef, ...]) -> datetime | None:
    if backfill.order is not Order.RECEIVED:
        return checkpoint.synced_until
    return latest(backfill.position, *(ref.received for ref in refs)) or checkpoint.synced_until
