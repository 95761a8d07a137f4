"""What one very large folder costs: the pass that marks it, memory, the catching up, and a start after a crash.

The command runs as a process against a folder with so many small messages, which are made when they are asked for. It
is killed in the middle of catching up (SIGKILL) and started again. `python -m benchmarks.million --items 1000000`;
a folder of 10,000 is measured beside it, because memory must not grow with the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.appliance import AS_THE_IMAGE, COMMAND, Appliance
from benchmarks.messages import PLAIN, message
from benchmarks.process import peak_bytes, resident_bytes
from ews_sync.simulator.access import Account
from ews_sync.simulator.properties import parse_properties
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from ews_sync.simulator.properties import Properties

_USER, _PASSWORD = "svc@bench.example", "swordfish"
_ADDRESS = "box@bench.example"
_SMALL_FOLDER = 10_000
_SIZE = 1500
_FETCHED = 20_000
"""How many emails are fetched before the crash, or half of the folder; after it, a quarter as many."""
_FIRST = datetime(2024, 1, 5, 8, tzinfo=UTC)
_APART = timedelta(seconds=45)
_LOOK = 0.02
_LIMIT = 900.0
_MIB = 2**20
_MARKS, _LISTS, _FETCHES = "SyncFolderItems", "FindItem", "GetItem"
_COUNT, _IDS, _BEGIN, _STOP = "count", "ids", "begin", "stop"


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
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    for items in dict.fromkeys((min(_SMALL_FOLDER, arguments.items), arguments.items)):
        _print(measure(items))


def measure(items: int) -> MillionFigures:
    """Measure a folder of so many items (100 at least). A million take some minutes, and the server 700 MiB.

    Raises `SystemExit` when the appliance does not do what it should.
    """
    emails = min(_FETCHED, items // 2)
    with tempfile.TemporaryDirectory() as name, _server(items) as server:
        directory = Path(name)
        with _appliance(server.url, directory) as appliance:
            appliance.wait_until_listening(60)
            server.wait(appliance, lambda counts: counts[_MARKS] > 0)
            began, processor = time.monotonic(), appliance.processor
            counts = server.wait(appliance, lambda counts: counts[_LISTS] > 0)
            marked, mark_processor = time.monotonic(), appliance.processor
            mark_peak, mark_resident = appliance.peak, resident_bytes(appliance.process.pid)
            appliance.wait_until_done(emails, _LIMIT)
            caught_up, done, caught_up_processor = time.monotonic(), appliance.done, appliance.processor
            peak = appliance.peak
            appliance.process.kill()
            appliance.process.wait(10)
        before = server.fetched()
        server.begin()
        started = time.monotonic()
        with _appliance(server.url, directory) as appliance:
            resumed = server.wait(appliance, lambda counts: counts[_FETCHES] > 0)
            resume = time.monotonic() - started
            appliance.wait_until_listening(60)
            appliance.wait_until_done(emails // 4, _LIMIT)
            resume_peak = appliance.peak
            again = len(before & server.fetched())
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


@contextmanager
def _appliance(url: str, directory: Path) -> Iterator[Appliance]:
    path = directory / "config.json"
    path.write_text(json.dumps(_config(url)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REINFER", "MALLOC"))}
    environment |= {"REINFER_EWS_CONFIG": str(path), **AS_THE_IMAGE}
    files = ("--local-files-prefix", str(directory / "files"), "--local-files-format", "jsonl")
    log = directory / "log"
    command = (*COMMAND, "--bind", "127.0.0.1:0", *files)
    with log.open("w") as out, subprocess.Popen(command, env=environment, stderr=out) as process:
        try:
            yield Appliance(process, log)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()


def _config(url: str) -> dict[str, object]:
    return {
        "ews_endpoint": url,
        "auth_type": "basic",
        "auth_user": _USER,
        "auth_password": _PASSWORD,
        "access_type": "impersonation",
        # Between two rounds nothing would be measured.
        "poll_frequency": 1,
        "poll_message_sleep": 0,
        "emails_per_folder": 100_000,
        "mailboxes": {_ADDRESS: {"bucket": {"owner": "bench", "name": "mail"}, "folder_allowlist": [["Inbox"]]}},
    }


# --- The server, in a process of its own -----------------------------------------------------------------------------


class _Server:
    """The server, as seen from here."""

    def __init__(self, pipe: Connection, process: int) -> None:
        self._pipe = pipe
        self._process = process
        self.url = str(pipe.recv())

    @property
    def peak(self) -> int:
        """The highest resident set so far, in bytes."""
        return peak_bytes(self._process)

    def wait(self, appliance: Appliance, condition: Callable[[Counter[str]], bool]) -> Counter[str]:
        """Wait until its requests, counted by operation, are as they should be, and give them."""
        limit = time.monotonic() + _LIMIT
        while not condition(counts := cast("Counter[str]", self._ask(_COUNT))):
            if appliance.process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the appliance does not ask for what it should ({counts}):\n{appliance.tail()}")
            time.sleep(_LOOK)
        return counts

    def fetched(self) -> frozenset[str]:
        """Give the ids of the items that were fetched since `begin`."""
        return cast("frozenset[str]", self._ask(_IDS))

    def begin(self) -> None:
        """Begin to count anew."""
        self._ask(_BEGIN)

    def _ask(self, question: str) -> object:
        self._pipe.send(question)
        return self._pipe.recv()


@contextmanager
def _server(items: int) -> Iterator[_Server]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(items, theirs), daemon=True)
    process.start()
    # The other end is the process's alone, so that its end is seen here.
    theirs.close()
    try:
        yield _Server(ours, process.pid or 0)
    finally:
        with suppress(BrokenPipeError):
            ours.send(_STOP)
        process.join(20)
        process.kill()


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


def _serve(items: int, pipe: Connection) -> None:
    asyncio.run(_run(items, pipe))


async def _run(items: int, pipe: Connection) -> None:
    exchange = Exchange()
    inbox = exchange.create_mailbox(_ADDRESS).folder("Inbox")
    gc.disable()
    for number in range(items):
        inbox.deliver(_Small(number), received=_FIRST + number * _APART, item_class="IPM.Note")
    # What is there stays there: to look through it for garbage would take longer than the answers.
    gc.freeze()
    gc.enable()
    async with ExchangeServer(exchange, accounts=[Account(_USER, _PASSWORD, may_impersonate=True)]) as server:
        pipe.send(server.url)
        while (question := await asyncio.to_thread(pipe.recv)) != _STOP:
            if question == _BEGIN:
                server.log.clear()
            if question == _IDS:
                fetches = server.log.of(_FETCHES)
                pipe.send(frozenset(identity for record in fetches for identity in record.item_ids))
            else:
                pipe.send(Counter(server.log.counts))


if __name__ == "__main__":
    main()
