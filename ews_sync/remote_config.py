"""Where a config is loaded from each time that it is looked at: a file, or the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from ews_sync.errors import SinkError
from ews_sync.settings.values import RemoteConfig, RunOptions, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ews_sync.model import Clock

ReadConfig = Callable[[bytes | None], Settings]
"""Checks a config: the bytes of a remote one, or, given None, the one on this machine, which it reads."""
LoadConfig = Callable[[], Awaitable[Settings]]
"""Gives the config as it is now.

Raises `ConfigurationError` when it is wrong, and `SinkError` when it cannot be fetched.
"""
_ANSWER_WITHIN = 30.0
_ALL_WITHIN = 60.0
"""Seconds. A config is small, and until the first one is there nothing else happens."""


class ConfigFetcher(Protocol):
    """Fetches the config's JSON text from where it is kept."""

    async def fetch(self) -> bytes:
        """Give the text as it is now. Raises `SinkError` (or a child of it) and nothing else; tries once."""

    async def aclose(self) -> None:
        """Close connections."""


class PlatformConfig:
    """A config on the platform."""

    def __init__(self, options: RunOptions, place: RemoteConfig, clock: Clock) -> None:
        from ews_sync.sinks.platform.api import PlatformApi  # noqa: PLC0415 - local files need none of it

        if options.reinfer_api_endpoint is None or options.api_token is None:
            raise ValueError("a remote config needs an endpoint and a token")
        self._place = place
        self._api = PlatformApi(options.reinfer_api_endpoint, options.api_token, clock, answer_within=_ANSWER_WITHIN)

    async def fetch(self) -> bytes:
        """Give the text as it is now; see `ConfigFetcher`."""
        try:
            async with asyncio.timeout(_ALL_WITHIN):
                return await self._api.appliance_config(self._place.owner, self._place.key)
        except TimeoutError as error:
            raise SinkError(f"fetching the {self._place}: it did not arrive within {_ALL_WITHIN:g} seconds") from error

    async def aclose(self) -> None:
        """Close connections."""
        await self._api.aclose()


@asynccontextmanager
async def config_loader(
    options: RunOptions,
    read: ReadConfig,
    clock: Clock,
    open_fetcher: Callable[[RunOptions, RemoteConfig, Clock], ConfigFetcher] = PlatformConfig,
) -> AsyncIterator[LoadConfig]:
    """Make what loads the config, from wherever the options say that it is."""
    place = options.config_place
    if not isinstance(place, RemoteConfig):

        async def load_local() -> Settings:
            return read(None)

        yield load_local
        return
    async with aclosing(open_fetcher(options, place, clock)) as fetcher:

        async def load_remote() -> Settings:
            return read(await fetcher.fetch())

        yield load_remote
