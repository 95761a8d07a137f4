"""Fetching items: from refs to emails, and what becomes of the items that fail.

An item that was never tried (ErrorBatchProcessingStopped) is asked for again and never counts as bad. One that may
heal is asked for alone a few times and then recorded. One that the server can never turn into MIME is recorded with
the properties that could still be had. When a whole batch fails, a request for the properties alone tells a sick
server from a poisonous item, and only then is the batch divided.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from ews_sync.errors import Asks, SourceError, ThrottledError
from ews_sync.model import DeadLetter, Email, Fetched, ItemRef, Metadata
from ews_sync.sources.ews.codes import BATCH_STOPPED, NO_ERROR, error_for, meaning_of
from ews_sync.sources.ews.records import is_mail_class, stored_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.model import Clock, Folder, Mailbox, Mime
    from ews_sync.sources.ews.operations import ItemRecord, ResponseMessage

_TRIES = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_MIME = "NoMimeContent"
DAMAGED_MIME = "DamagedMimeContent"


class AskItems(Protocol):
    """Sends a GetItem and gives its response messages."""

    async def __call__(
        self, mailbox: Mailbox, item_ids: Sequence[str], *, with_mime: bool
    ) -> tuple[ResponseMessage, ...]:
        """Ask for the items; raises `SourceError` when the request as a whole fails."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What one item was answered with instead of itself."""

    code: str
    text: str
    backoff: float | None = None


class Hydrator:
    """Turns refs into emails, dead letters, or the knowledge that there is nothing to store."""

    def __init__(self, clock: Clock, ask: AskItems) -> None:
        self._clock = clock
        self._ask = ask
        self._log = structlog.get_logger("ews_sync.ews")

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> list[Fetched]:
        """Give one outcome for each ref, in their order.

        Raises `SourceError` when the server or the mailbox fails as a whole.
        """
        outcomes: dict[str, Fetched] = {}
        try:
            await self._fetch_into(outcomes, mailbox, folder, list({ref.id: ref for ref in refs}.values()))
        except BaseException:
            for outcome in outcomes.values():
                if outcome.email is not None:
                    outcome.email.mime.close()
            raise
        given: set[str] = set()
        result = []
        for ref in refs:
            # A server may list an item twice; it is stored once.
            result.append(Fetched(ref) if ref.id in given else outcomes[ref.id])
            given.add(ref.id)
        return result

    async def _fetch_into(
        self, outcomes: dict[str, Fetched], mailbox: Mailbox, folder: Folder, refs: list[ItemRef]
    ) -> None:
        """Fetch `refs`, which are distinct, and put what becomes of each into `outcomes`."""
        failures: dict[str, int] = {}
        batches: list[list[ItemRef]] = [refs]
        stuck = 0
        while batches:
            batch = batches.pop(0)
            try:
                messages = await self._ask(mailbox, [ref.id for ref in batch], with_mime=True)
            except SourceError as error:
                batches[:0] = await self._divide(outcomes, failures, mailbox, folder, batch, error)
                continue
            before = len(outcomes)
            untried, alone = await self._sort_out(outcomes, failures, mailbox, folder, batch, messages)
            stuck = 0 if len(outcomes) > before else stuck + 1
            if untried or alone:
                if stuck >= _TRIES * 2:
                    raise SourceError(
                        f"the server does not get on with fetching from {mailbox.address}", code=BATCH_STOPPED
                    )
                if stuck:
                    await self._clock.sleep(float(2 ** min(stuck - 1, 4)))
            if untried:
                batches.append(untried)
            batches += [[ref] for ref in alone]

    async def _divide(  # noqa: PLR0913
        self,
        outcomes: dict[str, Fetched],
        failures: dict[str, int],
        mailbox: Mailbox,
        folder: Folder,
        batch: list[ItemRef],
        error: SourceError,
    ) -> list[list[ItemRef]]:
        """Say what to ask for next after a batch failed as a whole; raise the error when it is not about the items."""
        timed_out = error.code == "ErrorTimeoutExpired"
        if error.asks is not Asks.RETRY or (isinstance(error, ThrottledError) and not timed_out):
            raise error
        # If this fails too, the server is unwell and the items are not to blame.
        probe = await self._ask(mailbox, [ref.id for ref in batch], with_mime=False)
        if len(batch) > 1:
            middle = len(batch) // 2
            return [batch[:middle], batch[middle:]]
        ref = batch[0]
        failures[ref.id] = failures.get(ref.id, 0) + 1
        if failures[ref.id] < _TRIES:
            return [batch]
        item = probe[0].items[0] if probe and probe[0].items else None
        outcomes[ref.id] = _dead(
            mailbox, folder, ref, _Failure(error.code or type(error).__name__, error.summary), item
        )
        return []

    async def _sort_out(  # noqa: PLR0913
        self,
        outcomes: dict[str, Fetched],
        failures: dict[str, int],
        mailbox: Mailbox,
        folder: Folder,
        batch: list[ItemRef],
        messages: tuple[ResponseMessage, ...],
    ) -> tuple[list[ItemRef], list[ItemRef]]:
        """Put what the answer decides into `outcomes`.

        Give the items that were not tried, and those to be asked for alone.
        """
        untried: list[ItemRef] = []
        alone: list[ItemRef] = []
        bad: list[tuple[ItemRef, _Failure]] = []
        denied: list[_Failure] = []
        for ref, answer in _matched(batch, messages):
            if not isinstance(answer, _Failure):
                outcomes[ref.id] = _outcome(mailbox, folder, ref, answer)
                continue
            meaning = meaning_of(answer.code)
            if meaning.gone:
                outcomes[ref.id] = Fetched(ref)
            elif meaning.keeps_trying:
                untried.append(ref)
            elif meaning.on_item is Asks.SKIP:
                bad.append((ref, answer))
            else:
                if meaning.on_item is None:
                    denied.append(answer)
                failures[ref.id] = failures.get(ref.id, 0) + 1
                if failures[ref.id] >= _TRIES:
                    bad.append((ref, answer))
                else:
                    alone.append(ref)
        if denied and len(denied) == len(batch) and len(batch) > 1:
            raise error_for(denied[0].code, denied[0].text, doing=f"fetching from {mailbox.address}")
        if bad:
            await self._record(outcomes, mailbox, folder, bad)
        return untried, alone

    async def _record(
        self, outcomes: dict[str, Fetched], mailbox: Mailbox, folder: Folder, bad: list[tuple[ItemRef, _Failure]]
    ) -> None:
        """Make dead letters, with the properties that can still be had."""
        try:
            messages = await self._ask(mailbox, [ref.id for ref, _ in bad], with_mime=False)
            known = {item.ref.id: item for message in messages for item in message.items}
        except SourceError as error:
            self._log.debug(
                "the properties of an item that cannot be fetched cannot be had either", problem=error.summary
            )
            known = {}
        for ref, failure in bad:
            outcomes[ref.id] = _dead(mailbox, folder, ref, failure, known.get(ref.id))


def _matched(
    batch: list[ItemRef], messages: tuple[ResponseMessage, ...]
) -> list[tuple[ItemRef, ItemRecord | _Failure]]:
    """Match what was asked with what was answered: by position, as Exchange answers; by id where the numbers differ."""
    if len(messages) != len(batch):
        found = {item.ref.id: item for message in messages for item in message.items}
        missing = _Failure(BATCH_STOPPED, "the answer left the item out")
        return [(ref, found.get(ref.id, missing)) for ref in batch]
    return [(ref, _answered(message)) for ref, message in zip(batch, messages, strict=True)]


def _answered(message: ResponseMessage) -> ItemRecord | _Failure:
    if message.items and (message.code in {NO_ERROR, ""}):
        item = message.items[0]
        if item.mime_damaged:
            return _Failure(DAMAGED_MIME, "the message's base64 was damaged")
        if item.mime is None and is_mail_class(item.item_class) and not item.ref.is_draft:
            return _Failure(NO_MIME, "the server gave the item without its message")
        return item
    for item in message.items:
        if item.mime is not None:
            item.mime.close()
    return _Failure(message.code if message.code != NO_ERROR else NO_MIME, message.text, message.backoff)


def _outcome(mailbox: Mailbox, folder: Folder, ref: ItemRef, item: ItemRecord) -> Fetched:
    mime = item.mime
    if item.ref.is_draft or not is_mail_class(item.item_class) or mime is None:
        if mime is not None:
            mime.close()
        return Fetched(ref, draft=item.ref.is_draft)
    email = Email(
        id=item.ref.email_id or stored_id(None, item.search_key) or _content_id(mime),
        mailbox=mailbox,
        timestamp=item.ref.sent or item.ref.received or item.ref.created or _EPOCH,
        mime=mime,
        metadata=Metadata(
            folder=folder.path,
            received_at=item.ref.received,
            size=item.ref.size if item.has_size else None,
            sensitivity=item.sensitivity,
            importance=item.importance,
            categories=item.categories,
            has_attachments=item.has_attachments,
            conversation_id=item.conversation_id,
            conversation_topic=item.conversation_topic,
            is_read=item.is_read,
        ),
        attachments=item.attachments,
    )
    return Fetched(ref, email=email)


def _content_id(mime: Mime) -> str:
    """Name a message that has neither Message-ID nor search key by what it contains."""
    digest = hashlib.sha256()
    for chunk in mime.chunks():
        digest.update(chunk)
    return f"<{digest.hexdigest()}@no-message-id.ews-sync>"


def _dead(mailbox: Mailbox, folder: Folder, ref: ItemRef, failure: _Failure, item: ItemRecord | None) -> Fetched:
    known: dict[str, str] = {}
    source = item.ref if item is not None else ref
    if item is not None:
        if item.ref.is_draft:
            return Fetched(ref, draft=True)
        known |= {"item_class": item.item_class} if item.item_class else {}
        known |= {"search_key": item.search_key} if item.search_key else {}
    known |= {"size": str(source.size)} if source.size else {}
    known |= {"sent": source.sent.isoformat()} if source.sent else {}
    letter = DeadLetter(
        mailbox=mailbox,
        item_id=ref.id,
        folder=folder.path,
        code=failure.code,
        reason=" ".join(failure.text.split())[:500] or "the server gave no reason",
        email_id=source.email_id or ref.email_id,
        received=source.received or ref.received,
        known=known,
    )
    return Fetched(ref, dead_letter=letter)
