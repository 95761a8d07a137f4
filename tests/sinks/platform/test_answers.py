"""Every answer that the contract names, and those that no platform should give."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from ews_sync.errors import Asks, Scope
from ews_sync.sinks.platform.answers import (
    LONGEST_WAIT,
    QUOTA_WAIT,
    BusyError,
    NotFoundError,
    PlatformError,
    RefusedError,
    connection_error,
    read_answer,
    read_config,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URL = httpx.URL("https://mydomain.example/api/_private/buckets/a/b/emails")


def answered(status: int, body: object = None, **headers: str) -> tuple[httpx.Response, bytes]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.Response(status, headers=headers, request=httpx.Request("PUT", URL))
    return response, content


def failure(status: int, body: object = None, **headers: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        read_answer("uploading", *answered(status, body, **headers), NOW)
    return caught.value


def error_body(message: str) -> dict[str, str]:
    return {"status": "error", "message": message}


def test_a_good_answer_is_given() -> None:
    assert read_answer("x", *answered(200, {"status": "ok", "bucket": {"id": "1"}}), NOW)["bucket"] == {"id": "1"}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", [b"<html>blocked</html>", b"", b'{"message": "Bad Request"}'])
def test_what_a_proxy_refuses_is_not_refused_by_the_platform(status: int, body: bytes) -> None:
    error = failure(status, body)
    assert not isinstance(error, RefusedError)
    assert (error.asks, error.scope) == (Asks.RETRY, Scope.PROCESS)
    assert "proxy" in error.hint


def test_a_proxys_limit_of_size_is_one() -> None:
    error = failure(413, b"<html>too large</html>")
    assert isinstance(error, RefusedError)
    assert "proxy" in error.summary


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 409])
def test_what_passes_is_tried_again(status: int) -> None:
    error = failure(status, error_body("try later"), **{"Retry-After": "17"})
    assert (error.asks, error.scope, error.retry_after) == (Asks.RETRY, Scope.PROCESS, 17.0)
    assert error.code == f"HTTP {status}"
    assert "try later" in str(error)
    assert failure(status, b"<html>").retry_after is None
    assert isinstance(error, BusyError) == (status in {429, 503})


def test_retry_after_can_be_a_date() -> None:
    error = failure(429, None, **{"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"})
    assert error.retry_after == timedelta(minutes=1).total_seconds()


@pytest.mark.parametrize(("status", "too_large"), [(400, False), (422, False), (413, True)])
def test_what_is_refused_says_for_what(status: int, too_large: bool) -> None:  # noqa: FBT001
    error = failure(status, error_body("emails[3].timestamp: not a time"))
    assert isinstance(error, RefusedError)
    assert (error.asks, error.too_large) == (Asks.SKIP, too_large)
    assert "emails[3].timestamp" in error.summary


def test_a_refused_token_is_everybodys_and_a_missing_permission_a_mailboxs() -> None:
    token = failure(401, error_body("invalid token"))
    assert (token.asks, token.scope) == (Asks.STOP, Scope.PROCESS)
    assert "REINFER_API_TOKEN" in token.hint
    permission = failure(403, error_body("no"))
    assert (permission.asks, permission.scope) == (Asks.STOP, Scope.MAILBOX)
    assert "permission" in permission.hint
    assert isinstance(failure(404, error_body("no bucket")), NotFoundError)
    assert failure(404).asks is Asks.STOP


@pytest.mark.parametrize(
    ("status", "message"),
    [(402, "pay"), (402, ""), (403, "The upload quota of this tenant is used up"), (400, "Quota exceeded")],
)
def test_a_quota_is_waited_for(status: int, message: str) -> None:
    error = failure(status, error_body(message))
    assert not isinstance(error, RefusedError)
    assert (error.asks, error.scope, error.retry_after) == (Asks.RETRY, Scope.MAILBOX, QUOTA_WAIT)
    assert failure(status, error_body(message), **{"Retry-After": "7200"}).retry_after == 7200


@pytest.mark.parametrize(
    "message",
    [
        "field 'quotation' is unknown",
        "this email cannot be stored (<over.quota.7@x>)",
        'subject "Quota exceeded" is bad',
    ],
)
def test_what_a_message_repeats_of_an_email_is_no_quota(message: str) -> None:
    assert isinstance(failure(400, error_body(message)), RefusedError)
    assert isinstance(failure(413, error_body("size quota")), RefusedError)


def test_a_rate_is_no_quota() -> None:
    error = failure(429, error_body("Quota exceeded: 100 requests a minute"), **{"Retry-After": "2"})
    assert error.retry_after == 2
    assert failure(429, error_body("Quota exceeded")).retry_after == QUOTA_WAIT


def test_nobody_is_waited_for_for_days() -> None:
    assert failure(503, None, **{"Retry-After": "86400"}).retry_after == LONGEST_WAIT


def test_a_status_field_that_contradicts_the_status_is_a_protocol_error() -> None:
    error = failure(200, error_body("what?"))
    assert error.asks is Asks.RETRY
    assert "contradicts" in error.summary
    assert "what?" in error.summary
    assert "contradicts" in failure(404, {"status": "ok"}).summary
    assert not isinstance(failure(400, {"status": "ok"}), RefusedError)
    assert "contradicts" in failure(200, {"no": "status"}).summary


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"[]", b"\xff", b"[" * 100_000, b"1"])
def test_an_answer_that_is_no_json_object_is_somebody_elses(body: bytes) -> None:
    error = failure(200, body, **{"Content-Type": "text/html; charset=utf-8"})
    assert error.asks is Asks.RETRY
    assert "text/html" in error.summary
    assert "--reinfer-api-endpoint" in error.hint


@pytest.mark.parametrize("status", [301, 307, 308, 405, 407, 410, 418])
def test_what_never_changes_by_itself_asks_for_an_operator(status: int) -> None:
    error = failure(status, None, location="https://elsewhere.example/api?token=secret")
    assert error.asks is Asks.STOP
    assert error.hint
    assert "secret" not in str(error)


def test_a_message_is_one_bounded_printable_line() -> None:
    error = failure(500, error_body("a\n\x1b[31mb\u202e" + "x" * 10_000))
    assert error.summary.isprintable()
    assert len(error.summary) < 500


def test_a_config_comes_bare_or_wrapped() -> None:
    config = {"host": "x", "mailboxes": {}, "naïve": 1}
    assert json.loads(read_config("x", *answered(200, {"status": "ok", "config": config}), NOW)) == config
    bare = b'{"host": "x", "host": "y"}'
    assert read_config("x", *answered(200, bare), NOW) == bare, "what is there twice is for the config's reader to find"
    for status, body in ((200, {"status": "ok"}), (200, b"<html>"), (404, error_body("none")), (200, error_body("no"))):
        with pytest.raises(PlatformError):
            read_config("x", *answered(status, body), NOW)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), "cannot connect to mydomain.example:443"),
        (httpx.ConnectTimeout(""), "did not accept a connection"),
        (httpx.ReadTimeout(""), "did not answer in time"),
        (httpx.RemoteProtocolError("Server disconnected"), "broke"),
    ],
)
def test_a_failure_below_http_is_the_ways(error: httpx.HTTPError, expected: str) -> None:
    ours = connection_error("uploading", error, URL)
    assert expected in ours.summary
    assert (ours.asks, ours.scope) == (Asks.RETRY, Scope.PROCESS)


def test_a_certificate_asks_for_an_operator() -> None:
    wrong = ssl.SSLCertVerificationError(1, "certificate verify failed")
    wrong.verify_code, wrong.verify_message = 20, "unable to get local issuer certificate"
    outer = httpx.ConnectError("x")
    outer.__cause__ = wrong
    ours = connection_error("uploading", outer, URL)
    assert ours.asks is Asks.STOP
    assert "SSL_CERT_FILE" in ours.hint
