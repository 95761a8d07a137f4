"""Putting the parts together, for every command that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.engine.engine import EngineOptions
from ews_sync.engine.sharding import shard_of
from ews_sync.errors import UnavailableError
from ews_sync.settings.exchange import AccessType
from ews_sync.settings.values import LocalFilesFormat
from ews_sync.sinks.file_checkpoints import FileCheckpointStore
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.jsonl import JsonlSink
from ews_sync.sources.auth.login import log_in
from ews_sync.sources.ews.client import ANSWER_WITHIN, Client, RetryPolicy
from ews_sync.sources.ews.source import EwsSource
from ews_sync.sources.ews.spool import SpoolWriter

if TYPE_CHECKING:
    from ews_sync.model import CheckpointStore, Clock, Mailbox, Sink
    from ews_sync.settings.values import Settings

NO_VERIFICATION = (
    "certificates are NOT verified (ews_ssl_verify is false): whoever can listen to the network can read the mail and "
    'the password. Set "ews_ssl_ca_bundle" to your certificate authority instead'
)


def own_mailboxes(settings: Settings) -> tuple[Mailbox, ...]:
    """Give the mailboxes that this shard keeps; all of them when there is one instance only."""
    shard = settings.shard
    if shard is None:
        return settings.mailboxes
    return tuple(mailbox for mailbox in settings.mailboxes if shard_of(mailbox.address, shard.total) == shard.number)


def open_source(settings: Settings, clock: Clock, *, patient: bool = True) -> EwsSource:
    """Make the source; nothing is sent yet.

    One that is not `patient` reports a failure at once instead of trying again.
    """
    exchange = settings.exchange
    login = log_in(exchange)
    directory = settings.local_files_prefix
    return EwsSource(
        Client(
            exchange.endpoint,
            login.http,
            clock,
            retry=RetryPolicy() if patient else RetryPolicy(attempts=1),
            answer_within=ANSWER_WITHIN if patient else 30,
        ),
        clock,
        impersonate=exchange.access_type is AccessType.IMPERSONATION,
        account=login.account,
        new_writer=lambda: SpoolWriter(directory),
    )


def open_sink(settings: Settings) -> tuple[Sink, CheckpointStore]:
    """Make the sink and what keeps its checkpoints; nothing is touched yet."""
    prefix = settings.local_files_prefix
    if prefix is None:
        raise UnavailableError("syncing into the platform is not in this version yet")
    sink = JsonlSink(prefix) if settings.local_files_format is LocalFilesFormat.JSONL else FileSink(prefix)
    return sink, FileCheckpointStore(prefix)


def sink_name(settings: Settings) -> str:
    """Say in words where the mail goes."""
    return str(settings.reinfer_api_endpoint or settings.local_files_prefix)


def engine_options(settings: Settings) -> EngineOptions:
    """Give the engine what of the settings is its own."""
    return EngineOptions(pace=settings.pace)
