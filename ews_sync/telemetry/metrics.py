"""The status as metrics for Prometheus: names and units by its conventions, labels of bounded number.

There is a series for each mailbox, and none for a folder: mailboxes are in the config, folders are their users' doing.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from ews_sync.telemetry.status import Phase
from ews_sync.telemetry.traffic import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from ews_sync.model import Clock
    from ews_sync.telemetry.status import MailboxProgress, Status
    from ews_sync.telemetry.traffic import Traffic

__all__ = ["CONTENT_TYPE", "Metrics"]

_OF_A_MAILBOX = ("mailbox", "bucket")


class Metrics:
    """Shows a status, and the process, in Prometheus' text format."""

    def __init__(self, status: Status, clock: Clock) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_StatusCollector(status, clock))

    def text(self) -> bytes:
        """Give all metrics as they are now."""
        return generate_latest(self._registry)


class _StatusCollector(Collector):
    """Reads the status each time that Prometheus asks."""

    def __init__(self, status: Status, clock: Clock) -> None:
        self._status = status
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Say nothing beforehand: nobody else registers these names, and the status is not there to be read yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give the metrics of the appliance, of its traffic with the mail server, and of each mailbox."""
        yield from _of_the_appliance(self._status, self._clock)
        yield from _of_the_traffic(self._status.traffic)
        yield from _of_the_mailboxes(self._status, self._clock)


def _of_the_appliance(status: Status, clock: Clock) -> Iterator[Metric]:
    yield _gauge(
        "build_info",
        "The version that runs; always 1",
        1,
        {"version": status.version, "python_version": platform.python_version()},
    )
    yield _gauge("start_time_seconds", "When this process started", status.started_at.timestamp())
    yield _gauge("ready", "Whether the job is being done, as /readyz says", status.ready)
    yield _gauge("healthy", "Whether nothing in this process is stuck, as /healthz says", not status.health.troubles)
    readable = status.source_failure is None and not status.every_mailbox_fails
    yield _gauge("source_up", "0 while no mailbox can be read", readable)
    yield _gauge("sink_up", "0 while no mail can be stored", status.sink_failure is None)
    yield _gauge(
        "config_last_reload_successful",
        "Whether the config could be had and used when it was last looked at",
        not status.config_missing and status.config_failure is None,
    )
    loaded = status.config_checked_at or status.config_loaded_at
    if loaded is not None:
        yield _gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the config was last looked at and found fine",
            loaded.timestamp(),
        )
    ends_at = status.token_ends_at
    if ends_at is not None:
        yield _gauge(
            "login_token_expiry_timestamp_seconds",
            "When the access token for the mail server ends; it is renewed well before",
            clock.now().timestamp() + ends_at - clock.monotonic(),
        )
    yield _gauge("mailboxes", "How many mailboxes this instance keeps in step", len(status.mailboxes))
    yield _gauge("warnings", "How many warnings /status shows", len(status.warnings))
    if status.shard is not None:
        labels = {"shard": str(status.shard.number), "total": str(status.shard.total)}
        yield _gauge("shard_info", "Which shard this is, counted from 0, and of how many; always 1", 1, labels)


def _of_the_traffic(traffic: Traffic) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "ews_sync_source_requests", "Requests to the mail server", labels=("operation", "outcome")
    )
    for (operation, outcome), count in sorted(traffic.requests.items()):
        requests.add_metric((operation, outcome), count)
    yield requests
    took = HistogramMetricFamily(
        "ews_sync_source_request_duration_seconds", "How long requests to the mail server take", labels=("operation",)
    )
    for operation, durations in sorted(traffic.durations.items()):
        cumulated: list[tuple[str, float]] = []
        count = 0
        for bound, more in zip((*map(str, BUCKETS), "+Inf"), durations.counts, strict=True):
            count += more
            cumulated.append((bound, float(count)))
        took.add_metric((operation,), cumulated, durations.total)
    yield took
    yield CounterMetricFamily(
        "ews_sync_source_throttled_seconds",
        "For how long the mail server asked us to wait",
        value=traffic.throttled_seconds,
    )


def _of_the_mailboxes(status: Status, clock: Clock) -> Iterator[Metric]:
    now = clock.monotonic()
    mailboxes = list(status.mailboxes.values())

    def gauge(name: str, words: str, value: Callable[[MailboxProgress], float | None]) -> Metric:
        return _each(GaugeMetricFamily(f"ews_sync_mailbox_{name}", words, labels=_OF_A_MAILBOX), mailboxes, value)

    def counter(name: str, words: str, value: Callable[[MailboxProgress], float]) -> Metric:
        return _each(CounterMetricFamily(f"ews_sync_mailbox_{name}", words, labels=_OF_A_MAILBOX), mailboxes, value)

    yield gauge("up", "0 when the last round of the mailbox failed", lambda one: one.failure is None)
    yield gauge(
        "folders_failing",
        "How many folders of the mailbox cannot be read",
        lambda one: sum(folder.failure is not None for folder in one.folders.values()),
    )
    yield gauge(
        "backfilling", "Whether the mailbox is catching up with old mail", lambda one: one.phase is Phase.BACKFILLING
    )
    yield gauge("backfill_items", "Items that the backfills of the mailbox have in all", lambda one: one.total)
    yield gauge("backfill_done_items", "Items of the backfills that are behind us", lambda one: one.done)
    yield counter("emails_stored", "Emails stored since this process started", lambda one: one.stored)
    yield counter("stored_bytes", "Bytes of the emails stored", lambda one: one.stored_bytes)
    yield counter("dead_letters", "Emails recorded as impossible to store", lambda one: one.dead_letters)
    yield counter("rounds", "Rounds over the mailbox that went well", lambda one: one.rounds)
    yield gauge(
        "last_round_success_timestamp_seconds",
        "When a round over the mailbox last went well",
        lambda one: _time(one.last_success_at),
    )
    yield gauge("last_stored_timestamp_seconds", "When mail was last stored", lambda one: _time(one.last_stored_at))
    yield gauge(
        "newest_received_timestamp_seconds",
        "When the newest email stored was received",
        lambda one: _time(one.newest_received),
    )
    yield gauge(
        "throttled_seconds",
        "How much longer the mail server wants to be left alone by the mailbox",
        lambda one: status.traffic.wait_for(one.address, now),
    )


def _gauge(name: str, words: str, value: float, labels: dict[str, str] | None = None) -> Metric:
    family = GaugeMetricFamily(f"ews_sync_{name}", words, labels=tuple(labels or ()))
    family.add_metric(tuple((labels or {}).values()), float(value))
    return family


def _each(
    family: GaugeMetricFamily | CounterMetricFamily,
    mailboxes: Iterable[MailboxProgress],
    value: Callable[[MailboxProgress], float | None],
) -> Metric:
    """Give a family with a value for each mailbox that has one."""
    for mailbox in mailboxes:
        known = value(mailbox)
        if known is not None:
            family.add_metric((mailbox.address, mailbox.bucket), float(known))
    return family


def _time(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
