"""What the server shows, as JSON, as a table, and over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.clock import SystemClock
from ews_sync.errors import Asks, ConfigurationError, SourceError
from ews_sync.server.http import StatusServer
from ews_sync.server.report import Moment, as_json, as_text
from ews_sync.settings.values import Bind
from ews_sync.telemetry.status import Failure, FolderProgress, MailboxProgress, Phase, Status

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
    assert shown["schema_version"] == 1
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


def test_the_table_says_what_is_wrong_and_what_to_do() -> None:
    text = as_text(sample(), MOMENT)
    assert "50/200 (25%)" in text
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


def test_a_shard_without_mailboxes_idles_ready_until_it_stops() -> None:
    status = Status("1.2.3", NOW)
    ready = [status.ready]
    status.stopping = True
    ready.append(status.ready)
    assert ready == [True, False]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    server = StatusServer(Bind("127.0.0.1", 0), sample(), SystemClock())
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
        yield client
    await server.aclose()


async def test_paths_and_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json()["healthy"] is True
    assert (await client.get("/readyz")).json()["checks"]["source_answered"] is True
    assert (await client.get("/status")).headers["content-type"].startswith("application/json")
    assert "MAILBOX" in (await client.get("/status?format=text")).text
    assert "MAILBOX" in (await client.get("/")).text
    assert (await client.head("/status")).status_code == 200
    assert (await client.get("/status?format=xml")).status_code == 400
    assert (await client.get("/etc/passwd")).status_code == 404
    assert (await client.post("/status")).status_code == 405


async def test_an_address_in_use_is_a_problem_of_the_configuration() -> None:
    first = StatusServer(Bind("127.0.0.1", 0), sample(), SystemClock())
    await first.start()
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match="--bind: cannot listen at"):
        await StatusServer(Bind("127.0.0.1", port), sample(), SystemClock()).start()
    await first.aclose()
