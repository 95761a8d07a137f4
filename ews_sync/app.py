"""The appliance as a process: start, signals, the order in which things stop, and starting again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog
import uvloop

from ews_sync import __version__
from ews_sync.assembly import (
    NO_VERIFICATION,
    engine_options,
    open_sink,
    open_source,
    own_mailboxes,
    sink_name,
)
from ews_sync.clock import SystemClock
from ews_sync.engine.backoff import Backoff
from ews_sync.engine.engine import Engine
from ews_sync.engine.tasks import sleep_unless
from ews_sync.errors import AlreadyRunningError, AuthenticationError, DefectError, EwsSyncError
from ews_sync.server.http import StatusServer
from ews_sync.settings.describe import describe, secrets_of
from ews_sync.telemetry.logging import configure_logging
from ews_sync.telemetry.redaction import Redactor
from ews_sync.telemetry.status import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.model import Clock
    from ews_sync.settings.values import Settings


_AFTER_REFUSAL = 300.0
"""Seconds to wait before refused credentials are tried again."""


def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Gives the exit code; raises the `EwsSyncError` that an operator must act on.

    `reload` reads the configuration again, for when everything is built anew.
    """
    redactor = Redactor.of(settings)
    configure_logging(settings.debug_level, stream=sys.stderr, redactor=redactor)

    def read_again() -> Settings:
        fresh = settings if reload is None else reload()
        redactor.register_secrets(secrets_of(fresh))
        return fresh

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_until_signalled(Appliance(settings, SystemClock(), read_again)))
    return 0


async def run_until_signalled(appliance: Appliance) -> None:
    """Run; SIGTERM or SIGINT asks for an orderly end, and a second one ends the process at once."""
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
    await appliance.run()


class Appliance:
    """One run of the service.

    The HTTP server, and an engine that may be built anew while the server goes on answering.
    """

    def __init__(self, settings: Settings, clock: Clock, reload: Callable[[], Settings] | None = None) -> None:
        shard = settings.shard
        self._settings = settings
        self._clock = clock
        self._reload = reload
        self._stop = asyncio.Event()
        self.listening = asyncio.Event()
        """Set once the HTTP server answers."""
        self._engine: Engine | None = None
        self._built = False
        self._log = structlog.get_logger("ews_sync.app")
        self.status = Status(
            __version__,
            clock.now(),
            config_source=settings.config_source,
            shard="" if shard is None else f"{shard.number} of {shard.total} ({shard.name})",
            sink=sink_name(settings),
        )
        if not settings.exchange.ssl_verify:
            self.status.warnings.append(NO_VERIFICATION)
        self.server = StatusServer(settings.bind, self.status, clock)

    async def run(self) -> None:
        """Run until `stop`. Raises the error that asks for an operator."""
        await self.server.start()
        self.listening.set()
        try:
            self._say_hello()
            await self._run_engines()
        finally:
            await self.server.aclose()
        self._log.info("stopped")

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask for an orderly end."""
        self.status.stopping = True
        self._stop.set()
        if self._engine is not None:
            self._engine.stop()

    def _say_hello(self) -> None:
        settings = self._settings
        for warning in self.status.warnings:
            self._log.warning(warning)
        self._log.info(
            "started",
            version=__version__,
            listening=f"http://{self.server.address}",
            config=settings.config_source,
            mailboxes=len(own_mailboxes(settings)),
        )
        self._log.debug("settings", **describe(settings))
        if not own_mailboxes(settings):
            self._log.info("no mailbox of the config belongs to this shard; idling", shard=self.status.shard)

    async def _run_engines(self) -> None:
        """Run the engine; where restarts are asked for, build it anew after what would have ended the process."""
        backoff = Backoff(first=5.0, longest=300.0)
        while not self._stop.is_set():
            started = self._clock.monotonic()
            try:
                await self._run_engine()
            except EwsSyncError as error:
                if not self._settings.restart_on_unrecoverable_errors or isinstance(error, AlreadyRunningError):
                    self._log.error("cannot go on", problem=error.summary, hint=error.hint, code=error.code)
                    raise
                if self._clock.monotonic() - started > 600:
                    backoff.reset()
                wait = backoff.next()
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
                self.status.stopping = False
                await sleep_unless(self._stop, wait, self._clock)
                self.status.failure = None

    async def _run_engine(self) -> None:
        """Build everything and run it until it is told to stop. Raises what ends it before."""
        try:
            if self._built and self._reload is not None:
                self._settings = self._reload()
            self._built = True
            await self._run_parts()
        except EwsSyncError:
            raise
        except Exception as error:
            self._log.exception("a defect in ews-sync: please report this with the lines before it")
            raise DefectError(error) from error

    async def _run_parts(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            source = open_source(settings, self._clock)
            stack.push_async_callback(source.aclose)
            sink, store = open_sink(settings)
            stack.push_async_callback(sink.aclose)
            stack.push_async_callback(store.aclose)
            self.status.mailboxes.clear()
            self._engine = Engine(
                own_mailboxes(settings), source, sink, store, self._clock, self.status, engine_options(settings)
            )
            if self._stop.is_set():
                return
            await self._engine.run()
