"""What quiet mailboxes cost: processor time, requests and memory of an appliance that waits for new mail.

Each mailbox has the folders that Exchange gives everybody and a little mail, which is caught up with before anything
is measured. Then nothing happens for some rounds at the default `poll_frequency`. `python -m benchmarks.quiet`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.appliance import AS_THE_IMAGE, COMMAND, Appliance
from benchmarks.messages import PLAIN, message
from ews_sync.settings.values import Pace
from ews_sync.simulator.access import Account
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

_USER, _PASSWORD = "svc@bench.example", "swordfish"
_MESSAGES = 10
_SIZE = 4_000
_FIRST = datetime(2026, 1, 5, 8, tzinfo=UTC)
_ASK_EVERY = 2.0
_LOOKS = "FindFolder"
"""All that a quiet mailbox is asked."""
_COUNT, _BEGIN, _STOP = "count", "begin", "stop"
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
    parser.add_argument("--mailboxes", type=int, nargs="*", default=[200, 2000])
    parser.add_argument("--rounds", type=int, default=4)
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
    addresses = [f"box-{number}@bench.example" for number in range(mailboxes)]
    with (
        tempfile.TemporaryDirectory() as directory,
        _server(addresses) as (url, server),
        _appliance(url, addresses, Path(directory)) as appliance,
    ):
        appliance.wait_until_listening(60)
        _wait_until_quiet(appliance, server, mailboxes)
        return _measured(appliance, server, mailboxes, rounds)


def _measured(appliance: Appliance, server: Connection, mailboxes: int, rounds: int) -> QuietFigures:
    rounds_before, _ = _progress(appliance)
    _traffic(server, _BEGIN)
    processor, began = appliance.processor, time.monotonic()
    time.sleep(rounds * Pace().poll_frequency)
    processor, took = appliance.processor - processor, time.monotonic() - began
    resident = _resident(appliance)
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


def _wait_until_quiet(appliance: Appliance, server: Connection, mailboxes: int) -> None:
    """Wait until all mail is stored and, for longer than a round, nothing but the look for new mail was asked for."""
    limit = time.monotonic() + 240 + mailboxes * 0.5
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
            if stored == mailboxes * _MESSAGES:
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


def _resident(appliance: Appliance) -> int:
    pages = int(Path(f"/proc/{appliance.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- The two processes -----------------------------------------------------------------------------------------------


@contextmanager
def _appliance(url: str, addresses: Sequence[str], directory: Path) -> Iterator[Appliance]:
    path = directory / "config.json"
    path.write_text(json.dumps(_config(url, addresses)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REINFER", "MALLOC"))}
    environment |= {"REINFER_EWS_CONFIG": str(path), **AS_THE_IMAGE}
    files = ("--local-files-prefix", str(directory / "files"), "--local-files-format", "jsonl")
    command = (*COMMAND, "--bind", "127.0.0.1:0", *files)
    log = directory / "log"
    with log.open("w") as out, subprocess.Popen(command, env=environment, stderr=out) as process:
        try:
            yield Appliance(process, log)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()


def _config(url: str, addresses: Sequence[str]) -> dict[str, object]:
    return {
        "ews_endpoint": url,
        "auth_type": "basic",
        "auth_user": _USER,
        "auth_password": _PASSWORD,
        "access_type": "impersonation",
        "mailboxes": {address: {"bucket": {"owner": "bench", "name": "mail"}} for address in addresses},
    }


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Requests since they were last counted from the start: by operation, and the last of them by second."""

    operations: Counter[str]
    by_second: Counter[int]


@contextmanager
def _server(addresses: Sequence[str]) -> Iterator[tuple[str, Connection]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(addresses, theirs), daemon=True)
    process.start()
    try:
        yield str(ours.recv()), ours
    finally:
        ours.send(_STOP)
        process.join(20)
        process.kill()


def _traffic(server: Connection, command: str = _COUNT) -> _Traffic:
    server.send(command)
    traffic = server.recv()
    assert isinstance(traffic, _Traffic)  # noqa: S101 - our own process's answer
    return traffic


def _serve(addresses: Sequence[str], pipe: Connection) -> None:
    asyncio.run(_run(addresses, pipe))


async def _run(addresses: Sequence[str], pipe: Connection) -> None:
    exchange = Exchange()
    for address in addresses:
        inbox = exchange.create_mailbox(address).folder("Inbox")
        for number in range(_MESSAGES):
            inbox.deliver(message(PLAIN, address, number, _SIZE), received=_FIRST + timedelta(minutes=number))
    async with ExchangeServer(exchange, accounts=[Account(_USER, _PASSWORD, may_impersonate=True)]) as server:
        pipe.send(server.url)
        while (command := await asyncio.to_thread(pipe.recv)) in {_COUNT, _BEGIN}:
            by_second = Counter(int(record.started.timestamp()) for record in server.log)
            pipe.send(_Traffic(Counter(server.log.counts), by_second))
            if command == _BEGIN:
                server.log.clear()


if __name__ == "__main__":
    main()
