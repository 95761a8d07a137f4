"""What failed and refused uploads say: about the platform, or about the emails in them. Decisions only, no I/O.

An outage and an email that the platform cannot digest look the same from one answer, and so do an email that it does
not want and an interface that has changed. They are told apart by what else happens.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ews_sync.errors import Asks, Scope
from ews_sync.sinks.platform.answers import BusyError, PlatformError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ews_sync.model import Bucket, Email

Key: TypeAlias = "tuple[Bucket, str, str]"
"""What the platform tells emails apart by: bucket, mailbox and id."""

REFUSALS_IN_A_ROW = 5
"""So many refused emails with none accepted before, between or after them may be the emails' own fault."""
DOUBTFUL_AFTER = 3
"""An email whose upload failed so often may be why."""
_HOPELESS_AFTER, _HOPELESS_SECONDS = 10, 3600.0
_SUSPECTS = 4096

MOST_BYTES = 4 * 1024 * 1024
"""How large a request is at most, unless it is one email that is larger, and until the platform asks for less."""
_LEAST_BYTES = 64 * 1024
_GROWS_AFTER = 500


def key_of(email: Email) -> Key:
    """Give what the platform tells the email apart by."""
    return email.mailbox.bucket, email.mailbox.address, email.id


class Health:
    """How the platform is, as all uploads together see it. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.acceptances = 0
        """How many uploads with emails in them were accepted so far."""
        self._accepted_since_failure = False
        self._refused_in_a_row = 0
        self._rest_until = 0.0
        self._rest_reason: PlatformError | None = None

    def accepted(self) -> None:
        """Take note that an upload was accepted."""
        self.acceptances += 1
        self._accepted_since_failure = True
        self._refused_in_a_row = 0

    def refused(self, errors: Sequence[RefusedError], *, others_accepted: bool) -> PlatformError | None:
        """Take note of the emails of one batch that were refused by themselves.

        Gives an error when it is not to be believed that it is their own fault: when it goes on like that and none is
        accepted any more. Then nothing of it counts.
        """
        # Its size is an email's own fault.
        doubtful = [error for error in errors if not error.too_large]
        if not doubtful or others_accepted:
            return None
        if self._refused_in_a_row + len(doubtful) <= REFUSALS_IN_A_ROW:
            self._refused_in_a_row += len(doubtful)
            return None
        last = doubtful[-1]
        return PlatformError(
            f"the platform refuses every email and has accepted none since, so none is passed by: {last.summary}",
            asks=Asks.STOP,
            code=last.code,
            hint="see what its message says; if it makes no sense, this version of the appliance and the platform do "
            "not go together. It is tried again as soon as any other email is accepted",
        )

    def failed(self, error: PlatformError, now: float) -> None:
        """Take note of an upload that failed and can be repeated, and set how far its failure reaches."""
        if isinstance(error, BusyError):
            # It was said to the token, not to one upload.
            until = now + (error.retry_after or 0.0)
            if until >= self._rest_until:
                # Not the error itself, which knows where it was raised, and so the batch that was being sent.
                reason = BusyError(error.summary, scope=Scope.PROCESS, code=error.code, hint=error.hint)
                self._rest_until, self._rest_reason = until, reason
        elif error.scope is Scope.PROCESS and self._accepted_since_failure:
            error.scope = Scope.MAILBOX
        self._accepted_since_failure = False

    def rest(self, now: float) -> PlatformError | None:
        """Give why nothing may be uploaded now, with the seconds left in `retry_after`; None where all may."""
        if self._rest_reason is None or now >= self._rest_until:
            return None
        reason = self._rest_reason
        return BusyError(
            reason.summary, scope=Scope.PROCESS, code=reason.code, hint=reason.hint, retry_after=self._rest_until - now
        )


class RequestSize:
    """How large a request may be: less once the platform has refused one for its size, slowly more after that."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.largest = most
        self._most = most
        self._accepted = 0

    def refused(self, size: int) -> bool:
        """Take note that a request of several emails was too large; tell whether that is news."""
        learned = max(_LEAST_BYTES, size // 2)
        self._accepted = 0
        if learned >= self.largest:
            return False
        self.largest = learned
        return True

    def accepted(self) -> None:
        """Take note that a request was not too large. One proxy's bad moment must not hold for years."""
        self._accepted += 1
        if self._accepted >= _GROWS_AFTER and self.largest < self._most:
            self.largest = min(self._most, self.largest * 2)
            self._accepted = 0


@dataclass(frozen=True, slots=True)
class _Suspicion:
    failures: int
    first_alone: float | None = None
    acceptances: int = 0
    """How many uploads had been accepted when it last failed alone."""


class Suspects:
    """Emails whose uploads keep failing with what is usually the platform's own trouble."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._known: OrderedDict[Key, _Suspicion] = OrderedDict()

    def failed(self, emails: Iterable[Email], error: PlatformError) -> bool:
        """Take note that an upload of these failed; tell whether one of them may be why."""
        if isinstance(error, BusyError | UnreachableError):
            return False
        doubtful = False
        for email in emails:
            key = key_of(email)
            before = self._known.pop(key, _Suspicion(0))
            self._known[key] = replace(before, failures=before.failures + 1)
            doubtful = doubtful or before.failures + 1 >= DOUBTFUL_AFTER
        while len(self._known) > _SUSPECTS:
            self._known.popitem(last=False)
        return doubtful

    def blamed(self, email: Email, error: PlatformError, now: float) -> PlatformError:
        """Give the error for an email that failed alone while the platform is well.

        After ten failures and an hour it is a `RefusedError`, if others were accepted since its last failure.
        """
        key = key_of(email)
        before = self._known.get(key, _Suspicion(1))
        since = now if before.first_alone is None else before.first_alone
        self._known[key] = replace(before, first_alone=since, acceptances=self._health.acceptances)
        what = f"email {email.id!r} in folder {'/'.join(email.metadata.folder)!r} fails whenever it is sent"
        others_accepted = before.first_alone is not None and self._health.acceptances > before.acceptances
        if before.failures >= _HOPELESS_AFTER and now - since >= _HOPELESS_SECONDS and others_accepted:
            return RefusedError(f"{what}, while others are accepted: {error.summary}", code=error.code or "FAILED")
        return PlatformError(
            f"{what}: {error.summary}",
            code=error.code,
            retry_after=error.retry_after,
            hint="it is tried for an hour, then recorded as a dead letter and passed by; report it to the platform's "
            "support",
        )

    def cleared(self, emails: Iterable[Email]) -> None:
        """Take note that these were accepted or refused."""
        if not self._known:
            return
        for email in emails:
            self._known.pop(key_of(email), None)


class Repeats:
    """The digests of what was uploaded lately: what a mailbox reads once more after a failure is not sent again."""

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._digests: OrderedDict[Key, bytes] = OrderedDict()

    def is_repeat(self, email: Email, digest: bytes) -> bool:
        """Tell whether the email is known to be stored just like this."""
        return self._digests.get(key_of(email)) == digest

    def stored(self, email: Email, digest: bytes) -> None:
        """Take note of what is stored."""
        key = key_of(email)
        # Out first, so that it comes last.
        self._digests.pop(key, None)
        self._digests[key] = digest
        if len(self._digests) > self._most:
            self._digests.popitem(last=False)

    def forget(self, bucket: Bucket) -> None:
        """Forget a bucket that went away: another of its name would be empty."""
        for key in [key for key in self._digests if key[0] == bucket]:
            del self._digests[key]
