"""How far a folder is read: what a mailbox's rounds remember of it, and a checkpoint need not know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.engine.watch import FolderWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Set as AbstractSet
    from datetime import datetime

    from ews_sync.engine.listing import ListingReader


@dataclass(slots=True)
class Reading:
    """How far a folder is read, ahead of what is confirmed."""

    watch: FolderWatch = field(default_factory=FolderWatch)
    cursor: str | None = None
    reader: ListingReader | None = None
    from_start: bool = False
    """Whether the feed is read from its very start, and all of it fetched: then there is nothing to list."""
    since: datetime | None = None
    """Then, what was received before is passed by, whatever the config says by now; None: nothing."""
    listed: bool = False
    """Whether the listing is at its end. The backfill is over once the feed was read to its end after that.

    Until then the feed may tell of drafts that were sent away from under the listing.
    """
    drafts: frozenset[str] = frozenset()
    unsure_of_feed: int = 0
    """How many more batches of the feed the sink is asked about in a row without holding any of it.

    See `Storing.unheld`. What is new since a crash says nothing about what was listed before it.
    """
    unsure_of_listing: int = 0
    """How many more emails of the listing, likewise: in which batches they were is not known."""
    _recent: set[str] | None = None
    # There are tens of thousands of folders in which nothing happens, and an empty set takes more than all the rest.

    @property
    def recent(self) -> AbstractSet[str]:
        """Digests of what the backfill has read since the feed was last at its end: it will bring them once more.

        Also of what could not be stored then: the backfill's position has not passed it, so it will read it again.
        """
        return frozenset() if self._recent is None else self._recent

    def read(self, digests: Iterable[str]) -> None:
        """Take note of what the backfill has read."""
        if self._recent is None:
            self._recent = set(digests) or None
        else:
            self._recent.update(digests)

    def unread(self, digests: AbstractSet[str]) -> None:
        """Take note of what it has not read after all."""
        if self._recent is not None:
            self._recent -= digests

    def feed_ended(self) -> None:
        """Take note that the feed is at its end: what was read before will not be brought once more."""
        self._recent = None
