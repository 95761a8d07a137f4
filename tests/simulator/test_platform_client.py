"""The platform's published command line client (crate reinfer-cli, binary `re`) uses the stand-in.

It is an independent reading of the API: what it cannot use, the stand-in has wrong.
Build it with `cargo install reinfer-cli`, and put it on the PATH or name it in REINFER_CLI.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from ews_sync.model import Attachment, Bucket, Email, Mailbox, Metadata, MimeBytes
from ews_sync.sinks.jsonl import JsonlSink
from tests.simulator.platform_api import new_email, state

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulator.platform_api import Api

CLI = os.environ.get("REINFER_CLI") or shutil.which("re")

pytestmark = [
    pytest.mark.platform_client,
    pytest.mark.skipif(CLI is None, reason="the platform's client is not here: cargo install reinfer-cli"),
]


class Cli:
    """Runs the client against the server, with nothing of the user's own configuration."""

    def __init__(self, api: Api, home: Path, token: str = "secret") -> None:  # noqa: S107 - of a test
        self._arguments = ("--endpoint", api.server.root, "--token", token, "--output", "json")
        self._environment = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "NO_PROXY": "*", "PATH": os.defpath}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        assert CLI is not None
        process = await asyncio.create_subprocess_exec(
            CLI,
            *self._arguments,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        output, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    async def __call__(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command that must succeed; gives the JSON lines that it prints."""
        code, output, errors = await self.run(*arguments)
        assert code == 0, errors
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def cli(api: Api, tmp_path: Path) -> Cli:
    return Cli(api, tmp_path)


async def test_buckets_are_made_and_listed(api: Api, cli: Cli) -> None:
    (made,) = await cli("create", "bucket", "owner/claims", "--title", "Claims")
    bucket = api.store.bucket("owner", "claims")
    assert bucket is not None
    assert (made["id"], bucket.title) == (bucket.id, "Claims")
    listed = await cli("get", "buckets", "--stats")
    assert [(one["owner"], one["name"]) for one in listed] == [("owner", "claims"), ("owner", "name")]
    for name in ("owner/claims", bucket.id):
        (found,) = await cli("get", "buckets", name)
        assert found["id"] == bucket.id
    await cli("delete", "bucket", "owner/claims")
    assert api.store.bucket("owner", "claims") is None


async def test_emails_are_read(api: Api, cli: Cli, tmp_path: Path) -> None:
    bucket = api.store.create_bucket("owner", "name")
    sent = [new_email(n, f"{n % 3}") for n in range(150)]
    api.store.put_emails(bucket, sent)
    await cli("get", "emails", "owner/name", "--file", str(tmp_path / "emails.jsonl"))
    read = [json.loads(line) for line in (tmp_path / "emails.jsonl").read_text().splitlines()]
    assert [_uploaded(email) for email in read] == sent
    assert [_uploaded(email) for email in await cli("get", "emails", "owner/name", "<7@example.com>")] == [sent[7]]
    of_one = await cli("get", "emails", "owner/name", "--mailbox", "2", "--to-timestamp", "2020-01-01T00:00:10Z")
    assert [_uploaded(email) for email in of_one] == [
        email for email in sent if email["mailbox"] == "2" and email["timestamp"] < "2020-01-01T00:00:10Z"
    ]
    await cli("delete", "emails", "--bucket", "owner/name", "<7@example.com>", "<8@example.com>")
    assert api.store.count("owner", "name") == 148


def _uploaded(email: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in email.items() if name not in {"created_at", "updated_at"}}


async def test_keyed_sync_states_are_read_and_deleted(api: Api, cli: Cli) -> None:
    keyed = (state(), state(folder="AAMl", status="UP_TO_DATE"), state("b@example.com", synced_until=None))
    for one in keyed:
        assert (await api.put_state(one)).status_code == 200
    read = await cli("get", "keyed-sync-states", "owner/name")
    assert sorted((one["mailbox_name"], one["folder_id"], one["status"]) for one in read) == [
        ("a@example.com", "AAMk", "IN_PROGRESS"),
        ("a@example.com", "AAMl", "UP_TO_DATE"),
        ("b@example.com", "AAMk", "IN_PROGRESS"),
    ]
    await cli("delete", "keyed-sync-states", "owner/name", "a@example.com")
    assert api.store.keyed_sync_states("owner", "name") == [keyed[2]]


def _line_file(directory: Path) -> tuple[Path, list[dict[str, Any]]]:
    (lines,) = directory.rglob("emails-1.jsonl")
    return lines, [json.loads(line) for line in lines.read_text(encoding="utf-8").split("\n") if line]


async def test_the_line_files_of_the_local_mode_are_uploaded(api: Api, cli: Cli, tmp_path: Path) -> None:
    mailbox = Mailbox("a@example.com", Bucket("owner", "name"))
    metadata = Metadata(
        folder=("Inbox", "Schäden"),
        sensitivity="Normal",
        size=1234,
        categories=("Red",),
        importance="High",
        has_attachments=True,
        conversation_id="AAQ=",
        conversation_topic="Hail\u2028storm",
        is_read=True,
        received_at=datetime(2020, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC),
    )
    emails = [
        Email(
            f"<{number}@example.com>",
            mailbox,
            datetime(2020, 1, 1, 0, 0, number % 60, tzinfo=UTC),
            MimeBytes(f"Subject: Übung {number}\r\n\r\nHello \U0001f600\u2028\x00\r\n".encode()),
            metadata,
            (Attachment("ä.pdf", 12_345, "application/pdf"),) if number % 2 else (),
        )
        for number in range(300)
    ]
    sink = JsonlSink(tmp_path)
    await sink.open(mailbox, None)
    await sink.put(emails)
    await sink.aclose()
    lines, written = _line_file(tmp_path)
    assert len(written) == 300
    await cli("create", "emails", "--bucket", "owner/name", "--yes", "--no-progress", "--file", str(lines))
    assert api.store.emails("owner", "name") == written
    assert [len(record.email_ids) for record in api.server.log.of("put_emails")] == [128, 128, 44]


async def test_errors_are_understood(api: Api, tmp_path: Path) -> None:
    code, _, errors = await Cli(api, tmp_path, token="wrong").run("get", "buckets")
    assert code != 0
    assert "the token is not valid" in errors
    code, _, errors = await Cli(api, tmp_path).run("get", "buckets", "owner/other")
    assert code != 0
    assert "there is no bucket owner/other" in errors
