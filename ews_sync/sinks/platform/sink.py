"""Mail into the platform's buckets: uploads in batches, split where they are refused, and never twice without cause.

The platform tells emails apart by bucket, mailbox and id; to put one again replaces it, but is charged. What is to be
done about each failure stands in the platform's contract; `answers` reads them, `health` judges them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from ews_sync.errors import Asks, SinkError
from ews_sync.model import DeadLetter, Recall, Receipt
from ews_sync.sinks.new_email_unicode import unicode_id
from ews_sync.sinks.platform.answers import NotFoundError, PlatformError, RefusedError
from ews_sync.sinks.platform.api import whole
from ews_sync.sinks.platform.health import Health, Repeats, Suspects
from ews_sync.sinks.platform.uploads import body_of, encode, grouped, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ews_sync.model import Bucket, Clock, Email, Folder, ItemRef, Mailbox
    from ews_sync.sinks.platform.api import PlatformApi
    from ews_sync.sinks.platform.buckets import Buckets
    from ews_sync.sinks.platform.dead_letters import DeadLetterDirectory
    from ews_sync.sinks.platform.uploads import Encoded

MOST_BYTES = 4 * 1024 * 1024
"""How large a request is at most, unless it is one email that is larger, and until the platform asks for less."""
_LEAST_BYTES = 64 * 1024
_ASKED_ABOUT = 4 * 1024 * 1024
"""An email that is larger is uploaded again rather than fetched from the platform to see whether it is there."""
_QUESTIONS_AT_ONCE = 8


class PlatformSink:
    """Stores mail in buckets. A `Sink`; batches may be put at once. Errors are `PlatformError` and `StorageError`.

    `letters` keeps dead letters in files, where that is wanted. Using a mailbox that was not opened is a
    `RuntimeError`.
    """

    ordered: bool = False
    recall: Recall = Recall.ONE_BY_ONE

    def __init__(
        self,
        api: PlatformApi,
        buckets: Buckets,
        clock: Clock,
        *,
        letters: DeadLetterDirectory | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._api = api
        self._buckets = buckets
        self._clock = clock
        self._letters = letters
        self._most_bytes = most_bytes
        self._health = Health()
        self._suspects = Suspects()
        self._repeats = Repeats()
        self._open: set[tuple[Bucket, str]] = set()
        self._log = structlog.get_logger("ews_sync.sinks")

    async def open(self, mailbox: Mailbox, position: str | None) -> None:  # noqa: ARG002 - a bucket keeps no position
        """See that the mailbox's bucket is there."""
        await self._buckets.id_of(mailbox.bucket)
        self._open.add((mailbox.bucket, mailbox.address))

    async def put(self, batch: Sequence[Email]) -> Receipt:
        """Upload emails of one mailbox, but for those that are known to be stored just like this.

        What is refused by itself is recorded; what fails, and what was not tried after that, is left.
        """
        if not batch:
            return Receipt()
        self._require_open(batch[0].mailbox)
        # Of one key in a batch the last wins.
        latest = {email.id: email for email in batch}
        encoded = await asyncio.to_thread(encode, latest.values())
        fresh = [one for one in encoded if not self._repeats.is_repeat(one.email, one.digest)]
        refused, left, failure = await self._upload_all(batch[0].mailbox.bucket, fresh)
        if self._letters is not None and refused:
            await self._letters.record(refused)
        if failure is None:
            return Receipt(tuple(refused))
        ids = {one.email.id for one in left}
        rest = tuple(email for email in batch if email.id in ids)
        if len(rest) == len(batch):
            raise failure
        return Receipt(tuple(refused), left=rest, failure=failure)

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Keep emails that could not be had in files, where that is wanted."""
        for letter in letters:
            self._require_open(letter.mailbox)
        if self._letters is not None and letters:
            await self._letters.record(letters)

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        """Ask for each item whether it is stored with this folder; False where the item does not say enough."""
        self._require_open(mailbox)
        places = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

        async def ask(ref: ItemRef) -> bool:
            async with places:
                return await self._holds(mailbox, folder, ref)

        # All of them to their end: a request that is cancelled costs its connection.
        answers = await asyncio.gather(*(ask(ref) for ref in refs), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer is True for answer in answers]

    async def check(self, mailbox: Mailbox) -> None:
        """See that the bucket is there and takes uploads, with one that has no email in it."""
        await self._buckets.id_of(mailbox.bucket)
        try:
            await self._api.put_emails(mailbox.bucket, whole(b'{"emails":[]}'))
        except RefusedError:
            # It may want an email in it; what it does not lack is the permission.
            self._log.debug("the platform takes no empty upload", bucket=str(mailbox.bucket))
        if self._letters is not None:
            await self._letters.check()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()
        if self._letters is not None:
            await self._letters.aclose()

    async def _holds(self, mailbox: Mailbox, folder: Folder, ref: ItemRef) -> bool:
        if ref.email_id is None or ref.size > _ASKED_ABOUT:
            return False
        found = await self._api.emails_by_id(mailbox.bucket, unicode_id(ref.email_id), _ASKED_ABOUT * 2)
        return any(email.mailbox == mailbox.address and email.folder == folder.path for email in found or ())

    async def _upload_all(
        self, bucket: Bucket, emails: Sequence[Encoded]
    ) -> tuple[list[DeadLetter], list[Encoded], SinkError | None]:
        """Upload emails; give those that are refused, those that are left, and why they are."""
        refused: list[DeadLetter] = []
        waiting = deque(self._groups(emails))
        while waiting:
            group = waiting[0]
            try:
                await self._upload(bucket, group)
            except RefusedError as error:
                if len(group) > 1:
                    waiting = deque(self._smaller(waiting, error))
                    continue
                wrong = self._health.refused(error)
                if wrong is not None:
                    return refused, _flat(waiting), wrong
                self._suspects.cleared([group[0].email])
                refused.append(_letter(group[0], error))
            except SinkError as error:
                return refused, _flat(waiting), error
            waiting.popleft()
        return refused, [], None

    async def _upload(self, bucket: Bucket, group: Sequence[Encoded]) -> None:
        rest = self._health.rest(self._clock.monotonic())
        if rest is not None:
            raise rest
        emails = [encoded.email for encoded in group]
        try:
            await self._api.put_emails(bucket, body_of(group))
        except RefusedError:
            raise
        except NotFoundError:
            self._buckets.forget(bucket)
            self._repeats.forget(bucket)
            raise
        except PlatformError as error:
            if error.asks is not Asks.RETRY:
                raise
            now = self._clock.monotonic()
            self._health.failed(error, now)
            raise self._suspects.failed(emails, error, now) from error
        self._health.accepted()
        self._suspects.cleared(emails)
        for encoded in group:
            self._repeats.stored(encoded.email, encoded.digest)

    def _groups(self, emails: Iterable[Encoded]) -> list[tuple[Encoded, ...]]:
        """Cut emails into uploads; those that may be what makes uploads fail come last, and each alone."""
        trusted: list[Encoded] = []
        suspected: list[Encoded] = []
        for encoded in emails:
            (suspected if self._suspects.must_go_alone(encoded.email) else trusted).append(encoded)
        return [*grouped(trusted, self._most_bytes), *((encoded,) for encoded in suspected)]

    def _smaller(self, waiting: deque[tuple[Encoded, ...]], error: RefusedError) -> list[tuple[Encoded, ...]]:
        """Cut the first upload, which was refused, in two; when it was too large, the others are made smaller too."""
        group, *others = waiting
        middle = len(group) // 2
        if error.too_large:
            size = size_of(group)
            learned = max(_LEAST_BYTES, size // 2)
            if learned < self._most_bytes:
                self._log.info("the platform takes no uploads as large as that; smaller ones from now on", bytes=size)
                self._most_bytes = learned
            others = self._groups(encoded for other in others for encoded in other)
        return [group[:middle], group[middle:], *others]

    def _require_open(self, mailbox: Mailbox) -> None:
        if (mailbox.bucket, mailbox.address) not in self._open:
            raise RuntimeError(f"mailbox {mailbox.address} is not open")


def _flat(groups: Iterable[Sequence[Encoded]]) -> list[Encoded]:
    return [encoded for group in groups for encoded in group]


def _letter(encoded: Encoded, error: RefusedError) -> DeadLetter:
    email = encoded.email
    return DeadLetter(
        mailbox=email.mailbox,
        item_id=email.item_id,
        folder=email.metadata.folder,
        code=error.code,
        reason=error.summary,
        email_id=email.id,
        received=email.metadata.received_at,
        known={"bytes": str(encoded.size)},
    )
