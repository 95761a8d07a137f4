"""The benchmark's groups in which contenders meet: a backfill, one against a slow server, and one into the platform."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from benchmarks.contenders import Contest, ExchangelibSettings, FloorSettings, Run
from benchmarks.report import Goal, Table, figure, tell
from benchmarks.servers import Load, servers

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOOR, FLOOR_QUICK = "floor", "floor, our base64"
BEST, DEFAULTS = "exchangelib, best", "exchangelib, defaults"
JSONL, EML, PLATFORM = "into .jsonl", "into .eml", "into the platform"
_MOST_MIB = 128.0
_AT_ONCE = 27
"""Requests of one principal at the same time that Exchange 2013 and later allow (EWSMaxConcurrency)."""
_SIZE = 24_000

Contenders = Mapping[str, Callable[[], Run]]


@dataclass(frozen=True, slots=True)
class Row:
    """One contender's runs, and why others failed."""

    runs: tuple[Run, ...]
    failures: tuple[str, ...] = ()

    def median(self, name: str) -> float | None:
        """Give the median of one figure; None where no run succeeded."""
        return median(getattr(run, name) for run in self.runs) if self.runs else None


Rows = Mapping[str, Row]


def backfill(rounds: int) -> Table:
    """Four mailboxes, no latency."""
    load = Load(mailboxes=4, messages=1000, size=_SIZE, max_concurrent=_AT_ONCE)
    floors = [FloorSettings(*pair) for pair in ((40, 1), (80, 1), (80, 2), (160, 1))]
    peers = [ExchangelibSettings(*pair) for pair in ((1, 50), (1, 100), (1, 200), (2, 100), (4, 50), (8, 25))]
    rows, notes = _with_peers(load, (JSONL, EML), floors, peers, rounds)
    return Table(
        f"Backfill, 4 mailboxes x 1,000 emails of 24 KB, no latency; medians of {rounds}",
        *_figures(rows, {"x best": BEST, "x defaults": DEFAULTS, "x floor": FLOOR}, FLOOR),
        [
            Goal("emails/s into .jsonl, to exchangelib's best", _ratio(rows, "rate", JSONL, BEST), 15),
            Goal("emails/s into .jsonl, to the floor's", _ratio(rows, "rate", JSONL, FLOOR), 0.6),
            Goal(
                "processor time into .jsonl, to the floor's", _ratio(rows, "processor", JSONL, FLOOR), 1.7, at_most=True
            ),
            *_peaks(rows, (JSONL, EML)),
        ],
        notes,
    )


def latency(rounds: int) -> Table:
    """One mailbox on a server that answers 50 ms later."""
    load = Load(mailboxes=1, messages=2000, size=_SIZE, exchange_latency=0.05, max_concurrent=_AT_ONCE)
    floors = [FloorSettings(*pair) for pair in ((80, 8), (80, 25), (40, 16), (40, 27), (20, 27))]
    peers = [ExchangelibSettings(*pair) for pair in ((1, 100), (2, 100), (4, 50), (8, 50), (16, 100), (27, 25))]
    rows, notes = _with_peers(load, (JSONL,), floors, peers, rounds)
    return Table(
        f"One mailbox of 2,000 emails of 24 KB, the server answers 50 ms later; medians of {rounds}",
        *_figures(rows, {"x best": BEST, "x defaults": DEFAULTS, "x floor": FLOOR}, FLOOR, at_once=True),
        [
            Goal("emails/s into .jsonl, to exchangelib's best", _ratio(rows, "rate", JSONL, BEST), 12),
            *_peaks(rows, (JSONL,)),
        ],
        [f"At once: requests of the mailbox at the same time, at the most. The server allows {_AT_ONCE}.", *notes],
    )


def platform(rounds: int) -> Table:
    """Into the platform, which answers 20 ms later, by the default number of workers (8)."""
    load = Load(mailboxes=4, messages=1000, size=_SIZE, platform_latency=0.02, max_concurrent=_AT_ONCE)
    with tempfile.TemporaryDirectory() as name, servers(load, Path(name), apart=True) as both:
        contest = Contest(load, both, Path(name))
        rows = _rounds({JSONL: lambda: contest.ours("jsonl"), PLATFORM: lambda: contest.ours("platform")}, rounds)
    return Table(
        f"Into the platform at 20 ms, 8 workers, 4 mailboxes x 1,000 emails of 24 KB; medians of {rounds}",
        *_figures(rows, {"x .jsonl": JSONL}, JSONL),
        [
            Goal("emails/s into the platform, to those into .jsonl", _ratio(rows, "rate", PLATFORM, JSONL), 0.8),
            *_peaks(rows, (PLATFORM,)),
        ],
        _failures(rows),
    )


# --- How they meet ---------------------------------------------------------------------------------------------------


def _with_peers(
    load: Load,
    sinks: Sequence[str],
    floors: Sequence[FloorSettings],
    peers: Sequence[ExchangelibSettings],
    rounds: int,
) -> tuple[Rows, list[str]]:
    """Have the command, into each sink, meet the others, each with the best of the settings that are tried first."""
    with tempfile.TemporaryDirectory() as name, servers(load, Path(name)) as both:
        contest = Contest(load, both, Path(name))
        floor, best = _best(floors, contest.floor), _best(peers, contest.try_exchangelib)
        ours: Contenders = {sink: _into(contest, sink) for sink in sinks}
        rows = _rounds(
            {
                DEFAULTS: contest.exchangelib,
                BEST: lambda: contest.exchangelib(best),
                FLOOR: lambda: contest.floor(floor),
                FLOOR_QUICK: lambda: contest.floor(replace(floor, pybase64=True)),
                **ours,
            },
            rounds,
        )
    return rows, [f"Best of exchangelib: {best}. Best floor: {floor}.", *_failures(rows)]


def _into(contest: Contest, sink: str) -> Callable[[], Run]:
    return lambda: contest.ours(sink.removeprefix("into ."))


_Settings = TypeVar("_Settings", FloorSettings, ExchangelibSettings)


def _best(candidates: Sequence[_Settings], run: Callable[[_Settings], Run]) -> _Settings:
    """Try each of the settings once, and give the fastest: the first where none works, which then shows in its row."""
    rates = dict.fromkeys(candidates, 0.0)
    for settings in candidates:
        try:
            rates[settings] = run(settings).rate
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what fails is not the best
            tell(f"trying {settings}: failed: {error}")
        else:
            tell(f"trying {settings}: {figure(rates[settings])} emails/s")
    return max(candidates, key=rates.__getitem__)


def _rounds(contenders: Contenders, rounds: int) -> Rows:
    """Have each of them run once a round, so that what disturbs a machine for a while disturbs all of them."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    failures: dict[str, list[str]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, run in contenders.items():
            try:
                runs[name].append(run())
            except (Exception, SystemExit) as error:  # noqa: BLE001 - one that fails does not take the others with it
                failures[name].append(f"{type(error).__name__}: {error}")
                tell(f"round {number}, {name}: failed: {error}")
            else:
                tell(f"round {number}, {name}: {figure(runs[name][-1].rate)} emails/s")
    return {name: Row(tuple(runs[name]), tuple(failures[name])) for name in contenders}


# --- What is made of it ----------------------------------------------------------------------------------------------


def _figures(
    rows: Rows, rates: Mapping[str, str], base: str, *, at_once: bool = False
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Give the columns and the rows of a table: ratios of rates, by column, and of processor time to that of `base`."""
    columns: dict[str, Callable[[str], float | None]] = {"emails/s": lambda name: rows[name].median("rate")}
    for column, other in rates.items():
        columns[column] = partial(_ratio, rows, "rate", other=other)
    columns["ms/email"] = lambda name: rows[name].median("processor")
    columns[f"ms x {base.removeprefix('into ')}"] = partial(_ratio, rows, "processor", other=base)
    columns["server ms"] = lambda name: rows[name].median("server")
    columns["peak MiB"] = lambda name: rows[name].median("peak")
    if at_once:
        columns["at once"] = lambda name: rows[name].median("at_once")
    lines = [[name, *(figure(give(name)) for give in columns.values())] for name in rows]
    return ("", *columns), lines


def _ratio(rows: Rows, figure_name: str, one: str, other: str) -> float | None:
    above, below = rows[one].median(figure_name), rows[other].median(figure_name)
    return None if above is None or not below else above / below


def _peaks(rows: Rows, names: Sequence[str]) -> list[Goal]:
    return [
        Goal(f"peak memory {name}", rows[name].median("peak"), _MOST_MIB, at_most=True, unit=" MiB") for name in names
    ]


def _failures(rows: Rows) -> list[str]:
    return [
        f"{name}: {len(row.failures)} of {len(row.failures) + len(row.runs)} runs failed, at last with "
        f"{row.failures[-1].splitlines()[0]}"
        for name, row in rows.items()
        if row.failures
    ]
