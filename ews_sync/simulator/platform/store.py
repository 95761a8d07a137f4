"""What the platform holds: buckets, their emails and sync states, and configs, in memory or in one SQLite file.

store = PlatformStore(Path("platform.sqlite"))
bucket = store.create_bucket("owner", "name")
store.put_emails(bucket, [...])
assert store.count("owner", "name") == 3
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ews_sync.simulator.platform.contract import KeyedSyncState, NewEmail, PageRequest, nanoseconds
from ews_sync.simulator.platform.json_text import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS buckets (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, created_at TEXT NOT NULL, title TEXT,
    UNIQUE (owner, name)
);
CREATE TABLE IF NOT EXISTS emails (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket_id TEXT NOT NULL REFERENCES buckets (id) ON DELETE CASCADE,
    id TEXT NOT NULL, mailbox TEXT NOT NULL, timestamp INTEGER NOT NULL, uploads INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, body TEXT NOT NULL, content TEXT NOT NULL,
    UNIQUE (bucket_id, id, mailbox)
);
CREATE TABLE IF NOT EXISTS keyed_sync_states (
    bucket_id TEXT NOT NULL REFERENCES buckets (id) ON DELETE CASCADE,
    id TEXT NOT NULL, mailbox TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (bucket_id, id)
);
CREATE TABLE IF NOT EXISTS configs (
    project TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (project, name)
);
"""
_PUT: Final = """
INSERT INTO emails (bucket_id, id, mailbox, timestamp, uploads, created_at, updated_at, body, content)
VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)
ON CONFLICT (bucket_id, id, mailbox) DO UPDATE SET
    timestamp = excluded.timestamp, uploads = uploads + 1, updated_at = excluded.updated_at, body = excluded.body,
    content = excluded.content
"""
_CONTENT: Final = "mime_content"
"""The message, which is nearly all of an email: it is kept beside the rest, as it is, and not as JSON."""
_OF_MAILBOX: Final = "(:mailbox IS NULL OR mailbox = :mailbox)"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket. `owner` is its project."""

    id: str
    owner: str
    name: str
    created_at: datetime
    title: str | None = None

    @property
    def full_name(self) -> str:
        """The name with the owner's: owner/name."""
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class StoredEmail:
    """An email as it was last uploaded, and when it was uploaded first and last. `position` is its place in pages."""

    position: int
    email: NewEmail
    created_at: str
    updated_at: str


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class PlatformStore:
    """All that one platform holds: in memory, or with `path` in an SQLite file that outlives the process.

    `clock` tells the time (aware, UTC). It can be used from several threads. What asks for a bucket by its name raises
    `LookupError` where there is none.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self._db = sqlite3.connect(":memory:" if path is None else path, isolation_level=None, check_same_thread=False)
        # A killed process loses nothing that was committed; only a machine that loses power would, for which nobody
        # asks a stand-in. What is new is written once, in large pages: a log written ahead would write it twice. The
        # journal of one transaction is kept for the next: to make and remove a file takes longer than a small one.
        for pragma in ("page_size = 16384", "journal_mode = PERSIST", "synchronous = OFF", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called more than once."""
        # What is closed already says so.
        with self._lock, suppress(sqlite3.ProgrammingError):
            # With the journal gone there is one file, to be taken along.
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.close()

    # --- buckets

    def create_bucket(self, owner: str, name: str, title: str | None = None) -> Bucket:
        """Make a bucket, or return the one that there is."""
        with self._transaction():
            sql = (
                "INSERT INTO buckets (id, owner, name, created_at, title) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            )
            self._db.execute(sql, (secrets.token_hex(8), owner, name, self._now(), title))
            return self._named(owner, name)

    def bucket(self, owner: str, name: str) -> Bucket | None:
        """Return a bucket by its name."""
        return next(iter(self._buckets("WHERE owner = :owner AND name = :name", owner=owner, name=name)), None)

    def bucket_by_id(self, bucket_id: str) -> Bucket | None:
        """Return a bucket by its id."""
        return next(iter(self._buckets("WHERE id = :id", id=bucket_id)), None)

    def buckets(self) -> list[Bucket]:
        """Return all buckets, in the order of their names."""
        return self._buckets("ORDER BY owner, name")

    def delete_bucket(self, owner: str, name: str) -> None:
        """Delete a bucket and all that is in it."""
        with self._transaction():
            self._db.execute("DELETE FROM buckets WHERE id = ?", (self._named(owner, name).id,))

    # --- emails

    def put_emails(self, bucket: Bucket, emails: Sequence[NewEmail]) -> None:
        """Store emails, all or none; one with the same mailbox and id is replaced, and keeps its place."""
        now = self._now()
        rows = [_row(bucket, email, now) for email in emails]
        with self._transaction():
            self._db.executemany(_PUT, rows)

    def emails(self, owner: str, name: str, mailbox: str | None = None) -> list[NewEmail]:
        """Return the emails of a bucket, or of one mailbox in it, in the order in which they first came."""
        found = self._select(self._named(owner, name), f"AND {_OF_MAILBOX} ORDER BY position", mailbox=mailbox)
        return [stored.email for stored in found]

    def email(self, owner: str, name: str, mailbox: str, email_id: str) -> NewEmail | None:
        """Return one email."""
        condition = "AND id = :id AND mailbox = :mailbox"
        found = self._select(self._named(owner, name), condition, id=email_id, mailbox=mailbox)
        return found[0].email if found else None

    def count(self, owner: str, name: str, mailbox: str | None = None) -> int:
        """Count the emails of a bucket, or of one mailbox in it."""
        sql = f"SELECT count(*) FROM emails WHERE bucket_id = :bucket AND {_OF_MAILBOX}"  # noqa: S608 - a constant
        return int(self._rows(sql, bucket=self._named(owner, name).id, mailbox=mailbox)[0][0])

    def uploads(self, owner: str, name: str) -> dict[tuple[str, str], int]:
        """Tell how often each email, by (mailbox, id), was uploaded: what a customer is charged for."""
        sql = "SELECT mailbox, id, uploads FROM emails WHERE bucket_id = :bucket ORDER BY position"
        rows = self._rows(sql, bucket=self._named(owner, name).id)
        return {(mailbox, email_id): uploads for mailbox, email_id, uploads in rows}

    def page(self, bucket: Bucket, request: PageRequest, after: int) -> list[StoredEmail]:
        """Return the emails behind a position that a request asks for, and one more if there are more."""
        return self._select(
            bucket,
            f"AND position > :after AND {_OF_MAILBOX} AND (:since IS NULL OR timestamp >= :since)"
            " AND (:before IS NULL OR timestamp < :before) ORDER BY position LIMIT :limit",
            after=after,
            mailbox=request.mailbox,
            since=request.since,
            before=request.before,
            limit=request.limit + 1,
        )

    def emails_by_id(self, bucket: Bucket, email_id: str) -> list[StoredEmail]:
        """Return every email with an id: one for each mailbox that has it."""
        return self._select(bucket, "AND id = :id ORDER BY position", id=email_id)

    def delete_emails(self, bucket: Bucket, ids: Sequence[str]) -> None:
        """Delete every email with one of these ids."""
        with self._transaction():
            self._db.executemany("DELETE FROM emails WHERE bucket_id = ? AND id = ?", [(bucket.id, one) for one in ids])

    # --- keyed sync states

    def put_keyed_sync_state(self, bucket: Bucket, state_id: str, state: KeyedSyncState) -> None:
        """Store a folder's state in the place of the one with the same id."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO keyed_sync_states (bucket_id, id, mailbox, body) VALUES (?, ?, ?, ?)",
                (bucket.id, state_id, state["mailbox_name"], write_json(state)),
            )

    def keyed_sync_states(self, owner: str, name: str, mailbox: str | None = None) -> list[KeyedSyncState]:
        """Return the states in a bucket, or those of one mailbox."""
        sql = f"SELECT body FROM keyed_sync_states WHERE bucket_id = :bucket AND {_OF_MAILBOX} ORDER BY id"  # noqa: S608
        rows = self._rows(sql, bucket=self._named(owner, name).id, mailbox=mailbox)
        return [json.loads(body) for (body,) in rows]

    def keyed_sync_state_ids(self, bucket: Bucket, mailbox: str) -> list[str]:
        """Return the ids of a mailbox's states."""
        sql = "SELECT id FROM keyed_sync_states WHERE bucket_id = :bucket AND mailbox = :mailbox ORDER BY id"
        return [state_id for (state_id,) in self._rows(sql, bucket=bucket.id, mailbox=mailbox)]

    def delete_keyed_sync_state(self, bucket: Bucket, state_id: str) -> bool:
        """Delete a state; False when there is none."""
        with self._transaction():
            sql = "DELETE FROM keyed_sync_states WHERE bucket_id = ? AND id = ?"
            return self._db.execute(sql, (bucket.id, state_id)).rowcount > 0

    def delete_keyed_sync_states(self, owner: str, name: str, mailbox: str | None = None) -> None:
        """Delete the states in a bucket, or those of one mailbox."""
        with self._transaction():
            sql = f"DELETE FROM keyed_sync_states WHERE bucket_id = :bucket AND {_OF_MAILBOX}"  # noqa: S608 - a constant
            self._db.execute(sql, {"bucket": self._named(owner, name).id, "mailbox": mailbox})

    def forget_cursors(self, owner: str, name: str) -> None:
        """Take the cursors out of the states in a bucket."""
        with self._transaction():
            sql = "UPDATE keyed_sync_states SET body = json_remove(body, '$.cursor') WHERE bucket_id = ?"
            self._db.execute(sql, (self._named(owner, name).id,))

    # --- configs

    def put_config(self, project: str, name: str, config: Mapping[str, Any]) -> None:
        """Store a config in the place of the one with the same name."""
        with self._transaction():
            sql = "INSERT OR REPLACE INTO configs (project, name, body) VALUES (?, ?, ?)"
            self._db.execute(sql, (project, name, write_json(config)))

    def config(self, project: str, name: str) -> dict[str, Any] | None:
        """Return a config."""
        rows = self._rows(
            "SELECT body FROM configs WHERE project = :project AND name = :name", project=project, name=name
        )
        found: dict[str, Any] | None = json.loads(rows[0][0]) if rows else None
        return found

    def delete_config(self, project: str, name: str) -> None:
        """Delete a config, if there is one."""
        with self._transaction():
            self._db.execute("DELETE FROM configs WHERE project = ? AND name = ?", (project, name))

    # --- below

    def _named(self, owner: str, name: str) -> Bucket:
        bucket = self.bucket(owner, name)
        if bucket is None:
            raise LookupError(f"there is no bucket {owner}/{name}")
        return bucket

    def _buckets(self, condition: str, **values: str) -> list[Bucket]:
        sql = f"SELECT id, owner, name, created_at, title FROM buckets {condition}"  # noqa: S608 - our own conditions
        return [
            Bucket(bucket_id, owner, name, datetime.fromisoformat(created_at), title)
            for bucket_id, owner, name, created_at, title in self._rows(sql, **values)
        ]

    def _select(self, bucket: Bucket, condition: str, **values: object) -> list[StoredEmail]:
        columns = "position, body, content, created_at, updated_at"
        sql = f"SELECT {columns} FROM emails WHERE bucket_id = :bucket {condition}"  # noqa: S608 - our own conditions
        return [
            StoredEmail(position, {**json.loads(body), _CONTENT: content}, created_at, updated_at)
            for position, body, content, created_at, updated_at in self._rows(sql, bucket=bucket.id, **values)
        ]

    def _rows(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _now(self) -> str:
        return self.clock().astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _row(bucket: Bucket, email: NewEmail, now: str) -> tuple[object, ...]:
    """Give the values of `_PUT`."""
    rest = {name: value for name, value in email.items() if name != _CONTENT}
    timestamp = nanoseconds(email["timestamp"])
    return bucket.id, email["id"], email["mailbox"], timestamp, now, now, write_json(rest), email[_CONTENT]
