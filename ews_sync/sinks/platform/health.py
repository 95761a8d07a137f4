"""What a failed upload says: about the platform, or about the emails in it. Decisions only, no I/O.

An outage and an email that the platform cannot digest look the same from one answer. They are told apart by what else
happens: while nothing at all is accepted, the platform is unwell and nobody's mail is to blame.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ews_sync.errors import Asks, Scope
from ews_sync.sinks.platform.answers import PlatformError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ews_sync.model import Bucket, Email

Key: TypeAlias = "tuple[Bucket, str, str]"
"""What the platform tells emails apart by: bucket, mailbox and id."""

REFUSALS_IN_A_ROW = 10
"""So many refused emails with none accepted in between are no longer the emails' fault."""
ALONE_AFTER = 3
"""An email whose upload failed so often is sent alone from then on."""
_HOPELESS_AFTER, _HOPELESS_SECONDS = 10, 3600.0
_SUSPECTS = 4096
_LONGEST_REST = 3600.0
_BUSY_CODES = frozenset({"HTTP 429", "HTTP 503"})


def key_of(email: Email) -> Key:
    """Give what the platform tells the email apart by."""
    return email.mailbox.bucket, email.mailbox.address, email.id


class Health:
    """How the platform is, as all uploads together see it. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._accepted_since_failure = False
        self._refused_in_a_row = 0
        self._rest_until = 0.0
        self._rest_reason: PlatformError | None = None

    def accepted(self) -> None:
        """Take note that an upload was accepted."""
        self._accepted_since_failure = True
        self._refused_in_a_row = 0

    def refused(self, error: RefusedError) -> PlatformError | None:
        """Take note that an email was refused by itself; give an error when that happens to all of them."""
        if error.too_large:
            # Its size is its own fault.
            return None
        self._refused_in_a_row += 1
        if self._refused_in_a_row <= REFUSALS_IN_A_ROW:
            return None
        return PlatformError(
            f"the platform refused the last {REFUSALS_IN_A_ROW} emails and accepted none in between, so no more are "
            f"passed by: {error.summary}",
            asks=Asks.STOP,
            code=error.code,
            hint="see what its message says; if it makes no sense, this version of the appliance and the platform do "
            "not go together",
        )

    def failed(self, error: PlatformError, now: float) -> None:
        """Take note of an upload that failed and can be repeated, and set how far its failure reaches."""
        if error.code in _BUSY_CODES:
            # It was said to the token, not to one upload.
            self._rest_until = now + min(error.retry_after or 0.0, _LONGEST_REST)
            self._rest_reason = error
        elif error.scope is Scope.PROCESS and self._accepted_since_failure:
            error.scope = Scope.MAILBOX
        self._accepted_since_failure = False

    def rest(self, now: float) -> PlatformError | None:
        """Give why nothing may be uploaded now, with the seconds left in `retry_after`; None where all may."""
        if self._rest_reason is None or now >= self._rest_until:
            return None
        reason = self._rest_reason
        return PlatformError(
            reason.summary, scope=Scope.PROCESS, code=reason.code, hint=reason.hint, retry_after=self._rest_until - now
        )


@dataclass(frozen=True, slots=True)
class _Suspicion:
    failures: int
    first_alone: float | None = None


class Suspects:
    """Emails whose uploads keep failing with what is usually the platform's own trouble.

    Those that are in it often enough are sent alone. One that fails alone ten times and for an hour, while the
    platform accepts others, will never succeed.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Key, _Suspicion] = OrderedDict()

    def must_go_alone(self, email: Email) -> bool:
        """Tell whether the email is to be sent by itself."""
        suspicion = self._known.get(key_of(email))
        return suspicion is not None and suspicion.failures >= ALONE_AFTER

    def failed(self, emails: Iterable[Email], error: PlatformError, now: float) -> PlatformError:
        """Take note that an upload of these failed; give the error to go on with, which names a lonely culprit."""
        if error.code in _BUSY_CODES:
            return error
        group = list(emails)
        for email in group:
            key = key_of(email)
            before = self._known.pop(key, _Suspicion(0))
            self._known[key] = replace(before, failures=before.failures + 1)
        while len(self._known) > _SUSPECTS:
            self._known.popitem(last=False)
        if len(group) == 1 and error.scope is not Scope.PROCESS and self.must_go_alone(group[0]):
            return self._blamed(group[0], error, now)
        return error

    def cleared(self, emails: Iterable[Email]) -> None:
        """Take note that these were accepted or refused."""
        for email in emails:
            self._known.pop(key_of(email), None)

    def _blamed(self, email: Email, error: PlatformError, now: float) -> PlatformError:
        key = key_of(email)
        suspicion = self._known[key]
        since = suspicion.first_alone
        if since is None:
            since = now
            self._known[key] = replace(suspicion, first_alone=now)
        what = f"email {email.id!r} in folder {'/'.join(email.metadata.folder)!r} fails whenever it is sent"
        if suspicion.failures >= _HOPELESS_AFTER and now - since >= _HOPELESS_SECONDS:
            return RefusedError(f"{what}, while others are accepted: {error.summary}", code=error.code or "FAILED")
        return PlatformError(
            f"{what}: {error.summary}",
            code=error.code,
            retry_after=error.retry_after,
            hint="it is tried for an hour, then recorded as a dead letter and passed by; report it to the platform's "
            "support",
        )


class Repeats:
    """The digests of what was uploaded lately: what a mailbox reads once more after a failure is not sent again."""

    def __init__(self, most: int = 16_384) -> None:
        self._most = most
        self._digests: OrderedDict[Key, bytes] = OrderedDict()

    def is_repeat(self, email: Email, digest: bytes) -> bool:
        """Tell whether the email is known to be stored just like this."""
        return self._digests.get(key_of(email)) == digest

    def stored(self, email: Email, digest: bytes) -> None:
        """Take note of what is stored."""
        key = key_of(email)
        self._digests[key] = digest
        self._digests.move_to_end(key)
        if len(self._digests) > self._most:
            self._digests.popitem(last=False)

    def forget(self, bucket: Bucket) -> None:
        """Forget a bucket that went away: another of its name would be empty."""
        for key in [key for key in self._digests if key[0] == bucket]:
            del self._digests[key]
