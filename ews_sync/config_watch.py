"""The config in force: loading it for the first time, and looking again whether it has changed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ews_sync.engine.backoff import TELL_EVERY, Backoff
from ews_sync.engine.tasks import sleep_unless
from ews_sync.errors import Asks, ConfigurationError, DefectError, EwsSyncError, SinkError
from ews_sync.settings.changes import changes
from ews_sync.settings.values import RunOptions, Settings
from ews_sync.telemetry.status import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.model import Clock
    from ews_sync.remote_config import LoadConfig
    from ews_sync.telemetry.status import Status

LOOK_EVERY = 300.0
"""Seconds between two looks at a remote config, give or take a tenth."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was last said of a trouble in the log, and when (monotonic seconds)."""

    what: str
    at: float


def worth_telling(told: Told | None, what: str, now: float) -> bool:
    """Tell whether a trouble belongs into the log: a new one does, and one that goes on now and then."""
    return told is None or told.what != what or now - told.at >= TELL_EVERY


def wait_after(error: EwsSyncError, usual: float) -> float:
    """Say how many seconds to wait before a config is tried again, where `usual` is the wait after outages.

    One that is wrong has to be mended by somebody first, which takes minutes.
    """
    if isinstance(error, SinkError):
        return max(usual, error.retry_after or 0.0)
    return LOOK_EVERY


class ConfigWatch:
    """Holds the config in force, and keeps it up to date.

    `start` are `Settings` where there is a config already. `load` gives the config as it is now; without it, the first
    one stays for good. `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        start: RunOptions,
        load: LoadConfig | None,
        status: Status,
        clock: Clock,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.settings = start if isinstance(start, Settings) else None
        """The config in force; None as long as there is none."""
        self._options = start
        self._load = load
        self._status = status
        self._clock = clock
        self._jitter = jitter
        self._asked = asyncio.Event()
        self._looking = asyncio.Lock()
        self._told: Told | None = None
        self._not_within = 0.0
        self._log = structlog.get_logger("ews_sync.config")
        status.config_source = start.config_source
        status.config_missing = self.settings is None
        if self.settings is not None:
            status.config_loaded_at = status.config_checked_at = clock.now()

    @property
    def can_look(self) -> bool:
        """Whether the config can be looked at again."""
        return self._load is not None

    def ask(self) -> None:
        """Have it looked at soon, by whichever of `load_first` and `run` is going on."""
        self._asked.set()

    # --- The first time ----------------------------------------------------------------------------------------------

    async def load_first(self) -> None:
        """Load until there is a config to begin with.

        Raises what an operator must act on first, unless the options say to go on trying.
        """
        backoff = Backoff(first=5.0, longest=LOOK_EVERY, jitter=self._jitter)
        while self.settings is None:
            self._asked.clear()
            try:
                self._take(await self._loaded())
            except EwsSyncError as error:
                self._show(error)
                if error.asks is Asks.STOP and not self._options.restart_on_unrecoverable_errors:
                    self._log.error("cannot begin", **_facts(error))
                    raise
                wait = wait_after(error, backoff.next())
                self._tell("there is no config to begin with yet", error, wait=round(wait))
                await sleep_unless(self._asked, wait, self._clock)

    # --- Later -------------------------------------------------------------------------------------------------------

    async def run(self, changed: Callable[[], None]) -> None:
        """Look again: when asked, and at a remote config every few minutes. `changed` hears of a new one in force."""
        while True:
            if self._options.config_is_remote:
                usual = LOOK_EVERY * (0.9 + 0.2 * self._jitter())
                await sleep_unless(self._asked, max(usual, self._not_within), self._clock)
            else:
                await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            if await self.look(asked=asked):
                changed()

    async def look(self, *, asked: bool = False) -> bool:
        """Look once, and tell whether another config is in force now. Whoever `asked` hears what came of it.

        One that is wrong or cannot be had is reported, and the one before stays.
        """
        if self._load is None:
            return False
        async with self._looking:
            try:
                found = await self._loaded()
            except EwsSyncError as error:
                self._not_within = error.retry_after or 0.0
                self._show(error)
                if asked:
                    self._told = None
                self._tell("the config in force stays, since it could not be looked at again", error)
                return False
            return self._compare(found, asked=asked)

    def _compare(self, found: Settings, *, asked: bool) -> bool:
        different = ("there was none before",) if self.settings is None else changes(self.settings, found)
        if not different:
            self._well()
            self._status.config_checked_at = self._clock.now()
            if asked:
                self._log.info("the config is unchanged: there is nothing to do", config=found.config_source)
            return False
        self._take(found)
        self._log.info(
            "the config has changed: everything is built anew with it",
            config=found.config_source,
            changes=list(different),
        )
        return True

    # --- Both --------------------------------------------------------------------------------------------------------

    async def _loaded(self) -> Settings:
        if self._load is None:
            raise ValueError("there is no config, and nothing to load one with")
        try:
            return await self._load()
        except EwsSyncError:
            raise
        except Exception as error:
            self._log.exception("a defect in ews-sync: please report this with the lines before it")
            raise DefectError(error) from error

    def _take(self, found: Settings) -> None:
        self._well()
        self.settings = found
        self._status.config_missing = False
        self._status.config_loaded_at = self._status.config_checked_at = self._clock.now()

    def _well(self) -> None:
        self._not_within = 0.0
        if self._told is not None:
            self._log.info("the config is well again", config=self._options.config_source)
        self._told = self._status.config_failure = None

    def _show(self, error: EwsSyncError) -> None:
        before, failure = self._status.config_failure, Failure.of(error, self._clock.now())
        if before is None or before.reason != failure.reason:
            self._status.config_failure = failure

    def _tell(self, event: str, error: EwsSyncError, **facts: object) -> None:
        now, what = self._clock.monotonic(), str(error)
        if not worth_telling(self._told, what, now):
            return
        self._told = Told(what, now)
        facts = {"config": self._options.config_source, **_facts(error), **facts}
        if isinstance(error, SinkError) or error.asks is not Asks.STOP:
            self._log.warning(event, **facts)
        elif self.settings is None:
            self._log.error("the config is wrong, and there is none to begin with", **facts)
        else:
            self._log.error("the config is wrong: the one before stays in force", **facts)


def _facts(error: EwsSyncError) -> dict[str, object]:
    if isinstance(error, ConfigurationError):
        return {"problems": list(error.problems)}
    return {"problem": error.summary, "hint": error.hint, "code": error.code}
