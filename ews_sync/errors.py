"""One tree of errors. Each says what it asks for, and what an operator can do about it.

The engine branches on `asks` and `scope`, never on a text or a class name; foreign exceptions (httpx, lxml, msal,
OSError) become one of these in the room that uses them, with the original as their cause.
"""

from __future__ import annotations

from enum import StrEnum


class Asks(StrEnum):
    """What a failure asks of whoever handles it."""

    RETRY = "retry"
    """Try the same again later, not before `retry_after` seconds where that is known."""
    RESYNC = "resync"
    """The position is no longer accepted: take a new one, then look for what is missing."""
    SKIP = "skip"
    """This one item will never succeed: record it and go on."""
    STOP = "stop"
    """An operator must act first."""


class Scope(StrEnum):
    """How far a failure reaches."""

    ITEM = "item"
    FOLDER = "folder"
    MAILBOX = "mailbox"
    PROCESS = "process"


class EwsSyncError(Exception):
    """The root of the tree.

    `summary` is one line for people, without secrets or message content. `code` is the peer's own code, verbatim
    (`ErrorServerBusy`, `HTTP 503`), or "". `hint` says what an operator can do, or is "". `retry_after` is the number
    of seconds that the peer asked us to wait, or None when it did not say. `request_id` is what an administrator
    searches the server's logs for.
    """

    asks: Asks = Asks.RETRY
    scope: Scope = Scope.MAILBOX

    def __init__(  # noqa: PLR0913 - keyword-only facts about one failure
        self,
        summary: str,
        *,
        asks: Asks | None = None,
        scope: Scope | None = None,
        code: str = "",
        hint: str = "",
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.asks = asks or type(self).asks
        self.scope = scope or type(self).scope
        self.code = code
        self.hint = hint
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        """Give the one line that an operator reads."""
        parts = [self.summary]
        if self.code and self.code not in self.summary:
            parts.append(f"({self.code})")
        if self.hint:
            parts.append(f"- {self.hint}")
        return " ".join(parts)


class ConfigurationError(EwsSyncError):
    """The configuration is wrong; `problems` has one line for each thing to mend. Exit code 2."""

    asks = Asks.STOP
    scope = Scope.PROCESS

    def __init__(self, problems: tuple[str, ...], *, hint: str = "") -> None:
        super().__init__("; ".join(problems), hint=hint)
        self.problems = problems


class DefectError(EwsSyncError):
    """Something happened that the code does not foresee."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"an unexpected error: {type(error).__name__}: {error}",
            hint="this is a defect in ews-sync: report it with the log; it goes on trying",
        )


class SourceError(EwsSyncError):
    """The mail server, or the way to it, failed."""


class ConnectionFailedError(SourceError):
    """No usable answer: no connection, a timeout, a reset, a body cut short, HTML instead of SOAP."""


class ThrottledError(SourceError):
    """The server says that it is busy, and perhaps for how long (`retry_after`)."""


class AuthenticationError(SourceError):
    """The server refused the credentials."""

    asks = Asks.STOP
    scope = Scope.PROCESS


class CursorRejectedError(SourceError):
    """The server no longer accepts a position in a folder's changes."""

    asks = Asks.RESYNC
    scope = Scope.FOLDER


class FolderGoneError(SourceError):
    """The folder is not there any more."""

    asks = Asks.SKIP
    scope = Scope.FOLDER


class ProtocolError(SourceError):
    """The peer broke the protocol, or refused what we said as malformed."""


class SinkError(EwsSyncError):
    """What stores the mail failed; nothing of the batch counts as confirmed."""


class StorageError(SinkError):
    """The disk is full, read-only, slow or gone."""

    scope = Scope.PROCESS


class AlreadyRunningError(SinkError):
    """Another process keeps the same mailbox in the same directory."""

    asks = Asks.STOP
    scope = Scope.PROCESS


class CheckpointError(SinkError):
    """A stored checkpoint cannot be read."""

    asks = Asks.STOP
