"""What quiet mailboxes cost: processor time, requests and memory of an appliance that waits for new mail.

Each mailbox has the folders that Exchange gives everybody and a little mail, which is caught up with before anything
is measured. Then nothing happens for some rounds at the default `poll_frequency`. `python -m benchmarks.quiet`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.appliance import config_for, into_files, launched
from benchmarks.process import resident_bytes
from benchmarks.server_process import Served, server_process
from benchmarks.servers import Load, exchange_server
from ews_sync.settings.values import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.appliance import Appliance
    from benchmarks.server_process import ServerProcess

FEW, MANY, ROUNDS = 200, 2_000, 4
_MESSAGES = 10
_SIZE = 4_000
_ASK_EVERY = 2.0
_LOOKS = "FindFolder"
"""All that a quiet mailbox is asked."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class QuietFigures:
    """What so many quiet mailboxes took in so many rounds, all of it of the appliance's process.

    `share` is that of one core, from 0 to 1, and `processor` in milliseconds for a mailbox and round; `requests` are
    for a mailbox and round, too. `peak` is the highest resident set since the start and `resident` that at the end, in
    MiB. `in_one_second` is how many requests came in the busiest second.
    """

    mailboxes: int
    rounds: float
    share: float
    processor: float
    requests: float
    other_requests: int
    in_one_second: int
    peak: float
    resident: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, nargs="*", default=[FEW, MANY])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    print(f"{'mailboxes':>9}{'rounds':>8}{'% of a core':>13}{'ms/round':>10}{'requests/round':>16}", end="")
    print(f"{'others':>8}{'busiest s':>11}{'peak MiB':>10}{'end MiB':>9}")
    for mailboxes in arguments.mailboxes:
        found = measure(mailboxes, arguments.rounds)
        print(
            f"{found.mailboxes:>9}{found.rounds:>8.2f}{100 * found.share:>13.2f}{found.processor:>10.3f}"
            f"{found.requests:>16.3f}{found.other_requests:>8}{found.in_one_second:>11}{found.peak:>10.1f}"
            f"{found.resident:>9.1f}",
            flush=True,
        )


def measure(mailboxes: int, rounds: int) -> QuietFigures:
    """Catch up with the mailboxes' mail, wait until all is quiet, and then measure for so many rounds.

    Takes a minute and `rounds` times `poll_frequency`, and with thousands of mailboxes some minutes more.
    """
    load = Load(mailboxes, _MESSAGES, _SIZE)
    with tempfile.TemporaryDirectory() as name, server_process(_serve, load) as server:
        directory, config = Path(name), config_for(server.urls[0], load.addresses())
        with launched(config, into_files(directory), directory) as appliance:
            appliance.wait_until_listening(60)
            _wait_until_quiet(appliance, server, load)
            return _measured(appliance, server, mailboxes, rounds)


def _measured(appliance: Appliance, server: ServerProcess, mailboxes: int, rounds: int) -> QuietFigures:
    rounds_before, _ = _progress(appliance)
    server.ask("begin")
    processor, began = appliance.processor, time.monotonic()
    time.sleep(rounds * Pace().poll_frequency)
    processor, took = appliance.processor - processor, time.monotonic() - began
    resident = resident_bytes(appliance.process.pid)
    traffic = _traffic(server)
    rounds_after, _ = _progress(appliance)
    done = max(1, rounds_after - rounds_before)
    requests = traffic.operations
    return QuietFigures(
        mailboxes=mailboxes,
        rounds=done / mailboxes,
        share=processor / took,
        processor=1000 * processor / done,
        requests=requests.total() / done,
        other_requests=requests.total() - requests[_LOOKS],
        in_one_second=max(traffic.by_second.values(), default=0),
        peak=appliance.peak / _MIB,
        resident=resident / _MIB,
    )


def _wait_until_quiet(appliance: Appliance, server: ServerProcess, load: Load) -> None:
    """Wait until all mail is stored and, for longer than a round, nothing but the look for new mail was asked for."""
    limit = time.monotonic() + 240 + load.mailboxes * 0.5
    others, quiet_since = -1, time.monotonic()
    while True:
        if appliance.process.poll() is not None or time.monotonic() > limit:
            raise SystemExit(f"it did not get quiet:\n{appliance.tail()}")
        operations = _traffic(server).operations
        found = operations.total() - operations[_LOOKS]
        if found != others:
            others, quiet_since = found, time.monotonic()
        if time.monotonic() - quiet_since > 1.2 * Pace().poll_frequency:
            _, stored = _progress(appliance)
            if stored == load.emails:
                return
            quiet_since = time.monotonic()
        time.sleep(_ASK_EVERY)


def _progress(appliance: Appliance) -> tuple[int, int]:
    """Give how many rounds were done and how many emails are stored, all mailboxes together."""
    with urllib.request.urlopen(f"{appliance.address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()

    def total(name: str) -> int:
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{")))

    return total("ews_sync_mailbox_rounds_total"), total("ews_sync_mailbox_emails_stored_total")


# --- The server, in a process of its own -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Requests since they were last counted from the start: by operation, and the last of them by second."""

    operations: Counter[str]
    by_second: Counter[int]


def _traffic(server: ServerProcess) -> _Traffic:
    traffic = server.ask("traffic")
    assert isinstance(traffic, _Traffic)  # noqa: S101 - our own process's answer
    return traffic


@asynccontextmanager
async def _serve(load: Load) -> AsyncIterator[Served]:
    async with exchange_server(load) as server:

        def traffic() -> _Traffic:
            by_second = Counter(int(record.started.timestamp()) for record in server.log)
            return _Traffic(Counter(server.log.counts), by_second)

        yield Served((server.url,), {"begin": server.log.clear, "traffic": traffic})


if __name__ == "__main__":
    main()
