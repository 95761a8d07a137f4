"""What Exchange's response codes ask for: one table, as data.

Codes are those of the published `messages.xsd` (ResponseCodeType). A code that is not in the table is kept verbatim:
it gets bounded retries, and then counts against the item or the mailbox that it was said of.
"""

from __future__ import annotations

from dataclasses import dataclass

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    CursorRejectedError,
    FolderGoneError,
    ProtocolError,
    Scope,
    SourceError,
    ThrottledError,
)
from ews_sync.web.failures import one_line

NO_ERROR = "NoError"
BATCH_STOPPED = "ErrorBatchProcessingStopped"
TIMED_OUT = "ErrorTimeoutExpired"
NO_RESPONSE_CODE = "NoResponseCode"
"""Ours, for an error that a server gives no code to."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code asks for.

    `on_item` says what it asks for when one item of a batch is answered with it, None where it rather speaks of the
    request as a whole. `error` is the kind of error when it is said of a whole request.
    """

    on_item: Asks | None
    error: type[SourceError] = SourceError
    asks: Asks = Asks.RETRY
    scope: Scope = Scope.MAILBOX
    hint: str = ""
    gone: bool = False
    """The item is not there (any more): not a failure."""
    keeps_trying: bool = False
    """Never give an item up because of it: the item itself was not the trouble."""

    @property
    def throttles(self) -> bool:
        """Whether the principal has used up its share. A timeout alone may be one item's."""
        return self.error is ThrottledError and self.keeps_trying


_THROTTLED = Meaning(None, ThrottledError, keeps_trying=True)
_TEMPORARY = Meaning(None, SourceError, keeps_trying=True)
_NEVER_HEALS = Meaning(Asks.SKIP, SourceError)
_GONE = Meaning(Asks.SKIP, SourceError, gone=True)
_MALFORMED = Meaning(
    Asks.RETRY,
    ProtocolError,
    asks=Asks.STOP,
    hint="the server refused the request itself; if it is not Microsoft Exchange it may lack this operation",
)


def _denied(hint: str) -> Meaning:
    return Meaning(None, SourceError, asks=Asks.STOP, hint=hint)


_IMPERSONATION = _denied(
    "grant the service account the ApplicationImpersonation role (OAuth2: full_access_as_app), "
    'or set "access_type": "delegate"'
)

CODES: dict[str, Meaning] = {
    # throttling: the principal has used up its share
    "ErrorServerBusy": _THROTTLED,
    "ErrorExceededConnectionCount": _THROTTLED,
    "ErrorExceededFindCountLimit": _THROTTLED,
    "ErrorTooManyObjectsOpened": _THROTTLED,
    "ErrorExceededSubscriptionCount": _THROTTLED,
    TIMED_OUT: Meaning(Asks.RETRY, ThrottledError),
    # the server or the way to the mailbox is unwell for a while
    "ErrorMailboxMoveInProgress": _TEMPORARY,
    "ErrorMailboxStoreUnavailable": _TEMPORARY,
    "ErrorMailboxFailover": _TEMPORARY,
    "ErrorConnectionFailed": _TEMPORARY,
    "ErrorConnectionFailedTransientError": _TEMPORARY,
    "ErrorADUnavailable": _TEMPORARY,
    "ErrorADOperation": _TEMPORARY,
    "ErrorADSessionFilter": _TEMPORARY,
    "ErrorInsufficientResources": _TEMPORARY,
    "ErrorNoRespondingCASInDestinationSite": _TEMPORARY,
    "ErrorProxyRequestNotAllowed": _TEMPORARY,
    "ErrorProxyCallFailed": _TEMPORARY,
    "ErrorProxyRequestProcessingFailed": _TEMPORARY,
    "ErrorProxyServiceDiscoveryFailed": _TEMPORARY,
    "ErrorProxyTokenExpired": _TEMPORARY,
    "ErrorNoApplicableProxyCASServersAvailable": _TEMPORARY,
    "ErrorServiceUnavailable": _TEMPORARY,
    "ErrorMailboxLogonFailed": _TEMPORARY,
    "ErrorQuotaExceeded": _TEMPORARY,
    BATCH_STOPPED: _TEMPORARY,
    "ErrorInternalServerError": Meaning(Asks.RETRY),
    "ErrorInternalServerTransientError": Meaning(Asks.RETRY),
    "ErrorContentConversionFailed": Meaning(Asks.RETRY),
    # an item that the server cannot turn into MIME
    "ErrorMimeContentConversionFailed": _NEVER_HEALS,
    "ErrorMimeContentInvalid": _NEVER_HEALS,
    "ErrorMimeContentInvalidBase64String": _NEVER_HEALS,
    "ErrorItemCorrupt": _NEVER_HEALS,
    "ErrorCorruptData": _NEVER_HEALS,
    "ErrorUnsupportedMimeConversion": _NEVER_HEALS,
    "ErrorMessageSizeExceeded": _NEVER_HEALS,
    "ErrorDataSizeLimitExceeded": _NEVER_HEALS,
    "ErrorAttachmentNestLevelLimitExceeded": _NEVER_HEALS,
    "ErrorVirusDetected": _NEVER_HEALS,
    "ErrorVirusMessageDeleted": _NEVER_HEALS,
    # gone: moved or deleted since it was listed
    "ErrorItemNotFound": _GONE,
    "ErrorMessageNotFound": _GONE,
    "ErrorFolderNotFound": Meaning(None, FolderGoneError, asks=Asks.SKIP, scope=Scope.FOLDER),
    "ErrorSyncFolderNotFound": Meaning(None, FolderGoneError, asks=Asks.SKIP, scope=Scope.FOLDER),
    "ErrorParentFolderNotFound": Meaning(None, FolderGoneError, asks=Asks.SKIP, scope=Scope.FOLDER),
    # positions
    "ErrorInvalidSyncStateData": Meaning(None, CursorRejectedError, asks=Asks.RESYNC, scope=Scope.FOLDER),
    # rights: an operator must act, the other mailboxes go on
    "ErrorAccessDenied": _denied(
        "give the service account full access to this mailbox (Add-MailboxPermission … FullAccess)"
    ),
    "ErrorItemSavePropertyError": _MALFORMED,
    "ErrorNonExistentMailbox": _denied(
        "check the address: it must be the mailbox's primary SMTP address, and the mailbox must be on this server"
    ),
    "ErrorMissingEmailAddress": _denied(
        "the service account has no mailbox of its own: check the address in the config"
    ),
    "ErrorInvalidSmtpAddress": _denied("check the address in the config"),
    "ErrorImpersonateUserDenied": _IMPERSONATION,
    "ErrorImpersonationDenied": _IMPERSONATION,
    "ErrorImpersonationFailed": _IMPERSONATION,
    "ErrorInvalidExchangeImpersonationHeaderData": _IMPERSONATION,
    "ErrorInvalidUserPrincipalName": _denied("check the address in the config"),
    "ErrorAccountSuspend": _denied("the account is suspended: see the tenant's administrator"),
    "ErrorOrganizationAccessBlocked": _denied("the organization is blocked: see the tenant's administrator"),
    "ErrorAccountDisabled": _denied(
        "the account is disabled in Active Directory: enable it, or take the mailbox out of the config"
    ),
    "ErrorMailboxConfiguration": _denied("the mailbox is not set up completely on the server"),
    "ErrorPasswordExpired": Meaning(
        None,
        AuthenticationError,
        asks=Asks.STOP,
        scope=Scope.PROCESS,
        hint="the service account's password has expired: set a new one",
    ),
    "ErrorPasswordChangeRequired": Meaning(
        None,
        AuthenticationError,
        asks=Asks.STOP,
        scope=Scope.PROCESS,
        hint="the service account must change its password first",
    ),
    "ErrorTokenSerializationDenied": _IMPERSONATION,
    "ErrorClientDisconnected": _TEMPORARY,
    # what we said was refused as such
    "ErrorInvalidRequest": _MALFORMED,
    "ErrorSchemaValidation": _MALFORMED,
    "ErrorInvalidServerVersion": Meaning(
        None, ProtocolError, asks=Asks.STOP, hint="the server is older than Exchange 2010 SP2"
    ),
    "ErrorInvalidOperation": _MALFORMED,
    "ErrorInvalidRestriction": _MALFORMED,
    "ErrorUnsupportedPathForQuery": _MALFORMED,
    "ErrorUnsupportedPathForSortGroup": _MALFORMED,
    "ErrorUnsupportedPropertyDefinition": _MALFORMED,
    "ErrorUnsupportedTypeForConversion": _MALFORMED,
    "ErrorInvalidPropertyRequest": _MALFORMED,
    "ErrorInvalidPropertyForExists": _MALFORMED,
    "ErrorUnsupportedQueryFilter": _MALFORMED,
    "ErrorInvalidIdMalformed": _MALFORMED,
    "ErrorInvalidIdMalformedEwsLegacyIdFormat": _MALFORMED,
}

_UNKNOWN = Meaning(Asks.RETRY, SourceError)


def meaning_of(code: str) -> Meaning:
    """Look a code up; one that nobody has heard of asks to be retried and keeps its name."""
    return CODES.get(code, _UNKNOWN)


def error_for(code: str, text: str, *, doing: str, backoff: float | None = None, request_id: str = "") -> SourceError:
    """Make the error for a request that was answered with `code` as a whole.

    `doing` names what was being done, for the message; `text` is the server's own sentence; `backoff` is in seconds.
    """
    meaning = meaning_of(code)
    code = one_line(code, 100)
    sentence = one_line(text)
    return meaning.error(
        f"{doing}: the server answered {code}" + (f": {sentence}" if sentence else ""),
        asks=meaning.asks if meaning.error is not AuthenticationError else Asks.STOP,
        scope=meaning.scope,
        code=code,
        hint=meaning.hint,
        retry_after=backoff,
        request_id=request_id,
    )
