from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from ews_sync.errors import Asks, Scope, SourceError, ThrottledError
from ews_sync.sources.ews.codes import BATCH_STOPPED, CODES, error_for, meaning_of

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


@pytest.mark.parametrize(
    "code", ["ErrorAccessDenied", "ErrorNonExistentMailbox", "ErrorImpersonateUserDenied", "ErrorImpersonationDenied"]
)
def test_rights_ask_for_an_operator_of_this_mailbox_only_and_say_what_to_do(code: str) -> None:
    error = error_for(code, "", doing="opening a@b.c")
    assert (error.asks, error.scope) == (Asks.STOP, Scope.MAILBOX)
    assert error.hint
    assert str(error).startswith(f"opening a@b.c: the server answered {code} - ")


@pytest.mark.parametrize(
    "code",
    ["ErrorServerBusy", "ErrorExceededConnectionCount", "ErrorExceededFindCountLimit", "ErrorTooManyObjectsOpened"],
)
def test_the_throttling_family(code: str) -> None:
    error = error_for(code, "", doing="x", backoff=2.5)
    assert isinstance(error, ThrottledError)
    assert (error.asks, error.retry_after) == (Asks.RETRY, 2.5)
    assert meaning_of(code).keeps_trying


def test_what_was_never_tried_is_never_bad() -> None:
    assert meaning_of(BATCH_STOPPED).keeps_trying
    assert meaning_of(BATCH_STOPPED).on_item is None


def test_an_unknown_code_keeps_its_name() -> None:
    error = error_for("ErrorOfTheYear2031", "a" * 5000, doing="x")
    assert type(error) is SourceError
    assert (error.code, error.asks, error.scope) == ("ErrorOfTheYear2031", Asks.RETRY, Scope.MAILBOX)
    assert len(str(error)) < 400
