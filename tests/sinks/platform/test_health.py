"""Is it the platform, or is it the email? Decisions only."""

from __future__ import annotations

from ews_sync.errors import Asks, Scope
from ews_sync.model import Bucket, Mailbox
from ews_sync.sinks.platform.answers import BusyError, PlatformError, RefusedError, UnreachableError
from ews_sync.sinks.platform.health import (
    DOUBTFUL_AFTER,
    MOST_BYTES,
    REFUSALS_IN_A_ROW,
    Health,
    Repeats,
    RequestSize,
    Suspects,
)
from tests.sinks.builders import MAILBOX, an_email


def an_error() -> PlatformError:
    return PlatformError("not well", scope=Scope.PROCESS, code="HTTP 500")


def busy(retry_after: float | None = None) -> BusyError:
    return BusyError("busy", code="HTTP 429", retry_after=retry_after)


def refusals(count: int, *, too_large: bool = False) -> list[RefusedError]:
    return [RefusedError("no", code="HTTP 400", too_large=too_large)] * count


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
    error = busy(30.0)
    health.failed(error, 100.0)
    assert error.scope is Scope.PROCESS, "it never is the mailbox's fault"
    health.failed(busy(), 101.0)
    health.failed(busy(5.0), 102.0)
    rest = health.rest(110.0)
    assert rest is not None
    assert (rest.asks, rest.scope, rest.retry_after) == (Asks.RETRY, Scope.PROCESS, 20.0)
    assert health.rest(130.0) is None


def test_busy_without_a_time_holds_up_nobody_else() -> None:
    health = Health()
    health.failed(busy(), 100.0)
    assert health.rest(100.0) is None


def test_when_every_email_is_refused_it_is_not_the_emails() -> None:
    health = Health()
    for _ in range(3):
        for _ in range(REFUSALS_IN_A_ROW):
            assert health.refused(refusals(1), others_accepted=False) is None
        health.accepted()
    assert health.refused(refusals(REFUSALS_IN_A_ROW), others_accepted=False) is None
    for _ in range(2):
        wrong = health.refused(refusals(1), others_accepted=False)
        assert wrong is not None
        assert wrong.asks is Asks.STOP
    assert health.refused(refusals(100, too_large=True), others_accepted=False) is None, "its size is its own fault"
    assert health.refused(refusals(100), others_accepted=True) is None
    health.accepted()
    assert health.refused(refusals(1), others_accepted=False) is None


def test_a_whole_batch_that_is_refused_at_once() -> None:
    assert Health().refused(refusals(REFUSALS_IN_A_ROW + 1), others_accepted=False) is not None


def test_only_what_failed_often_and_was_really_sent_is_doubtful() -> None:
    suspects = Suspects(Health())
    good, bad = an_email("good"), an_email("bad")
    for _ in range(10):
        assert not suspects.failed([good, bad], busy())
        assert not suspects.failed([good, bad], UnreachableError("refused"))
    for _ in range(DOUBTFUL_AFTER - 1):
        assert not suspects.failed([good, bad], an_error())
    assert suspects.failed([good, bad], an_error())
    suspects.cleared([good])
    assert not suspects.failed([good], an_error())


def test_a_lonely_culprit_is_named_and_in_the_end_refused() -> None:
    health = Health()
    suspects = Suspects(health)
    bad = an_email("<bad@x>", folder=("Inbox", "Claims"))

    def once(moment: float) -> PlatformError:
        suspects.failed([bad], an_error())
        return suspects.blamed(bad, an_error(), moment)

    first = once(1000.0)
    assert "<bad@x>" in first.summary
    assert "Inbox/Claims" in first.summary
    assert (first.asks, first.scope) == (Asks.RETRY, Scope.MAILBOX)
    for minute in range(200):
        assert not isinstance(once(1000.0 + minute * 60), RefusedError), "nothing else was accepted since"
    health.accepted()
    last = once(1000.0 + 3600.0)
    assert isinstance(last, RefusedError)
    assert last.code == "HTTP 500"


def test_a_culprit_has_its_hour() -> None:
    health = Health()
    suspects = Suspects(health)
    bad = an_email("<bad@x>")
    for second in range(100):
        suspects.failed([bad], an_error())
        assert not isinstance(suspects.blamed(bad, an_error(), 36.0 * second), RefusedError)
        health.accepted()
    suspects.failed([bad], an_error())
    assert isinstance(suspects.blamed(bad, an_error(), 3600.0), RefusedError)


def test_the_size_of_requests_is_learned_and_not_for_ever() -> None:
    size = RequestSize()
    assert size.refused(800_000)
    assert size.largest == 400_000
    assert not size.refused(3_000_000), "one of those that were on their way already"
    assert size.refused(300_000)
    assert size.largest == 150_000
    assert size.refused(1000)
    assert not size.refused(500)
    for _ in range(10_000):
        size.accepted()
    assert size.largest == MOST_BYTES


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
