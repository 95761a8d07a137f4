"""What one very large folder costs: the pass that marks it, memory, the catching up, and a start after a crash.

The command runs as a process against a folder with so many small messages, which are made when they are asked for. It
is killed in the middle of catching up (SIGKILL) and started again. `python -m benchmarks.million --items 1000000`;
a folder of 10,000 is measured beside it, because memory must not grow with the folder.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.appliance import WITHOUT_PAUSES, config_for, into_files, launched
from benchmarks.messages import PLAIN, message
from benchmarks.process import resident_bytes
from benchmarks.server_process import Served, server_process
from benchmarks.servers import PASSWORD, USER
from ews_sync.simulator.access import Account
from ews_sync.simulator.properties import parse_properties
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from benchmarks.appliance import Appliance
    from benchmarks.server_process import ServerProcess
    from ews_sync.simulator.properties import Properties

_ADDRESS = "box@bench.example"
SMALL_FOLDER, LARGE_FOLDER = 10_000, 1_000_000
_SIZE = 1500
_FETCHED = 20_000
"""How many emails are fetched before the crash, or half of the folder; after it, a quarter as many."""
_FIRST = datetime(2024, 1, 5, 8, tzinfo=UTC)
_APART = timedelta(seconds=45)
_LOOK = 0.02
_MIB = 2**20
_MARKS, _LISTS, _FETCHES = "SyncFolderItems", "FindItem", "GetItem"


@dataclass(frozen=True, slots=True)
class MillionFigures:
    """What a folder of so many items took. Times are in seconds, memory in MiB, and all but the first the appliance's.

    `server` is what the simulated server takes. The mark is the pass over all ids before anything is fetched:
    `mark_peak` is the highest resident set until its end, `mark_resident` the one at its end. `rate` (emails a second)
    and `processor` (milliseconds for an email) are those of catching up with `emails`, `peak` the highest resident set
    until the crash. After the crash, `resume` is the time from the start of the process until it fetches, with
    `resume_requests` before that, `again` is how many emails of before it fetches a second time, and `resume_peak` its
    highest resident set.
    """

    items: int
    server: float
    mark: float
    mark_processor: float
    mark_requests: int
    mark_peak: float
    mark_resident: float
    emails: int
    rate: float
    processor: float
    peak: float
    resume: float
    resume_requests: int
    again: int
    resume_peak: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=LARGE_FOLDER)
    arguments = parser.parse_args()
    for items in dict.fromkeys((min(SMALL_FOLDER, arguments.items), arguments.items)):
        _print(measure(items))


def measure(items: int, limit: float = 900.0) -> MillionFigures:
    """Measure a folder of so many items (100 at least). A million take some minutes, and the server 700 MiB.

    Raises `SystemExit` when the appliance does not do what it should, or any part of it takes longer than `limit` (s).
    """
    emails = min(_FETCHED, items // 2)
    with tempfile.TemporaryDirectory() as name, server_process(_serve, items) as server:
        directory, (url,) = Path(name), server.urls
        with _appliance(url, directory) as appliance:
            appliance.wait_until_listening(60)
            _wait(server, appliance, limit, lambda counts: counts[_MARKS] > 0)
            began, processor = time.monotonic(), appliance.processor
            # What comes next is a listing, or, where the mark has told enough, already the messages.
            counts = _wait(server, appliance, limit, lambda counts: counts[_LISTS] + counts[_FETCHES] > 0)
            marked, mark_processor = time.monotonic(), appliance.processor
            mark_peak, mark_resident = appliance.peak, resident_bytes(appliance.process.pid)
            appliance.wait_until_done(emails, limit)
            caught_up, done, caught_up_processor = time.monotonic(), appliance.done, appliance.processor
            peak = appliance.peak
            appliance.process.kill()
            appliance.process.wait(10)
        before: frozenset[str] = server.ask("fetched")
        server.ask("begin")
        started = time.monotonic()
        with _appliance(url, directory) as appliance:
            resumed = _wait(server, appliance, limit, lambda counts: counts[_FETCHES] > 0)
            resume = time.monotonic() - started
            appliance.wait_until_listening(60)
            appliance.wait_until_done(emails // 4, limit)
            resume_peak = appliance.peak
            again = len(before & server.ask("fetched"))
        return MillionFigures(
            items=items,
            server=server.peak / _MIB,
            mark=marked - began,
            mark_processor=mark_processor - processor,
            mark_requests=counts[_MARKS],
            mark_peak=mark_peak / _MIB,
            mark_resident=mark_resident / _MIB,
            emails=done,
            rate=done / (caught_up - marked),
            processor=1000 * (caught_up_processor - mark_processor) / done,
            peak=peak / _MIB,
            resume=resume,
            resume_requests=resumed.total() - resumed[_FETCHES],
            again=again,
            resume_peak=resume_peak / _MIB,
        )


def _print(found: MillionFigures) -> None:
    print(f"{found.items:,} items in a folder (the server takes {found.server:.0f} MiB)")
    print(
        f"  mark      {found.mark:.2f} s, {found.mark_processor:.2f} s of processor, {found.mark_requests} requests; "
        f"peak {found.mark_peak:.1f} MiB, {found.mark_resident:.1f} at its end"
    )
    print(
        f"  catch up  {found.emails} emails, {found.rate:.0f} a second, {found.processor:.3f} ms of processor each; "
        f"peak {found.peak:.1f} MiB"
    )
    print(
        f"  crash     fetches after {found.resume:.2f} s and {found.resume_requests} requests, "
        f"{found.again} emails again; peak {found.resume_peak:.1f} MiB",
        flush=True,
    )


# --- The appliance ---------------------------------------------------------------------------------------------------


def _appliance(url: str, directory: Path) -> AbstractContextManager[Appliance]:
    config = config_for(
        url,
        [_ADDRESS],
        options={**WITHOUT_PAUSES, "emails_per_folder": 100_000},
        of_each={"folder_allowlist": [["Inbox"]]},
    )
    return launched(config, into_files(directory), directory)


def _wait(
    server: ServerProcess, appliance: Appliance, limit: float, condition: Callable[[Counter[str]], bool]
) -> Counter[str]:
    """Wait until the server's requests, counted by operation, are as they should be, and give them."""
    end = time.monotonic() + limit
    counts: Counter[str]
    while not condition(counts := server.ask("counts")):
        if appliance.process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the appliance does not ask for what it should ({counts}):\n{appliance.tail()}")
        time.sleep(_LOOK)
    return counts


# --- The server, in a process of its own -----------------------------------------------------------------------------


class _Small:
    """A small message that is made when it is asked for, and never kept: there are a million of them."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def mime(self) -> bytes:
        """Make the message: the same bytes each time."""
        return message(PLAIN, _ADDRESS, self._number, _SIZE)

    def properties(self) -> Properties:
        """Say what its headers say."""
        return parse_properties(self.mime())


@asynccontextmanager
async def _serve(items: int) -> AsyncIterator[Served]:
    exchange = Exchange()
    inbox = exchange.create_mailbox(_ADDRESS).folder("Inbox")
    gc.disable()
    for number in range(items):
        inbox.deliver(_Small(number), received=_FIRST + number * _APART, item_class="IPM.Note")
    # What is there stays there: to look through it for garbage would take longer than the answers.
    gc.freeze()
    gc.enable()
    async with ExchangeServer(exchange, accounts=[Account(USER, PASSWORD, may_impersonate=True)]) as server:

        def fetched() -> frozenset[str]:
            return frozenset(identity for record in server.log.of(_FETCHES) for identity in record.item_ids)

        answers = {"begin": server.log.clear, "counts": lambda: Counter(server.log.counts), "fetched": fetched}
        yield Served((server.url,), answers)


if __name__ == "__main__":
    main()
