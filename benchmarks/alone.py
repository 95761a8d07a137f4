"""The benchmark's groups in which the command runs alone: quiet mailboxes, one very large folder, and the start."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from benchmarks import million, quiet, start
from benchmarks.report import Goal, Table, figure, tell
from ews_sync.settings.values import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.million import MillionFigures
    from benchmarks.quiet import QuietFigures

_MAILBOXES_AT_START = 10
_MOST_MIB = 128.0
_ALL = 50_000
_SHARE_FOR_LOOKING = 0.5
"""Of a core, for looking for new mail: the rest is for what is found, and for what is not planned."""


def quiet_mailboxes() -> list[Table]:
    """Measure mailboxes in which nothing happens, and work out what 50,000 of them take."""
    few, many = _quiet(quiet.FEW), _quiet(quiet.MANY)
    columns = (
        "mailboxes",
        "% of a core",
        "ms/mailbox and round",
        "requests",
        "others",
        "busiest s",
        "peak MiB",
        "end MiB",
    )
    rows = [
        (
            figure(one.mailboxes),
            figure(100 * one.share),
            figure(one.processor),
            figure(one.requests),
            figure(one.other_requests),
            figure(one.in_one_second),
            figure(one.peak),
            figure(one.resident),
        )
        for one in (few, many)
    ]
    goals = [
        Goal(f"share of a core, {quiet.FEW} mailboxes", 100 * few.share, 4, at_most=True, unit=" %"),
        Goal(f"peak memory, {quiet.FEW} mailboxes", few.peak, 100, at_most=True, unit=" MiB"),
        Goal(f"requests a mailbox and round, {quiet.FEW} mailboxes", _to_the_round(few), 1, at_most=True),
        Goal(f"requests a mailbox and round, {quiet.MANY:,} mailboxes", _to_the_round(many), 1, at_most=True),
        Goal("processor time a mailbox and round, many to few", many.processor / few.processor, 1.1, at_most=True),
        Goal(f"peak memory, {quiet.MANY:,} mailboxes", many.peak, 150, at_most=True, unit=" MiB"),
    ]
    title = f"Quiet mailboxes, a round every {figure(Pace().poll_frequency)} s; {quiet.ROUNDS} rounds"
    notes = ["Requests are for a mailbox and round; others are all but the look for new mail, in all rounds together."]
    return [Table(title, columns, rows, goals, notes), on_paper(few, many)]


def on_paper(few: QuietFigures, many: QuietFigures) -> Table:
    """Work out from two measurements what a shard carries, and what 50,000 mailboxes need."""
    each = (many.peak - few.peak) / (many.mailboxes - few.mailboxes)
    by_memory = few.mailboxes + (_MOST_MIB - few.peak) / each if each > 0 else float(_ALL)
    rows: list[Sequence[str]] = []
    for seconds in (Pace().poll_frequency, 30.0, 60.0):
        cores = many.processor / 1000 / seconds
        by_processor = _SHARE_FOR_LOOKING / cores
        carried = max(1, int(min(by_processor, by_memory, _ALL)))
        rows.append(
            (
                figure(seconds),
                figure(float(int(by_processor))),
                figure(float(int(by_memory))),
                figure(ceil(_ALL / carried)),
                figure(_ALL * cores),
                figure(_ALL / seconds),
            )
        )
    return Table(
        f"On paper: {_ALL:,} mailboxes",
        (
            "`poll_frequency` s",
            f"mailboxes a shard, {_SHARE_FOR_LOOKING:g} core",
            f"mailboxes a shard, {_MOST_MIB:g} MiB",
            "shards",
            "cores in all",
            "requests/s in all",
        ),
        rows,
        notes=[f"Memory: {figure(1024 * each)} KiB for each further mailbox."],
    )


_OF_A_FOLDER: Mapping[str, Callable[[MillionFigures], float]] = {
    "the mark pass, seconds": lambda found: found.mark,
    "its processor time, seconds": lambda found: found.mark_processor,
    "its requests": lambda found: found.mark_requests,
    "peak memory until its end, MiB": lambda found: found.mark_peak,
    "backfill, emails/s": lambda found: found.rate,
    "backfill, ms/email": lambda found: found.processor,
    "peak memory until the crash, MiB": lambda found: found.peak,
    "start after the crash until it fetches, seconds": lambda found: found.resume,
    "requests before that": lambda found: found.resume_requests,
    "emails fetched a second time": lambda found: found.again,
    "peak memory after the crash, MiB": lambda found: found.resume_peak,
}


def large_folder() -> list[Table]:
    """Measure a folder of a million items beside one of 10,000."""
    tell(f"a folder of {million.SMALL_FOLDER:,} items, and one of {million.LARGE_FOLDER:,}")
    small, large = million.measure(million.SMALL_FOLDER), million.measure(million.LARGE_FOLDER)
    rows = [(what, figure(give(small)), figure(give(large))) for what, give in _OF_A_FOLDER.items()]
    goals = [
        Goal("peak memory", max(large.peak, large.resume_peak), _MOST_MIB, at_most=True, unit=" MiB"),
        Goal("growth of the peak with the folder", _growth(small, large), 8, at_most=True, unit=" MiB"),
    ]
    columns = ("items in the folder", figure(small.items), figure(large.items))
    return [Table("One very large folder, killed while it catches up", columns, rows, goals)]


def starting() -> list[Table]:
    """Measure how long it takes to start."""
    tell(f"starting, with {_MAILBOXES_AT_START} mailboxes")
    found = start.measure(_MAILBOXES_AT_START)
    rows = [
        ("`reinfer-ews --version`", figure(found.version), ""),
        (f"until /readyz, {_MAILBOXES_AT_START} mailboxes", figure(found.ready), figure(found.processor)),
    ]
    goals = [
        Goal("`reinfer-ews --version`", found.version, 0.3, at_most=True, unit=" s"),
        Goal(f"until /readyz, {_MAILBOXES_AT_START} mailboxes", found.ready, 1.5, at_most=True, unit=" s"),
    ]
    return [Table("Start", ("", "seconds", "of processor"), rows, goals)]


def _quiet(mailboxes: int) -> QuietFigures:
    tell(f"{mailboxes:,} quiet mailboxes, for some minutes")
    return quiet.measure(mailboxes, quiet.ROUNDS)


def _to_the_round(found: QuietFigures) -> float:
    """Give the requests of a mailbox in a round. Some rounds are cut by the beginning or the end of the measurement."""
    return round(found.requests, 2)


def _growth(small: MillionFigures, large: MillionFigures) -> float:
    return max(large.mark_peak - small.mark_peak, large.peak - small.peak)
