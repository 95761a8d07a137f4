"""The pure parts: effects on checkpoints, the ledger, the feed's plans, searches, watches, troubles, waits, shards."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from ews_sync.engine.backoff import Backoff
from ews_sync.engine.feed import FeedPlan, plan_feed
from ews_sync.engine.ledger import Ledger, Step
from ews_sync.engine.progress import BackfillEnded, Followed, Listed, Marked, digest
from ews_sync.engine.search import backfill_for
from ews_sync.engine.sharding import shard_of
from ews_sync.engine.troubles import FolderTroubles
from ews_sync.engine.watch import SWEEP_EVERY, FolderWatch
from ews_sync.errors import (
    Asks,
    AuthenticationError,
    CursorRejectedError,
    FolderGoneError,
    ProtocolError,
    SourceError,
)
from ews_sync.model import (
    Backfill,
    Change,
    ChangeKind,
    Folder,
    FolderActivity,
    FolderCheckpoint,
    FolderStatus,
    ItemRef,
    MailboxCheckpoint,
    Order,
    Recall,
)

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, 0, 0, 0, 500, tzinfo=UTC)


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def a_ref(name: str, second: float | None = 0, **more: object) -> ItemRef:
    return ItemRef(name, received=None if second is None else at(second), **more)  # type: ignore[arg-type]


def a_folder(**more: object) -> FolderCheckpoint:
    return FolderCheckpoint("f", ("F",), **more)  # type: ignore[arg-type]


def digests(*names: str) -> frozenset[str]:
    return frozenset(map(digest, names))


# --- Effects ---------------------------------------------------------------------------------------------------------


def test_a_folders_life() -> None:
    folder = Marked("mark", Backfill(until=at(10), total=2)).apply(a_folder(), NOW)
    assert folder.status is FolderStatus.IN_PROGRESS
    folder = Listed((a_ref("a", 3),), digests("draft"), 2).apply(folder, NOW)
    assert folder.synced_until == at(3)
    assert folder.drafts == digests("draft")
    folder = Followed("next", (a_ref("new", 20),), no_drafts=digests("draft")).apply(folder, NOW)
    assert (folder.cursor, folder.newest, folder.synced_until) == ("next", at(20), at(3))
    assert not folder.drafts
    folder = BackfillEnded(Order.RECEIVED).apply(folder, NOW)
    assert folder.synced_until == at(20)
    folder = BackfillEnded(Order.CREATED).apply(folder, NOW)
    assert folder.status is FolderStatus.UP_TO_DATE
    assert Followed("last", (a_ref("newer", 30),)).apply(folder, NOW).synced_until == at(30)


def test_an_empty_folder_is_up_to_date_once_it_is_marked() -> None:
    assert Marked("mark", None).apply(a_folder(), NOW).status is FolderStatus.UP_TO_DATE


def test_synced_until_never_lies_in_the_future() -> None:
    future = ItemRef("x", received=NOW + timedelta(days=1))
    folder = Followed("c", (future,)).apply(a_folder(), NOW)
    assert folder.synced_until == NOW.replace(microsecond=0)
    listing = a_folder(cursor="c", backfill=Backfill())
    assert Listed((future,)).apply(listing, NOW).synced_until == NOW.replace(microsecond=0)


def test_done_never_exceeds_total() -> None:
    folder = a_folder(backfill=Backfill(total=1))
    for number in range(3):
        folder = Listed((a_ref(f"{number}", number),), total=1).apply(folder, NOW)
    assert folder.backfill is not None
    assert folder.backfill.done == folder.backfill.total == 3


def test_effects_on_a_backfill_that_is_over_change_nothing() -> None:
    folder = a_folder(cursor="c")
    assert Listed((a_ref("a"),)).apply(folder, NOW) == folder
    assert BackfillEnded(Order.RECEIVED).apply(folder, NOW) == folder


def test_undated_items_that_the_feed_brings_are_not_listed_again() -> None:
    folder = a_folder(backfill=Backfill(order=Order.CREATED, until=at(5)))
    folder = Followed("c", (ItemRef("u", created=at(9)),)).apply(folder, NOW)
    assert folder.backfill is not None
    assert folder.backfill.seen == {at(9): digests("u")}


# --- Ledger ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
def test_whatever_order_work_finishes_in_the_checkpoint_moves_in_the_order_of_reading(seed: int, count: int) -> None:
    dice = random.Random(seed)
    folders = [Folder(name, (name,)) for name in "ab"]
    ledger = Ledger(MailboxCheckpoint())
    work = []
    for number in range(count):
        step = ledger.begin(dice.choice(folders))
        emails = dice.randrange(4)
        ledger.expect(step, emails)
        work += [(number, step, "email")] * emails + [(number, step, "seal")]
    expected = _prefixes(work, count)
    dice.shuffle(work)
    left = {number: sum(1 for other, _, _ in work if other == number) for number in range(count)}
    for number, step, what in work:
        left[number] -= 1
        if what == "seal":
            ledger.seal(step, Followed(f"cursor {number}"), NOW)
        else:
            ledger.confirm(step, 1, NOW, f"position {number}")
        done = next((at for at in range(count) if left[at]), count)
        assert ledger.checkpoint == expected[done]
    assert ledger.empty


def _prefixes(work: list[tuple[int, Step, str]], count: int) -> list[MailboxCheckpoint]:
    """What the checkpoint is when the first n steps are confirmed, had they been done one after the other."""
    ledger = Ledger(MailboxCheckpoint())
    prefixes = [ledger.checkpoint]
    for number in range(count):
        parts = [(step, what) for other, step, what in work if other == number]
        step = ledger.begin(parts[0][0].folder)
        emails = sum(1 for _, what in parts if what == "email")
        ledger.expect(step, emails)
        for _ in range(emails):
            ledger.confirm(step, 1, NOW, f"position {number}")
        assert ledger.seal(step, Followed(f"cursor {number}"), NOW)
        prefixes.append(ledger.checkpoint)
    return prefixes


def test_a_dropped_folder_does_not_hold_up_the_others_and_late_confirmations_count_for_nothing() -> None:
    ledger = Ledger(MailboxCheckpoint())
    bad, good = Folder("bad", ("Bad",)), Folder("good", ("Good",))
    stuck, after = ledger.begin(bad), ledger.begin(good)
    ledger.expect(stuck, 2)
    assert not ledger.seal(after, Followed("good cursor"), NOW)
    dropped = ledger.drop("bad", NOW)
    assert dropped.moved
    assert dropped.begun
    assert set(ledger.checkpoint.folders) == {"good"}
    assert not ledger.confirm(stuck, 2, NOW, "late")
    assert not ledger.seal(stuck, Followed("bad cursor"), NOW)
    assert set(ledger.checkpoint.folders) == {"good"}
    assert ledger.checkpoint.sink_position is None
    assert ledger.drop("bad", NOW).begun is False


def test_an_abandoned_step_moves_nothing() -> None:
    ledger = Ledger(MailboxCheckpoint())
    step = ledger.begin(Folder("f", ("F",)))
    ledger.expect(step, 1)
    ledger.seal(step, Followed("c"), NOW)
    ledger.abandon()
    assert step.dropped
    assert not ledger.confirm(step, 1, NOW)
    assert ledger.checkpoint == MailboxCheckpoint()


def test_the_path_of_a_folder_that_was_renamed_is_kept_up() -> None:
    ledger = Ledger(MailboxCheckpoint({"f": a_folder(cursor="c")}))
    ledger.seal(ledger.begin(Folder("f", ("New",))), Followed("d"), NOW)
    assert ledger.checkpoint.folders["f"].folder_path == ("New",)


# --- Feed ------------------------------------------------------------------------------------------------------------

CREATED, UPDATED, DELETED, FLAGGED = ChangeKind.CREATED, ChangeKind.UPDATED, ChangeKind.DELETED, ChangeKind.FLAGGED
MAIL, DRAFT = a_ref("m", 100), a_ref("m", 100, is_draft=True)


@pytest.mark.parametrize(
    ("changes", "known", "read", "fetched", "drafts", "no_drafts"),
    [
        ([(CREATED, MAIL)], "", "", "m", "", ""),
        ([(CREATED, a_ref("m", 100, is_mail=False))], "", "", "", "", ""),
        ([(CREATED, a_ref("m", 1))], "", "", "", "", ""),
        ([(CREATED, ItemRef("m", created=at(1)))], "", "", "", "", ""),
        ([(CREATED, ItemRef("m"))], "", "", "m", "", ""),
        ([(CREATED, MAIL)], "", "m", "", "", ""),
        ([(CREATED, MAIL), (DELETED, MAIL)], "", "", "", "", ""),
        ([(CREATED, MAIL), (CREATED, MAIL)], "", "", "m", "", ""),
        ([(UPDATED, MAIL)], "", "", "", "", ""),
        ([(FLAGGED, MAIL)], "m", "", "", "", ""),
        ([(CREATED, DRAFT)], "", "", "", "m", ""),
        ([(CREATED, DRAFT), (UPDATED, MAIL)], "", "", "m", "", "m"),
        ([(UPDATED, MAIL)], "m", "", "m", "", "m"),
        ([(UPDATED, DRAFT)], "m", "", "", "", ""),
        ([(UPDATED, MAIL), (UPDATED, MAIL)], "m", "", "m", "", "m"),
        ([(CREATED, MAIL)], "m", "m", "", "", "m"),
        ([(UPDATED, MAIL)], "m", "m", "", "", "m"),
        ([(DELETED, ItemRef("m"))], "m", "", "", "", "m"),
        ([(CREATED, DRAFT), (DELETED, ItemRef("m"))], "", "", "", "", "m"),
    ],
)
def test_what_changes_ask_for(  # noqa: PLR0917 - a table
    changes: list[tuple[ChangeKind, ItemRef]], known: str, read: str, fetched: str, drafts: str, no_drafts: str
) -> None:
    plan = plan_feed(
        [Change(kind, ref) for kind, ref in changes],
        start=at(50),
        known_drafts=digests(*known),
        already_read=digests(*read),
    )
    assert [ref.id for ref in plan.fetch] == list(fetched)
    assert (plan.drafts, plan.no_drafts) == (digests(*drafts), digests(*no_drafts))


def test_a_draft_that_nobody_has_read_and_that_is_sent() -> None:
    sent = a_ref("d", 90, created=at(10))

    def plan(start: datetime | None, until: datetime | None, read: str = "") -> FeedPlan:
        return plan_feed(
            [Change(UPDATED, sent)], start=start, listed_until=until, known_drafts=(), already_read=digests(*read)
        )

    assert plan(None, at(50)).fetch == (sent,)
    assert plan(at(50), None).fetch == (sent,)
    assert plan(None, None).fetch == ()
    assert plan(None, at(5)).fetch == (sent,), "made after the newest mail, and perhaps before the mark"
    assert plan(None, at(95)).fetch == (), "the listing will come to it"
    assert plan(None, at(90)).fetch == (sent,), "the last page may have been listed in this second, and before it"
    assert plan(None, at(90), read="d").fetch == (), "or after it"


# --- Searching -------------------------------------------------------------------------------------------------------

OVERLAP = timedelta(minutes=10)


@pytest.mark.parametrize("recall", list(Recall))
def test_a_new_folder_is_read_from_the_start(recall: Recall) -> None:
    assert backfill_for(None, start=at(5), overlap=OVERLAP, recall=recall) == Backfill(since=at(5))


@pytest.mark.parametrize("recall", list(Recall))
def test_a_folder_that_had_no_received_times_is_read_from_the_start_and_compared(recall: Recall) -> None:
    for before in (a_folder(), a_folder(backfill=Backfill(order=Order.CREATED))):
        found = backfill_for(before, start=at(5), overlap=OVERLAP, recall=recall)
        assert found == Backfill(since=at(5), verify=recall is not Recall.NOTHING)


def test_a_sink_that_recalls_everything_lets_everything_be_looked_through() -> None:
    for before in (a_folder(synced_until=at(9)), a_folder(backfill=Backfill(position=at(9)))):
        found = backfill_for(before, start=at(5), overlap=OVERLAP, recall=Recall.EVERYTHING)
        assert found == Backfill(since=at(5), verify=True)


@pytest.mark.parametrize("recall", [Recall.NOTHING, Recall.ONE_BY_ONE])
def test_for_other_sinks_the_search_begins_a_little_before(recall: Recall) -> None:
    def found(before: FolderCheckpoint) -> Backfill:
        return backfill_for(before, start=at(5), overlap=OVERLAP, recall=recall)

    verify = recall is Recall.ONE_BY_ONE
    assert found(a_folder(synced_until=at(3600))) == Backfill(since=at(3000), verify=verify)
    assert found(a_folder(synced_until=at(60))) == Backfill(since=at(5), verify=verify)
    unfinished = Backfill(since=at(5), position=at(70), until=at(80), done=3, total=9)
    assert found(a_folder(synced_until=at(60), backfill=unfinished)) == Backfill(since=at(5), position=at(70), done=3)
    undated = Backfill(order=Order.CREATED, since=at(5))
    expected = Backfill(since=at(5), position=at(3000), verify=verify)
    assert found(a_folder(synced_until=at(3600), backfill=undated)) == expected
    assert found(a_folder(backfill=undated)) == Backfill(since=at(5), verify=verify)


# --- Watching --------------------------------------------------------------------------------------------------------


def activity(second: int, deleted: int = 0) -> FolderActivity:
    return FolderActivity(at(second).isoformat(), str(deleted), 1)


def test_a_quiet_folder_is_read_twice_and_then_left_until_the_sweep() -> None:
    watch = FolderWatch()
    for now in (0.0, 15.0):
        assert watch.must_read(activity(0), now)
        watch.was_read(activity(0), now, now)
    assert not watch.must_read(activity(0), 30.0)
    assert watch.must_read(activity(1), 30.0)
    assert watch.must_read(activity(0, deleted=1), 30.0)
    assert watch.must_read(None, 30.0)
    assert watch.must_read(activity(0), 15.0 + SWEEP_EVERY)
    watch.forget()
    assert watch.must_read(activity(0), 30.0)


@given(
    changes=st.lists(st.integers(0, 400), max_size=8),
    looks=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=40),
    offset=st.integers(0, 9),
)
def test_no_change_is_missed_for_long_however_slow_the_server_answers(
    changes: list[int], looks: list[tuple[int, int, int]], offset: int
) -> None:
    """Times are tenths of seconds. The look is answered some time after it is asked, and the feed read later still."""
    watch = FolderWatch()
    now, read_at = 0, -1
    for pause, answer, reading in [*looks, (100, 0, 0), (100, 0, 0), (100, 0, 0)]:
        now += pause
        told_at = now + answer // 2
        last = max((change for change in changes if change <= told_at), default=-1000)
        seen = FolderActivity(str((last + offset) // 10), "0", 1)
        now += answer
        if watch.must_read(seen, now / 10):
            now += reading
            read_at = now
            watch.was_read(seen, (now - reading) / 10, now / 10)
        else:
            assert not [change for change in changes if read_at < change <= told_at]


# --- Troubles --------------------------------------------------------------------------------------------------------

SICK, NONSENSE = SourceError("sick"), ProtocolError("nonsense")


def troubles() -> FolderTroubles:
    known = FolderTroubles(lambda: 0.0)
    known.begin_round(0.0)
    return known


def test_one_folder_fails_and_rests_longer_each_time() -> None:
    known = troubles()
    now = 0.0
    waits = []
    for _ in range(9):
        assert not known.failed("f", SICK, now)
        assert known.is_out("f")
        begin = now
        while known.is_out("f"):
            now += 1.0
            known.begin_round(now)
        waits.append(now - begin)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    known.well("f")
    assert not known.failed("f", SICK, now)
    known.begin_round(now + 5)
    assert not known.is_out("f")


def test_two_in_a_row_are_the_mailbox_and_neither_rests() -> None:
    known = troubles()
    assert not known.failed("f", SICK, 0.0)
    assert known.failed("g", SICK, 0.0)
    known.begin_round(0.0)
    assert not known.is_out("f")
    assert not known.failed("f", SICK, 0.0)
    known.well("h")
    assert not known.failed("g", SICK, 0.0)


def test_what_speaks_of_a_folder_never_counts_against_the_mailbox() -> None:
    known = troubles()
    for name in "fgh":
        assert not known.failed(name, NONSENSE, 0.0)
    assert not known.failed("i", CursorRejectedError("forgotten"), 0.0)
    assert not known.failed("j", FolderGoneError("gone"), 0.0)
    assert known.everywhere(5) is None


def test_what_speaks_of_the_process_does_so_at_once() -> None:
    assert troubles().failed("f", AuthenticationError("no"), 0.0)


def test_the_only_folder_is_the_mailbox() -> None:
    known = troubles()
    assert known.everywhere(1) is None
    assert known.everywhere(0) is None
    known.failed("f", SICK, 0.0)
    assert known.everywhere(2) is None
    assert known.everywhere(1) is SICK
    known.begin_round(0.0)
    assert not known.is_out("f")


def test_what_an_operator_must_mend_is_tried_once_a_minute() -> None:
    known = troubles()
    known.failed("f", SourceError("denied", asks=Asks.STOP), 0.0)
    known.begin_round(59.0)
    assert known.is_out("f")
    known.begin_round(61.0)
    assert not known.is_out("f")


def test_a_folder_that_is_left_out_takes_part_again_in_the_next_round() -> None:
    known = troubles()
    known.leave_out("f")
    assert known.is_out("f")
    known.well("f")
    assert known.is_out("f")
    known.begin_round(0.0)
    assert not known.is_out("f")


# --- Waits and shards ------------------------------------------------------------------------------------------------


def test_waits_double_up_to_the_longest_and_begin_again() -> None:
    backoff = Backoff(0.5, 60.0, lambda: 0.0)
    assert [backoff.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.failures == 9
    backoff.reset()
    assert backoff.next() == 0.5
    for _ in range(5000):
        assert backoff.next() <= 60.0


@given(jitter=st.floats(0, 1))
def test_jitter_shortens_by_up_to_a_third(jitter: float) -> None:
    assert 2.0 - 1e-9 <= Backoff(3.0, 60.0, lambda: jitter).next() <= 3.0


def test_shards_are_what_they_always_were() -> None:
    """A new version must not move a mailbox to another instance."""
    known = {"a@example.com": 4, "b@example.com": 0, "alice@corp.example": 1, "ünï@example.com": 1}
    assert {address: shard_of(address, 5) for address in known} == known
    assert shard_of("A@Example.COM", 5) == shard_of("a@example.com", 5)


@given(addresses=st.lists(st.text(min_size=1), unique=True), total=st.integers(1, 9))
def test_each_mailbox_is_in_exactly_one_shard(addresses: list[str], total: int) -> None:
    for address in addresses:
        assert 0 <= shard_of(address, total) < total
