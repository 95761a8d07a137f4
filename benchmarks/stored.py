"""Whether everything arrived: what is stored, compared with what there was to store."""

from __future__ import annotations

import hashlib
import json
from email import message_from_bytes
from typing import TYPE_CHECKING

from benchmarks.messages import message_id
from benchmarks.servers import BUCKET, OWNER
from ews_sync.simulator.platform.store import PlatformStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.servers import Load


def compare(load: Load, sink: str, directory: Path, *, with_content: bool, bucket: str = BUCKET) -> None:
    """Compare the ids, and with `with_content` the messages byte for byte.

    Of a message that is no Unicode, JSON need only have the same parts. `directory` is that of `appliance.appliance`
    and `servers.servers`. Raises `SystemExit` when something is missing, changed, there twice, or should not be there.
    """
    read = {"eml": _files, "jsonl": _lines, "platform": _bucket}[sink]
    for address in load.addresses():
        expected = {message_id(address, number): number for number in range(load.messages)}
        count = 0
        stored = set()
        for email_id, content in read(directory, bucket, address, with_content=with_content):
            count += 1
            stored.add(email_id)
            if email_id not in expected:
                raise SystemExit(f"{address}: {email_id} is stored, and there is no such email")
            if content is not None and not _is_same(load.message(address, expected[email_id]), content):
                raise SystemExit(f"{address}: {email_id} is not stored as it was")
        if count != len(expected) or len(stored) != len(expected):
            raise SystemExit(f"{address}: {len(stored)} emails are stored {count} times, not {len(expected)} once each")


def _files(directory: Path, bucket: str, address: str, *, with_content: bool) -> Iterator[tuple[str, bytes | None]]:
    for path in (directory / "files" / "data" / OWNER / bucket / address).glob("*/*/*.json"):
        yield json.loads(path.read_bytes())["id"], path.with_suffix(".eml").read_bytes() if with_content else None


def _lines(directory: Path, bucket: str, address: str, *, with_content: bool) -> Iterator[tuple[str, bytes | None]]:
    for path in (directory / "files" / "data" / OWNER / bucket / address).glob("emails-*.jsonl"):
        with path.open("rb") as file:
            for line in file:
                email = json.loads(line)
                yield email["id"], email["mime_content"].encode() if with_content else None


def _bucket(directory: Path, bucket: str, address: str, *, with_content: bool) -> Iterator[tuple[str, bytes | None]]:
    with PlatformStore(directory / "platform.sqlite") as store:
        for email in store.emails(OWNER, bucket, address):
            yield email["id"], email["mime_content"].encode() if with_content else None


def _is_same(message: bytes, stored: bytes) -> bool:
    """Tell whether a message is stored byte for byte; as JSON, one that is no Unicode need have the same parts."""
    return message == stored or (not _is_unicode(message) and _parts(message) == _parts(stored))


def _is_unicode(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parts(data: bytes) -> str:
    """Give a digest of the parts' bytes."""
    digest = hashlib.sha256()
    for content in _leaves(data):
        digest.update(content)
    return digest.hexdigest()


def _leaves(data: bytes) -> Iterator[bytes]:
    for part in message_from_bytes(data).walk():
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            continue
        if part.get_content_maintype() == "multipart":
            # What is nested too deeply is kept as one body, as it was.
            yield from _leaves(f"Content-Type: {part['content-type']}\r\n\r\n".encode() + content)
        else:
            yield content
