"""The words of ews-sync as frozen values, and the protocols between its rooms.

All times are timezone-aware and in UTC. All sizes are in bytes. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from ews_sync.errors import SinkError


# --- Mailboxes and folders -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a mailbox's mail is put: a bucket's project and name."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


class StartFrom(StrEnum):
    """Where a start begins: at what the bucket's state knows, or always at the configured timestamp."""

    BUCKET = "bucket"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address in the config, and what is wanted of it.

    A folder is kept in step when no path of `folder_denylist` covers it and, where `folder_allowlist` is not empty,
    one of that list's paths does. A path covers its folder and everything below it; names are compared without case.
    """

    address: str
    bucket: Bucket
    start_from: StartFrom = StartFrom.BUCKET
    start_timestamp: datetime | None = None
    folder_allowlist: tuple[tuple[str, ...], ...] = ()
    folder_denylist: tuple[tuple[str, ...], ...] = ()

    def wants(self, path: tuple[str, ...]) -> bool:
        """Tell whether the folder at `path` is to be kept in step."""
        if any(_covers(listed, path) for listed in self.folder_denylist):
            return False
        return not self.folder_allowlist or any(_covers(listed, path) for listed in self.folder_allowlist)


def _covers(listed: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return [name.casefold() for name in listed] == [name.casefold() for name in path[: len(listed)]]


@dataclass(frozen=True, slots=True)
class FolderActivity:
    """What tells whether a folder changed since the last look, as the server gives it.

    `changed_at` is the time of the last change to anything in the folder, in the server's precision (often whole
    seconds, so that two changes can share one value); `deleted` counts deletions.
    """

    changed_at: str
    deleted: str
    total: int


@dataclass(frozen=True, slots=True)
class Folder:
    """One mail folder. `path` are the names from the mailbox's root down.

    `activity` is None where the server does not say.
    """

    id: str
    path: tuple[str, ...]
    total: int = 0
    activity: FolderActivity | None = None


# --- Items: what a source finds before it fetches --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemRef:
    """A thing in a folder that may be an email; enough to decide whether to fetch it and to reserve room for it.

    `received` and `created` are in the server's precision (whole seconds in EWS) and can be absent. `size` is the
    server's estimate, 0 where unknown. `email_id` and `sent` are there when the listing gave them: they name the
    stored email before it is fetched.
    """

    id: str
    received: datetime | None = None
    created: datetime | None = None
    size: int = 0
    is_mail: bool = True
    is_draft: bool = False
    email_id: str | None = None
    sent: datetime | None = None


class ChangeKind(StrEnum):
    """What happened to an item. A move is DELETED in the old folder and CREATED in the new one."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    FLAGGED = "flagged"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a folder's change feed."""

    kind: ChangeKind
    ref: ItemRef


@dataclass(frozen=True, slots=True)
class ChangePage:
    """A page of a folder's change feed; `cursor` is the position behind it. `last` when nothing more is known now."""

    changes: tuple[Change, ...]
    cursor: str
    last: bool


class Order(StrEnum):
    """The time by which a folder's items are listed, oldest first."""

    RECEIVED = "received"
    CREATED = "created"
    """Only the items that have no received time."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of a folder's items.

    `total` counts what the query as a whole matches, None where the server does not say.
    """

    refs: tuple[ItemRef, ...]
    last: bool
    total: int | None = None


# --- Emails: what a sink stores --------------------------------------------------------------------------------------


class Mime(Protocol):
    """A message's bytes as the server gave them: in memory, or in a temporary file when large."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of bounded size. May be called again.

        Reads a file for large ones.
        """

    def read(self, start: int, size: int) -> bytes:
        """Give the `size` bytes from `start` on, fewer only where the message ends.

        Reads a file for large ones. `OSError` when that fails, from here and from `chunks`.
        """

    def close(self) -> None:
        """Give the room back. May be called more than once."""


@dataclass(slots=True)
class MimeBytes:
    """A message in memory. Its bytes go when it is closed, whoever still knows of it."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it at once."""
        yield self.data

    def read(self, start: int, size: int) -> bytes:
        """Give a part of it; the whole is not copied."""
        return self.data[start : start + size]

    def close(self) -> None:
        """Let go of the bytes."""
        self.data = b""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment as the server lists it."""

    name: str
    size: int
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of an email besides its bytes. None means that the server did not say."""

    folder: tuple[str, ...]
    received_at: datetime | None = None
    size: int | None = None
    sensitivity: str | None = None
    importance: str | None = None
    categories: tuple[str, ...] = ()
    has_attachments: bool | None = None
    conversation_id: str | None = None
    conversation_topic: str | None = None
    is_read: bool | None = None


@dataclass(frozen=True, slots=True)
class Email:
    """An email as it is stored. (mailbox, id) is its key: storing it again replaces what is there.

    `id` is the Internet Message-ID; where a message has none, a stable stand-in that survives moves and restarts.
    `timestamp` is when it was sent, else when it was received.
    """

    id: str
    mailbox: Mailbox
    timestamp: datetime
    mime: Mime
    metadata: Metadata
    attachments: tuple[Attachment, ...] = ()
    item_id: str = ""
    """The source's id of the item that it was fetched from; it is not part of what is stored."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An email that cannot be stored, and why.

    `item_id` is the source's id of the item and `email_id` its Message-ID, where known. `code` is the peer's own
    code, verbatim. `known` holds the properties that could still be had, for whoever has to look at it: names and
    plain values, no message content.
    """

    mailbox: Mailbox
    item_id: str
    folder: tuple[str, ...]
    code: str
    reason: str
    email_id: str | None = None
    received: datetime | None = None
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The outcome of fetching one item.

    Exactly one of `email` and `dead_letter`, or neither when the item is gone or is not mail.

    `draft` when the item is an unsent message: not mail yet.
    """

    ref: ItemRef
    email: Email | None = None
    dead_letter: DeadLetter | None = None
    draft: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """A sink's word that a batch is stored durably, all of it or all but `left`.

    `refused` are the emails of the batch that can never be stored, already recorded as dead letters; `position` is
    where the sink stands after the batch, for sinks whose state goes with the checkpoint (see `Sink.ordered`), else
    None. `left` are the emails that are not stored, because of `failure`; the rest of the batch is.
    """

    refused: tuple[DeadLetter, ...] = ()
    position: str | None = None
    left: tuple[Email, ...] = ()
    failure: SinkError | None = None


# --- Checkpoints: what is known to be stored -------------------------------------------------------------------------


class FolderStatus(StrEnum):
    """The platform's words for where a folder stands."""

    IN_PROGRESS = "IN_PROGRESS"
    UP_TO_DATE = "UP_TO_DATE"


@dataclass(frozen=True, slots=True)
class Backfill:
    """Where catching up from the start time stands, in one folder.

    Items are listed by `order`, oldest first, from `since` (None: from the beginning) to `until`, the newest that the
    folder held when it was marked (None: unknown, go to the end). All items before `position` are stored, and of
    those at or after it those in `seen` (digests of item ids, by the second in which the item was received: what the
    feed brought, and what is stored of the second `position`). `done` and `total` are for people: how many items are
    behind us, and how many there were to do.
    """

    order: Order = Order.RECEIVED
    since: datetime | None = None
    until: datetime | None = None
    position: datetime | None = None
    seen: Mapping[datetime, frozenset[str]] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    verify: bool = False
    """Whether items that the sink already holds are passed by: after a lost position, when most of them are there."""
    by_feed: bool = False
    """Whether nothing is listed, because the feed is read from its very start: up to its end, it alone says how far."""


@dataclass(frozen=True, slots=True)
class FolderCheckpoint:
    """What is known to be stored of one folder. It alone decides where a restart begins.

    `cursor` is the position in the folder's change feed up to which everything is confirmed (None: not marked yet, or
    forgotten). `synced_until` is the received time up to which every email of the folder is stored. `newest` is the
    newest received time that the feed brought. `backfill` is None once it is finished. `drafts` are digests of the
    ids of unsent items that were passed by.
    """

    folder_id: str
    folder_path: tuple[str, ...]
    cursor: str | None = None
    synced_until: datetime | None = None
    last_synced_at: datetime | None = None
    newest: datetime | None = None
    backfill: Backfill | None = None
    drafts: frozenset[str] = frozenset()

    @property
    def status(self) -> FolderStatus:
        """The platform's word for it."""
        return (
            FolderStatus.UP_TO_DATE if self.cursor is not None and self.backfill is None else FolderStatus.IN_PROGRESS
        )


@dataclass(frozen=True, slots=True)
class MailboxCheckpoint:
    """What is known to be stored of a mailbox: its folders by id, and the sink's own position for ordered sinks."""

    folders: Mapping[str, FolderCheckpoint] = field(default_factory=dict)
    sink_position: str | None = None


# --- The protocols between rooms -------------------------------------------------------------------------------------


class Source(Protocol):
    """Where mail comes from. Every method raises `SourceError` (or a child of it) and nothing else."""

    async def folders(self, mailbox: Mailbox) -> Sequence[Folder]:
        """List the mailbox's mail folders, wanted or not."""

    async def changes(
        self, mailbox: Mailbox, folder: Folder, cursor: str | None, *, limit: int | None = None, ids_only: bool = False
    ) -> ChangePage:
        """Give the page of changes behind `cursor` (None: from the very beginning), at most `limit` of them.

        With `ids_only` the refs carry nothing but ids, which is by far the cheapest. Without, those of what was created
        or updated carry what `items` would say of them, but for what the server leaves out. From the very beginning to
        the page that is the last, the changes add up to what the folder holds. Raises `CursorRejectedError` when the
        position is no longer accepted.
        """

    async def items(
        self, mailbox: Mailbox, folder: Folder, *, order: Order, since: datetime | None, offset: int = 0
    ) -> ListPage:
        """List items whose time is at or after `since`, oldest first, passing by the first `offset` of them."""

    async def newest(self, mailbox: Mailbox, folder: Folder) -> datetime | None:
        """Give the newest received time in the folder, None when nothing in it has one."""

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[Fetched]:
        """Fetch the items, one outcome each in the order of `refs`.

        A failure of single items is an outcome, not an error.
        """

    async def aclose(self) -> None:
        """Close connections."""


class Recall(StrEnum):
    """Whether a sink can tell what it holds."""

    NOTHING = "nothing"
    ONE_BY_ONE = "one by one"
    """At the price of a request for each email: worth it for what may well be there, not for a whole folder."""
    EVERYTHING = "everything"
    """At next to no price."""


class Sink(Protocol):
    """Where mail goes. Every method raises `SinkError` (or a child of it) and nothing else.

    `recall` tells what `holds` is good for.

    `ordered` tells that the sink's position is part of the checkpoint: then the batches of one mailbox must be put
    one after the other in the order in which they are to be confirmed.
    """

    ordered: bool
    recall: Recall

    async def open(self, mailbox: Mailbox, position: str | None) -> None:
        """Make ready to store the mailbox's mail, going back to `position` where the sink keeps one.

        Raises `AlreadyRunningError`.
        """

    async def put(self, batch: Sequence[Email]) -> Receipt:
        """Store emails of one mailbox durably, replacing what has the same key.

        On an error nothing of the batch counts as stored; where some of it is, the receipt says so.
        """

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Record emails that could not be had, durably and once each."""

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        """Tell for each item whether it is already stored with this folder; False where the sink cannot tell."""

    async def check(self, mailbox: Mailbox) -> None:
        """Try that the mailbox's mail could be stored, without storing any."""

    async def aclose(self) -> None:
        """Finish and give everything back."""


class CheckpointStore(Protocol):
    """Where checkpoints are kept: the sink's own state.

    `interval` is how many seconds there are at least between two saves of one mailbox, but for the last one.

    Every method raises `SinkError` (or a child of it) and nothing else.
    """

    interval: float

    async def load(self, mailbox: Mailbox) -> MailboxCheckpoint:
        """Read what was saved last; empty when there is nothing."""

    async def save(self, mailbox: Mailbox, checkpoint: MailboxCheckpoint) -> None:
        """Replace what is saved, durably and each folder's at once or not at all."""

    async def aclose(self) -> None:
        """Finish and give everything back."""


class Clock(Protocol):
    """Time, so that tests can hold it in their hands."""

    def now(self) -> datetime:
        """Give the wall clock's time, in UTC."""

    def monotonic(self) -> float:
        """Give seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
