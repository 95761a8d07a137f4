"""What the server shows, as JSON, as a table, and over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.clock import SystemClock
from ews_sync.errors import Asks, ConfigurationError, SourceError
from ews_sync.model import Bucket, DeadLetter, Mailbox
from ews_sync.server.http import StatusServer
from ews_sync.server.report import Moment, as_json, as_text
from ews_sync.settings.values import Bind
from ews_sync.telemetry.status import Failure, FolderProgress, MailboxProgress, Phase, Rate, ShardNote, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
MOMENT = Moment(NOW, 1000.0)


def sample() -> Status:
    status = Status("1.2.3", NOW - timedelta(hours=1), config_source="config file /etc/x.json", sink="/var/mail")
    mailbox = MailboxProgress("abc@example.com", "bank/mail", phase=Phase.BACKFILLING, stored=50, sink_ready=True)
    mailbox.folders["1"] = FolderProgress(("Inbox",), phase=Phase.BACKFILLING, done=50, total=200)
    mailbox.source_answered = True
    mailbox.last_stored_at = NOW - timedelta(minutes=5)
    mailbox.rate.add(990.0, 20)
    status.mailboxes[mailbox.address] = mailbox
    failed = MailboxProgress("bad@example.com", "bank/mail", phase=Phase.FAILED)
    error = SourceError("the server says no", asks=Asks.STOP, code="ErrorAccessDenied", hint="give full access")
    failed.failure = Failure.of(error, NOW)
    status.mailboxes[failed.address] = failed
    return status


def test_json_has_stable_names_and_plain_values() -> None:
    shown = as_json(sample(), MOMENT)
    assert shown["schema_version"] == 2
    assert shown["ready"] is True
    first, second = shown["mailboxes"]
    assert (first["mailbox"], first["phase"], first["done"], first["total"]) == (
        "abc@example.com",
        "backfilling",
        50,
        200,
    )
    assert first["rate_per_second"] == 2.0
    assert first["eta_seconds"] == 75
    assert first["last_stored_at"] == "2026-05-04T02:57:01Z"
    assert first["folders"][0]["path"] == ["Inbox"]
    assert second["failure"] == {
        "reason": "the server says no",
        "hint": "give full access",
        "code": "ErrorAccessDenied",
        "since": "2026-05-04T03:02:01Z",
        "needs_operator": True,
    }


def test_folders_have_their_own_pace_and_lag() -> None:
    status = sample()
    folder = status.mailboxes["abc@example.com"].folders["1"]
    [before] = as_json(status, MOMENT)["mailboxes"][0]["folders"]
    assert (before["rate_per_second"], before["eta_seconds"], before["lag_seconds"]) == (0.0, None, None)
    folder.rate = Rate()
    folder.rate.add(990.0, 10)
    folder.newest_received = NOW - timedelta(seconds=90)
    [after] = as_json(status, MOMENT)["mailboxes"][0]["folders"]
    assert (after["rate_per_second"], after["eta_seconds"], after["lag_seconds"]) == (1.0, 150, 90)


def test_who_has_to_wait_is_told() -> None:
    status = sample()
    status.traffic.throttled("abc@example.com", 990.0, 1030.0)
    first, second = as_json(status, MOMENT)["mailboxes"]
    assert (first["throttled_for_seconds"], second["throttled_for_seconds"]) == (30.0, 0.0)
    assert "backfilling, throttled for 30 s" in as_text(status, MOMENT)
    status.traffic.throttled(None, 1000.0, 1100.0)
    assert [mailbox["throttled_for_seconds"] for mailbox in as_json(status, MOMENT)["mailboxes"]] == [100.0, 100.0]


def test_the_table_says_what_is_wrong_and_what_to_do() -> None:
    text = as_text(sample(), MOMENT)
    assert "50/200 (25%), 1 min left" in text
    assert "5 min ago" in text
    assert "! bad@example.com: the server says no - give full access" in text


def test_names_from_outside_cannot_upset_a_terminal() -> None:
    status = sample()
    folder = FolderProgress(("\x1b[2J", "new\nline"))
    folder.failure = Failure("broken\x07", "", "", NOW, needs_operator=False)
    status.mailboxes["abc@example.com"].folders["2"] = folder
    assert all(character.isprintable() or character == "\n" for character in as_text(status, MOMENT))
    assert len(as_text(status, MOMENT).splitlines()) == len(as_text(sample(), MOMENT).splitlines()) + 1


def test_nothing_is_ready_before_source_and_sink_have_answered() -> None:
    status = sample()
    status.mailboxes["abc@example.com"].source_answered = False
    assert not status.ready


def test_a_shard_is_an_object_and_a_sentence() -> None:
    status = sample()
    assert as_json(status, MOMENT)["shard"] is None
    status.shard = ShardNote("ews-2", 2, 5, 3, 9)
    assert as_json(status, MOMENT)["shard"] == {
        "name": "ews-2",
        "number": 2,
        "total": 5,
        "mailboxes": 3,
        "mailboxes_in_config": 9,
    }
    assert (
        "ews-2, one of 5 shards (number 2, from 0): 3 of the config's 9 mailboxes"
        in as_text(status, MOMENT).splitlines()
    )
    assert str(ShardNote("ews-2", 2, 5)) == "ews-2, one of 5 shards (number 2, from 0)"
    assert (
        str(ShardNote("e-0", 0, 2, 0, 1))
        == "e-0, one of 2 shards (number 0, from 0): none of the config's 1 mailbox, so there is nothing to do here"
    )


def test_a_shard_without_mailboxes_idles_ready_once_there_is_a_config_until_it_stops() -> None:
    status = Status("1.2.3", NOW, config_missing=True, shard=ShardNote("ews-0", 0, 2))
    ready = [status.ready]
    status.config_missing = False
    status.shard = ShardNote("ews-0", 0, 2, 0, 9)
    ready.append(status.ready)
    status.stopping = True
    assert [*ready, status.ready] == [False, True, False]


def test_no_mailbox_shown_yet_is_not_ready() -> None:
    assert not Status("1.2.3", NOW).ready
    assert not Status("1.2.3", NOW, shard=ShardNote("ews-0", 0, 2, 1, 9)).ready


FETCHING = Failure("the platform does not answer", "see whether it can be reached", "", NOW, needs_operator=False)


def test_why_it_is_not_ready_is_said() -> None:
    status = sample()
    said = [list(status.obstacles)]
    status.mailboxes["abc@example.com"].source_answered = False
    said.append(list(status.obstacles))
    status.failure = FETCHING
    said.append(list(status.obstacles))
    status.config_missing, status.config_failure = True, FETCHING
    said.append(list(status.obstacles))
    status.stopping = True
    assert [*said, list(status.obstacles)] == [
        [],
        ["the Exchange server has not answered yet: the server says no - give full access"],
        ["everything stands still: the platform does not answer - see whether it can be reached"],
        ["there is no config yet: the platform does not answer - see whether it can be reached"],
        ["it is stopping"],
    ]


def test_the_config_is_shown_with_its_age_and_what_is_wrong_with_it() -> None:
    status = Status("1.2.3", NOW, config_source="remote config bank/ews", config_missing=True, config_failure=FETCHING)
    text = as_text(status, MOMENT)
    assert "remote config bank/ews, not loaded yet" in text
    assert "! remote config bank/ews: the platform does not answer - see whether it can be reached\n" in text
    status.config_missing = False
    status.config_loaded_at = status.config_checked_at = NOW - timedelta(hours=2)
    assert "remote config bank/ews, loaded 2 h ago\n" in as_text(status, MOMENT)
    assert "can be reached; the config from before stays in force" in as_text(status, MOMENT)
    status.config_checked_at = NOW - timedelta(minutes=3)
    assert "remote config bank/ews, loaded 2 h ago, found unchanged 3 min ago\n" in as_text(status, MOMENT)
    shown = as_json(status, MOMENT)
    assert (shown["config_loaded_at"], shown["config_checked_at"]) == ("2026-05-04T01:02:01Z", "2026-05-04T02:59:01Z")
    assert shown["config_failure"]["reason"] == "the platform does not answer"


def letter(number: int) -> DeadLetter:
    mailbox = Mailbox("abc@example.com", Bucket("bank", "mail"))
    return DeadLetter(mailbox, f"item-{number}", ("Inbox", "\x1b[2J"), "HTTP 400", "not accepted", f"<{number}@x>", NOW)


def test_the_last_dead_letters_are_listed_newest_first_and_counted() -> None:
    status = sample()
    assert as_json(status, MOMENT)["dead_letters"] == []
    assert "could not be stored" not in as_text(status, MOMENT)
    for number in range(103):
        status.note_dead_letter(letter(number), NOW)
    shown = as_json(status, MOMENT)["dead_letters"]
    assert [entry["item_id"] for entry in shown] == [f"item-{number}" for number in range(102, 2, -1)]
    assert shown[0] == {
        "mailbox": "abc@example.com",
        "folder": ["Inbox", "\x1b[2J"],
        "email_id": "<102@x>",
        "item_id": "item-102",
        "received": "2026-05-04T03:02:01Z",
        "code": "HTTP 400",
        "reason": "not accepted",
        "recorded_at": "2026-05-04T03:02:01Z",
    }
    (line,) = (line for line in as_text(status, MOMENT).splitlines() if "could not be stored" in line)
    assert line.startswith("! 103 emails could not be stored since the start; the last of abc@example.com in Inbox/")
    assert line.endswith(": not accepted - all are listed under dead_letters in /status (the last 100)")
    assert "\x1b" not in line


def test_a_warning_is_shown_once_until_it_is_settled() -> None:
    status = sample()
    assert [status.warn("careful"), status.warn("careful")] == [True, False]
    assert as_json(status, MOMENT)["warnings"] == ["careful"]
    status.settle("careful")
    status.settle("careful")
    assert "careful" not in as_text(status, MOMENT)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    server = StatusServer(Bind("127.0.0.1", 0), sample(), SystemClock())
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
        yield client
    await server.aclose()


async def test_paths_and_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json()["healthy"] is True
    probed = await client.get("/readyz")
    assert (probed.status_code, probed.json()["reasons"]) == (200, [])
    assert probed.json()["checks"]["source_answered"] is True
    assert (await client.get("/status")).headers["content-type"].startswith("application/json")
    assert "MAILBOX" in (await client.get("/status?format=text")).text
    assert "MAILBOX" in (await client.get("/")).text
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'ews_sync_mailbox_up{bucket="bank/mail",mailbox="bad@example.com"} 0.0' in metrics.text
    for path in ("/", "/status", "/metrics", "/healthz", "/readyz"):
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert (await client.get("/status?format=xml")).status_code == 400
    assert (await client.get("/etc/passwd")).status_code == 404
    assert (await client.post("/status")).status_code == 405


async def test_what_is_not_ready_says_why_to_the_probe() -> None:
    status = Status("1.2.3", NOW, config_missing=True, config_failure=FETCHING)
    server = StatusServer(Bind("127.0.0.1", 0), status, SystemClock())
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
        probed = await client.get("/readyz")
        assert (await client.get("/healthz")).status_code == 200
    await server.aclose()
    assert probed.status_code == 503
    assert probed.json()["checks"]["config_loaded"] is False
    assert probed.json()["reasons"] == [f"there is no config yet: {FETCHING}"]


async def test_what_is_stuck_and_what_is_away_is_told_to_its_probe() -> None:
    status = sample()
    server = StatusServer(Bind("127.0.0.1", 0), status, SystemClock())
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
        status.source_failure = FETCHING
        assert (await client.get("/healthz")).status_code == 200
        away = await client.get("/readyz")
        assert away.status_code == 503
        assert away.json()["reasons"] == [f"no mailbox can be read: {FETCHING}"]
        assert away.json()["checks"]["source_available"] is False
        status.source_failure = None
        status.health.stuck("storing mail of a@x")
        stuck = await client.get("/healthz")
        assert stuck.status_code == 503
        assert stuck.json()["reasons"] == ["stuck: storing mail of a@x"]
        assert (await client.get("/readyz")).status_code == 200
        assert "! stuck, so that /healthz fails: storing mail of a@x" in (await client.get("/")).text
        assert (await client.get("/status")).json()["stuck"] == ["storing mail of a@x"]
        status.health.freed("storing mail of a@x")
        assert (await client.get("/healthz")).status_code == 200
    await server.aclose()


def test_a_mailbox_alone_does_not_make_the_job_unready_but_all_of_them_do() -> None:
    status = sample()
    assert any(mailbox.failure for mailbox in status.mailboxes.values())
    assert status.ready
    for mailbox in status.mailboxes.values():
        mailbox.failure = FETCHING
    assert status.obstacles == (f"every mailbox fails: {FETCHING}",)


async def test_an_address_in_use_is_a_problem_of_the_configuration() -> None:
    first = StatusServer(Bind("127.0.0.1", 0), sample(), SystemClock())
    await first.start()
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match="--bind: cannot listen at"):
        await StatusServer(Bind("127.0.0.1", port), sample(), SystemClock()).start()
    await first.aclose()
