"""Reading a folder's items oldest first, by value and not by offset. Pure.

It says what to ask for, and takes what came.

Offset paging over a folder that changes skips items, so each page asks for what was received at or after the last
second seen and drops what was seen already. Within one second (imports can put thousands of items into it) there is
no value to go by: there the offset grows, and each page overlaps the one before by one item. While the page begins
with an item that was listed before, nothing has been skipped; when it does not, the second is read again from its
start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ews_sync.engine.progress import UNDATED, digest, feed_time, listed_time, whole_second
from ews_sync.errors import Asks, ProtocolError
from ews_sync.model import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from ews_sync.model import Backfill, ItemRef, ListPage

_MAX_RESCANS = 1000
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask the source for next."""

    order: Order
    since: datetime | None
    offset: int


class ListingReader:
    """Reads on from where a backfill stands.

    Runs ahead of what is confirmed, so it is made anew when a round begins. `finished` when there is nothing more to
    ask for; `taken` counts the items that it gave.
    """

    def __init__(self, backfill: Backfill) -> None:
        self._backfill = backfill
        self._order = backfill.order
        self._since = None if backfill.since is None else whole_second(backfill.since)
        self._until = backfill.until if backfill.order is Order.RECEIVED else None
        self._at = backfill.position
        self._seen = {moment: set(names) for moment, names in backfill.seen.items()}
        self._timeless: set[str] = self._seen.pop(UNDATED, set())
        """Items given that no position ever passes: those without the time by which this listing is sorted."""
        self._scanned: set[str] = set()
        """Items that this reading of the second `_at` has listed, new or not."""
        self._scanned_before: set[str] | None = None
        """And those that the reading before has listed, where there was one."""
        self._offset = 0
        self._anchored = False
        self._unsure = False
        """Whether this reading went on from a page of a single item, which leaves no room for an overlap."""
        self._rescans = 0
        self._total = backfill.total
        self.finished = False
        self.taken = 0

    @property
    def verify(self) -> bool:
        """Whether items that the sink already holds are to be passed by."""
        return self._backfill.verify

    @property
    def until(self) -> datetime | None:
        """The newest received time that the backfill is to find; None where that is not known."""
        return self._backfill.until

    @property
    def total(self) -> int:
        """How many items the backfill has in all, as it seems; 0 where nothing is known."""
        return self._total

    def undated(self) -> ListingReader:
        """Give the reader for what this one cannot list: the items without a received time."""
        following = replace(
            self._backfill,
            order=Order.CREATED,
            position=None,
            done=self._backfill.done + self.taken,
            total=self._total,
        )
        reader = ListingReader(following)
        for moment, names in self._seen.items():
            reader._seen.setdefault(moment, set()).update(names)
        reader._timeless |= self._timeless
        return reader

    def query(self) -> Query:
        """Say what to ask for next."""
        return Query(self._order, self._at or self._since, self._offset)

    def note(self, ref: ItemRef) -> None:
        """Take note of an item that came by another way, so that the listing passes it by."""
        if self._order is Order.CREATED and ref.received is not None:
            return
        moment = listed_time(ref, self._order)
        if moment is None or self._at is None or moment >= self._at:
            self._remember(ref)

    def take(self, page: ListPage) -> list[ItemRef]:
        """Take the answer to `query`; give the items that are new, in order.

        Raises `ProtocolError` when the server does not sort.
        """
        refs = page.refs
        if not refs:
            self._take_nothing(page)
            return []
        if self._offset and self._anchored and digest(refs[0].id) not in self._scanned:
            self._rescan()
            return []
        self._estimate(page)
        moments = self._moments(refs)
        self._scan(refs, moments)
        if self._unsure and (page.last or moments[-1] != self._at):
            if self._scanned != self._scanned_before:
                self._rescan()
                return []
            # Behind the calendar's last second there is none.
            if self._at is not None and self._at < UNDATED:
                # The second is read, but what this page has of later ones may have a gap before it.
                rest = self._new(ref for ref, moment in zip(refs, moments, strict=True) if moment == self._at)
                self._advance_to(self._at + _SECOND)
                return rest
        self.finished = page.last
        wanted: list[ItemRef] = []
        for ref, moment in zip(refs, moments, strict=True):
            if self._until is not None and moment is not None and moment > self._until:
                # What is newer than the mark comes by the feed.
                self.finished = True
                break
            wanted.append(ref)
        new = self._new(wanted)
        if not self.finished:
            self._advance(moments[-1], len(refs))
        return new

    def _take_nothing(self, page: ListPage) -> None:
        if not self._offset:
            if not page.last:
                raise ProtocolError("the server lists nothing and says that there is more")
            self.finished = True
        elif page.last and self._scanned == self._scanned_before:
            # The server does not say on the last page that it is the last.
            self.finished = True
        else:
            self._rescan()

    def _new(self, refs: Iterable[ItemRef]) -> list[ItemRef]:
        """Give those of the items that were not given before."""
        new: list[ItemRef] = []
        for ref in refs:
            if not self._knows(ref):
                new.append(ref)
                self._remember(ref)
        self.taken += len(new)
        return new

    def _estimate(self, page: ListPage) -> None:
        """Work out how many items there are in all. Less than what is known only: what is more came by the feed."""
        if page.total is None:
            return
        ahead = page.total - sum(len(names) for names in self._seen.values())
        estimate = self._backfill.done + self.taken + max(0, ahead)
        self._total = min(self._total, estimate) if self._total else estimate

    def _scan(self, refs: Sequence[ItemRef], moments: Sequence[datetime | None]) -> None:
        """Take note of what a page lists of the second `_at`.

        A reading of the second without overlaps may have passed something by, when an item before it went away. It
        counts once two readings have listed the same: had an item gone in the first, the second would not list it.
        """
        self._unsure = self._unsure or (self._offset > 0 and not self._anchored)
        self._scanned.update(digest(ref.id) for ref, moment in zip(refs, moments, strict=True) if moment == self._at)

    def _advance(self, last: datetime | None, count: int) -> None:
        if last is not None and (self._at is None or last > self._at):
            self._advance_to(last)
        else:
            self._anchored = count > 1
            self._offset += max(1, count - 1)

    def _advance_to(self, moment: datetime) -> None:
        self._at = moment
        self._offset = 0
        self._anchored = False
        self._unsure = False
        self._rescans = 0
        self._scanned = set()
        self._scanned_before = None
        for passed in [earlier for earlier in self._seen if earlier < moment]:
            del self._seen[passed]

    def _rescan(self) -> None:
        self._rescans += 1
        if self._rescans > _MAX_RESCANS:
            raise ProtocolError("the server lists the items of one second in a different order each time")
        self._offset = 0
        self._anchored = False
        self._unsure = False
        self._scanned_before = self._scanned
        self._scanned = set()

    def _remember(self, ref: ItemRef) -> None:
        moment = feed_time(ref)
        if listed_time(ref, self._order) is None or moment is None:
            self._timeless.add(digest(ref.id))
        else:
            self._seen.setdefault(moment, set()).add(digest(ref.id))

    def _knows(self, ref: ItemRef) -> bool:
        name = digest(ref.id)
        moment = feed_time(ref)
        return name in self._timeless or (moment is not None and name in self._seen.get(moment, ()))

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
                    hint="items could be missed, so the folder is left alone; "
                    "the server must support SortOrder in FindItem",
                )
            moments.append(moment)
            previous = moment
        return moments
