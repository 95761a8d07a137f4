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
    known_drafts: Container[str],
    already_read: Container[str],
) -> FeedPlan:
    """Decide what to do about changes, in their order.

    Created items are fetched, unless they are no mail, were received before `start`, or are among `already_read`
    (digests of what the backfill has read since the feed was last at its end). Updates matter only for drafts: a
    draft that is sent in its place is new mail; flags are not uploaded again.
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
            case ChangeKind.CREATED:
                if ref.is_mail and name not in already_read and not _before(ref, start):
                    fetch[ref.id] = ref
            case ChangeKind.UPDATED if was_draft and not ref.is_draft:
                drafts.discard(name)
                no_drafts.add(name)
                if ref.is_mail:
                    fetch[ref.id] = ref
            case ChangeKind.DELETED:
                fetch.pop(ref.id, None)
                if was_draft:
                    drafts.discard(name)
                    no_drafts.add(name)
            case _:
                pass
    return FeedPlan(tuple(fetch.values()), frozenset(drafts), frozenset(no_drafts))


def _before(ref: ItemRef, start: datetime | None) -> bool:
    moment = feed_time(ref)
    return start is not None and moment is not None and moment < start
