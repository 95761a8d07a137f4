"""The file that records emails which cannot be stored: one JSON line each, durable, and no letter twice."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING

from ews_sync.sinks.durable import append
from ews_sync.sinks.new_email import json_bytes, utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from ews_sync.model import DeadLetter
    from ews_sync.sinks.durable import Disk

FILE_NAME = "dead-letters.jsonl"


class DeadLetterFile:
    """One mailbox's `dead-letters.jsonl`. Its methods block, raise `OSError`, and may be called from any thread."""

    def __init__(self, disk: Disk, directory: Path, now: Callable[[], datetime]) -> None:
        self._disk = disk
        self._path = directory / FILE_NAME
        self._now = now
        self._lock = threading.Lock()
        self._known: set[bytes] = set()
        self._end = 0
        self._loaded = False

    def record(self, letters: Sequence[DeadLetter]) -> None:
        """Append those of `letters` that are not recorded yet. The same item with the same code is the same letter."""
        with self._lock:
            size = self._path.stat().st_size if self._path.exists() else 0
            if not self._loaded or size < self._end:
                # The first look, or somebody emptied the file: what it holds is what counts. A file that is longer has
                # what a failed attempt left, and the next append cuts it off.
                self._load()
            fresh = {_digest(letter.item_id or letter.email_id, letter.code): letter for letter in letters}
            for known in self._known & fresh.keys():
                del fresh[known]
            if fresh:
                time = utc_text(self._now())
                lines = [json_bytes(_line(letter, time)) + b"\n" for letter in fresh.values()]
                self._end = append(self._disk, self._path, self._end, lines)
                self._known.update(fresh)

    def _load(self) -> None:
        known: set[bytes] = set()
        end = 0
        if self._path.exists():
            with self._path.open("rb") as lines:
                # A process that was killed may have written lines without having them flushed.
                self._disk.flush(lines.fileno())
                for line in lines:
                    if not line.endswith(b"\n"):
                        break  # torn by a crash: the next append cuts it off
                    end += len(line)
                    known.update(_digest_of_line(line))
        self._known, self._end, self._loaded = known, end, True


def _line(letter: DeadLetter, recorded_at: str) -> dict[str, object]:
    line: dict[str, object | None] = {
        "id": letter.item_id,
        "message_id": letter.email_id,
        "folder": list(letter.folder),
        "received": None if letter.received is None else utc_text(letter.received),
        "code": letter.code,
        "reason": letter.reason,
        "recorded_at": recorded_at,
        "known": dict(letter.known) or None,
    }
    return {key: value for key, value in line.items() if value is not None}


def _digest(name: str | None, code: str) -> bytes:
    text = json.dumps([name, code])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _digest_of_line(line: bytes) -> tuple[bytes, ...]:
    """Give the digest of a recorded letter; nothing for a line that somebody damaged."""
    try:
        letter = json.loads(line)
        return (_digest(letter["id"] or letter.get("message_id"), letter["code"]),)
    except (ValueError, KeyError, TypeError):
        return ()
