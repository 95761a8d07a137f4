"""Reading a listing over a folder that changes all the while."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.engine.listing import ListingReader, Query
from ews_sync.engine.progress import BackfillEnded, Followed, Listed, digest, whole_second
from ews_sync.errors import Asks, ProtocolError
from ews_sync.model import Backfill, FolderCheckpoint, ItemRef, ListPage, Order

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def a_page(*refs: ItemRef, last: bool = False, total: int | None = None) -> ListPage:
    return ListPage(refs, last, total)


def a_ref(name: str, second: float | None, created: float | None = None) -> ItemRef:
    return ItemRef(
        name,
        received=None if second is None else at(second),
        created=None if created is None else at(created),
    )


@dataclass(slots=True)
class Shelf:
    """A folder as a server sorts it: by time, in an order of its own within one time."""

    dice: random.Random
    items: dict[str, ItemRef] = field(default_factory=dict)
    numbers: int = 0

    def put(self, moment: datetime) -> ItemRef:
        self.numbers += 1
        name = f"{self.dice.randrange(10**6):06}-{self.numbers}"
        ref = self.items[name] = ItemRef(name, received=moment)
        return ref

    def answer(self, query: Query, size: int) -> ListPage:
        if query.order is Order.CREATED:
            return a_page(last=True, total=0)
        rows = sorted(self.items.values(), key=lambda ref: (ref.received, ref.id))
        found = [ref for ref in rows if query.since is None or (ref.received or EPOCH) >= query.since]
        page = found[query.offset : query.offset + size]
        return ListPage(
            tuple(replace(ref, received=(ref.received or EPOCH).replace(microsecond=0)) for ref in page),
            query.offset + len(page) >= len(found),
            len(found),
        )


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    seconds=st.sampled_from([1, 3, 50]),
    count=st.integers(0, 120),
    most=st.sampled_from([1, 2, 3, 10, 100]),
    changes=st.sampled_from([0.0, 0.3, 0.9]),
    restarts=st.sampled_from([0.0, 0.2]),
)
def test_what_is_there_all_the_time_is_given_exactly_once(  # noqa: PLR0917 - what the property is about
    seed: int, seconds: int, count: int, most: int, changes: float, restarts: float
) -> None:
    """Whatever comes (by the feed, which notes it) and goes between any two pages, and however often it restarts."""
    dice = random.Random(seed)
    shelf = Shelf(dice)
    for _ in range(count):
        shelf.put(at(dice.random() * seconds))
    throughout = set(shelf.items)
    given_names: list[str] = []
    backfill = Backfill(until=at(seconds))
    checkpoint = FolderCheckpoint("f", ("F",), "mark", backfill=backfill)
    reader = ListingReader(backfill)
    # People pause at some time, or a server that gives one item a page would never be read to the end.
    left = 60
    while not reader.finished:
        new = reader.take(shelf.answer(reader.query(), dice.randint(1, most)))
        given_names += [ref.id for ref in new]
        checkpoint = Listed(tuple(new)).apply(checkpoint, at(10**6))
        while left and dice.random() < changes:
            left -= 1
            if shelf.items and dice.random() < 0.5:
                gone = dice.choice(sorted(shelf.items))
                del shelf.items[gone]
                throughout.discard(gone)
            else:
                ref = shelf.put(at(dice.random() * seconds))
                brought = replace(ref, received=whole_second(ref.received or EPOCH))
                reader.note(brought)
                checkpoint = Followed("cursor", (brought,)).apply(checkpoint, at(10**6))
        if left and dice.random() < restarts:
            left -= 1
            assert checkpoint.backfill is not None
            reader = ListingReader(checkpoint.backfill)
    assert len(given_names) == len(set(given_names)), "nothing twice"
    assert throughout <= set(given_names), "nothing left out"


def test_thousands_in_one_second_come_page_by_page() -> None:
    shelf = Shelf(random.Random(1))
    for _ in range(5000):
        shelf.put(at(0.5))
    reader = ListingReader(Backfill())
    pages = 0
    names: set[str] = set()
    while not reader.finished:
        pages += 1
        names |= {ref.id for ref in reader.take(shelf.answer(reader.query(), 250))}
    assert names == set(shelf.items)
    assert pages <= 5000 // 249 + 2


def test_an_item_that_comes_into_the_second_does_not_stand_for_one_that_was_listed() -> None:
    """Two go away before the offset and one that the feed brought comes behind: the page begins with that one."""
    reader = ListingReader(Backfill())
    a, b, c, d, x, e = (a_ref(name, 0) for name in "abcdxe")
    reader.take(a_page(a, b, c))
    assert reader.query() == Query(Order.RECEIVED, at(0), 0)
    reader.take(a_page(a, b, c))
    assert reader.query().offset == 2
    reader.note(x)
    # The folder is now c d x e.
    assert reader.take(a_page(x, e, last=True)) == []
    assert reader.query().offset == 0
    assert reader.take(a_page(c, d, x, e, last=True)) == [d, e]


def test_what_is_newer_than_the_mark_is_left_to_the_feed() -> None:
    reader = ListingReader(Backfill(until=at(5)))
    assert reader.take(a_page(a_ref("a", 4), a_ref("b", 5), a_ref("c", 6))) == [a_ref("a", 4), a_ref("b", 5)]
    assert reader.finished


def test_a_start_within_a_second_means_its_beginning() -> None:
    reader = ListingReader(Backfill(since=at(5.7)))
    assert reader.query().since == at(5)
    assert reader.take(a_page(a_ref("a", 5), last=True)) == [a_ref("a", 5)]


def test_a_server_that_does_not_sort_is_noticed() -> None:
    reader = ListingReader(Backfill())
    with pytest.raises(ProtocolError) as raised:
        reader.take(a_page(a_ref("a", 5), a_ref("b", 4)))
    assert raised.value.asks is Asks.STOP


def test_a_server_that_ignores_the_restriction_is_noticed() -> None:
    reader = ListingReader(Backfill(position=at(9)))
    with pytest.raises(ProtocolError):
        reader.take(a_page(a_ref("a", 5)))


def test_an_empty_page_that_is_not_the_last_is_refused() -> None:
    with pytest.raises(ProtocolError):
        ListingReader(Backfill()).take(a_page(last=False))


def test_a_server_that_never_says_last_on_the_last_page() -> None:
    reader = ListingReader(Backfill())
    for _ in range(20):
        query = reader.query()
        items = [a_ref("a", 0)] if query.offset == 0 else []
        reader.take(a_page(*items, last=not items))
        if reader.finished:
            break
    assert reader.finished


def test_a_server_that_shuffles_is_given_up() -> None:
    reader = ListingReader(Backfill())
    reader.take(a_page(a_ref("a", 0), a_ref("b", 0)))
    with pytest.raises(ProtocolError, match="different order"):
        _read_shuffled(reader)


def _read_shuffled(reader: ListingReader) -> None:
    for number in range(10_000):
        reader.take(a_page(a_ref(f"{number}", 0), a_ref(f"{number}x", 0)))


def test_undated_items_are_given_once_by_either_listing() -> None:
    reader = ListingReader(Backfill())
    undated = [a_ref(f"u{number}", None, number % 2) for number in range(4)]
    assert reader.take(a_page(undated[0], undated[1])) == undated[:2]
    assert reader.take(a_page(undated[1], undated[2])) == [undated[2]]
    assert reader.take(a_page(undated[2], a_ref("a", 9), last=True)) == [a_ref("a", 9)]
    assert reader.finished
    following = reader.undated()
    assert following.query() == Query(Order.CREATED, None, 0)
    following.note(undated[3])
    assert following.take(a_page(undated[0], undated[2], undated[1], undated[3], last=True)) == []
    assert following.finished


def test_a_restart_gives_nothing_again_that_is_confirmed() -> None:
    refs = [a_ref(name, second) for name, second in (("a", 1), ("b", 2), ("c", 2), ("d", 3))]
    checkpoint = FolderCheckpoint("f", ("F",), "mark", backfill=Backfill(until=at(9)))
    checkpoint = Listed(tuple(refs[:2])).apply(checkpoint, at(100))
    checkpoint = Followed("cursor", (refs[3],)).apply(checkpoint, at(100))
    assert checkpoint.backfill is not None
    assert checkpoint.backfill.position == at(2)
    reader = ListingReader(checkpoint.backfill)
    assert reader.query() == Query(Order.RECEIVED, at(2), 0)
    assert reader.take(a_page(*refs[1:], last=True)) == [refs[2]]


def test_what_lies_behind_the_position_is_forgotten() -> None:
    checkpoint = FolderCheckpoint("f", ("F",), "mark", backfill=Backfill(until=at(10**6)))
    for number in range(500):
        checkpoint = Listed((a_ref(f"r{number}", number),)).apply(checkpoint, at(10**6))
    assert checkpoint.backfill is not None
    assert dict(checkpoint.backfill.seen) == {at(499): frozenset({digest("r499")})}
    reader = ListingReader(Backfill())
    for number in range(500):
        reader.take(a_page(a_ref(f"r{number}", number), a_ref(f"s{number}", number + 1)))
    assert len(reader._seen) <= 2


def test_totals_shrink_and_do_not_grow() -> None:
    reader = ListingReader(Backfill(total=10))
    reader.take(a_page(a_ref("a", 0), a_ref("b", 1), total=15))
    assert reader.total == 10
    reader.take(a_page(a_ref("b", 1), a_ref("c", 2), total=5))
    assert reader.total == 6
    assert ListingReader(Backfill(done=3)).total == 0


def test_the_listing_of_undated_items_goes_on_counting() -> None:
    reader = ListingReader(Backfill(done=5))
    reader.take(a_page(a_ref("a", 0), a_ref("b", 1), total=2, last=True))
    following = reader.undated()
    following.take(a_page(a_ref("u", None, 1), last=True, total=1))
    assert following.total <= 8
    end = BackfillEnded(Order.RECEIVED)
    checkpoint = FolderCheckpoint("f", ("F",), "mark", backfill=Backfill(done=7))
    assert end.apply(checkpoint, at(1)).backfill == Backfill(done=7, order=Order.CREATED)
