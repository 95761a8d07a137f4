"""Where a config is loaded from each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ews_sync.clock import SystemClock
from ews_sync.errors import ConfigurationError, SinkError
from ews_sync.remote_config import PlatformConfig, config_loader
from ews_sync.settings.load import load_options, read_config
from ews_sync.settings.values import RemoteConfig, RunOptions
from tests.settings.examples import PLATFORM, TOKEN, basic

if TYPE_CHECKING:
    from pathlib import Path

    from ews_sync.model import Clock
    from ews_sync.settings.values import Settings

REMOTE = PLATFORM | {"remote_config_owner": "bank", "remote_config_key": "ews"}


class Shelf:
    """Configs by place, as a platform keeps them."""

    def __init__(self, place: RemoteConfig) -> None:
        self.place = place
        self.texts = {"bank/ews": json.dumps(basic()).encode()}
        self.closed = False

    async def fetch(self) -> bytes:
        text = self.texts.get(f"{self.place.owner}/{self.place.key}")
        if text is None:
            raise SinkError("no such config")
        return text

    async def aclose(self) -> None:
        self.closed = True


async def test_a_remote_config_is_fetched_and_checked_each_time() -> None:
    shelves: list[Shelf] = []

    def open_fetcher(_options: RunOptions, place: RemoteConfig, _clock: Clock) -> Shelf:
        shelves.append(Shelf(place))
        return shelves[0]

    def read(remote: bytes | None) -> Settings:
        return read_config(options, TOKEN, remote)

    options = load_options(REMOTE, TOKEN)
    async with config_loader(options, read, SystemClock(), open_fetcher) as load:
        assert (await load()).config_source == "remote config bank/ews"
        shelves[0].texts["bank/ews"] = b"{}"
        with pytest.raises(ConfigurationError, match="mailboxes: missing"):
            await load()
        shelves[0].texts.clear()
        with pytest.raises(SinkError):
            await load()
        assert not shelves[0].closed
    assert (len(shelves), shelves[0].closed) == (1, True)


async def test_a_local_config_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(basic()))
    environ = TOKEN | {"REINFER_EWS_CONFIG": str(path)}
    options = load_options(REMOTE, environ)

    def read(remote: bytes | None) -> Settings:
        return read_config(options, environ, remote)

    async with config_loader(options, read, SystemClock()) as load:
        before = await load()
        path.write_text(json.dumps(basic(port=81)))
        assert (await load()).exchange != before.exchange


async def test_without_a_token_there_is_nothing_to_fetch_with() -> None:
    with pytest.raises(ValueError, match="an endpoint and a token"):
        PlatformConfig(RunOptions(), RemoteConfig("o", "k"), SystemClock())
