"""The appliance for an hour in bad weather: nothing missing, nothing torn, memory and descriptors flat. `make soak`.

The real command runs as a process of its own against a simulated Exchange in which people go on living, into each kind
of sink in turn. All the while servers throttle, reset, truncate, lie and go away; the process is killed, or told to
stop, and started again. It lives its last life for half of the time; then the weather clears, and what is stored is
compared with what there was to store. It ends with code 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
import tempfile
import time
import zlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.process import open_descriptors, peak_bytes, resident_bytes, thread_count
from ews_sync.simulator.faults import (
    BrokenXml,
    ConnectionReset,
    HttpError,
    ItemError,
    Latency,
    SoapFault,
    Truncated,
    html_page,
)
from ews_sync.simulator.life import Life
from ews_sync.simulator.mail import MailFactory, populate
from ews_sync.simulator.platform.faults import AnswerLost, api_error
from tests.end_to_end.platform_world import TOKEN, PlatformWorld, bare_environment, content_key, is_same, spawned
from tests.end_to_end.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ews_sync.simulator.faults import Effect
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.serving import Listener
    from tests.end_to_end.platform_world import Command

SINKS = ("eml", "jsonl", "platform")
ADDRESSES = ("claims@soak.example", "service@soak.example", "broker@soak.example")

_MIB = 2**20
_MEMORY_SLOPE, _MEMORY_GROWTH = 8.0, 8.0
"""MiB an hour, and MiB: a slope above the first is a leak once it has come to more than the second, which is about what
mail on its way may take (6 MiB), and the allocator beside it."""
_COUNT_SLOPE, _COUNT_GROWTH = 8.0, 6.0
"""Likewise for open descriptors, and for threads."""
_MEMORY_LIMIT = 128.0
"""MiB of resident memory that are never exceeded."""
_WARM_UP = 0.25, 60.0
"""What is left out of a life's slope: this part of it, and so many seconds at least. Connections are opened then."""
_SAMPLE_EVERY = 2.0
_TO_HEAL = 420.0
"""Seconds that everything may take to come back once the weather has cleared: waits grow up to five minutes."""
_TO_END = 45.0
"""Seconds from SIGTERM to the end: those in which mail that is on its way may arrive, and then some."""
_LIVES = 4
"""How many lives come before the last one, in the first half of the time."""


def main() -> None:
    """Run, print, and end with 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="in all, but for the healing at the end")
    parser.add_argument("--sink", choices=(*SINKS, "all"), default="all", help="all of them share the time")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sinks = SINKS if given.sink == "all" else (given.sink,)
    # It tells of every connection that ends in the middle, which here is most of what happens.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    problems = []
    for sink in sinks:
        with tempfile.TemporaryDirectory(prefix="ews-sync-soak-") as directory:
            soak = Soak(sink, Path(directory), given.minutes * 60 / len(sinks), given.seed)
            asyncio.run(soak.run())
            problems += soak.problems
    for problem in problems:
        print(f"FAILED  {problem}")
    print("failed" if problems else "all well: nothing missing, nothing torn, memory and descriptors flat")
    sys.exit(1 if problems else 0)


# --- What is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process takes: at so many seconds, resident memory in MiB, open descriptors, threads."""

    at: float
    memory: float
    descriptors: int
    threads: int


@dataclass(slots=True)
class LifeOfProcess:
    """One process, from its start to its end."""

    end: str
    samples: list[Sample] = field(default_factory=list)
    peak: float = 0.0

    def sample(self, pid: int) -> None:
        """Look once at what it takes; nothing where it has just ended."""
        with suppress(OSError):
            memory, peak = resident_bytes(pid) / _MIB, peak_bytes(pid) / _MIB
            self.samples.append(Sample(time.monotonic(), memory, open_descriptors(pid), thread_count(pid)))
            self.peak = max(self.peak, peak)

    @property
    def warm(self) -> Sequence[Sample]:
        """The samples after the warm-up."""
        if not self.samples:
            return ()
        begin, end = self.samples[0].at, self.samples[-1].at
        return [sample for sample in self.samples if sample.at >= begin + max((end - begin) * _WARM_UP[0], _WARM_UP[1])]


def slope(samples: Sequence[Sample], value: Callable[[Sample], float]) -> tuple[float, float]:
    """Fit a line by least squares. Give its slope per hour, and how far it rises over the samples."""
    if len(samples) < 3:
        return 0.0, 0.0
    times = [sample.at for sample in samples]
    values = [value(sample) for sample in samples]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    per_second = sum((at - middle) * (one - mean) for at, one in zip(times, values, strict=True)) / spread
    return per_second * 3600, per_second * (times[-1] - times[0])


# --- Where it happens ------------------------------------------------------------------------------------------------


def is_poison(item: Item) -> bool:
    """Tell whether the server can never give the item: one in 150 of those that have a Message-ID."""
    message_id = item.properties.message_id
    return message_id is not None and zlib.crc32(message_id.encode()) % 150 == 0


@dataclass
class SoakWorld(PlatformWorld):
    """The servers, and an independent look at what has been stored."""

    sink: str = "platform"

    def expected(self, address: str = "") -> list[Item]:
        """Give the mail that has to be stored."""
        return [item for item in super().expected(address) if not is_poison(item)]

    def poisoned(self, address: str) -> set[str]:
        """Give the Message-IDs of the mail that has to be a dead letter."""
        return {str(item.properties.message_id) for item in super().expected(address) if is_poison(item)}

    def missing(self, address: str = "") -> list[str]:
        """Say what of the mail is not stored as it should be."""
        match self.sink:
            case "eml":
                return World.missing(self, address)
            case "jsonl":
                return self._missing_lines(address)
            case _:
                return super().missing(address)

    def _missing_lines(self, address: str) -> list[str]:
        alike: dict[str, list[tuple[list[str], str]]] = {}
        for line in self.lines(address):
            mime = line["mime_content"]
            alike.setdefault(content_key(mime.encode()), []).append((line["metadata"]["folder"], mime))
        problems = []
        for item in self.expected(address):
            mime, path = item.mime(), item.folder.path.split("/")
            folders = [folder for folder, stored in alike.get(content_key(mime), []) if is_same(mime, stored)]
            if path not in folders:
                problems.append(f"{item.properties.subject!r} in {path} is not there, but {folders}")
        return problems

    def torn(self, address: str) -> list[str]:
        """Say what is stored and is no message of the server."""
        if self.sink != "eml":
            return []  # a line that is torn cannot be read, and a request that is torn is refused
        whole = {item.mime() for item in self.mailbox(address).items()}
        return [
            f"{key} is not as the server has it" for key, one in self.stored(address).items() if one.mime not in whole
        ]

    def letters(self, address: str) -> set[str]:
        """Give the Message-IDs of the dead letters."""
        root = self.directory / "data" if self.sink != "platform" else self.directory / "letters"
        path = root / "bank" / "mail" / address / "dead-letters.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return {str(json.loads(line).get("message_id")) for line in lines}

    @asynccontextmanager
    async def appliance(self) -> AsyncIterator[Command]:
        """Run the command as the image does; whatever happens, it is gone at the end."""
        path = self.directory.parent / "config.json"
        path.write_text(json.dumps(self.config(poll_frequency=2)))
        variables = bare_environment() | {"REINFER_EWS_CONFIG": str(path), "MALLOC_ARENA_MAX": "2"}
        if self.sink == "platform":
            variables["REINFER_API_TOKEN"] = TOKEN
            place = ["--reinfer-api-endpoint", self.platform.url, "--dead-letter-dir", str(self.directory / "letters")]
        else:
            place = ["--local-files-prefix", str(self.directory), "--local-files-format", self.sink]
        async with spawned(self, [*place, "--bind", "127.0.0.1:0"], variables) as command:
            yield command


# --- The weather -----------------------------------------------------------------------------------------------------


class Weather:
    """What goes wrong at the servers, at any time; and now and then one of them is away altogether."""

    def __init__(self, world: SoakWorld, seconds: float, chance: random.Random) -> None:
        self._world = world
        self._seconds = seconds
        self._chance = chance
        self.outages = 0
        self.forgotten = 0

    def poison(self) -> None:
        """Make the items that can never be had. They stay so when the weather clears."""
        self._world.server.faults.add(ItemError("ErrorItemCorrupt"), operation="GetItem", item=is_poison)

    def begin(self) -> None:
        """Let it begin."""
        exchange, platform = self._world.server.faults, self._world.platform.faults
        at_exchange: tuple[tuple[Effect, float], ...] = (
            (SoapFault("ErrorServerBusy", back_off_ms=1500), 0.02),
            (HttpError(503, "1", "busy", "text/plain"), 0.01),
            (HttpError(503), 0.01),
            (html_page(502), 0.01),
            (html_page(200), 0.005),
            (ConnectionReset(), 0.01),
            (ConnectionReset(after=3000), 0.01),
            (Truncated(0.6), 0.01),
            (Truncated(0.4, honest=False), 0.01),
            (BrokenXml(), 0.005),
            (Latency(0.8), 0.1),
        )
        at_platform: tuple[tuple[Effect, float], ...] = (
            (api_error(500), 0.03),
            (api_error(429, retry_after="2"), 0.03),
            (html_page(503), 0.02),
            (AnswerLost(), 0.03),
            (ConnectionReset(), 0.02),
            (Latency(0.5), 0.1),
        )
        for effect, probability in at_exchange:
            exchange.add(effect, probability=probability)
        exchange.add(ItemError("ErrorInternalServerTransientError"), operation="GetItem", probability=0.002)
        for effect, probability in at_platform:
            platform.add(effect, probability=probability)

    def clear(self) -> None:
        """Let it end."""
        self._world.server.faults.clear()
        self._world.platform.faults.clear()
        self.poison()

    async def change(self) -> None:
        """Let servers go away and come back, and forget positions, until cancelled."""
        servers: list[Listener] = [self._world.server]
        if self._world.sink == "platform":
            servers.append(self._world.platform)
        while True:
            await asyncio.sleep(self._seconds / 12 * (0.5 + self._chance.random()))
            # Only files can be compared as a whole afterwards: elsewhere a move of older mail at that very moment may
            # stay unseen (docs/architecture.md, a forgotten position).
            if self._world.sink == "eml" and self._chance.random() < 0.4:
                self.forgotten += 1
                self._chance.choice(list(self._world.exchange.mailboxes.values())).forget_sync_states()
                continue
            self.outages += 1
            server = self._chance.choice(servers)
            await server.stop()
            try:
                await asyncio.sleep(min(60.0, self._seconds / 25))
            finally:
                await server.start()


async def people(world: SoakWorld, chance: random.Random) -> None:
    """Let mail arrive, about one a second, with what people do with it: drafts, and large messages too."""
    life, factory = Life(world.exchange, seed=chance.randrange(2**32)), MailFactory(chance.randrange(2**32))
    drafts: list[Item] = []
    number = 0
    while True:
        await asyncio.sleep(chance.expovariate(1.0))
        life.step()
        number += 1
        mailbox = chance.choice(list(world.exchange.mailboxes.values()))
        now = world.exchange.clock()
        if number % 7 == 0:
            drafts.append(mailbox.folder("Drafts").deliver(factory.email(number, sent=now), is_draft=True))
        if number % 11 == 0 and drafts:
            drafts.pop(0).send()
        if number % 40 == 0:
            # A number of its own: two messages with one Message-ID are one email in a bucket.
            large = factory.email(1_000_000 + number, sent=now, size=chance.randrange(1, 6) * 1_000_000)
            mailbox.folder("Inbox").deliver(large)


# --- All of it together ----------------------------------------------------------------------------------------------


class Soak:
    """One sink's turn. `seconds` are those in which the weather is bad; `problems` are found on the way."""

    def __init__(self, sink: str, directory: Path, seconds: float, seed: int) -> None:
        self.problems: list[str] = []
        self._sink = sink
        self._seconds = seconds
        self._chance = random.Random(f"{seed}:{sink}")
        self._world = SoakWorld(directory / "mail", sink=sink)
        self._world.directory.mkdir()
        self._lives: list[LifeOfProcess] = []

    async def run(self) -> None:
        """Run, print a table, and take note of what is wrong."""
        world = self._world
        for number, address in enumerate(ADDRESSES):
            populate(world.mailbox(address), 300, factory=MailFactory(number))
        weather = Weather(world, self._seconds, self._chance)
        weather.poison()
        weather.begin()
        async with world.server, world.platform:
            troubles = [asyncio.create_task(weather.change()), asyncio.create_task(people(world, self._chance))]
            for number in range(_LIVES):
                async with self._life("SIGTERM" if number % 2 else "kill -9") as command:
                    await _unless_ended(command, self._seconds / 2 / _LIVES * (0.6 + 0.8 * self._chance.random()))
            async with self._life("SIGTERM") as command:
                await _unless_ended(command, self._seconds / 2)
                for trouble in troubles:
                    trouble.cancel()
                for ended in await asyncio.gather(*troubles, return_exceptions=True):
                    if not isinstance(ended, asyncio.CancelledError):
                        self._problem(f"the surroundings broke: {ended!r}")
                weather.clear()
                began = time.monotonic()
                await self._heal(command)
                healed = time.monotonic() - began
        self._report(weather, healed)

    @asynccontextmanager
    async def _life(self, end: str) -> AsyncIterator[Command]:
        """Run the command while the block runs, looking at it all the while, and have it end as `end` says."""
        life = LifeOfProcess(end)
        self._lives.append(life)
        async with self._world.appliance() as command:
            watching = asyncio.create_task(_watch(life, command.process.pid))
            try:
                yield command
            finally:
                watching.cancel()
            process = command.process
            if process.returncode is not None:
                self._problem(f"it ended by itself with {process.returncode}: {command.text[-2000:]}")
            elif end == "SIGTERM":
                process.send_signal(signal.SIGTERM)
                try:
                    code = await asyncio.wait_for(process.wait(), _TO_END)
                except TimeoutError:
                    self._problem(f"SIGTERM did not end it in {_TO_END:.0f} s")
                else:
                    if code:
                        self._problem(f"after SIGTERM it ended with {code}: {command.text[-2000:]}")
            defects = [line for line in command.log if "defect" in str(line.get("event"))]
            if defects:
                self._problem(f"a defect: {defects[0]}")

    async def _heal(self, command: Command) -> None:
        """Wait until everything is stored as it should be."""
        end = time.monotonic() + _TO_HEAL
        left: list[str] = []
        while time.monotonic() < end and command.process.returncode is None:
            left = self._left()
            if not left:
                return
            await asyncio.sleep(_SAMPLE_EVERY)
        for problem in left[:10]:
            self._problem(f"{len(left)} wrong, among them: {problem}")

    def _left(self) -> list[str]:
        world = self._world
        left = [f"{address}: {what}" for address in ADDRESSES for what in world.missing(address)]
        if left:
            return left
        for address in ADDRESSES:
            poisoned, letters = world.poisoned(address), world.letters(address)
            left += [f"{address}: {what} is no dead letter" for what in poisoned - letters]
            left += [f"{address}: {what} is a dead letter without cause" for what in letters - poisoned]
            left += [f"{address}: {what}" for what in world.torn(address)]
        return left

    def _problem(self, what: str) -> None:
        self.problems.append(f"{self._sink}: {what}")

    def _report(self, weather: Weather, healed: float) -> None:
        world = self._world
        emails = sum(len(world.expected(address)) for address in ADDRESSES)
        letters = sum(len(world.letters(address)) for address in ADDRESSES)
        print(
            f"\n{self._sink}: {self._seconds / 60:.1f} minutes, {weather.outages} outages, positions forgotten "
            f"{weather.forgotten} times; {emails} emails and {letters} dead letters; well after {healed:.0f} s"
        )
        columns = ("ends by", "minutes", "peak MiB", "at the end", "MiB/h", "descriptors", "/h", "threads", "/h")
        print("".join(f"{column:>12}" for column in columns))
        for life in self._lives:
            if not life.samples:
                print(f"{life.end:>12}{'too short':>12}")
                continue
            last = life.samples[-1]
            slopes = [slope(life.warm, value)[0] for value in (_memory, _descriptors, _threads)]
            print(
                f"{life.end:>12}{(last.at - life.samples[0].at) / 60:>12.1f}{life.peak:>12.1f}{last.memory:>12.1f}"
                f"{slopes[0]:>12.1f}{last.descriptors:>12}{slopes[1]:>12.1f}{last.threads:>12}{slopes[2]:>12.1f}",
                flush=True,
            )
        for name, value, steepest, most in (
            ("memory", _memory, _MEMORY_SLOPE, _MEMORY_GROWTH),
            ("open descriptors", _descriptors, _COUNT_SLOPE, _COUNT_GROWTH),
            ("threads", _threads, _COUNT_SLOPE, _COUNT_GROWTH),
        ):
            per_hour, growth = slope(self._lives[-1].warm, value)
            if per_hour > steepest and growth > most:
                self._problem(
                    f"{name} grew by {per_hour:.1f} an hour (bound {steepest}), {growth:.1f} in the last life"
                )
        peak = max(life.peak for life in self._lives)
        if peak > _MEMORY_LIMIT:
            self._problem(f"memory reached {peak:.1f} MiB (bound {_MEMORY_LIMIT:.0f})")


def _memory(sample: Sample) -> float:
    return sample.memory


def _descriptors(sample: Sample) -> float:
    return float(sample.descriptors)


def _threads(sample: Sample) -> float:
    return float(sample.threads)


async def _watch(life: LifeOfProcess, pid: int) -> None:
    while True:
        life.sample(pid)
        await asyncio.sleep(_SAMPLE_EVERY)


async def _unless_ended(command: Command, seconds: float) -> None:
    """Wait so long, but no longer than the command runs."""
    with suppress(TimeoutError):
        await asyncio.wait_for(command.process.wait(), seconds)


if __name__ == "__main__":
    main()
