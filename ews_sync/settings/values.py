"""What the rest of the program is told: frozen values, complete and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a run is told.

    Exactly one of `reinfer_api_endpoint` (ends with "/"; then there is an `api_token`) and `local_files_prefix` is
    set. `config_source` says in words where the config came from. `shard` is None when there is one instance only.
    `remote_config_owner` and `remote_config_key` are both set or both None.
    """

    exchange: Exchange
    mailboxes: tuple[Mailbox, ...]
    config_source: str
    pace: Pace = field(default_factory=Pace)
    bind: Bind = field(default_factory=Bind)
    reinfer_api_endpoint: str | None = None
    api_token: SecretStr | None = None
    local_files_prefix: Path | None = None
    local_files_format: LocalFilesFormat = LocalFilesFormat.EML
    remote_config_owner: str | None = None
    remote_config_key: str | None = None
    debug_level: int = 1
    shard: Shard | None = None
    restart_on_unrecoverable_errors: bool = False
    audit_email: str | None = None
