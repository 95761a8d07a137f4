"""A folder's checkpoint as the platform's KeyedSyncState, and back.

The platform knows a folder's name, status and `synced_until`; what a timestamp cannot say travels in `cursor`, which
is opaque to it: versioned JSON. In local files the same stands there as an object, for people to read. When a cursor
is not understood, `synced_until` still is, and the folder is marked anew from there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ews_sync.errors import CheckpointError
from ews_sync.model import Backfill, FolderCheckpoint, Order
from ews_sync.sinks.new_email import utc_text, utc_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

CURSOR_VERSION = 1


@dataclass(frozen=True, slots=True)
class FolderState:
    """What a KeyedSyncState says: the checkpoint, and whether its cursor was there but could not be understood."""

    mailbox: str
    checkpoint: FolderCheckpoint
    cursor_damaged: bool = False


def to_keyed_state(mailbox: str, checkpoint: FolderCheckpoint, *, readable: bool = False) -> dict[str, object]:
    """Give the KeyedSyncState of a folder; with `readable`, `cursor` is an object instead of text."""
    cursor = _cursor(checkpoint)
    state: dict[str, object | None] = {
        "mailbox_name": mailbox,
        "folder_id": checkpoint.folder_id,
        "folder_path": list(checkpoint.folder_path),
        "status": checkpoint.status.value,
        "synced_until": _text(checkpoint.synced_until),
        "last_synced_at": _text(checkpoint.last_synced_at),
        "cursor": cursor if readable else json.dumps(cursor, separators=(",", ":")),
    }
    return _known(state)


def from_keyed_state(state: Mapping[str, Any]) -> FolderState:
    """Read a KeyedSyncState, its cursor as text or as an object, and fields that nobody knows passed by.

    `CheckpointError` when not even the folder and its `synced_until` can be read.
    """
    try:
        mailbox = _string(state["mailbox_name"])
        folder_id = _string(state["folder_id"])
        path = _path(state.get("folder_path"))
        synced_until = _time(state.get("synced_until"))
        last_synced_at = _time(state.get("last_synced_at"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"a folder's stored state cannot be read: {type(error).__name__}") from error
    plain = FolderCheckpoint(folder_id, path, synced_until=synced_until, last_synced_at=last_synced_at)
    text = state.get("cursor")
    if text is None:
        return FolderState(mailbox, plain)
    try:
        cursor = json.loads(text) if isinstance(text, str) else text
        # A newer version of the appliance may mean something else by the same words: only the known version is read.
        if cursor["version"] != CURSOR_VERSION:
            return FolderState(mailbox, plain, cursor_damaged=True)
        backfill = cursor.get("backfill")
        checkpoint = FolderCheckpoint(
            folder_id,
            path,
            cursor=None if cursor.get("position") is None else _string(cursor["position"]),
            synced_until=synced_until,
            last_synced_at=last_synced_at,
            newest=_time(cursor.get("newest")),
            backfill=None if backfill is None else _backfill(backfill),
            drafts=frozenset(_string(digest) for digest in cursor.get("drafts", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return FolderState(mailbox, plain, cursor_damaged=True)
    return FolderState(mailbox, checkpoint)


def _cursor(checkpoint: FolderCheckpoint) -> dict[str, object]:
    backfill = checkpoint.backfill
    cursor: dict[str, object | None] = {
        "version": CURSOR_VERSION,
        "position": checkpoint.cursor,
        "newest": _text(checkpoint.newest),
        "backfill": None if backfill is None else _backfill_json(backfill),
        "drafts": sorted(checkpoint.drafts) or None,
    }
    return _known(cursor)


def _backfill_json(backfill: Backfill) -> dict[str, object]:
    value: dict[str, object | None] = {
        "order": backfill.order.value,
        "since": _text(backfill.since),
        "until": _text(backfill.until),
        "position": _text(backfill.position),
        "done": backfill.done,
        "total": backfill.total,
        "verify": backfill.verify or None,
        "by_feed": backfill.by_feed or None,
        "seen": {utc_text(second): sorted(backfill.seen[second]) for second in sorted(backfill.seen)} or None,
    }
    return _known(value)


def _backfill(value: Mapping[str, Any]) -> Backfill:
    return Backfill(
        order=Order(value["order"]),
        since=_time(value.get("since")),
        until=_time(value.get("until")),
        position=_time(value.get("position")),
        seen={
            utc_time(second): frozenset(_string(digest) for digest in digests)
            for second, digests in value.get("seen", {}).items()
        },
        done=_integer(value["done"]),
        total=_integer(value["total"]),
        verify=value.get("verify", False) is True,
        by_feed=value.get("by_feed", False) is True,
    )


def _known(value: Mapping[str, object | None]) -> dict[str, object]:
    return {key: item for key, item in value.items() if item is not None}


def _text(time: datetime | None) -> str | None:
    return None if time is None else utc_text(time)


def _time(text: object) -> datetime | None:
    return None if text is None else utc_time(_string(text))


def _path(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return tuple(_string(name) for name in value)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a number is expected")
    return value
