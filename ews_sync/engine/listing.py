"""Reading a folder's items oldest first, by value and not by offset. Pure.

It says what to ask for, and takes what came.

Offset paging over a folder that changes skips items, so each page asks for what was received at or after the last
second seen and drops what was seen already. Within one second (imports can put thousands of items into it) there is
no value to go by: there the offset grows, each page overlaps the one before by one item, and when that item is not
where it was, the second is read again from its start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ews_sync.engine.progress import digest, listed_time
from ews_sync.errors import Asks, ProtocolError
from ews_sync.model import Order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ews_sync.model import Backfill, ItemRef, ListPage

_MAX_RESCANS = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask the source for next."""

    order: Order
    since: datetime | None
    offset: int


class ListingReader:
    """Reads on from where a backfill stands.

    Runs ahead of what is confirmed, so it is made anew when a round begins.
    """

    def __init__(self, backfill: Backfill) -> None:
        self._backfill = backfill
        self._order = backfill.order
        self._since = backfill.since
        self._until = backfill.until
        self._at = backfill.position
        self._seen = {moment: set(names) for moment, names in backfill.seen.items()}
        self._offset = 0
        self._anchored = False
        self._rescans = 0
        self.finished = False
        self.taken = 0

    @property
    def verify(self) -> bool:
        """Whether items that the sink already holds are to be passed by."""
        return self._backfill.verify

    def undated(self) -> ListingReader:
        """Give the reader for what this one cannot list: the items without a received time."""
        return ListingReader(replace(self._backfill, order=Order.CREATED, position=None, until=None))

    def estimate(self, total: int) -> int:
        """Say how many items the backfill has in all, when the answer to `query` says that it matches `total`."""
        return self._backfill.done + self.taken + max(0, total - sum(len(names) for names in self._seen.values()))

    def query(self) -> Query:
        """Say what to ask for next."""
        return Query(self._order, self._at or self._since, self._offset)

    def note(self, ref: ItemRef) -> None:
        """Take note of an item that came by another way, so that the listing passes it by."""
        moment = ref.received or ref.created
        if moment is not None and (self._at is None or moment >= self._at):
            self._seen.setdefault(moment, set()).add(digest(ref.id))

    def take(self, page: ListPage) -> list[ItemRef]:
        """Take the answer to `query`; give the items that are new, in order.

        Raises `ProtocolError` when the server does not sort.
        """
        refs = page.refs
        if self._offset and (not refs or (self._anchored and not self._knows(refs[0]))):
            self._rescan()
            return []
        if not refs:
            if not page.last:
                raise ProtocolError("the server lists nothing and says that there is more")
            self.finished = True
            return []
        moments = self._moments(refs)
        new: list[ItemRef] = []
        self.finished = page.last
        for ref, moment in zip(refs, moments, strict=True):
            if self._until is not None and moment is not None and moment > self._until:
                # What is newer than the mark comes by the feed.
                self.finished = True
                break
            if not self._knows(ref, moment):
                new.append(ref)
                if moment is not None:
                    self._seen.setdefault(moment, set()).add(digest(ref.id))
        self.taken += len(new)
        if not self.finished:
            self._advance(moments[-1], len(refs))
        return new

    def _advance(self, last: datetime | None, count: int) -> None:
        if last is not None and (self._at is None or last > self._at):
            self._at = last
            self._offset = 0
            self._anchored = False
            self._rescans = 0
            for moment in [moment for moment in self._seen if moment < last]:
                del self._seen[moment]
        else:
            self._anchored = count > 1
            self._offset += max(1, count - 1)

    def _rescan(self) -> None:
        self._rescans += 1
        if self._rescans > _MAX_RESCANS:
            raise ProtocolError("the server lists the items of one second in a different order each time")
        self._offset = 0
        self._anchored = False

    def _knows(self, ref: ItemRef, moment: datetime | None = None) -> bool:
        moment = moment or listed_time(ref, self._order) or self._at
        return moment is not None and digest(ref.id) in self._seen.get(moment, ())

    def _moments(self, refs: Sequence[ItemRef]) -> list[datetime | None]:
        """Give each item's time; an item without one counts to the item before it."""
        moments: list[datetime | None] = []
        previous = self._at or self._since
        for ref in refs:
            moment = listed_time(ref, self._order) or previous
            if previous is not None and moment is not None and moment < previous:
                raise ProtocolError(
                    f"the server does not sort by time ({moment.isoformat()} after {previous.isoformat()})",
                    asks=Asks.STOP,
                    hint="items could be missed, so the folder is left alone; the server must support SortOrder in FindItem",
                )
            moments.append(moment)
            previous = moment
        return moments
