"""What Prometheus is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ews_sync.errors import SourceError
from ews_sync.telemetry.metrics import Metrics
from ews_sync.telemetry.status import Failure, FolderProgress, MailboxProgress, Phase, ShardNote, Status
from ews_sync.telemetry.traffic import BUCKETS, Outcome, Traffic

if TYPE_CHECKING:
    from prometheus_client import Metric

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


class StoppedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def families(status: Status) -> dict[str, Metric]:
    text = Metrics(status, StoppedClock()).text().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(status: Status, name: str, **labels: str) -> float:
    """Give the one sample of that name with these labels."""
    [found] = [
        sample.value
        for family in families(status).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def status_of(*mailboxes: MailboxProgress) -> Status:
    status = Status("1.2.3", NOW - timedelta(hours=1))
    status.mailboxes = {mailbox.address: mailbox for mailbox in mailboxes}
    return status


def test_a_mailbox_has_its_series_and_a_folder_has_none() -> None:
    mailbox = MailboxProgress("a@x", "bank/mail", phase=Phase.BACKFILLING, stored=7, stored_bytes=70, dead_letters=2)
    mailbox.folders["1"] = FolderProgress(("Very private",), done=50, total=200)
    mailbox.rounds = 3
    mailbox.newest_received = NOW - timedelta(minutes=1)
    status = status_of(mailbox)
    prefix = "ews_sync_mailbox_"
    assert value(status, f"{prefix}up", mailbox="a@x", bucket="bank/mail") == 1
    assert value(status, f"{prefix}backfilling") == 1
    assert value(status, f"{prefix}folders_failing") == 0
    mailbox.folders["1"].failure = Failure.of(SourceError("no"), NOW)
    assert value(status, f"{prefix}folders_failing") == 1
    assert (value(status, f"{prefix}backfill_items"), value(status, f"{prefix}backfill_done_items")) == (200, 50)
    assert value(status, f"{prefix}emails_stored_total") == 7
    assert value(status, f"{prefix}stored_bytes_total") == 70
    assert value(status, f"{prefix}dead_letters_total") == 2
    assert value(status, f"{prefix}rounds_total") == 3
    assert value(status, f"{prefix}newest_received_timestamp_seconds") == NOW.timestamp() - 60
    assert families(status)[f"{prefix}last_stored_timestamp_seconds"].samples == []
    assert "private" not in Metrics(status, StoppedClock()).text().decode()


def test_a_failure_of_one_mailbox_is_its_own() -> None:
    failed = MailboxProgress("b@x", "bank/mail", failure=Failure.of(SourceError("no"), NOW))
    status = status_of(MailboxProgress("a@x", "bank/mail"), failed)
    assert value(status, "ews_sync_mailbox_up", mailbox="a@x") == 1
    assert value(status, "ews_sync_mailbox_up", mailbox="b@x") == 0
    assert value(status, "ews_sync_mailboxes") == 2
    assert value(status, "ews_sync_source_up") == 1
    status.mailboxes["a@x"].failure = failed.failure
    assert value(status, "ews_sync_source_up") == 0, "none can be read"


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        ("source_up", lambda status: setattr(status, "source_failure", Failure.of(SourceError("away"), NOW))),
        ("sink_up", lambda status: setattr(status, "sink_failure", Failure.of(SourceError("full"), NOW))),
        ("healthy", lambda status: status.health.stuck("work")),
        ("ready", lambda status: setattr(status, "stopping", True)),
        (
            "config_last_reload_successful",
            lambda status: setattr(status, "config_failure", Failure.of(SourceError("bad"), NOW)),
        ),
    ],
)
def test_what_is_wrong_with_the_whole_is_a_zero(metric: str, change: object) -> None:
    mailbox = MailboxProgress("a@x", "bank/mail", sink_ready=True, source_answered=True)
    status = status_of(mailbox)
    assert value(status, f"ews_sync_{metric}") == 1
    assert callable(change)
    change(status)
    assert value(status, f"ews_sync_{metric}") == 0


def test_times_are_unix_seconds() -> None:
    status = status_of()
    status.token_ends_at = 1600.0
    status.config_loaded_at = NOW
    assert value(status, "ews_sync_start_time_seconds") == NOW.timestamp() - 3600
    assert value(status, "ews_sync_login_token_expiry_timestamp_seconds") == NOW.timestamp() + 600
    assert value(status, "ews_sync_config_last_reload_success_timestamp_seconds") == NOW.timestamp()


def test_a_shard_says_which_it_is() -> None:
    status = status_of()
    assert "ews_sync_shard_info" not in families(status)
    status.shard = ShardNote("ews-1", 1, 4)
    assert value(status, "ews_sync_shard_info", shard="1", total="4") == 1


def test_requests_and_how_long_they_take() -> None:
    status = status_of()
    status.traffic.answered("GetItem", Outcome.OK, 0.025)
    status.traffic.answered("GetItem", Outcome.OK, 3.0)
    status.traffic.answered("GetItem", Outcome.THROTTLED, 1000.0)
    status.traffic.answered("FindItem", Outcome.FAILED, 0.1)
    requests, took = "ews_sync_source_requests_total", "ews_sync_source_request_duration_seconds"
    assert value(status, requests, operation="GetItem", outcome="ok") == 2
    assert value(status, requests, operation="GetItem", outcome="throttled") == 1
    assert value(status, f"{took}_bucket", operation="GetItem", le="0.025") == 1
    assert value(status, f"{took}_bucket", operation="GetItem", le=str(BUCKETS[-1])) == 2
    assert value(status, f"{took}_bucket", operation="GetItem", le="+Inf") == 3
    assert value(status, f"{took}_count", operation="GetItem") == 3
    assert value(status, f"{took}_sum", operation="GetItem") == pytest.approx(1003.025)


def test_waits_that_overlap_are_counted_once() -> None:
    traffic = Traffic()
    traffic.throttled("A@x".lower(), 0.0, 10.0)
    traffic.throttled("a@x", 5.0, 12.0)
    traffic.throttled("a@x", 6.0, 8.0)
    assert traffic.throttled_seconds == 12.0
    assert traffic.wait_for("A@X", 10.0) == 2.0
    assert traffic.wait_for("a@x", 13.0) == 0.0
    traffic.throttled("a@x", 100.0, 101.0)
    assert traffic.throttled_seconds == 13.0


def test_the_process_is_measured_too() -> None:
    names = families(status_of())
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds", "python_info"} <= set(names)


def test_every_metric_of_ours_says_what_it_is() -> None:
    status = status_of(MailboxProgress("a@x", "bank/mail"))
    ours = [family for name, family in families(status).items() if name.startswith("ews_sync_")]
    assert len(ours) > 20
    assert all(family.documentation for family in ours)
