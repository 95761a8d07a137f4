"""Putting the parts together, for every command that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ews_sync.engine.engine import EngineOptions
from ews_sync.engine.sharding import shard_of
from ews_sync.settings.exchange import AccessType
from ews_sync.settings.values import LocalFilesFormat
from ews_sync.sinks.file_checkpoints import FileCheckpointStore
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.jsonl import JsonlSink
from ews_sync.sinks.platform.api import PlatformApi
from ews_sync.sinks.platform.buckets import Buckets
from ews_sync.sinks.platform.dead_letters import DeadLetterDirectory
from ews_sync.sinks.platform.sink import PlatformSink
from ews_sync.sinks.platform.states import PlatformCheckpointStore
from ews_sync.sources.auth.login import log_in
from ews_sync.sources.ews.client import ANSWER_WITHIN, Client, RetryPolicy
from ews_sync.sources.ews.source import EwsSource
from ews_sync.sources.ews.spool import Room, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.model import Bucket, CheckpointStore, Clock, Mailbox, Sink
    from ews_sync.settings.exchange import Exchange
    from ews_sync.settings.values import Settings
    from ews_sync.telemetry.health import Health
    from ews_sync.telemetry.status import Status

NO_VERIFICATION = (
    "certificates are NOT verified (ews_ssl_verify is false): whoever can listen to the network can read the mail and "
    'the password. Set "ews_ssl_ca_bundle" to your certificate authority instead'
)


CLEAR_TEXT = (
    "the Exchange server is reached by http:// and not by https://: whoever can listen to the network can read the "
    "mail, and what this auth_type sends to log in. Set ews_endpoint, or host, to an https:// address"
)


def warnings_of(settings: Settings) -> tuple[str, ...]:
    """Give what is allowed, but should not be."""
    exchange = settings.exchange
    found = []
    if not exchange.ssl_verify:
        found.append(NO_VERIFICATION)
    if exchange.auth.kind in {"basic", "oauth2"} and exchange.endpoint.startswith("http:") and not _is_local(exchange):
        found.append(CLEAR_TEXT)
    return tuple(found)


def _is_local(exchange: Exchange) -> bool:
    return urlsplit(exchange.endpoint).hostname in {"127.0.0.1", "::1", "localhost"}


def own_mailboxes(settings: Settings) -> tuple[Mailbox, ...]:
    """Give the mailboxes that this shard keeps; all of them when there is one instance only."""
    shard = settings.shard
    if shard is None:
        return settings.mailboxes
    return tuple(mailbox for mailbox in settings.mailboxes if shard_of(mailbox.address, shard.total) == shard.number)


def open_source(settings: Settings, clock: Clock, status: Status | None = None, *, patient: bool = True) -> EwsSource:
    """Make the source; nothing is sent yet. `status` shows what goes over the wire.

    One that is not `patient` reports a failure at once instead of trying again.
    """
    exchange = settings.exchange

    def token_taken(until: float) -> None:
        if status is not None:
            status.token_ends_at = until

    login = log_in(exchange, token_taken)
    directory = settings.local_files_prefix
    room = Room()
    return EwsSource(
        Client(
            exchange.endpoint,
            login.http,
            clock,
            retry=RetryPolicy() if patient else RetryPolicy(attempts=1),
            answer_within=ANSWER_WITHIN if patient else 30,
            traffic=None if status is None else status.traffic,
        ),
        clock,
        impersonate=exchange.access_type is AccessType.IMPERSONATION,
        account=login.account,
        new_writer=lambda: SpoolWriter(directory, room=room),
    )


def open_sink(
    settings: Settings, clock: Clock, health: Health, warn: Callable[[str], object], *, patient: bool = True
) -> tuple[Sink, CheckpointStore]:
    """Make the sink and what keeps its checkpoints; nothing is touched yet. The store is to be closed first.

    `health` hears of a disk that never answers, `warn` what an operator should know about the destination, each thing
    once. One that is not `patient` gives up sooner on a destination that does not answer.
    """
    prefix = settings.local_files_prefix
    if prefix is None:
        return _open_platform(settings, clock, health, warn, answer_within=120.0 if patient else 30.0)
    form = JsonlSink if settings.local_files_format is LocalFilesFormat.JSONL else FileSink
    return form(prefix, health=health), FileCheckpointStore(prefix, health=health)


def _open_platform(
    settings: Settings, clock: Clock, health: Health, warn: Callable[[str], object], *, answer_within: float
) -> tuple[PlatformSink, PlatformCheckpointStore]:
    if settings.reinfer_api_endpoint is None or settings.api_token is None:
        raise ValueError("the platform needs an endpoint and a token")
    api = PlatformApi(settings.reinfer_api_endpoint, settings.api_token, clock, answer_within=answer_within)
    buckets = Buckets(api)
    directory = settings.dead_letter_dir
    letters = None if directory is None else DeadLetterDirectory(directory, health=health)
    sink = PlatformSink(api, buckets, clock, letters=letters)
    return sink, PlatformCheckpointStore(api, buckets, own_mailboxes(settings), clock, warn)


def engine_options(settings: Settings, begun: set[tuple[Bucket, str]]) -> EngineOptions:
    """Give the engine what of the settings is its own, and what engines before it in this process have `begun`."""
    return EngineOptions(pace=settings.pace, begun=begun)
