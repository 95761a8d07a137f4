"""A disk that does not answer, or only slowly: what is given up, what is refused, what goes on."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from ews_sync.errors import Asks, Scope, StorageError
from ews_sync.model import MailboxCheckpoint, StartFrom
from ews_sync.sinks.disk_threads import Patience
from ews_sync.sinks.durable import Disk
from ews_sync.sinks.file_checkpoints import FileCheckpointStore
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.jsonl import JsonlSink
from ews_sync.sinks.paths import data_directory
from ews_sync.sinks.platform.dead_letters import DeadLetterDirectory
from ews_sync.telemetry.health import Health
from tests.sinks.builders import MAILBOX, OTHER, a_letter, an_email

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ews_sync.model import Mailbox

LIMIT = 300
TICKS = 10


class WedgedDisk(Disk):
    """A disk on which one kind of operation does not return until it is released."""

    def __init__(self, operation: str = "flush") -> None:
        self.operation = operation
        self.wedged = threading.Event()
        self.wedged.set()
        self.stuck = threading.Semaphore(0)
        self.release = threading.Event()

    def flush(self, descriptor: int) -> None:
        self._pass("flush")
        super().flush(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._pass("rename")
        super().rename(source, target)

    def write(self, descriptor: int, data: bytes) -> None:
        self._pass("write")
        super().write(descriptor, data)

    async def until_stuck(self) -> None:
        assert await asyncio.to_thread(self.stuck.acquire, timeout=30)

    def _pass(self, operation: str) -> None:
        if operation == self.operation and self.wedged.is_set():
            self.stuck.release()
            self.release.wait(60)


@dataclass
class Ticks:
    """The watcher's time, which passes a tick when it is told to."""

    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.waiting.set()
        await self.go.wait()
        self.go.clear()

    async def let_pass(self, count: int) -> None:
        for _ in range(count):
            await self.waiting.wait()
            self.waiting.clear()
            self.go.set()
            # It looks, and then either sleeps again or has nothing more to look at.
            for _ in range(3):
                await asyncio.sleep(0)

    def patience(self, *, most_stuck: int = 8) -> Patience:
        return Patience(limit=LIMIT, linger=0.05, most_stuck=most_stuck, sleep=self.sleep)


def ids(prefix: Path, mailbox: Mailbox = MAILBOX) -> list[str]:
    directory = data_directory(prefix, mailbox)
    found = [json.loads(path.read_bytes())["id"] for path in directory.rglob("*.json")]
    lines = [line for path in directory.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return sorted(found + [json.loads(line)["id"] for line in lines])


def files_of(prefix: Path) -> list[Path]:
    return [path for path in prefix.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("kind", "operation"),
    [(FileSink, "write"), (FileSink, "flush"), (FileSink, "rename"), (JsonlSink, "write"), (JsonlSink, "flush")],
)
async def test_what_got_no_answer_is_not_confirmed_and_nothing_else_is_begun_on_its_files(
    tmp_path: Path, kind: type[FileSink | JsonlSink], operation: str
) -> None:
    disk, ticks, health = WedgedDisk(operation), Ticks(), Health()
    sink = kind(tmp_path, threads=1, disk=disk, health=health, patience=ticks.patience())
    for mailbox in (MAILBOX, OTHER):
        await sink.open(mailbox, None)
    first = asyncio.ensure_future(sink.put([an_email("<1>")]))
    await disk.until_stuck()
    queued = asyncio.ensure_future(sink.put([an_email("<2>")]))
    elsewhere = asyncio.ensure_future(sink.put([an_email("<3>", mailbox=OTHER)]))
    await ticks.let_pass(TICKS)
    assert not first.done()
    disk.wedged.clear()
    await ticks.let_pass(1)
    with pytest.raises(StorageError) as caught:
        await first
    assert caught.value.summary == "storing mail got no answer from the disk for 300 s"
    assert str(tmp_path) in caught.value.hint
    assert "network file system" in caught.value.hint
    assert (caught.value.asks, caught.value.scope) == (Asks.RETRY, Scope.PROCESS)
    # Another thread has taken its place; the mailbox has to wait.
    async with asyncio.timeout(30):
        await elsewhere
    assert ids(tmp_path, OTHER) == ["<3>"]
    with pytest.raises(StorageError, match="storing mail got no answer"):
        await queued
    for refused in (sink.put([an_email("<1>")]), sink.open(MAILBOX, None), sink.dead_letter([a_letter()])):
        with pytest.raises(StorageError, match="storing mail got no answer"):
            await refused
    assert list(health.troubles) == []
    with capture_logs() as logs:
        disk.release.set()
        await until(lambda: logs)
    assert [line["event"] for line in logs] == ["the disk answers again: a call that was given up has come back"]
    # What comes back late does not go on from there: it counts as not stored.
    assert ids(tmp_path) == []
    await sink.put([an_email("<1>")])
    await sink.aclose()
    assert ids(tmp_path) == ["<1>"]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread brings about."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


async def test_an_older_version_that_comes_back_late_does_not_overtake_a_newer_one(tmp_path: Path) -> None:
    disk, ticks = WedgedDisk("rename"), Ticks()
    sink = FileSink(tmp_path, disk=disk, patience=ticks.patience())
    await sink.open(MAILBOX, None)
    older = asyncio.ensure_future(sink.put([an_email(folder=("Inbox",))]))
    await disk.until_stuck()
    await ticks.let_pass(TICKS + 1)
    with pytest.raises(StorageError):
        await older
    with pytest.raises(StorageError):
        await sink.put([an_email(folder=("Archive",))])
    disk.wedged.clear()
    disk.release.set()
    newer = None
    while newer is None:
        try:
            newer = await sink.put([an_email(folder=("Archive",))])
        except StorageError:
            await asyncio.sleep(0.005)
    await sink.aclose()
    described = [json.loads(path.read_bytes()) for path in data_directory(tmp_path, MAILBOX).rglob("*.json")]
    assert [one["metadata"]["folder"] for one in described] == [["Archive"]]


async def test_a_save_that_comes_back_late_does_not_undo_a_later_one(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.aclose()
    disk, ticks = WedgedDisk(), Ticks()
    store = FileCheckpointStore(tmp_path, disk=disk, patience=ticks.patience())
    older = asyncio.ensure_future(store.save(MAILBOX, MailboxCheckpoint(sink_position="1")))
    await disk.until_stuck()
    await ticks.let_pass(TICKS + 1)
    with pytest.raises(StorageError, match="saving the checkpoint got no answer"):
        await older
    with pytest.raises(StorageError):
        await store.load(MAILBOX)
    disk.wedged.clear()
    other = FileCheckpointStore(tmp_path)
    await other.save(MAILBOX, MailboxCheckpoint(sink_position="2"))
    disk.release.set()
    await until(lambda: not store._threads._stuck)
    assert await store.load(MAILBOX) == MailboxCheckpoint(sink_position="2")
    await store.aclose()
    await other.aclose()


async def test_a_disk_that_is_only_slow_is_waited_for_and_said_to_be_slow_once(tmp_path: Path) -> None:
    class SlowDisk(Disk):
        def __init__(self) -> None:
            self.turns = threading.Semaphore(0)
            self.waiting = threading.Semaphore(0)

        def flush(self, descriptor: int) -> None:
            self.waiting.release()
            assert self.turns.acquire(timeout=30)
            super().flush(descriptor)

    disk, ticks = SlowDisk(), Ticks()
    sink = FileSink(tmp_path, disk=disk, patience=ticks.patience())
    await sink.open(MAILBOX, None)
    emails = [an_email(f"<{number}>") for number in range(10)]
    with capture_logs() as logs:
        putting = asyncio.ensure_future(sink.put(emails))
        for _ in range(2 * len(emails)):
            assert await asyncio.to_thread(disk.waiting.acquire, timeout=30)
            await ticks.let_pass(TICKS - 1)
            disk.turns.release()
        await putting
        assert len(ticks.slept) * LIMIT / TICKS > 5000, "far longer than a call without progress may take"
        await ticks.let_pass(20)
    await sink.aclose()
    assert [(line["event"].partition(":")[0], line["log_level"]) for line in logs] == [
        ("the disk is slow", "warning"),
        ("the disk is no longer slow", "info"),
    ]
    assert logs[0]["seconds"] == LIMIT / TICKS
    assert len(ids(tmp_path)) == 10


async def test_when_too_many_threads_are_stuck_everything_fails_at_once_and_health_says_so(tmp_path: Path) -> None:
    disk, ticks, health = WedgedDisk(), Ticks(), Health()
    patience = ticks.patience(most_stuck=2)
    mailboxes = [replace(MAILBOX, address=f"{number}@example.com") for number in range(4)]
    sink = FileSink(tmp_path, threads=1, disk=disk, health=health, patience=patience)
    for mailbox in mailboxes:
        await sink.open(mailbox, None)
    puts = [asyncio.ensure_future(sink.put([an_email(mailbox=mailbox)])) for mailbox in mailboxes[:3]]
    await disk.until_stuck()
    await ticks.let_pass(TICKS + 1)
    await disk.until_stuck()
    assert list(health.troubles) == []
    await ticks.let_pass(TICKS + 1)
    for put in puts:
        with pytest.raises(StorageError, match="no answer"):
            await put
    with pytest.raises(StorageError, match="no answer"):
        await sink.put([an_email(mailbox=mailboxes[3])])
    assert len(health.troubles) == 1
    assert "2 calls to the disk do not come back" in health.troubles[0]
    disk.wedged.clear()
    disk.release.set()
    await until(lambda: not health.troubles and not sink._mailboxes._threads._stuck)
    for mailbox in mailboxes:
        await sink.put([an_email(mailbox=mailbox)])
    await sink.aclose()


async def test_the_end_does_not_wait_for_a_stuck_thread_and_its_lock_goes_when_it_comes_back(tmp_path: Path) -> None:
    disk, ticks = WedgedDisk(), Ticks()
    sink = FileSink(tmp_path, disk=disk, patience=ticks.patience())
    for mailbox in (MAILBOX, OTHER):
        await sink.open(mailbox, None)
    putting = asyncio.ensure_future(sink.put([an_email()]))
    await disk.until_stuck()
    putting.cancel()
    async with asyncio.timeout(10):
        await sink.aclose()
    after = FileSink(tmp_path)
    await after.open(OTHER, None)
    # Two at work on one mailbox's files would be worse than to wait.
    with pytest.raises(StorageError, match="outlived") as caught:
        await after.open(MAILBOX, None)
    assert caught.value.asks is Asks.RETRY
    disk.release.set()
    async with asyncio.timeout(90):
        while True:
            try:
                await after.open(MAILBOX, None)
            except StorageError:
                await asyncio.sleep(0.005)
            else:
                break
    await after.aclose()
    assert ids(tmp_path) == []


@pytest.mark.parametrize("kind", [FileSink, JsonlSink])
async def test_a_message_that_is_let_go_of_under_a_cancelled_put_is_not_stored_empty(
    tmp_path: Path, kind: type[FileSink | JsonlSink]
) -> None:
    disk = WedgedDisk("write")
    sink = kind(tmp_path, disk=disk)
    mailbox = replace(MAILBOX, start_from=StartFrom.CONFIG)
    await sink.open(mailbox, None)
    emails = [an_email(f"<{number}>", mailbox=mailbox) for number in range(3)]
    putting = asyncio.ensure_future(sink.put(emails))
    await disk.until_stuck()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    for email in emails:
        email.mime.close()
    disk.release.set()
    disk.wedged.clear()
    await sink.aclose()
    again = kind(tmp_path)
    await again.open(mailbox, None)
    await again.aclose()
    assert ids(tmp_path) == []


async def test_a_cancelled_call_that_has_not_begun_never_begins(tmp_path: Path) -> None:
    disk = WedgedDisk()
    sink = FileSink(tmp_path, threads=1, disk=disk)
    await sink.open(MAILBOX, None)
    first = asyncio.ensure_future(sink.put([an_email("<1>")]))
    await disk.until_stuck()
    second = asyncio.ensure_future(sink.put([an_email("<2>")]))
    await asyncio.sleep(0)
    second.cancel()
    disk.release.set()
    await first
    await sink.aclose()
    assert ids(tmp_path) == ["<1>"]


async def test_dead_letters_beside_the_platform_are_watched_over_too(tmp_path: Path) -> None:
    disk, ticks = WedgedDisk(), Ticks()
    letters = DeadLetterDirectory(tmp_path, disk=disk, patience=ticks.patience())
    recording = asyncio.ensure_future(letters.record([a_letter()]))
    await disk.until_stuck()
    await ticks.let_pass(TICKS + 1)
    with pytest.raises(StorageError, match="got no answer") as caught:
        await recording
    assert "or run without --dead-letter-dir" in caught.value.hint
    disk.release.set()
    await until(lambda: not letters._threads._stuck)
    await letters.record([a_letter("1"), a_letter("2", mailbox=OTHER)])
    await letters.aclose()
    assert len([path for path in files_of(tmp_path) if path.name == "dead-letters.jsonl"]) == 2


async def test_threads_have_names_and_end(tmp_path: Path) -> None:
    before: Sequence[threading.Thread] = threading.enumerate()
    sink = FileSink(tmp_path, threads=3)
    await sink.open(MAILBOX, None)
    await asyncio.gather(*(sink.put([an_email(f"<{number}>")]) for number in range(20)))
    ours = [thread for thread in threading.enumerate() if thread not in before]
    assert sorted(thread.name for thread in ours) == [f"disk-{number}" for number in range(1, len(ours) + 1)]
    assert 1 <= len(ours) <= 3
    assert all(thread.daemon for thread in ours)
    await sink.aclose()
    for thread in ours:
        thread.join(10)
        assert not thread.is_alive()
