"""Threads for what blocks on a disk, and what becomes of them when the disk no longer answers.

A call to a dead network file system never returns, and nothing can end the thread that made it. Such a thread is given
up and replaced: whoever waits for it is told, and nothing else is begun on the same mailbox's files until it comes
back, so that there are never two at work on them. A disk that is only slow is waited for: what counts is the time since
the last operation, not since the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from ews_sync.errors import StorageError
from ews_sync.sinks.durable import Disk
from ews_sync.sinks.storage_errors import storage_error
from ews_sync.telemetry.health import Health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
    from pathlib import Path

_P = ParamSpec("_P")
_T = TypeVar("_T")

_TICKS = 10
"""How often a call is looked at within the time after which it is given up."""
_HEALTHY = 20
"""After so many looks without a slow operation the disk counts as quick again."""
_FOR_LOCKS = 5.0
"""Seconds that giving locks back may take at the end."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a disk is waited for, in seconds.

    A call without any progress for `limit` is given up, one without progress for a tenth of it makes the disk slow.
    `linger` is how long the end waits for calls whose callers are gone; `most_stuck` how many threads may be given up.
    """

    limit: float = 300.0
    linger: float = 0.5
    most_stuck: int = 8
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


class DiskThreads:
    """A bounded number of threads for what blocks on a disk, and the place where `OSError` becomes `StorageError`.

    `health` hears when so many threads are stuck that nothing more is begun. Everything but `watched`'s disk belongs
    to the event loop.
    """

    def __init__(
        self, prefix: Path, threads: int, *, health: Health | None = None, patience: Patience | None = None
    ) -> None:
        self._prefix = prefix
        self._threads = threads
        self._health = health or Health()
        self._patience = patience or Patience()
        self._waiting: deque[_Call] = deque()
        self._running: set[_Call] = set()
        self._stuck: list[_Call] = []
        self._idle: list[_Worker] = []
        self._workers = 0
        self._named = 0
        self._current = threading.local()
        self._watcher: asyncio.Task[None] | None = None
        self._slow = False
        self._trouble = ""
        self._last: dict[Hashable, Callable[[], object]] | None = None
        """What is still to be done at the end, by key; None while this is not the end."""
        self._settled = asyncio.Event()
        self._log = structlog.get_logger("ews_sync.sinks")

    def watched(self, disk: Disk) -> Disk:
        """Give a disk by which it is seen that a call makes progress, and that refuses to a call that was given up."""
        return _WatchedDisk(disk, self._step)

    async def run(
        self, key: Hashable, doing: str, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run `function` in a thread. `key` says whose files it is about, `doing` in an error what failed.

        If cancelled, the thread goes on to its next operation on the disk and undoes there what it has begun. Raises
        `StorageError` also for a call that was given up, and at once for one that may not be begun because of it.
        """
        if self._last is not None:
            raise RuntimeError("the threads have been ended")
        self._refuse_if_stuck(key)
        call = _Call(key, doing, partial(function, *args, **kwargs), asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._dispatch()
        try:
            result: _T = await call.done
        except OSError as error:
            raise storage_error(error, doing, self._prefix) from error
        finally:
            call.given_up = True
            if call in self._waiting:
                self._waiting.remove(call)
        return result

    async def aclose(self, last: Mapping[Hashable, Callable[[], object]] | None = None) -> None:
        """End the threads. Each of `last` is done once nothing of its key is running: now, or when that comes back.

        What is stuck is not waited for: it ends with the process.
        """
        self._last = dict(last or {})
        for call in self._waiting:
            call.done.cancel()
        self._waiting.clear()
        begun = self._finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience.linger):
                await self._settled.wait()
        if begun is not None:
            await asyncio.wait({begun.done}, timeout=_FOR_LOCKS)
        if self._watcher is not None:
            self._watcher.cancel()

    # --- Beginning and ending calls ----------------------------------------------------------------------------------

    def _refuse_if_stuck(self, key: Hashable) -> None:
        same = [call for call in self._stuck if call.key == key]
        if same:
            raise self._error(same[0])
        if len(self._stuck) >= self._patience.most_stuck:
            raise self._error(self._stuck[-1])

    def _dispatch(self) -> None:
        while self._waiting and (self._idle or self._workers < self._threads):
            self._start(self._waiting.popleft())
        if self._running and (self._watcher is None or self._watcher.done()):
            self._watcher = asyncio.create_task(self._watch(), name="disk watch")

    def _start(self, call: _Call) -> None:
        self._running.add(call)
        if self._idle:
            worker = self._idle.pop()
        else:
            self._named += 1
            self._workers += 1
            worker = _Worker(f"disk-{self._named}", self._current, self._returned)
        worker.calls.put(call)

    def _returned(self, worker: _Worker, call: _Call, result: object, error: BaseException | None) -> None:
        """Hear from a thread that a call has come to its end."""
        if call in self._running:
            self._running.discard(call)
            self._idle.append(worker)
            if not call.done.done():
                if error is None:
                    call.done.set_result(result)
                else:
                    call.done.set_exception(error)
        else:
            self._come_back(call)
            worker.calls.put(None)
        if self._last is None:
            self._dispatch()
        else:
            self._finish()

    def _finish(self) -> _Call | None:
        """Do what is to be done at the end and can be by now; give the call that does it."""
        waiting = self._last or {}
        busy = {call.key for call in (*self._running, *self._stuck)}
        ready = [waiting.pop(key) for key in list(waiting) if key not in busy]
        begun = None
        if ready:
            begun = _Call(None, "finishing", partial(_do_all, ready), asyncio.get_running_loop().create_future())
            self._start(begun)
        if not self._running:
            self._settled.set()
            for worker in self._idle:
                worker.calls.put(None)
            self._idle.clear()
        return begun

    # --- Watching over them ------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Take note, in a thread, that its call goes on; `OSError` when it was given up."""
        call: _Call | None = getattr(self._current, "call", None)
        if call is None:
            return
        call.steps += 1
        if call.given_up:
            raise OSError(errno.ECANCELED, "nobody waits for this any more")

    async def _watch(self) -> None:
        """Look at what is running, for as long as there is anything to see."""
        healthy = 0
        while self._running or self._slow:
            await self._patience.sleep(self._patience.limit / _TICKS)
            for call in [*self._running]:
                call.still = call.still + 1 if call.steps == call.seen else 0
                call.seen = call.steps
                if call.still >= _TICKS:
                    self._give_up(call)
            slow = next((call for call in self._running if call.still), None)
            healthy = healthy + 1 if slow is None else 0
            if slow is not None and not self._slow:
                self._slow = True
                self._log.warning(
                    "the disk is slow: one operation takes longer than it should; mail comes slowly meanwhile",
                    doing=slow.doing,
                    where=str(self._prefix),
                    seconds=round(self._patience.limit / _TICKS),
                )
            elif self._slow and healthy >= _HEALTHY:
                self._slow = False
                self._log.info("the disk is no longer slow", where=str(self._prefix))

    def _give_up(self, call: _Call) -> None:
        self._running.discard(call)
        self._workers -= 1
        self._stuck.append(call)
        call.given_up = True
        full = len(self._stuck) >= self._patience.most_stuck
        if full and not self._trouble:
            self._trouble = (
                f"{len(self._stuck)} calls to the disk do not come back, the last of them {call.doing} in "
                f"{self._prefix}: nothing more is written there"
            )
            self._health.stuck(self._trouble)
        refused = [waiting for waiting in self._waiting if full or waiting.key == call.key]
        for other in (call, *refused):
            if not other.done.done():
                other.done.set_exception(self._error(call))
        self._waiting = deque(waiting for waiting in self._waiting if waiting not in refused)
        self._dispatch()

    def _come_back(self, call: _Call) -> None:
        self._stuck.remove(call)
        if self._trouble and len(self._stuck) < self._patience.most_stuck:
            self._health.freed(self._trouble)
            self._trouble = ""
        self._log.info("the disk answers again: a call that was given up has come back", doing=call.doing)

    def _error(self, call: _Call) -> StorageError:
        return StorageError(
            f"{call.doing} got no answer from the disk for {self._patience.limit:.0f} s",
            hint=f"see whether the volume of {self._prefix} answers, and the server of a network file system; "
            "this goes on by itself once it does",
        )


@dataclass(eq=False, slots=True)
class _Call:
    """Something to be done in a thread. `steps` counts operations; `seen` and `still` are the watcher's own."""

    key: Hashable
    doing: str
    function: Callable[[], object]
    done: asyncio.Future[Any]
    given_up: bool = False
    steps: int = 0
    seen: int = -1
    still: int = 0


class _Worker:
    """A thread that takes calls until it gets None. A daemon: the process can end whatever it is doing."""

    def __init__(
        self,
        name: str,
        current: threading.local,
        returned: Callable[[_Worker, _Call, object, BaseException | None], None],
    ) -> None:
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._current = current
        self._returned = returned
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        # A function of its own, so that a thread that waits for the next call does not keep the last one's messages.
        call = self.calls.get()
        if call is None:
            return False
        self._current.call = call
        result, failure = None, None
        try:
            result = call.function()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            failure = error
        del self._current.call
        try:
            self._loop.call_soon_threadsafe(self._returned, self, call, result, failure)
        except RuntimeError:
            # The event loop is closed: the process is at its end.
            return False
        return True


class _WatchedDisk(Disk):
    """Tells of each operation before it is done. What only undoes something is not refused."""

    def __init__(self, disk: Disk, step: Callable[[], None]) -> None:
        self._disk = disk
        self._step = step

    def create(self, path: Path) -> int:
        self._step()
        return self._disk.create(path)

    def append(self, path: Path) -> int:
        self._step()
        return self._disk.append(path)

    def read(self, path: Path) -> bytes:
        self._step()
        return self._disk.read(path)

    def write(self, descriptor: int, data: bytes) -> None:
        self._step()
        self._disk.write(descriptor, data)

    def start_flush(self, descriptor: int) -> None:
        self._step()
        self._disk.start_flush(descriptor)

    def flush(self, descriptor: int) -> None:
        self._step()
        self._disk.flush(descriptor)
        # What got onto the disk too late is undone as well, where it can be.
        self._step()

    def truncate(self, descriptor: int, size: int) -> None:
        with contextlib.suppress(OSError):
            self._step()
        self._disk.truncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        self._disk.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._step()
        self._disk.link(source, target)

    def remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._step()
        self._disk.remove(path)

    def flush_directory(self, path: Path) -> None:
        self._step()
        self._disk.flush_directory(path)

    def make_directory(self, path: Path) -> None:
        self._step()
        self._disk.make_directory(path)


def _do_all(functions: Sequence[Callable[[], object]]) -> None:
    for function in functions:
        function()
