"""Mail into the platform's buckets: uploads in batches, split where they are refused, and never twice without cause.

The platform tells emails apart by bucket, mailbox and id; to put one again replaces it, but is charged. What is to be
done about each failure stands in the platform's contract; `answers` reads them, `health` judges them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ews_sync.errors import Asks, Scope, SinkError, StorageError
from ews_sync.model import DeadLetter, Recall, Receipt
from ews_sync.sinks.new_email_unicode import unicode_id
from ews_sync.sinks.platform.answers import NotFoundError, PlatformError, RefusedError
from ews_sync.sinks.platform.api import whole
from ews_sync.sinks.platform.health import MOST_BYTES, Health, Repeats, RequestSize, Suspects, key_of
from ews_sync.sinks.platform.upload_run import UploadRun, detached
from ews_sync.sinks.platform.uploads import body_of, encode, is_quick, room_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ews_sync.model import Bucket, Clock, Email, Folder, ItemRef, Mailbox
    from ews_sync.sinks.platform.api import PlatformApi
    from ews_sync.sinks.platform.buckets import Buckets
    from ews_sync.sinks.platform.dead_letters import DeadLetterDirectory
    from ews_sync.sinks.platform.health import Key
    from ews_sync.sinks.platform.uploads import Encoded

_ASKED_ABOUT = 4 * 1024 * 1024
"""An email that is larger is uploaded again rather than fetched from the platform to see whether it is there."""
_QUESTIONS_AT_ONCE = 4
_ROOM = 12 * 1024 * 1024
"""Bytes of JSON that all batches together keep; what has no room is made again when it is sent."""


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
        self._health = Health()
        self._suspects = Suspects(self._health)
        self._size = RequestSize(most_bytes)
        self._repeats = Repeats()
        self._room = _ROOM
        self._unrecorded: dict[Key, tuple[bytes, RefusedError]] = {}
        """Emails that were refused and could not be recorded yet, by their digests."""
        self._open: dict[tuple[Bucket, str], str] = {}
        """The mailboxes that are open, and the ids that their buckets had then."""
        self._places = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
        self._cannot_ask = False
        self._log = structlog.get_logger("ews_sync.sinks")

    async def open(self, mailbox: Mailbox, position: str | None) -> None:  # noqa: ARG002 - a bucket keeps no position
        """See that the mailbox's bucket is there."""
        self._open[mailbox.bucket, mailbox.address] = await self._buckets.id_of(mailbox.bucket)

    async def put(self, batch: Sequence[Email]) -> Receipt:
        """Upload emails of one mailbox, but for those that are known to be stored just like this.

        What is refused by itself is recorded; what fails, and what was not tried after that, is left.
        """
        if not batch:
            return Receipt()
        await self._require_open(batch[0].mailbox)
        # Of one key in a batch the last wins.
        latest = {email.id: email for email in batch}
        outcome = await self._put(batch, latest)
        if isinstance(outcome, Receipt):
            return outcome
        try:
            raise outcome
        finally:
            # An error that is known to a frame that it came through would keep all of it until the collector comes by.
            del outcome

    async def _put(self, batch: Sequence[Email], latest: Mapping[str, Email]) -> Receipt | SinkError:
        emails = latest.values()
        room = min(self._room, room_for(emails))
        self._room -= room
        try:
            encoded = encode(emails, room) if is_quick(emails) else await asyncio.to_thread(encode, emails, room)
            # What was taken was an estimate: the rest of it is for others.
            kept = sum(len(one.kept or b"") for one in encoded)
            self._room += room - kept
            room = kept
            return await self._upload(batch, encoded)
        finally:
            self._room += room

    async def _upload(self, batch: Sequence[Email], encoded: Sequence[Encoded]) -> Receipt | SinkError:
        known = [(one, refusal) for one in encoded if (refusal := self._known_refusal(one)) is not None]
        done = {one.email.id for one, _ in known}
        fresh = [
            one for one in encoded if one.email.id not in done and not self._repeats.is_repeat(one.email, one.digest)
        ]
        run = UploadRun(_Bucket(self, batch[0].mailbox.bucket), self._health, self._suspects, self._size, self._clock)
        await run.run(fresh)
        return await self._receipt(batch, run, known)

    async def _receipt(
        self, batch: Sequence[Email], run: UploadRun, known: Sequence[tuple[Encoded, RefusedError]]
    ) -> Receipt | SinkError:
        """Give what has become of the batch; why nothing of it is stored, when nothing is."""
        failure, left = run.failure, [*run.left]
        refused = [*known, *run.refused]
        others_accepted = run.accepted > 0
        wrong = self._health.refused([error for _, error in run.refused], others_accepted=others_accepted)
        if wrong is not None:
            refused, failure = [*known], failure or wrong
            left += [one for one, _ in run.refused]
        letters = [_letter(one, error) for one, error in refused]
        try:
            if self._letters is not None and letters:
                await self._letters.record(letters)
        except StorageError as error:
            for one, refusal in refused:
                self._unrecorded[key_of(one.email)] = (one.digest, refusal)
            failure, letters = failure or detached(error), []
            left += [one for one, _ in refused]
        else:
            for one, _ in refused:
                self._unrecorded.pop(key_of(one.email), None)
                self._suspects.cleared([one.email])
        if failure is None:
            return Receipt(tuple(letters))
        ids = {one.email.id for one in left}
        rest = tuple(email for email in batch if email.id in ids)
        if len(rest) == len(batch):
            return failure
        return Receipt(tuple(letters), left=rest, failure=failure)

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Keep emails that could not be had in files, where that is wanted."""
        for letter in letters:
            self._opened(letter.mailbox)
        if self._letters is not None and letters:
            await self._letters.record(letters)

    async def holds(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> Sequence[bool]:
        """Ask for each item whether it is stored with this folder; False where the item does not say enough."""
        self._opened(mailbox)
        # All of them to their end: a request that is cancelled costs its connection.
        answers = await asyncio.gather(*(self._holds(mailbox, folder, ref) for ref in refs), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer is True for answer in answers]

    async def check(self, mailbox: Mailbox) -> None:
        """See that the bucket is there and takes uploads, with one that has no email in it."""
        await self._buckets.id_of(mailbox.bucket)
        await self.probe(mailbox.bucket)
        if self._letters is not None:
            await self._letters.check()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()
        if self._letters is not None:
            await self._letters.aclose()

    async def probe(self, bucket: Bucket) -> None:
        """Try an upload without an email in it. Raises what an upload raises."""
        try:
            await self._api.put_emails(bucket, whole(b'{"emails":[]}'))
        except RefusedError:
            # It may want an email in it; what it does not lack is health, and the token its permission.
            self._log.debug("the platform takes no empty upload", bucket=str(bucket))

    async def upload(self, bucket: Bucket, group: Sequence[Encoded]) -> None:
        """Upload emails, all or none."""
        try:
            await self._api.put_emails(bucket, body_of(group))
        except NotFoundError:
            self._buckets.forget(bucket)
            self._repeats.forget(bucket)
            raise
        for encoded in group:
            self._repeats.stored(encoded.email, encoded.digest)

    async def _holds(self, mailbox: Mailbox, folder: Folder, ref: ItemRef) -> bool:
        if ref.email_id is None or ref.size > _ASKED_ABOUT:
            return False
        try:
            async with self._places:
                found = await self._api.emails_by_id(mailbox.bucket, unicode_id(ref.email_id))
        except PlatformError as error:
            if error.asks is Asks.RETRY or error.scope is Scope.PROCESS:
                raise
            # To ask saves an upload. Who does not answer gets the upload.
            if not self._cannot_ask:
                self._cannot_ask = True
                self._log.warning(
                    "the platform does not tell what it holds; after a crash some mail is uploaded again",
                    problem=error.summary,
                )
            return False
        return any(email.mailbox == mailbox.address and email.folder == folder.path for email in found)

    def _known_refusal(self, encoded: Encoded) -> RefusedError | None:
        if not self._unrecorded:
            return None
        digest, error = self._unrecorded.get(key_of(encoded.email), (b"", None))
        return error if digest == encoded.digest else None

    async def _require_open(self, mailbox: Mailbox) -> None:
        opened = self._opened(mailbox)
        if await self._buckets.id_of(mailbox.bucket) != opened:
            raise PlatformError(
                f"bucket {mailbox.bucket} was deleted and made anew; starting again from what the new one knows",
                asks=Asks.RESYNC,
            )

    def _opened(self, mailbox: Mailbox) -> str:
        bucket_id = self._open.get((mailbox.bucket, mailbox.address))
        if bucket_id is None:
            raise RuntimeError(f"mailbox {mailbox.address} is not open")
        return bucket_id


class _Bucket:
    """One bucket, for a run that uploads to it."""

    def __init__(self, sink: PlatformSink, bucket: Bucket) -> None:
        self._sink = sink
        self._bucket = bucket

    async def send(self, group: Sequence[Encoded]) -> None:
        """Upload emails, all or none."""
        await self._sink.upload(self._bucket, group)

    async def probe(self) -> bool:
        """Tell whether the platform takes uploads now."""
        try:
            await self._sink.probe(self._bucket)
        except SinkError:
            return False
        return True


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
