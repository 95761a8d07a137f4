"""Who competes in a benchmark, and one run of each: the floor, exchangelib, and the real command.

Each is a process of its own. It is measured from when it is ready, so that nobody's start counts, until everything is
stored; then it is seen that all of it is there, and whole.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from benchmarks.appliance import AS_THE_IMAGE, Moment, appliance
from benchmarks.process import peak_bytes, processor_seconds
from benchmarks.servers import BUCKET, OWNER, PASSWORD, USER
from benchmarks.stored import compare
from benchmarks.turn import DONE, GO, READY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.servers import Load, Servers

_ROOT = Path(__file__).parents[1]
_STARTS_WITHIN = 60.0
_MIB = 2**20

_MONTHS = "*/[0-9]*/[0-9]*"
"""Where messages are, below the directory of a bucket (docs/local-files.md)."""
_TRIED = 250
"""Items of each mailbox with which exchangelib's settings are tried out: it takes its time."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: emails a second, processor milliseconds an email, the servers', and the highest resident set (MiB).

    `at_once` is how many requests of one mailbox the server had at the same time at the most.
    """

    rate: float
    processor: float
    server: float
    peak: float
    at_once: int


@dataclass(frozen=True, slots=True)
class FloorSettings:
    """How many ids a request of the floor has, and how many requests of a mailbox it makes at the same time.

    With `pybase64` it decodes with the package that the command decodes with, and else with the standard library.
    """

    batch: int
    lanes: int
    pybase64: bool = False

    def __str__(self) -> str:
        return f"{self.batch} ids a request, {self.lanes} at once for each mailbox"


@dataclass(frozen=True, slots=True)
class ExchangelibSettings:
    """How many threads exchangelib is given, and how many ids a request for messages has."""

    threads: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.threads} {'thread' if self.threads == 1 else 'threads'}, {self.chunk} ids a request"


class Contest:
    """Runs contenders on the same mail from the same servers. `directory` is that of the servers.

    All of it raises `SystemExit` where a run fails, does not end within `limit` seconds, or has not stored everything.
    """

    def __init__(self, load: Load, servers: Servers, directory: Path, limit: float = 600.0) -> None:
        self._load = load
        self._servers = servers
        self._directory = directory
        self._limit = limit
        self._buckets = 0
        self._bytes = sum(
            len(load.message(address, number)) for address in load.addresses() for number in range(load.messages)
        )
        self._ids = directory / "ids.json"
        self._ids.write_text(json.dumps(servers.ids()))

    def floor(self, settings: FloorSettings) -> Run:
        """Run the floor."""
        decoder = ("--pybase64",) if settings.pybase64 else ()
        arguments = ("--ids", self._ids, "--batch", settings.batch, "--lanes", settings.lanes, *decoder)
        with self._room() as room:
            return self._turn("floor", arguments, room, self._load.emails)

    def exchangelib(self, settings: ExchangelibSettings | None = None) -> Run:
        """Run exchangelib, with its defaults or with settings."""
        chosen = () if settings is None else ("--threads", settings.threads, "--chunk", settings.chunk)
        with self._room() as room:
            return self._turn("exchangelib_export", (*chosen, *self._load.addresses()), room, self._load.emails)

    def try_exchangelib(self, settings: ExchangelibSettings) -> Run:
        """Run exchangelib on the first of the mail only."""
        most = min(_TRIED, self._load.messages)
        arguments = ("--most", most, "--threads", settings.threads, "--chunk", settings.chunk)
        with self._room() as room:
            emails = most * self._load.mailboxes
            return self._turn("exchangelib_export", (*arguments, *self._load.addresses()), room, emails)

    def ours(self, sink: str) -> Run:
        """Run the command; `sink` is "platform", or a format of local files."""
        self._buckets += 1
        bucket = f"{BUCKET}-{self._buckets}"
        with self._room() as room:
            self._servers.begin(bucket)
            with appliance(self._load, sink, self._servers, room, bucket=bucket) as running:
                running.wait_until_listening(_STARTS_WITHIN)
                server, begun = self._servers.processor, running.moment()
                ended = running.wait_until_stored(
                    self._load.emails, self._seems_stored(sink, room, bucket), self._limit
                )
                run = self._run(self._load.emails, begun, ended, server, running.peak)
            compare(self._load, sink, self._directory if sink == "platform" else room, with_content=True, bucket=bucket)
            return run

    # --- what they share

    @contextmanager
    def _room(self) -> Iterator[Path]:
        """Give each run an empty directory, and take it away afterwards, before what is in it costs the next one."""
        with tempfile.TemporaryDirectory(dir=self._directory) as name:
            yield Path(name)

    def _run(self, emails: int, begun: Moment, ended: Moment, server: float, peak: int) -> Run:
        return Run(
            rate=emails / (ended.at - begun.at),
            processor=1000 * (ended.processor - begun.processor) / emails,
            server=1000 * (self._servers.processor - server) / emails,
            peak=peak / _MIB,
            at_once=self._servers.traffic().most_at_once,
        )

    def _turn(self, name: str, arguments: Sequence[object], room: Path, emails: int) -> Run:
        """Have a competitor take its turn (see `turn`)."""
        login = ("--url", self._servers.exchange, "--user", USER, "--password", PASSWORD)
        into = room / "mail"
        into.mkdir()
        with _competitor(name, [*login, "--into", into, *arguments], room / "log", self._limit) as competitor:
            competitor.hear(READY)
            self._servers.begin()
            server, begun = self._servers.processor, competitor.moment()
            competitor.tell(GO)
            moved = competitor.hear(DONE)
            run = self._run(emails, begun, competitor.moment(), server, peak_bytes(competitor.pid))
        size = sum(path.stat().st_size for path in into.rglob("*.eml"))
        if moved != emails or (emails == self._load.emails and size != self._bytes):
            raise SystemExit(f"{name} has moved {moved} emails with {size} bytes, not all {emails}")
        return run

    def _seems_stored(self, sink: str, room: Path, bucket: str) -> Callable[[], bool]:
        if sink == "platform":
            return lambda: self._servers.stored >= self._load.emails
        root = room / "files" / "data" / OWNER / bucket
        if sink == "jsonl":
            return _at_rest(lambda: _bytes_of_lines(root), lambda size: size >= self._bytes, looks=2)
        return _at_rest(lambda: _changed(root), lambda _: _messages(root) >= self._load.emails, looks=4)


# --- How a look from outside tells that all is stored ----------------------------------------------------------------


def _at_rest(look: Callable[[], int], enough: Callable[[int], bool], *, looks: int) -> Callable[[], bool]:
    """Give what tells whether there is enough, once so many looks in a row have found the same."""
    last, same = -1, 0

    def seems_stored() -> bool:
        nonlocal last, same
        found = look()
        same = same + 1 if found == last else 1
        last = found
        return same >= looks and enough(found)

    return seems_stored


def _bytes_of_lines(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("*/emails-*.jsonl"))


def _changed(root: Path) -> int:
    """Give what changes with each name that is added: to look for it costs little, to count the names does not."""
    return sum(path.stat().st_mtime_ns for path in root.glob(_MONTHS))


def _messages(root: Path) -> int:
    return sum(name.endswith(".json") for month in root.glob(_MONTHS) for name in os.listdir(month))  # noqa: PTH208


# --- The other side of `turn` ----------------------------------------------------------------------------------------


class _Competitor:
    """A competitor that runs, and what it says."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def moment(self) -> Moment:
        return Moment(monotonic(), processor_seconds(self.pid))

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def hear(self, word: str) -> int:
        """Wait until it says this; give the number behind it."""
        assert self._process.stdout is not None  # noqa: S101 - likewise
        heard, _, number = self._process.stdout.readline().strip().partition(" ")
        if heard != word:
            raise SystemExit(f"a competitor did not get {word}:\n{self._log.read_text()[-3000:]}")
        return int(number or 0)


@contextmanager
def _competitor(name: str, arguments: Sequence[object], log: Path, limit: float) -> Iterator[_Competitor]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            cwd=_ROOT,
            env=os.environ | AS_THE_IMAGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        # What is killed says nothing more, and whoever listens hears that.
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            yield _Competitor(process, log)
        finally:
            timer.cancel()
            process.kill()
