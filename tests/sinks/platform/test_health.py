"""Is it the platform, or is it the email? Decisions only."""

from __future__ import annotations

from ews_sync.errors import Asks, Scope
from ews_sync.model import Bucket, Mailbox
from ews_sync.sinks.platform.answers import PlatformError, RefusedError
from ews_sync.sinks.platform.health import ALONE_AFTER, REFUSALS_IN_A_ROW, Health, Repeats, Suspects
from tests.sinks.builders import MAILBOX, an_email


def an_error(code: str = "HTTP 500", retry_after: float | None = None) -> PlatformError:
    return PlatformError("not well", scope=Scope.PROCESS, code=code, retry_after=retry_after)


def refusal(*, too_large: bool = False) -> RefusedError:
    return RefusedError("no", code="HTTP 400", too_large=too_large)


def test_while_nothing_is_accepted_a_failure_is_everybodys() -> None:
    health = Health()
    scopes = []
    for accepted in (False, True, False, False, True):
        if accepted:
            health.accepted()
        error = an_error()
        health.failed(error, 0.0)
        scopes.append(error.scope)
    assert scopes == [Scope.PROCESS, Scope.MAILBOX, Scope.PROCESS, Scope.PROCESS, Scope.MAILBOX]


def test_what_is_said_to_one_upload_is_waited_by_all() -> None:
    health = Health()
    health.accepted()
    error = an_error("HTTP 429", 30.0)
    health.failed(error, 100.0)
    assert error.scope is Scope.PROCESS
    rest = health.rest(110.0)
    assert rest is not None
    assert (rest.asks, rest.scope, rest.retry_after) == (Asks.RETRY, Scope.PROCESS, 20.0)
    assert health.rest(130.0) is None


def test_busy_without_a_time_holds_up_nobody_else() -> None:
    health = Health()
    health.accepted()
    error = an_error("HTTP 429")
    health.failed(error, 100.0)
    assert error.scope is Scope.PROCESS, "it never is the mailbox's fault"
    assert health.rest(100.0) is None


def test_when_every_email_is_refused_it_is_not_the_emails() -> None:
    health = Health()
    for _ in range(3):
        assert [health.refused(refusal()) for _ in range(REFUSALS_IN_A_ROW)] == [None] * REFUSALS_IN_A_ROW
        health.accepted()
    for _ in range(REFUSALS_IN_A_ROW):
        assert health.refused(refusal()) is None
    for _ in range(2):
        wrong = health.refused(refusal())
        assert wrong is not None
        assert wrong.asks is Asks.STOP
    assert health.refused(refusal(too_large=True)) is None, "its size is its own fault"
    health.accepted()
    assert health.refused(refusal()) is None


def test_an_email_that_fails_often_goes_alone_until_it_is_accepted() -> None:
    suspects = Suspects()
    good, bad = an_email("good"), an_email("bad")
    for _ in range(ALONE_AFTER):
        assert not suspects.must_go_alone(bad)
        error = an_error()
        assert suspects.failed([good, bad], error, 0.0) is error
    assert suspects.must_go_alone(good)
    suspects.cleared([good])
    assert not suspects.must_go_alone(good)
    assert suspects.must_go_alone(bad)


def mailbox_error() -> PlatformError:
    return PlatformError("not well", code="HTTP 500")


def test_a_lonely_culprit_is_named_and_in_the_end_refused() -> None:
    suspects = Suspects()
    bad = an_email("<bad@x>", folder=("Inbox", "Claims"))
    for _ in range(ALONE_AFTER - 1):
        suspects.failed([bad], mailbox_error(), 0.0)
    blamed = suspects.failed([bad], mailbox_error(), 1000.0)
    assert "<bad@x>" in blamed.summary
    assert "Inbox/Claims" in blamed.summary
    assert blamed.asks is Asks.RETRY
    for moment in range(20):
        assert not isinstance(suspects.failed([bad], mailbox_error(), 1000.0 + moment), RefusedError), "too soon"
    last = suspects.failed([bad], mailbox_error(), 1000.0 + 3600.0)
    assert isinstance(last, RefusedError)
    assert last.code == "HTTP 500"


def test_in_an_outage_nobody_is_blamed() -> None:
    suspects = Suspects()
    bad = an_email("<bad@x>")
    for hour in range(100):
        error = an_error()
        assert suspects.failed([bad], error, hour * 3600.0) is error
    for hour in range(100):
        busy = PlatformError("busy", code="HTTP 429")
        assert suspects.failed([bad], busy, hour * 3600.0) is busy


def test_repeats_are_known_by_key_and_content() -> None:
    repeats = Repeats(most=2)
    a, b, c = an_email("a"), an_email("b"), an_email("c")
    elsewhere = an_email("a", mailbox=Mailbox(MAILBOX.address, Bucket("other", "bucket")))
    repeats.stored(a, b"1")
    assert repeats.is_repeat(a, b"1")
    assert not repeats.is_repeat(a, b"2"), "it was moved, or is another message"
    assert not repeats.is_repeat(elsewhere, b"1")
    repeats.stored(b, b"1")
    repeats.stored(a, b"2")
    repeats.stored(c, b"1")
    assert not repeats.is_repeat(b, b"1"), "the oldest is forgotten"
    assert repeats.is_repeat(a, b"2")
    repeats.forget(MAILBOX.bucket)
    assert not repeats.is_repeat(a, b"2")
