"""The appliance as a process: start, signals, the order in which things stop, and starting again."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import random
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import uvloop

from ews_sync import __version__
from ews_sync.assembly import engine_options, open_sink, open_source, own_mailboxes, warnings_of
from ews_sync.clock import SystemClock
from ews_sync.config_watch import ConfigWatch
from ews_sync.engine.backoff import Backoff
from ews_sync.engine.engine import Engine
from ews_sync.engine.tasks import sleep_unless
from ews_sync.errors import AlreadyRunningError, AuthenticationError, DefectError, EwsSyncError
from ews_sync.remote_config import config_loader
from ews_sync.server.http import StatusServer
from ews_sync.settings.describe import describe
from ews_sync.settings.values import ConfigFile
from ews_sync.telemetry.logging import configure_logging
from ews_sync.telemetry.redaction import Redactor
from ews_sync.telemetry.status import Failure, ShardNote, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ews_sync.model import Bucket, Clock
    from ews_sync.remote_config import LoadConfig, ReadConfig
    from ews_sync.settings.values import RunOptions, Settings

T = TypeVar("T")

_AFTER_REFUSAL = 300.0
"""Seconds to wait before refused credentials are tried again."""


def run(start: RunOptions, read: ReadConfig) -> int:
    """Run until SIGTERM or SIGINT. Gives the exit code; raises the `EwsSyncError` that an operator must act on.

    `start` are `Settings` where there is a config already. `read` checks a config when it is looked at (again).
    """
    spare_the_search_for("sniffio")
    # What is loaded stays for good. The collector, which comes by the less often the more there is, need not count it.
    gc.collect()
    gc.freeze()
    # Hardly anything needs the collector, and what does is small. It comes by a seventh as often as it would by itself,
    # which was a tenth of what an email takes.
    gc.set_threshold(5000, 20, 20)
    redactor = Redactor.of(start)
    configure_logging(start.debug_level, stream=sys.stderr, redactor=redactor)

    def read_and_keep_secret(remote: bytes | None) -> Settings:
        settings = read(remote)
        redactor.register(settings)
        return settings

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(start, read_and_keep_secret, SystemClock()))
    return 0


def spare_the_search_for(package: str) -> None:
    """Have the import of a package that is not installed fail at once, and not after a search of the disk.

    httpcore looks for sniffio again and again, with each request: that is a tenth of what a request takes.
    """
    if importlib.util.find_spec(package) is None:
        # What the import system has None for is not there (Python's reference, "The import system", the module cache).
        sys.modules[package] = None  # type: ignore[assignment]


async def _serve(start: RunOptions, read: ReadConfig, clock: Clock) -> None:
    async with config_loader(start, read, clock) as load:
        await run_until_signalled(Appliance(start, clock, load))


async def run_until_signalled(appliance: Appliance) -> None:
    """Run; SIGTERM or SIGINT asks for an orderly end, and a second one ends the process at once.

    SIGHUP has the config looked at again, where it can be.
    """
    loop = asyncio.get_running_loop()
    log = structlog.get_logger("ews_sync.app")

    def signalled(number: signal.Signals) -> None:
        if appliance.stopping:
            log.warning("stopped at once, by a second signal", signal=number.name)
            os._exit(128 + number)
        log.info("stopping: what is being stored is finished first", signal=number.name)
        appliance.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
    if not appliance.can_reload:
        await appliance.run()
        return
    loop.add_signal_handler(signal.SIGHUP, appliance.reload)
    # One that came during the start was held back, and is heard now; one that comes after the end must not change how
    # the process ends.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        await appliance.run()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


class Appliance:
    """One run of the service.

    The HTTP server, and an engine that may be built anew while the server goes on answering. `start` are `Settings`
    where there is a config already; else `load` has to give one. `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        start: RunOptions,
        clock: Clock,
        load: LoadConfig | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        shard = start.shard
        self._options = start
        self._clock = clock
        self._jitter = jitter
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        """Set when a wait has lost its reason: it is to stop, or the config is another one."""
        self.listening = asyncio.Event()
        """Set once the HTTP server answers."""
        self._engine: Engine | None = None
        self._shown: tuple[str, ...] = ()
        """The warnings about the config in force."""
        self._begun: set[tuple[Bucket, str]] = set()
        self._log = structlog.get_logger("ews_sync.app")
        self.status = Status(
            __version__,
            clock.now(),
            shard=None if shard is None else ShardNote(shard.name, shard.number, shard.total),
            sink=start.destination,
        )
        self._config = ConfigWatch(start, load, self.status, clock, jitter=jitter)
        self.server = StatusServer(start.bind, self.status, clock)

    # --- From outside ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`. Raises the error that asks for an operator."""
        await self.server.start()
        self.listening.set()
        try:
            await self._run()
        finally:
            await self.server.aclose()
        self._log.info("stopped")

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    @property
    def can_reload(self) -> bool:
        """Whether the config can be looked at again."""
        return self._config.can_look

    def stop(self) -> None:
        """Ask for an orderly end."""
        self.status.stopping = True
        self._stop.set()
        self._interrupt()

    def reload(self) -> None:
        """Have the config looked at again; another one is put in force."""
        if self.stopping:
            self._log.info("the config is not looked at again: this is stopping", signal="SIGHUP")
            return
        self._log.info("the config is looked at again", signal="SIGHUP", config=self._options.config_source)
        self._config.ask()

    # --- Start and end -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        listening = f"http://{self.server.address}"
        if self._config.settings is None:
            self._log.info("fetching the config", listening=listening, config=self._options.config_source)
            await self._unless_stopped(self._config.load_first())
        settings = self._config.settings
        if settings is None or self.stopping:
            return
        self._show(settings)
        self._say_hello(settings, listening)
        watching = asyncio.create_task(self._config.run(self._interrupt), name="config")
        watching.add_done_callback(self._config_watch_ended)
        try:
            await self._run_engines()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _config_watch_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.error("a defect in ews-sync: the config is no longer looked at", exc_info=error)
            self.status.health.stuck("looking at the config")

    def _interrupt(self) -> None:
        """Have the engine come to its end in an orderly way, and any wait."""
        self._wake.set()
        if self._engine is not None:
            self._engine.stop()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do it, but leave off when told to stop."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return None if self.stopping else doing.result()
        finally:
            doing.cancel()
            stopping.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)

    def _show(self, settings: Settings) -> None:
        """Show what of the config /status tells."""
        shard, own = settings.shard, len(own_mailboxes(settings))
        if shard is not None:
            self.status.shard = ShardNote(shard.name, shard.number, shard.total, own, len(settings.mailboxes))
        found = warnings_of(settings)
        for warning in self._shown:
            if warning not in found:
                self.status.settle(warning)
        self._shown = found
        for warning in found:
            self._warn(warning)

    def _warn(self, warning: str) -> None:
        """Show a warning on /status and log it, once."""
        if self.status.warn(warning):
            self._log.warning(warning)

    def _say_hello(self, settings: Settings, listening: str) -> None:
        place = settings.config_place
        unused = {"not_used": str(place.instead_of)} if isinstance(place, ConfigFile) and place.instead_of else {}
        self._log.info(
            "started",
            version=__version__,
            listening=listening,
            config=settings.config_source,
            **unused,
            mailboxes=len(own_mailboxes(settings)),
        )

    # --- The engine, and what comes after it -------------------------------------------------------------------------

    async def _run_engines(self) -> None:
        """Run an engine; build another one when the config has changed.

        Where restarts are asked for, also after what would have ended the process.
        """
        backoff = Backoff(first=5.0, longest=300.0, jitter=self._jitter)
        while not self._stop.is_set():
            self._wake.clear()
            started = self._clock.monotonic()
            try:
                await self._run_engine()
            except EwsSyncError as error:
                if self.stopping:
                    self._log.error("failed while it was stopping", problem=error.summary, code=error.code)
                    return
                if not self._options.restart_on_unrecoverable_errors or isinstance(error, AlreadyRunningError):
                    self._log.error("cannot go on", problem=error.summary, hint=error.hint, code=error.code)
                    raise
                if self._clock.monotonic() - started > 600:
                    backoff.reset()
                await self._wait_after(error, backoff.next())

    async def _wait_after(self, error: EwsSyncError, wait: float) -> None:
        """Stand still for a while after what would have ended the process, and look whether the config is better."""
        if isinstance(error, AuthenticationError):
            # Accounts get locked by wrong passwords: one try in a while, and not one every few seconds.
            wait = max(wait, _AFTER_REFUSAL)
        self._log.error(
            "cannot go on; everything is built anew",
            problem=error.summary,
            hint=error.hint,
            code=error.code,
            wait=round(wait),
        )
        self.status.failure = Failure.of(error, self._clock.now())
        await sleep_unless(self._wake, wait, self._clock)
        if not self._wake.is_set():
            await self._unless_stopped(self._config.look())
        self.status.failure = None

    async def _run_engine(self) -> None:
        """Build everything and run it until it is told to stop. Raises what ends it before."""
        try:
            await self._run_parts()
        except EwsSyncError:
            raise
        except Exception as error:
            self._log.exception("a defect in ews-sync: please report this with the lines before it")
            raise DefectError(error) from error
        finally:
            self._engine = None
            # The engine has come to its end, which need not be that of the process.
            self.status.stopping = self.stopping

    async def _run_parts(self) -> None:
        settings = self._config.settings
        if settings is None:
            raise ValueError("the engine needs a config")
        self._show(settings)
        self._log.debug("settings", **describe(settings))
        if self.status.idle:
            self._log.info("no mailbox of the config belongs to this shard; idling", shard=str(self.status.shard))
        async with AsyncExitStack() as stack:
            source = open_source(settings, self._clock, self.status)
            stack.push_async_callback(source.aclose)
            sink, store = open_sink(settings, self._clock, self.status.health, self._warn)
            stack.push_async_callback(sink.aclose)
            stack.push_async_callback(store.aclose)
            options = engine_options(settings, self._begun)
            self._engine = Engine(own_mailboxes(settings), source, sink, store, self._clock, self.status, options)
            if self._wake.is_set():
                return
            await self._engine.run()
