"""Which files an email gets: a path by its id, and another one for another message that has the same id.

The Message-ID is the key, but scanners and broken senders give thousands of messages one constant Message-ID, and
each of them is mail. Two messages with one id are told apart by when they were sent and received: a move, a copy or a
second upload keeps both times, another message does not. Whoever comes later is stored as `<id>#<received, else
sent>`, in the file's name and in the JSON's `id`, and where even that is taken by a third as
`<id>#<received>#<sent>`, which no other message can have. The order in which these are tried never changes, so a
repeat finds its own files and replaces them.

Messages sent in different months lie in different directories and never meet.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.sinks.durable import flush_names
from ews_sync.sinks.new_email import utc_text, utc_time
from ews_sync.sinks.paths import email_stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from ews_sync.model import Email, ItemRef
    from ews_sync.sinks.durable import Disk


@dataclass(frozen=True, slots=True)
class Place:
    """Where an email is stored: the message, what is known of it, and the id under which it is there.

    The `.json` is there only when the `.eml` is.
    """

    eml: Path
    json: Path
    email_id: str

    @property
    def key(self) -> str:
        """What is different for different places."""
        return str(self.json)


@dataclass(frozen=True, slots=True)
class _Occasion:
    """When a message was sent and received: what tells messages with one id apart."""

    timestamp: datetime
    received: datetime | None

    def is_same(self, other: _Occasion) -> bool:
        if self.timestamp != other.timestamp:
            return False
        return self.received is None or other.received is None or self.received == other.received


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a `.json` says. `occasion` is None when it cannot be read: it is nobody's, and nobody may replace it."""

    occasion: _Occasion | None
    folder: tuple[str, ...] = ()


@dataclass(slots=True)
class _Claim:
    occasion: _Occasion
    holders: int


class Placement:
    """Gives one mailbox's emails their places. Methods block, raise `OSError`, and may be called from any thread."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._lock = threading.Lock()
        # Places of emails that are being written now, by other threads too: they are taken, though no file shows it
        # yet.
        self._claims: dict[str, _Claim] = {}

    def claim(self, emails: Iterable[Email]) -> list[tuple[Place, Email]]:
        """Give each email its place, until `release`. Of several versions of one email only the last is given one."""
        claimed: dict[str, tuple[Place, Email]] = {}
        try:
            with self._lock:
                for email in emails:
                    occasion = _Occasion(email.timestamp, email.metadata.received_at)
                    place = self._place(email.id, occasion)
                    if claimed.pop(place.key, None) is None:
                        self._claims.setdefault(place.key, _Claim(occasion, 0)).holders += 1
                    claimed[place.key] = (place, email)
        except BaseException:
            self.release([place for place, _ in claimed.values()])
            raise
        return list(claimed.values())

    def release(self, places: Iterable[Place]) -> None:
        """Take back claims, once the files are there or have failed."""
        with self._lock:
            for place in places:
                claim = self._claims[place.key]
                claim.holders -= 1
                if not claim.holders:
                    del self._claims[place.key]

    def holds(self, folder: tuple[str, ...], refs: Sequence[ItemRef]) -> list[bool]:
        """Tell for each item whether it is stored with this folder; False where the item does not say enough."""
        places = [self._held(folder, ref) for ref in refs]
        # What a process that was killed, or a flush that failed, has left can be there for all to see and yet not be
        # on the disk.
        for directory in {place.json.parent for place in places if place is not None}:
            flush_names(self._disk, directory, self._directory)
        return [place is not None for place in places]

    def _held(self, folder: tuple[str, ...], ref: ItemRef) -> Place | None:
        timestamp = ref.sent or ref.received
        if ref.email_id is None or timestamp is None:
            return None
        occasion = _Occasion(timestamp, ref.received)
        for place in self._candidates(ref.email_id, occasion):
            stored = _read(self._disk, place.json)
            if stored is not None and stored.occasion is not None and stored.occasion.is_same(occasion):
                return place if stored.folder == folder and place.eml.is_file() else None
        return None

    def _place(self, email_id: str, occasion: _Occasion) -> Place:
        place = None
        for place in self._candidates(email_id, occasion):
            claim = self._claims.get(place.key)
            if claim is not None:
                taken = claim.occasion
            else:
                stored = _read(self._disk, place.json)
                if stored is None:
                    return place
                if stored.occasion is None:
                    continue
                taken = stored.occasion
            if taken.is_same(occasion):
                return place
        # The last candidate's name says it all: only this very message can be there, however damaged its JSON is.
        assert place is not None  # noqa: S101 - there is always a first candidate
        return place

    def _candidates(self, email_id: str, occasion: _Occasion) -> Iterator[Place]:
        # Nearly always the first one is free or its own, so the others are made only when they are asked for.
        yield self._named(email_id, occasion)
        sent = utc_text(occasion.timestamp)
        received = "" if occasion.received is None else utc_text(occasion.received)
        yield self._named(f"{email_id}#{received or sent}", occasion)
        yield self._named(f"{email_id}#{received}#{sent}", occasion)

    def _named(self, email_id: str, occasion: _Occasion) -> Place:
        stem = email_stem(self._directory, email_id, occasion.timestamp)
        return Place(stem.with_name(stem.name + ".eml"), stem.with_name(stem.name + ".json"), email_id)


def _read(disk: Disk, path: Path) -> _Stored | None:
    """Give what a stored `.json` says, None when there is none."""
    try:
        data = disk.read(path)
    except FileNotFoundError:
        return None
    try:
        stored = json.loads(data)
        metadata = stored["metadata"]
        received = metadata.get("received_at")
        occasion = _Occasion(utc_time(stored["timestamp"]), None if received is None else utc_time(received))
        return _Stored(occasion, tuple(metadata["folder"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Stored(None)
