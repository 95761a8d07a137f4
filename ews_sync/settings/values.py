"""What the rest of the program is told: frozen values, complete and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ews_sync.settings.problems import shown

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

    from ews_sync.model import Mailbox
    from ews_sync.settings.exchange import Exchange


class LocalFilesFormat(StrEnum):
    """How local files are written."""

    EML = "eml"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Bind:
    """Where the status page listens. Port 0: any that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Which instance of a cluster this is: `number` counts from 0 and is below `total`."""

    name: str
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the mail flows. Times in seconds; what each means is said in `keys.ConfigKeys`."""

    poll_frequency: float = 15.0
    poll_message_sleep: float = 0.1
    max_concurrent_uploads: int = 8
    emails_per_folder: int = 2520
    reinfer_batch_size: int = 80


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file on this machine. `instead_of` is the remote config that it is read instead of, if there is one."""

    path: Path
    instead_of: RemoteConfig | None = None

    def __str__(self) -> str:
        return f"config file {shown(str(self.path), longest=1000)[1:-1]}"


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """A config on the platform: the project that owns it, and its name."""

    owner: str
    key: str

    def __str__(self) -> str:
        return f"remote config {self.owner}/{self.key}"


ConfigPlace = ConfigFile | RemoteConfig
"""Where the config is; as text, it says so to people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the options of `run` and `check` say by themselves, known before there is a config. They never change.

    Exactly one of `reinfer_api_endpoint` (ends with "/"; then there is an `api_token`) and `local_files_prefix` is
    set. `config_place` is None where the config is handed over. `dead_letter_dir` is for the platform only. `shard` is
    None when there is one instance only. `remote_config_owner` and `remote_config_key` are both set or both None.
    """

    config_place: ConfigPlace | None = None
    bind: Bind = field(default_factory=Bind)
    reinfer_api_endpoint: str | None = None
    api_token: SecretStr | None = None
    local_files_prefix: Path | None = None
    local_files_format: LocalFilesFormat = LocalFilesFormat.EML
    dead_letter_dir: Path | None = None
    remote_config_owner: str | None = None
    remote_config_key: str | None = None
    debug_level: int = 1
    shard: Shard | None = None
    restart_on_unrecoverable_errors: bool = False

    @property
    def config_source(self) -> str:
        """Where the config comes from, in words."""
        return "the given config" if self.config_place is None else str(self.config_place)

    @property
    def config_is_remote(self) -> bool:
        """Whether the config has to be fetched from the platform."""
        return isinstance(self.config_place, RemoteConfig)

    @property
    def destination(self) -> str:
        """Where the mail goes, in words."""
        return str(self.reinfer_api_endpoint or self.local_files_prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(RunOptions):
    """Everything that a run is told: the options, and what the config says."""

    exchange: Exchange
    mailboxes: tuple[Mailbox, ...]
    pace: Pace = field(default_factory=Pace)
    audit_email: str | None = None
