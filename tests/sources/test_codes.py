from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lxml import etree

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
from ews_sync.sources.ews.codes import CODES, error_for, meaning_of

SCHEMA = Path(__file__).resolve().parents[2].parent / "shared" / "ews-schema" / "messages.xsd"


def test_every_code_in_the_table_is_microsofts() -> None:
    if not SCHEMA.exists():
        pytest.skip("Microsoft's schemas are not part of this repository")
    xs = "{http://www.w3.org/2001/XMLSchema}"
    types = etree.parse(str(SCHEMA)).getroot().iter(f"{xs}simpleType")
    (known,) = (each for each in types if each.get("name") == "ResponseCodeType")
    codes = {value.get("value") for value in known.iter(f"{xs}enumeration")}
    # Said by servers, and not in the published schema.
    unpublished = {"ErrorConnectionFailedTransientError", "ErrorImpersonationDenied", "ErrorMessageNotFound"}
    assert set(CODES) - codes <= unpublished


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a code asks for: of an item, in words; of a request, the kind of error and what it asks for."""

    item: str
    error: type[SourceError] = SourceError
    asks: Asks = Asks.RETRY
    scope: Scope = Scope.MAILBOX
    hint: str = ""


BUSY = Wanted("never given up", ThrottledError)
TEMPORARY = Wanted("never given up")
BROKEN = Wanted("recorded")
MAY_HEAL = Wanted("tried a few times")
FORBIDDEN = Wanted("the mailbox is asked", asks=Asks.STOP)
GONE = Wanted("gone")
FOLDER_GONE = Wanted("the mailbox is asked", FolderGoneError, Asks.SKIP, Scope.FOLDER)

NOTES: dict[str, Wanted] = {
    "ErrorServerBusy": BUSY,
    "ErrorExceededConnectionCount": BUSY,
    "ErrorExceededFindCountLimit": BUSY,
    "ErrorTooManyObjectsOpened": BUSY,
    "ErrorTimeoutExpired": Wanted("tried a few times", ThrottledError),
    "ErrorItemNotFound": GONE,
    "ErrorMimeContentConversionFailed": BROKEN,
    "ErrorItemCorrupt": BROKEN,
    "ErrorCorruptData": BROKEN,
    "ErrorInternalServerError": MAY_HEAL,
    "ErrorInternalServerTransientError": MAY_HEAL,
    "ErrorBatchProcessingStopped": TEMPORARY,
    "ErrorAccessDenied": replace(FORBIDDEN, hint="Add-MailboxPermission"),
    "ErrorNonExistentMailbox": replace(FORBIDDEN, hint="check the address"),
    "ErrorImpersonateUserDenied": replace(FORBIDDEN, hint="ApplicationImpersonation"),
    "ErrorImpersonationDenied": replace(FORBIDDEN, hint="ApplicationImpersonation"),
    "ErrorMailboxMoveInProgress": TEMPORARY,
    "ErrorMailboxStoreUnavailable": TEMPORARY,
    "ErrorConnectionFailed": TEMPORARY,
    "ErrorADUnavailable": TEMPORARY,
    "ErrorADOperation": TEMPORARY,
    "ErrorInvalidSyncStateData": Wanted("the mailbox is asked", CursorRejectedError, Asks.RESYNC, Scope.FOLDER),
    "ErrorSchemaValidation": Wanted("tried a few times", ProtocolError, Asks.STOP, hint="may lack this operation"),
    "ErrorFolderNotFound": FOLDER_GONE,
    "ErrorSyncFolderNotFound": FOLDER_GONE,
    "ErrorPasswordExpired": Wanted(
        "the mailbox is asked", AuthenticationError, Asks.STOP, Scope.PROCESS, "password has expired"
    ),
    "ErrorPasswordChangeRequired": Wanted(
        "the mailbox is asked", AuthenticationError, Asks.STOP, Scope.PROCESS, "must change its password"
    ),
    "ErrorOfTheYear2031": MAY_HEAL,
}
"""Every code that servers are known to answer with, and one that nobody has heard of."""


@pytest.mark.parametrize("code", NOTES)
def test_what_a_code_asks_for_of_one_item(code: str) -> None:
    meaning = meaning_of(code)
    assert meaning.gone is (NOTES[code].item == "gone")
    assert meaning.keeps_trying is (NOTES[code].item == "never given up")
    match NOTES[code].item:
        case "recorded" | "gone":
            assert meaning.on_item is Asks.SKIP
        case "tried a few times":
            assert meaning.on_item is Asks.RETRY
        case _:
            assert meaning.on_item is None


@pytest.mark.parametrize("code", NOTES)
def test_what_a_code_asks_for_of_a_request(code: str) -> None:
    wanted = NOTES[code]
    error = error_for(code, "Words of the server.", doing="opening a@b.c", backoff=2.5, request_id="r1")
    assert type(error) is wanted.error
    assert (error.asks, error.scope, error.code) == (wanted.asks, wanted.scope, code)
    assert (error.retry_after, error.request_id) == (2.5, "r1")
    assert wanted.hint in error.hint
    # Whoever must act is told what to do, and nobody else is.
    assert bool(error.hint) is (error.asks is Asks.STOP)
    assert error.summary == f"opening a@b.c: the server answered {code}: Words of the server."


def test_only_the_login_itself_reaches_the_whole_process() -> None:
    process = {code for code, meaning in CODES.items() if meaning.scope is Scope.PROCESS}
    assert process == {"ErrorPasswordExpired", "ErrorPasswordChangeRequired"}


def test_only_what_the_server_counts_against_a_principal_throttles_it() -> None:
    assert {code for code in NOTES if meaning_of(code).throttles} == {
        code for code, wanted in NOTES.items() if wanted is BUSY
    }


@pytest.mark.parametrize("code", CODES)
def test_no_code_contradicts_itself(code: str) -> None:
    meaning = CODES[code]
    if meaning.keeps_trying:
        # Otherwise an item would be given up, or a mailbox stand still, for what passes by itself.
        assert (meaning.on_item, meaning.asks) == (None, Asks.RETRY)
    if meaning.on_item is Asks.SKIP:
        assert meaning.asks is Asks.RETRY
    if meaning.asks is Asks.STOP:
        assert meaning.hint


def test_an_unknown_code_keeps_its_name() -> None:
    error = error_for("ErrorOfTheYear2031", "a" * 5000, doing="x")
    assert type(error) is SourceError
    assert (error.code, error.asks, error.scope) == ("ErrorOfTheYear2031", Asks.RETRY, Scope.MAILBOX)
    assert len(str(error)) < 400
