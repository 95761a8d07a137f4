"""A folder's items as FindItem shows them: restricted, in order, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ews_sync.simulator.errors import EwsError
from ews_sync.simulator.grammar import local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lxml import etree

    from ews_sync.simulator.fields import Value
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.restriction import Selection

T = TypeVar("T")
_RECEIVED: Final = attrgetter("received")


@dataclass(frozen=True, slots=True)
class Order:
    """One criterion of an order."""

    read: Callable[[Item], Value]
    descending: bool
    is_received: bool


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a view: `most` entries, from `offset` (from the end with `from_end`)."""

    offset: int
    most: int
    from_end: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page, where the next one begins, how many entries the view has, and whether this page was the last."""

    entries: Sequence[T]
    next_offset: int
    total: int
    is_last: bool


def read_paging(view: etree._Element | None, cap: int, total: Callable[[], int]) -> Paging:
    """Return what a paging view asks for, at most `cap` entries; `total` counts the view.

    Raises:
        EwsError: its numbers make no sense, or the simulator does not have this view.

    """
    if view is None:
        return Paging(0, cap)
    most = int(view.get("MaxEntriesReturned", cap))
    if most <= 0:
        raise EwsError("ErrorInvalidPagingMaxRows", "MaxEntriesReturned must be greater than zero.")
    most = min(most, cap)
    if local(view).startswith("Indexed"):
        offset = int(str(view.get("Offset")))
        if offset < 0:
            raise EwsError("ErrorInvalidIndexedPagingParameters", "Offset must not be negative.")
        return Paging(offset, most, view.get("BasePoint") == "End")
    if local(view).startswith("Fractional"):
        numerator, denominator = int(str(view.get("Numerator"))), int(str(view.get("Denominator")))
        if denominator <= 0 or not 0 <= numerator <= denominator:
            raise EwsError("ErrorInvalidFractionalPagingParameters", "Numerator and Denominator do not go together.")
        return Paging(total() * numerator // denominator, most)
    raise EwsError("ErrorInvalidOperation", f"The view {local(view)} is not there.")


def cut(entries: Sequence[T], paging: Paging) -> Page[T]:
    """Return a page of a sequence."""
    return _page(len(entries), paging, lambda start, stop: entries[start:stop])


class RangeView:
    """A range of received times in that order: the index has it, so that a page costs what is on it."""

    def __init__(self, folder: Folder, selection: Selection, orders: Sequence[Order]) -> None:
        index = folder.index
        self._index = index
        self._low = index.position(selection.range.lower)
        self._high = max(self._low, index.position(selection.range.upper))
        self._descending = orders[0].descending if orders else True
        self._ties = orders[1:]

    def __len__(self) -> int:
        return self._high - self._low

    def page(self, paging: Paging) -> Page[Item]:
        """Return a page."""
        return _page(len(self), paging, self._slice)

    def _slice(self, start: int, stop: int) -> list[Item]:
        if start >= stop:
            return []
        if not self._ties:
            return list(islice(self._walk(start), stop - start))
        # Items of the same time are put in order among themselves, so the walk begins with the first of its time.
        first = next(iter(self._walk(start)))
        before = sum(1 for _ in takewhile(lambda item: item.received == first.received, self._back(start)))
        walk = self._walk(start - before)
        ordered = (item for _, same in groupby(walk, _RECEIVED) for item in in_order(list(same), self._ties))
        return list(islice(ordered, before, before + stop - start))

    def _walk(self, start: int) -> Iterator[Item]:
        """Yield the items from a place in the view to the view's end."""
        if not self._descending:
            return islice(self._index.ascending(self._low + start), len(self) - start)
        return islice(self._index.descending_from(self._high - start), len(self) - start)

    def _back(self, start: int) -> Iterator[Item]:
        """Yield the items before a place in the view, nearest first."""
        if not self._descending:
            return islice(self._index.descending_from(self._low + start), start)
        return islice(self._index.ascending(self._high - start), start)


def in_order(items: list[Item], orders: Sequence[Order]) -> list[Item]:
    """Return the items in an order; what has no value comes first, as in Exchange."""
    for order in reversed(orders):
        items.sort(key=lambda item, read=order.read: _sortable(read(item)), reverse=order.descending)  # type: ignore[misc]
    return items


def _sortable(value: Value) -> tuple[bool, object]:
    return (value is not None, value.casefold() if isinstance(value, str) else 0 if value is None else value)


def _page(total: int, paging: Paging, part: Callable[[int, int], Sequence[T]]) -> Page[T]:
    offset = min(paging.offset, total)
    if paging.from_end:
        stop = total - offset
        start = max(0, stop - paging.most)
        return Page(part(start, stop), offset + stop - start, total, start == 0)
    stop = min(total, offset + paging.most)
    return Page(part(offset, stop), stop, total, stop == total)
