from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ews_sync.model import Bucket, Recall
from ews_sync.sinks.files import FileSink
from ews_sync.sinks.jsonl import JsonlSink
from ews_sync.sinks.paths import data_directory
from tests.sinks.contract import HOSTILE, SinkContract, Stored
from tests.sinks.memory import MemorySink, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ews_sync.model import Mailbox
    from tests.sinks.contract import Harness


class FileHarness:
    replaces = True
    recall = Recall.EVERYTHING
    locks = True
    tells_apart = True
    names: Sequence[str] = HOSTILE

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix

    def bucket(self, name: str) -> Bucket:
        return Bucket(name, name)

    def sink(self) -> FileSink:
        return FileSink(self.prefix)

    def stored(self, mailbox: Mailbox) -> Sequence[Stored]:
        found = []
        for path in sorted(data_directory(self.prefix, mailbox).rglob("*.json")):
            description = json.loads(path.read_bytes())
            assert description["mailbox"] == mailbox.address
            email_id = description["id"].partition("#")[0]
            found.append(
                Stored(email_id, tuple(description["metadata"]["folder"]), path.with_suffix(".eml").read_bytes())
            )
        return found

    def letters(self, mailbox: Mailbox) -> Sequence[tuple[str, str]]:
        path = data_directory(self.prefix, mailbox) / "dead-letters.jsonl"
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return [(line["id"], line["code"]) for line in lines]


class JsonlHarness(FileHarness):
    replaces = False
    recall = Recall.NOTHING
    # What is no Unicode cannot stand in a line as it is.
    names: Sequence[str] = tuple(name for name in HOSTILE if "\ud800" not in name)

    def sink(self) -> JsonlSink:  # type: ignore[override]
        return JsonlSink(self.prefix)

    def stored(self, mailbox: Mailbox) -> Sequence[Stored]:
        found = []
        for path in sorted(data_directory(self.prefix, mailbox).glob("emails-*.jsonl")):
            for line in path.read_bytes().splitlines():
                email = json.loads(line)
                folder = tuple(email["metadata"]["folder"])
                found.append(Stored(email["id"], folder, email["mime_content"].encode()))
        return found


class MemoryHarness:
    replaces = True
    recall = Recall.EVERYTHING
    locks = True
    tells_apart = True
    names: Sequence[str] = HOSTILE

    def __init__(self) -> None:
        self.storage = MemoryStorage()

    def bucket(self, name: str) -> Bucket:
        return Bucket(name, name)

    def sink(self) -> MemorySink:
        return MemorySink(self.storage)

    def stored(self, mailbox: Mailbox) -> Sequence[Stored]:
        emails = self.storage.emails.get(f"{mailbox.bucket}\n{mailbox.address}", {}).values()
        return [Stored(email.id, email.metadata.folder, data) for email, data in emails]

    def letters(self, mailbox: Mailbox) -> Sequence[tuple[str, str]]:
        return list(self.storage.letters[f"{mailbox.bucket}\n{mailbox.address}"])


class TestFileSink(SinkContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FileHarness(tmp_path)


class TestJsonlSink(SinkContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return JsonlHarness(tmp_path)


class TestMemorySink(SinkContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()
