"""One run: processes that come and go on one server and one disk, as a plan says, and what must hold then."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import ews_sync.engine.engine
from ews_sync.errors import Asks, EwsSyncError, Scope
from ews_sync.model import Mailbox
from ews_sync.telemetry.status import Status
from tests.engine.virtual_time import START
from tests.engine.world import BUCKET
from tests.simulation.faults import Faults, Outage
from tests.simulation.history import History
from tests.simulation.invariants import Invariants, ViolatedError
from tests.simulation.logs import listening
from tests.simulation.loop import BusyError, SeededClock, SeededLoop
from tests.simulation.people import UNWANTED, People
from tests.simulation.server import SimulatedExchange, SimulatedSource
from tests.simulation.storage import SimulatedCheckpoints, SimulatedDisk, SimulatedSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import ModuleType

    from structlog.typing import EventDict

    from ews_sync.engine.engine import Engine
    from ews_sync.model import Folder, MailboxCheckpoint
    from tests.simulation.plan import Act, Plan

QUIET_WITHIN = 7200.0
"""Virtual seconds without faults in which everything must be stored. The longest wait of the engine is 300."""
_FOR_CHECKPOINTS = 4.0
"""Seconds that the engine takes at most where its grace is shorter."""
CALLS_PER_MINUTE = {"source": 40, "sink": 120, "store": 40}
"""How many calls of a part that is away a mailbox may make in any minute, after the first."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to."""

    emails: int
    uploads: int
    crashes: int
    processes: int
    seconds: float
    """Of virtual time."""
    steps: int
    faults: Counter[str]


class ServerClock:
    """The time on the server and on people's watches: the true one."""

    def __init__(self, moment: Callable[[], float]) -> None:
        self.monotonic = moment

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Process:
    """One life of the appliance: a loop, and an engine on it, from its start until it ends or dies."""

    def __init__(self, simulation: Simulation, number: int, now: float) -> None:
        plan, disk, history = simulation.plan, simulation.disk, simulation.history
        self.loop = SeededLoop(random.Random(plan.seed * 1000 + number), now)
        self.clock = SeededClock(self.loop)
        self.clock.skew = simulation.skew
        faults = Faults(plan.rates, plan.seed * 7919 + number, history, self.clock, simulation.addresses)
        self.faults = faults
        self.source = SimulatedSource(simulation.exchange, self.clock, faults, history, simulation.marking)
        self.sink = SimulatedSink(disk, self.clock, plan.sink, faults, history)
        self.store = SimulatedCheckpoints(disk, self.clock, plan.sink, faults, history, simulation.saving)
        self.source.latency = self.source.jitter = self.sink.latency = plan.latency
        self.store.interval = plan.interval
        engine = simulation.engine
        options = engine.EngineOptions(
            pace=plan.pace,
            fetches_at_once=plan.fetches_at_once,
            turns=plan.turns,
            small=plan.small,
            memory_for_mail=plan.memory,
            grace=plan.grace,
            jitter=simulation.exchange.random.random,
        )
        self.overlap: timedelta = options.overlap
        self.engine: Engine = engine.Engine(
            simulation.mailboxes, self.source, self.sink, self.store, self.clock, Status("simulated", START), options
        )
        self.task = self.loop.create_task(self.engine.run())

    def die(self) -> None:
        """Let nothing that it would still do have an effect."""
        self.store.die()
        self.sink.die()
        self.loop.kill()

    def checkpoint(self, mailbox: Mailbox) -> MailboxCheckpoint:
        """Give what the process knows to be stored of a mailbox."""
        return next(sync._storing.checkpoint for sync in self.engine._mailboxes if sync.mailbox == mailbox)

    def left_behind(self) -> list[str]:
        """Say what an orderly end has left behind, of what it should have given back."""
        for _ in range(5):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        found = [f"a task: {task!r}" for task in asyncio.all_tasks(self.loop)]
        if self.source.opened.count:
            found.append(f"{self.source.opened.count} messages are still open")
        if self.engine._pipeline._budget.used:
            found.append(f"{self.engine._pipeline._budget.used} bytes are still reserved")
        if self.engine._pipeline._in_flight:
            found.append(f"{self.engine._pipeline._in_flight} batches are still on their way")
        return found + self.loop.wrong


class Simulation:
    """A run of a plan. `engine` is the module whose `Engine` runs: the real one, or one that is broken on purpose."""

    def __init__(self, plan: Plan, engine: ModuleType = ews_sync.engine.engine, *, traced: bool = False) -> None:
        self.plan = plan
        self._traced = traced
        self.engine = engine
        self.history = History()
        self.disk = SimulatedDisk()
        self.skew = 0.0
        self.now = 0.0
        self.crashes = 0
        self.steps = 0
        self.process: Process | None = None
        clock = ServerClock(self.moment)
        self.exchange = SimulatedExchange(clock, plan.seed)
        self.exchange.page_size = plan.page_size
        self.exchange.feed_size = plan.feed_size
        self.exchange.activity = plan.activity
        self.mailboxes = [self._mailbox(f"{letter}@x") for letter in "abc"[: plan.mailboxes]]
        self.addresses = tuple(mailbox.address for mailbox in self.mailboxes)
        self.invariants = Invariants(plan.sink, self.exchange, self.disk, self.mailboxes, self.history)
        self.people = People(plan, self.exchange, self.addresses, clock, self.history)
        self._processes = 0
        self._healed = False
        self._violated: ViolatedError | None = None

    def run(self) -> Figures:
        """Run the plan, let things heal, and look at what came of it. Raises `ViolatedError`."""
        with listening(self._logged, everything=self._traced):
            return self._run_plan()

    def _logged(self, event: EventDict) -> None:
        """Hear of what the engine logs: what comes with a traceback is a defect of its own."""
        if event.get("exc_info"):
            self._violated = self._violated or _as_violation(sys.exc_info()[1])
        self.history.note(self.moment(), "log", " ".join(f"{key}={value}" for key, value in event.items()))

    def _run_plan(self) -> Figures:
        try:
            self.people.move_in()
            for act in self.plan.acts:
                self._until(act)
                self._act(act)
            self._heal()
            self._end()
        except BusyError as error:
            raise ViolatedError("everything comes to rest", str(error)) from error
        finally:
            if self.process is not None:
                self.process.die()
        return Figures(
            emails=len(self.exchange.carriers),
            uploads=sum(map(len, self.history.uploads.values())),
            crashes=self.crashes,
            processes=self._processes,
            seconds=self.now,
            steps=self.steps,
            faults=self.history.faults,
        )

    def saving(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Hear of a checkpoint that is being saved."""
        try:
            self.invariants.saving(mailbox, checkpoint)
        except ViolatedError as error:
            # What is raised here would be the engine's to handle.
            self._violated = self._violated or error
        self.history.note(self.moment(), "saved", f"a checkpoint of {mailbox.address}")

    def marking(self, mailbox: Mailbox, folder: Folder) -> None:
        """Hear that a process takes a new position in a folder, for the first time or once more."""
        process = self._alive()
        before = process.checkpoint(mailbox).folders.get(folder.id)
        if before is not None and before.backfill is not None:
            # What the feed brought beyond the end of the old search, until now, is listed by the new one.
            self.history.cause(mailbox.address, "forgotten while behind")
        self.invariants.excuse(mailbox, before, folder.id, process.overlap, process.sink.recall)

    def moment(self) -> float:
        """Give the seconds that have passed."""
        return self.now if self.process is None else self.process.loop.now

    # --- Processes ---------------------------------------------------------------------------------------------------

    def _alive(self) -> Process:
        """Give the process; where there is none, start one."""
        if self.process is None:
            self._processes += 1
            self.history.process = self._processes
            self.history.note(self.now, "start", "a new process")
            if self.plan.start_from == "config":
                self._cause("start from config")
            self.process = Process(self, self._processes, self.now)
            if self._healed:
                self.process.faults.heal()
        return self.process

    def _gone(self, process: Process) -> None:
        self.now = process.loop.now
        self.steps += process.loop.steps
        self.process = None

    def _cause(self, why: str) -> None:
        for address in self.addresses:
            self.history.cause(address, why)

    def _forgotten(self) -> None:
        """Say where a process has died before anything was known of it: the next one cannot tell that it was there."""
        for mailbox in self.mailboxes:
            saved = self.disk.checkpoints.get(mailbox.address)
            known = () if saved is None else saved.folders
            if not all(folder in known for folder in self.exchange.mailboxes[mailbox.address]):
                self.history.cause(mailbox.address, "nothing saved yet")

    def _run(self, seconds: float, steps: int | None = None) -> bool:
        process = self._alive()
        halted = process.loop.run_for(seconds, steps)
        self._look_after(process)
        return halted

    def _look_after(self, process: Process) -> None:
        """See whether the process has ended: only what asks for an operator may end it, who starts it again."""
        if self._violated is not None:
            raise self._violated
        if process.loop.wrong:
            raise ViolatedError("nothing goes wrong unnoticed", "; ".join(process.loop.wrong))
        if not process.task.done():
            return
        error = process.task.exception()
        if not (isinstance(error, EwsSyncError) and error.asks is Asks.STOP and error.scope is Scope.PROCESS):
            raise _as_violation(error)
        self.history.note(process.loop.now, "ended", f"the process ends: {error}")
        self._cause("ended")
        self._check_left(process)
        process.die()
        self._gone(process)

    def _check_left(self, process: Process) -> None:
        left = process.left_behind()
        if left:
            raise ViolatedError("nothing is left behind", "; ".join(left))

    # --- What happens ------------------------------------------------------------------------------------------------

    def _until(self, act: Act) -> None:
        self._run(act.seconds, act.steps or None)

    def _act(self, act: Act) -> None:
        match act.kind:
            case "crash":
                self._crash()
            case "stop" | "hurry":
                self._stop(act)
            case "forget":
                self.history.note(self.moment(), "forget", "the server forgets all positions")
                self._cause("forget")
                self.exchange.forget_cursors()
            case "clock":
                self.skew += random.Random(act.seed).choice([-86400.0, -3600.0, -30.0, 45.0, 3600.0, 86400.0])
                self.history.note(self.moment(), "clock", f"the wall clock is off by {self.skew:.0f}s")
                self._alive().clock.skew = self.skew
            case "outage":
                self._outage(act)
            case "bucket":
                address = random.Random(act.seed).choice(self.addresses)
                self.history.note(self.moment(), "bucket", f"the bucket of {address} is made anew")
                self.history.cause(address, "bucket")
                self.disk.made_anew(address)
                self.invariants.made_anew(address)
            case _:
                self.people.act(act.kind, act.seed)

    def _crash(self) -> None:
        process = self._alive()
        self.crashes += 1
        at = process.loop.now
        self.history.note(at, "crash", f"the process dies at step {process.loop.steps}")
        self._cause("crash")
        process.die()
        self._forgotten()
        self._gone(process)
        self.now = at

    def _stop(self, act: Act) -> None:
        """End the process in an orderly way; sometimes it dies meanwhile."""
        process = self._alive()
        dice = random.Random(act.seed)
        grace = 0.0 if act.kind == "hurry" else self.plan.grace
        process.engine._options = replace(process.engine._options, grace=grace)
        # It may be ending already.
        allowed = self.plan.grace if process.engine._pipeline._closing.is_set() else grace
        self.history.note(process.loop.now, "stop", f"the process is told to stop, within {grace:.0f}s")
        self._cause("stop" if act.kind == "stop" else "hurry")
        process.engine.stop()
        if dice.random() < 0.2 and process.loop.run_for(0, dice.randrange(1, 200)) and not process.task.done():
            self._crash()
            return
        self._await_end(process, allowed)
        process.die()
        self._gone(process)

    def _await_end(self, process: Process, grace: float) -> None:
        process.task.add_done_callback(lambda _: process.loop.stop())
        began = process.loop.now
        if not process.task.done():
            process.loop.run_for(max(grace, _FOR_CHECKPOINTS) + 1.0)
        took = process.loop.now - began
        if not process.task.done():
            raise ViolatedError("everything stops when told", f"still running {took:.1f}s after the stop")
        error = process.task.exception()
        if error is not None and not isinstance(error, EwsSyncError):
            raise _as_violation(error)
        self._check_left(process)

    def _outage(self, act: Act) -> None:
        """Let all calls of some parts fail for minutes, and count them."""
        dice = random.Random(act.seed)
        kinds = [(asks, scope) for asks in Asks for scope in Scope if (asks, scope) != (Asks.STOP, Scope.PROCESS)]
        asks, scope = dice.choice(kinds)
        parts = dice.choice([["source"], ["sink"], ["store"], ["sink", "store"], ["source", "sink", "store"]])
        minutes = dice.choice([3, 10, 30])
        process = self._alive()
        began = process.loop.now
        outage = process.faults.outage = Outage(parts, asks, scope, began + 60.0 * minutes)
        self.history.fault("outage")
        self.history.note(began, "outage", str(outage))
        self._cause("outage")
        process.faults.calls.clear()
        self._run(60.0 * minutes)
        if self.process is process:
            self._check_pace(process, outage, began)

    def _check_pace(self, process: Process, outage: Outage, began: float) -> None:
        for part in outage.parts:
            minutes = Counter(int((at - began) // 60) for at, which in process.faults.calls if which == part)
            del minutes[0]
            most = max(minutes.values(), default=0)
            allowed = CALLS_PER_MINUTE[part] * len(self.mailboxes)
            if most > allowed:
                raise ViolatedError(
                    "nobody is hammered", f"{most} calls of the {part} in a minute of an outage ({allowed} allowed)"
                )

    # --- The end -----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Let nothing fail any more, and run until everything is stored."""
        self._healed = True
        self.history.note(self.moment(), "heal", "nothing fails any more")
        process = self._alive()
        process.faults.heal()
        # A bucket that was made anew is only noticed by the next that is put into it.
        self.people.one_more()
        ends_at = self.moment() + QUIET_WITHIN
        while self.moment() < ends_at:
            self._run(60.0)
            if not self.invariants.missing() and self._is_quiet():
                return
        for name, problem in self.invariants.missing():
            raise ViolatedError("everything is stored in the end", f"{name} {problem}", name)
        raise ViolatedError("everything comes to rest", f"it does not: {self._unrest()}")

    def _is_quiet(self) -> bool:
        return not self._unrest() and not self._alive().sink.in_flight

    def _unrest(self) -> str:
        """Say which folder is not up to date in what is saved; \"\" when all are."""
        for mailbox in self.mailboxes:
            saved = self.disk.checkpoints.get(mailbox.address)
            for store in self.exchange.mailboxes[mailbox.address].values():
                if not mailbox.wants(store.path):
                    continue
                folder = None if saved is None else saved.folders.get(store.id)
                if folder is None or folder.cursor is None or folder.backfill is not None:
                    return f"{mailbox.address} {'/'.join(store.path)}: {folder}"
                if folder.cursor != f"{store.generation}:{len(store.log)}":
                    return f"{mailbox.address} {'/'.join(store.path)} is at {folder.cursor}, not at {len(store.log)}"
        return ""

    def _end(self) -> None:
        """Stop, start once more, and see that nothing is done again."""
        process = self._alive()
        self._await_orderly(process)
        self.invariants.at_the_end()
        self.invariants.repeats()
        before = len(self.history.uploads), sum(map(len, self.history.uploads.values()))
        self._run(40.0)
        again = self._alive()
        if self.plan.start_from != "config" and again.source.count("fetch"):
            raise ViolatedError("nothing is stored again without a cause", "a start over a quiet mailbox fetches mail")
        if self.plan.start_from != "config":
            assert before == (len(self.history.uploads), sum(map(len, self.history.uploads.values())))
        self._await_orderly(again)
        self.invariants.at_the_end()
        gc.collect()
        if again.loop.wrong:
            raise ViolatedError("nothing goes wrong unnoticed", "; ".join(again.loop.wrong))

    def _await_orderly(self, process: Process) -> None:
        process.engine.stop()
        self._await_end(process, self.plan.grace)
        process.die()
        self._gone(process)

    def _mailbox(self, address: str) -> Mailbox:
        denied = ((UNWANTED,),) if self.plan.unwanted else ()
        return Mailbox(address, BUCKET, self.plan.start_from, start_timestamp=self.plan.start, folder_denylist=denied)


def _as_violation(error: BaseException | None) -> ViolatedError:
    """Find what is behind the end of a process; a violated invariant is raised through the engine."""
    found = error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    seen = found
    while seen is not None and not isinstance(seen, ViolatedError):
        seen = seen.__cause__
    if seen is not None:
        return seen
    violated = ViolatedError("the process goes on", f"it ended with {found!r}")
    violated.__cause__ = found
    return violated
