"""What a page of a folder's change feed asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.engine.progress import digest, feed_time
from ews_sync.model import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from datetime import datetime

    from ews_sync.model import Change, ItemRef


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """`fetch` are the items to fetch.

    `drafts` and `no_drafts` the unsent items that came, and those that are sent or gone.
    """

    fetch: tuple[ItemRef, ...]
    drafts: frozenset[str]
    no_drafts: frozenset[str]


def plan_feed(
    changes: Iterable[Change],
    *,
    start: datetime | None,
    listed_until: datetime | None = None,
    known_drafts: Container[str],
    already_read: Container[str],
) -> FeedPlan:
    """Decide what to do about changes, in their order.

    Created items are fetched, unless they are no mail, were received before `start`, or are among `already_read`
    (digests of what the backfill has read since the feed was last at its end). Updates matter only for drafts: a
    draft that is sent in its place is new mail; flags are not uploaded again. A feed tells of an item once, as it is
    now: one that the backfill read as a draft can come as created, and sent (unless the backfill has read it as mail
    since, which is then among `already_read`). And one that nobody has read yet, because
    it is older than `start` or the backfill has not come to it, jumps out of the backfill's way when it is sent: to
    after `listed_until`, where an unfinished backfill ends (None where there is none), or into its second.
    """
    fetch: dict[str, ItemRef] = {}
    drafts: set[str] = set()
    no_drafts: set[str] = set()
    for change in changes:
        ref = change.ref
        name = digest(ref.id)
        was_draft = name in drafts or (name in known_drafts and name not in no_drafts)
        match change.kind:
            case ChangeKind.CREATED if ref.is_draft:
                drafts.add(name)
                no_drafts.discard(name)
            case ChangeKind.CREATED | ChangeKind.UPDATED if was_draft and not ref.is_draft:
                drafts.discard(name)
                no_drafts.add(name)
                if ref.is_mail and name not in already_read:
                    fetch[ref.id] = ref
            case ChangeKind.UPDATED if ref.is_mail and name not in already_read and _jumped(ref, start, listed_until):
                fetch[ref.id] = ref
            case ChangeKind.CREATED:
                if ref.is_mail and name not in already_read and not _before(ref, start):
                    fetch[ref.id] = ref
            case ChangeKind.DELETED:
                fetch.pop(ref.id, None)
                if was_draft:
                    drafts.discard(name)
                    no_drafts.add(name)
            case _:
                pass
    return FeedPlan(tuple(fetch.values()), frozenset(drafts), frozenset(no_drafts))


def _jumped(ref: ItemRef, start: datetime | None, listed_until: datetime | None) -> bool:
    """Tell whether an item was received later than it was made: it was a draft meanwhile."""
    if ref.is_draft or ref.received is None or ref.created is None or ref.created >= ref.received:
        return False
    if start is not None and ref.created < start <= ref.received:
        return True
    # A draft has no received time on every server, so it can have been made after the newest one: `listed_until`. And
    # one that is sent in that very second can be too late for the listing, which is there already or not.
    return listed_until is not None and listed_until <= ref.received


def _before(ref: ItemRef, start: datetime | None) -> bool:
    moment = feed_time(ref)
    return start is not None and moment is not None and moment < start
