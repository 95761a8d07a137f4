from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from email import message_from_string
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import CheckpointError, StorageError
from ews_sync.model import StartFrom
from ews_sync.sinks.durable import Disk
from ews_sync.sinks.jsonl import JsonlSink
from ews_sync.sinks.new_email import new_email
from ews_sync.sinks.paths import data_directory
from tests.sinks.builders import FULL, MAILBOX, FaultyDisk, PowerCutError, an_email

if TYPE_CHECKING:
    from pathlib import Path


def lines(prefix: Path) -> list[str]:
    paths = sorted(data_directory(prefix, MAILBOX).glob("emails-*.jsonl"))
    return [json.loads(line)["id"] for path in paths for line in path.read_bytes().splitlines()]


def files(prefix: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in data_directory(prefix, MAILBOX).glob("emails-*")}


async def put(prefix: Path, position: str | None, *ids: str, full_file: int = 1 << 20) -> str | None:
    """Put a batch for each id, as one run of the process does, and give the position behind the last."""
    sink = JsonlSink(prefix, full_file=full_file)
    await sink.open(MAILBOX, position)
    for email_id in ids:
        position = (await sink.put([an_email(email_id)])).position
    await sink.aclose()
    return position


async def test_a_line_is_a_new_email_and_nothing_in_it_ends_a_line(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path)
    await sink.open(MAILBOX, None)
    receipt = await sink.put(
        [an_email(data="Subject: \u2028\x85\r\n\r\n\x0b é".encode()), an_email("<2>", data=b"\xff")]
    )
    await sink.aclose()
    data = (data_directory(tmp_path, MAILBOX) / "emails-1.jsonl").read_bytes()
    one, two = (json.loads(line) for line in data.decode().splitlines())
    assert receipt.position == f'{{"file":1,"bytes":{len(data)}}}'
    assert list(one) == ["id", "mailbox", "timestamp", "mime_content", "metadata"]
    assert one["mime_content"] == "Subject: \u2028\x85\r\n\r\n\x0b é"
    assert "base64" in two["mime_content"] or "quoted-printable" in two["mime_content"]


@pytest.mark.parametrize("text", ["plain\r\n", 'h\u00e9 \U0001f525 \u2028 \\ " \x00\r\n'])
async def test_the_line_of_a_large_message_is_made_in_pieces_and_is_the_same(tmp_path: Path, text: str) -> None:
    data = (f"Message-ID: <1>\r\n\r\n{text}" + text * (2_500_000 // len(text.encode()))).encode()
    large = an_email("<1>", data=data)
    sink = JsonlSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.put([large])
    await sink.aclose()
    raw = (data_directory(tmp_path, MAILBOX) / "emails-1.jsonl").read_bytes()
    one = json.loads(raw)
    assert one["mime_content"].encode() == data
    assert json.dumps(one, ensure_ascii=False, separators=(",", ":")) == json.dumps(
        new_email(large, mime_content=data.decode()), ensure_ascii=False, separators=(",", ":")
    )


async def test_a_large_message_in_another_charset_loses_nothing(tmp_path: Path) -> None:
    body = b"\xe9" * 1_200_000
    sink = JsonlSink(tmp_path)
    await sink.open(MAILBOX, None)
    await sink.put([an_email("<1>", data=b"Subject: x\r\n\r\n" + body)])
    await sink.aclose()
    line = json.loads((data_directory(tmp_path, MAILBOX) / "emails-1.jsonl").read_bytes())
    assert message_from_string(line["mime_content"]).get_payload(decode=True) == body


async def test_files_are_closed_when_they_are_full(tmp_path: Path) -> None:
    position = await put(tmp_path, None, "1", "2", "3", "4", "5", full_file=300)
    sizes = files(tmp_path)
    assert sorted(sizes) == ["emails-1.jsonl", "emails-2.jsonl", "emails-3.jsonl"]
    assert sizes["emails-1.jsonl"] >= 300
    assert position == f'{{"file":3,"bytes":{sizes["emails-3.jsonl"]}}}'
    assert lines(tmp_path) == ["1", "2", "3", "4", "5"]


async def test_a_restart_cuts_off_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    known = await put(tmp_path, None, "1", full_file=300)
    await put(tmp_path, known, "lost 1", "lost 2", "lost 3", "lost 4", full_file=300)
    assert len(files(tmp_path)) == 3
    await put(tmp_path, known)
    assert lines(tmp_path) == ["1"]
    assert list(files(tmp_path)) == ["emails-1.jsonl"]
    await put(tmp_path, known, "2")
    assert lines(tmp_path) == ["1", "2"]


async def test_without_a_position_what_is_there_is_set_aside(tmp_path: Path) -> None:
    await put(tmp_path, None, "1")
    await put(tmp_path, None, "2")
    await put(tmp_path, None, "3")
    assert lines(tmp_path) == ["3"]
    assert sorted(files(tmp_path)) == ["emails-1.jsonl", "emails-1.jsonl.aside-1", "emails-1.jsonl.aside-2"]


async def test_starting_from_the_config_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    await put(tmp_path, None, "1", "2")
    path = data_directory(tmp_path, MAILBOX) / "emails-1.jsonl"
    with path.open("ab") as file:
        file.write(b'{"id": "torn' + b"x" * 200_000)
    mailbox = replace(MAILBOX, start_from=StartFrom.CONFIG)
    sink = JsonlSink(tmp_path)
    await sink.open(mailbox, None)
    await sink.put([an_email("3", mailbox=mailbox)])
    await sink.aclose()
    assert lines(tmp_path) == ["1", "2", "3"]


async def test_a_file_that_was_taken_away_is_not_missed(tmp_path: Path) -> None:
    position = await put(tmp_path, None, "1")
    directory = data_directory(tmp_path, MAILBOX)
    (directory / "emails-1.jsonl").unlink()
    position = await put(tmp_path, position, "2")
    assert list(files(tmp_path)) == ["emails-2.jsonl"]
    sink = JsonlSink(tmp_path)
    await sink.open(MAILBOX, position)
    (directory / "emails-2.jsonl").unlink()
    await sink.put([an_email("3")])
    await sink.aclose()
    assert list(files(tmp_path)) == ["emails-3.jsonl"]


async def test_a_file_that_lost_its_end_stops_the_mailbox(tmp_path: Path) -> None:
    position = await put(tmp_path, None, "1", "2")
    path = data_directory(tmp_path, MAILBOX) / "emails-1.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"emails-1\.jsonl has .* bytes"):
        await put(tmp_path, position)


@pytest.mark.parametrize("position", ["", "x", "[]", "{}", '{"file":0,"bytes":1}', '{"file":1,"bytes":true}', "null"])
async def test_a_position_that_makes_no_sense_stops_the_mailbox(tmp_path: Path, position: str) -> None:
    with pytest.raises(CheckpointError):
        await put(tmp_path, position)


@pytest.mark.parametrize("error", [None, FULL])
async def test_wherever_it_stops_no_line_is_torn_lost_or_there_twice(tmp_path: Path, error: int | None) -> None:
    batch = [an_email("2"), an_email("3")]
    dry = FaultyDisk()
    sink = JsonlSink(tmp_path / "dry", disk=dry)
    await sink.open(MAILBOX, None)
    await sink.put([an_email("1")])
    before = dry.operations
    await sink.put(batch)
    await sink.aclose()
    for step in range(dry.operations - before):
        for same_process in (True, False):
            prefix = tmp_path / f"{step}{same_process}"
            disk = FaultyDisk(error=error)
            sink = JsonlSink(prefix, disk=disk)
            await sink.open(MAILBOX, None)
            position = (await sink.put([an_email("1")])).position
            disk.fails_at = disk.operations + step
            with pytest.raises((PowerCutError, StorageError)):
                await sink.put(batch)
            disk.fails_at = -1
            if same_process:
                await sink.put(batch)
            await sink.aclose()
            if not same_process:
                sink = JsonlSink(prefix)
                await sink.open(MAILBOX, position)
                await sink.put(batch)
                await sink.aclose()
            assert lines(prefix) == ["1", "2", "3"]


async def test_a_cancelled_put_leaves_no_line_behind(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    class Slow(Disk):
        def flush(self, descriptor: int) -> None:
            begun.set()
            release.wait(30)
            super().flush(descriptor)

    sink = JsonlSink(tmp_path, disk=Slow())
    await sink.open(MAILBOX, None)
    put_one = asyncio.ensure_future(sink.put([an_email("1")]))
    await asyncio.to_thread(begun.wait, 30)
    put_one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put_one
    put_two = asyncio.ensure_future(sink.put([an_email("2")]))
    release.set()
    receipt = await put_two
    await sink.aclose()
    assert lines(tmp_path) == ["2"]
    assert json.loads(receipt.position or "")["bytes"] == files(tmp_path)["emails-1.jsonl"]
