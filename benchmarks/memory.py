"""What the appliance takes of memory, whatever the mail looks like. `make memory`; exits with 1 above the limit.

The real command runs as a process of its own, once for each line of the table, as the image runs it; then what it has
stored is compared with what there was to store.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.appliance import AS_THE_IMAGE, appliance
from benchmarks.messages import MAKERS, PLAIN
from benchmarks.servers import Load, servers
from benchmarks.stored import compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.appliance import Appliance

LIMIT = 128 * 1024 * 1024
"""Bytes that the process may take at most."""
_MIB = 1024 * 1024
_LARGE = 1_000_000
"""From this size on, what is stored is compared byte for byte; of smaller messages the ids are."""
_WITHIN = 600.0
_STARTS_WITHIN = 30.0
SINKS = ("eml", "jsonl", "platform")
_HOSTILE = tuple(kind for kind in MAKERS if kind != PLAIN)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of mail; `sinks` are where it goes."""

    name: str
    load: Load
    sinks: tuple[str, ...] = SINKS


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: emails a second, bytes at most and how many more at its end than at half of it, open files at most."""

    rate: float
    peak: int
    growth: int
    descriptors: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=50_000, help="how many small emails (default: %(default)s)")
    parser.add_argument("--large", type=int, default=150_000_000, help="bytes of the largest (default: %(default)s)")
    parser.add_argument("--only", default="", help="measure the lines whose names have this in them")
    parser.add_argument("--sinks", nargs="+", default=SINKS, choices=SINKS, help="where the mail goes")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="variables besides the image's")
    options = parser.parse_args()
    variables = {**AS_THE_IMAGE, **dict(text.split("=", 1) for text in options.set)}
    print(f"{'mail':<48}{'into':<10}{'emails/s':>9}{'peak MiB':>10}{'growth MiB':>12}{'files':>7}")
    worst = 0
    started = time.monotonic()
    for row in _rows(options.small, options.large):
        for sink in row.sinks:
            if options.only in row.name and sink in options.sinks:
                figures = _measure(row.load, sink, variables)
                worst = max(worst, figures.peak)
                print(
                    f"{row.name:<48}{sink:<10}{figures.rate:>9.1f}{figures.peak / _MIB:>10.1f}"
                    f"{figures.growth / _MIB:>12.1f}{figures.descriptors:>7}",
                    flush=True,
                )
    print(f"everything arrived; {time.monotonic() - started:.0f} s in all; {worst / _MIB:.1f} MiB at most")
    if worst > LIMIT:
        raise SystemExit(f"a peak is above the limit of {LIMIT / _MIB:.0f} MiB")


def _rows(small: int, large: int) -> Iterator[Row]:
    largest = Load(mailboxes=1, messages=1, size=large)
    size = f"{large // 10**6} MB"
    yield Row(f"one of {size}", largest)
    yield Row(f"20 of {large * 2 // 15 // 10**6} MB", Load(mailboxes=1, messages=20, size=large * 2 // 15))
    yield Row(f"{small:,} of 2 KB", Load(mailboxes=1, messages=small, size=2_000))
    yield Row("4 mailboxes x 1,000 of 24 KB", Load(mailboxes=4, messages=1000, size=24_000))
    yield Row("20 mailboxes x 800 of 24 KB", Load(mailboxes=20, messages=800, size=24_000))
    for kind in _HOSTILE:
        # Files hold the message as it is; what it costs to make JSON of it shows at the platform as in lines.
        yield Row(f"one of {size}, {kind}", replace(largest, kinds=(kind,)), ("platform",))
    yield Row(f"twelve of {large // 10**7} MB, of these six kinds", Load(1, 12, large // 10, kinds=_HOSTILE))
    yield Row("40 mailboxes x 10 of 1 MB that say 1 byte", Load(40, 10, 1_000_000, claimed=1), ("eml", "platform"))
    yield Row(f"one of {size} that says 1 byte", replace(largest, claimed=1), ("platform",))
    yield Row("2,000 of 24 KB that say 2 GB", Load(1, 2000, 24_000, claimed=2**31 - 1), ("eml",))
    yield Row("2,000 of 24 KB, 6 uploads fail", Load(4, 500, 24_000, failures=6), ("platform",))


def _measure(load: Load, sink: str, variables: Mapping[str, str]) -> Figures:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            servers(load, directory) as both,
            appliance(load, sink, both, directory, variables) as running,
        ):
            running.wait_until_listening(_STARTS_WITHIN)
            started = time.monotonic()
            running.wait_until_done(load.emails, _WITHIN)
            rate = load.emails / (time.monotonic() - started)
            # What stays when there is nothing to do counts as well.
            running.sample()
            figures = Figures(rate, running.peak, _growth(running, load.emails), running.descriptors)
            if running.dead_letters:
                raise SystemExit(f"{running.dead_letters} emails became dead letters:\n{running.tail()}")
        compare(load, sink, directory, with_content=load.size >= _LARGE)
        return figures


def _growth(running: Appliance, emails: int) -> int:
    """Give how much more it took in the last tenth of the mail than in the sixth: nothing may grow with the mail."""
    tenths: dict[int, list[int]] = {}
    for done, size in running.resident:
        tenths.setdefault(min(9, done * 10 // emails), []).append(size)
    if 5 not in tenths or 9 not in tenths:
        return 0
    return round(median(tenths[9]) - median(tenths[5]))


if __name__ == "__main__":
    main()
