"""A server that is away for everybody is left alone, and found again by one request at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    Scope,
    SourceError,
    ThrottledError,
)
from ews_sync.sources.ews.circuit import LONGEST_WAIT, Cause, Record, ServerAwayError, Sign, SilenceError, sign_of
from ews_sync.sources.ews.spool import SpoolError
from ews_sync.sources.ews.throttle import LONGEST_TOLD
from tests.engine.virtual_time import START, run
from tests.sources.support import fault
from tests.sources.virtual_server import OK, Fails, Says, VirtualServer, ask, asking

if TYPE_CHECKING:
    from ews_sync.sources.ews.client import Call, Client

REFUSED = Fails()
CAUSE = Cause("nobody there", "", "")
PAGE = "text/html"

# --- Decisions -------------------------------------------------------------------------------------------------------


def after(*failures: tuple[int, float]) -> Record:
    record = Record()
    for call, at in failures:
        record = record.after_failure(call, CAUSE, at, START)
    return record


@pytest.mark.parametrize(
    ("failures", "at", "opens"),
    [
        ([(1, 0.0), (1, 1.0), (2, 2.0), (2, 3.0), (3, 4.0)], 4.0, True),
        ([(1, 0.0), (1, 1.0), (1, 3.0), (1, 7.0), (1, 15.0)], 15.0, False),
        ([(1, 0.0), (2, 60.0), (3, 120.0), (4, 180.0)], 180.0, False),
        ([(number, 0.1) for number in range(32)], 0.1, False),
    ],
    ids=["several calls for a while", "one call", "too few", "all at the same moment"],
)
def test_when_a_circuit_opens(failures: list[tuple[int, float]], at: float, opens: bool) -> None:  # noqa: FBT001
    assert after(*failures).is_enough(at) is opens


def test_the_waits_double_up_to_five_minutes_whatever_chance_says() -> None:
    record, waits = Record(), []
    for _ in range(8):
        record = record.opened(100.0, 0.0)
        waits.append((record.probe_at or 0.0) - 100.0)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    for _ in range(3000):
        record = record.opened(0.0, 0.999)
        assert LONGEST_WAIT * 0.9 <= (record.probe_at or 0.0) <= LONGEST_WAIT


SENT = "the request's id"


@pytest.mark.parametrize(
    ("error", "small", "for_messages"),
    [
        (ConnectionFailedError("refused"), Sign.AWAY, Sign.AWAY),
        (ConnectionFailedError("timed out", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (ConnectionFailedError("HTML", code="HTTP 200", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (SourceError("", code="HTTP 500", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (SourceError("", code="HTTP 502", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (ThrottledError("", code="HTTP 503", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (SilenceError("timed out", request_id=SENT), Sign.SILENT, Sign.NOTHING),
        (ThrottledError("", code="HTTP 503", retry_after=5.0, request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (ThrottledError("", code="HTTP 429", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (SourceError("", code="HTTP 400", request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (ThrottledError("", code="ErrorServerBusy", request_id=SENT), Sign.THERE, Sign.THERE),
        (SourceError("", code="ErrorMailboxStoreUnavailable", request_id=SENT), Sign.THERE, Sign.THERE),
        (SourceError("", code="ErrorOfTheYear2031", request_id=SENT), Sign.THERE, Sign.THERE),
        (SourceError("", code="ErrorAccessDenied", asks=Asks.STOP, request_id=SENT), Sign.THERE, Sign.THERE),
        (ConnectionFailedError("certificate", asks=Asks.STOP), Sign.AWAY, Sign.AWAY),
        (SourceError("", code="HTTP 403", asks=Asks.STOP, request_id=SENT), Sign.AWAY, Sign.NOTHING),
        (AuthenticationError("", code="HTTP 401"), Sign.THERE, Sign.THERE),
        (SpoolError("no room"), Sign.NOTHING, Sign.NOTHING),
    ],
    ids=lambda value: f"{type(value).__name__} {value.code}" if isinstance(value, SourceError) else "",
)
def test_what_a_failure_says_of_the_server(error: SourceError, small: Sign, for_messages: Sign) -> None:
    assert sign_of(error, for_messages=False) is small
    assert sign_of(error, for_messages=True) is for_messages


def test_a_silence_of_minutes_says_more_than_a_refusal() -> None:
    record = Record().after_failure(1, CAUSE, 150.0, START, silent=True)
    assert not record.is_enough(150.0)
    assert not record.after_failure(1, CAUSE, 300.0, START, silent=True).is_enough(300.0)
    # Whoever has waited for that long need not wait to be sure.
    assert record.after_failure(2, CAUSE, 150.0, START, silent=True).is_enough(150.0)


@pytest.mark.parametrize(
    ("told", "wait"),
    [(0.0, 5.0), (1.0, 5.0), (30.0, 30.0), (86400.0, LONGEST_TOLD)],
    ids=["no", "short", "long", "day"],
)
def test_a_probe_does_not_go_before_the_time_that_was_told(told: float, wait: float) -> None:
    assert Record().opened(0.0, 0.0, told).probe_at == wait


# --- The client ------------------------------------------------------------------------------------------------------


class Scene:
    """A server that is as the test says, and a client of it."""

    def __init__(self) -> None:
        self.says: Says | Fails = Says()
        self.for_one: dict[str, Says | Fails] = {}
        self.server = VirtualServer(lambda request: self.for_one.get(request.headers["X-AnchorMailbox"], self.says))
        self.client: Client = self.server.connect()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def asked(self) -> int:
        return len(self.server.started)

    async def fail(self, call: Call | None = None) -> SourceError:
        with pytest.raises(SourceError) as caught:
            await ask(self.client, call or asking())
        return caught.value

    async def outage(self, says: Says | Fails = REFUSED, call: Call | None = None) -> None:
        """Have the server go away, and the client find out."""
        self.says = says
        while not isinstance(await self.fail(call), ServerAwayError):
            await asyncio.sleep(1.0)
            assert self.now < 3600.0, "nobody finds out"

    async def until_probe(self) -> None:
        await asyncio.sleep(await self.next_probe_in())

    async def next_probe_in(self) -> float:
        """Give the seconds until a probe may go; a request for messages hears it, and is none."""
        error = await self.fail(asking(for_messages=True))
        assert isinstance(error, ServerAwayError)
        assert error.retry_after is not None
        return error.retry_after


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    "says",
    [
        REFUSED,
        Fails(httpx.ConnectTimeout, 15.0),
        Fails(httpx.ReadTimeout, 150.0),
        Fails(httpx.ReadError),
        Fails(httpx.RemoteProtocolError),
        Fails(httpx.ProxyError),
        Says(b"<html>", 502, PAGE),
        Says(b"<html>", 500, PAGE),
        Says(b"<html>", 503, PAGE),
        Says(b"", 504, ""),
        Says(b"<html>", 200, PAGE),
        Says(b"", 200),
        Says(OK[:-30]),
        Says(b"<html>", 503, PAGE, "1"),
        Says(b"<html>", 503, PAGE, "30"),
        Says(b"<html>", 503, PAGE, "0"),
        Says(b"<html>", 429, PAGE),
        Says(b"<html>", 400, PAGE),
        Says(b"<html>", 403, PAGE),
        Says(b"<html>", 404, PAGE),
        Says(b"<html>", 405, PAGE),
        Says(b"<html>", 410, PAGE),
        Says(b"", 302, PAGE),
        Says(b"", 407, PAGE),
    ],
    ids=str,
)
def test_every_want_of_a_server_opens_it_and_an_answer_closes_it(says: Says | Fails, scene: Scene) -> None:
    async def play() -> None:
        await ask(scene.client, asking())
        await scene.outage(says)
        error = await scene.fail()
        assert isinstance(error, ServerAwayError)
        assert (error.asks, error.scope) == (Asks.RETRY, Scope.PROCESS)
        before = scene.asked
        assert before <= 10
        assert {type(await scene.fail(asking(f"{number}@x"))) for number in range(100)} == {ServerAwayError}
        assert scene.asked == before
        scene.says = Says()
        await scene.until_probe()
        await ask(scene.client, asking("b@x"))
        await ask(scene.client, asking())

    run(play())


@pytest.mark.parametrize(
    "says",
    [
        Says(fault("ErrorServerBusy", backoff="1000"), 500),
        Says(fault("ErrorServerBusy", backoff="1000"), 503),
        Says(fault("ErrorServerBusy"), 429, retry_after="1"),
        Says(fault("ErrorMailboxStoreUnavailable"), 500),
        Says(fault("ErrorInternalServerError"), 500),
        Says(fault("ErrorAccessDenied"), 500),
    ],
    ids=["busy", "busy with 503", "busy with 429", "a store", "a fault", "a refusal"],
)
def test_a_server_that_answers_is_not_away_whatever_it_says(says: Says, scene: Scene) -> None:
    async def play() -> None:
        scene.says = says
        for number in range(20):
            error = await scene.fail(asking(f"{number}@x"))
            assert error.scope is Scope.MAILBOX

    run(play())


@pytest.mark.parametrize("says", [Fails(httpx.ReadTimeout, 150.0), Says(b"<html>", 504, PAGE), Fails(httpx.ReadError)])
def test_messages_that_make_their_requests_fail_are_no_outage(says: Says | Fails, scene: Scene) -> None:
    """Twenty of them, from several mailboxes, and nothing else asked in between: it is still not the server."""

    async def play() -> None:
        await ask(scene.client, asking())
        scene.says = says
        await asyncio.gather(*(scene.fail(asking(f"{n % 5}@x", for_messages=True)) for n in range(20)))
        assert not isinstance(await scene.fail(), ServerAwayError)

    run(play())


def test_one_mailbox_that_gets_nothing_while_others_do_is_no_outage(scene: Scene) -> None:
    async def play() -> None:
        scene.for_one["bad@x"] = Says(b"<html>", 502, PAGE)
        for _ in range(20):
            assert not isinstance(await scene.fail(asking("bad@x")), ServerAwayError)
            await ask(scene.client, asking("good@x"))

    run(play())


def test_a_page_for_two_mailboxes_of_many_is_no_outage(scene: Scene) -> None:
    """EWS switched off for one mailbox is a 403, too."""

    async def play() -> None:
        scene.for_one = dict.fromkeys(("1@x", "2@x"), Says(b"<html>", 403, PAGE))
        for _ in range(50):
            for number in range(8):
                answers = await asyncio.gather(ask(scene.client, asking(f"{number}@x")), return_exceptions=True)
                assert not isinstance(answers[0], ServerAwayError)

    run(play())


def test_what_an_operator_must_mend_is_told_as_the_outage_that_it_is(scene: Scene) -> None:
    async def play() -> None:
        await scene.outage(Says(b"", 407, PAGE))
        error = await scene.fail()
        assert isinstance(error, ServerAwayError)
        assert (error.asks, error.code) == (Asks.RETRY, "HTTP 407")
        assert "check HTTPS_PROXY" in error.hint
        await scene.until_probe()
        assert isinstance(await scene.fail(), ServerAwayError)

    run(play())


def test_a_page_that_names_a_time_is_left_alone_for_it(scene: Scene) -> None:
    async def play() -> None:
        await scene.outage(Says(b"<html>", 503, PAGE, "100"))
        last = scene.server.started[-1].at
        error = await scene.fail()
        assert error.retry_after == pytest.approx(100.0, abs=0.1)
        await scene.until_probe()
        await scene.fail(asking("b@x"))
        assert scene.server.started[-1].at - last >= 100.0

    run(play())


@pytest.mark.parametrize(("mailboxes", "within"), [(1, 310.0), (3, 155.0)])
def test_a_server_that_says_nothing_is_found_out_soon(mailboxes: int, within: float, scene: Scene) -> None:
    async def play() -> None:
        await ask(scene.client, asking())
        scene.says = Fails(httpx.ReadTimeout, 150.0)
        began = scene.now

        ends: list[float] = []

        async def one(number: int) -> None:
            await scene.outage(scene.says, asking(f"{number}@x"))
            ends.append(scene.now - began)

        await asyncio.gather(*(one(number) for number in range(mailboxes)))
        assert max(ends) <= within

    run(play())


def test_all_connections_dropped_at_once_cost_a_retry_and_no_outage(scene: Scene) -> None:
    """A load balancer that is restarted must not fail every mailbox's round."""

    async def play() -> None:
        await ask(scene.client, asking())
        scene.says = Fails(httpx.ReadError, 1.0)
        calls = [asyncio.create_task(ask(scene.client, asking(f"{number}@x"))) for number in range(32)]
        await asyncio.sleep(0.5)
        scene.says = Says()
        await asyncio.gather(*calls)
        assert scene.asked == 1 + 32 + 32

    run(play())


def test_the_error_says_why_and_since_when_and_when_to_come_again(scene: Scene) -> None:
    async def play() -> None:
        await ask(scene.client, asking())
        await asyncio.sleep(60.0)
        await scene.outage()
        first = await scene.fail(asking("b@x"))
        assert first.summary == (
            "nothing can be read since 2024-06-01 12:01:00 UTC: cannot connect to exchange.test:443: Connection refused"
        )
        assert first.hint.startswith("check the server's name and port")
        assert first.retry_after == pytest.approx(5.0)
        await asyncio.sleep(4.0)
        second = await scene.fail()
        assert second.summary == first.summary
        assert second.retry_after == pytest.approx(1.0)

    run(play())


def test_who_issues_tokens_and_is_away_is_not_taken_for_the_mail_server(scene: Scene) -> None:
    def no_token(_: httpx.Request) -> Says:
        raise ConnectionFailedError("asking for an access token: cannot reach login.test:443")

    async def play() -> None:
        scene.server.answer = no_token
        await scene.outage()
        error = await scene.fail()
        assert error.summary == (
            "nothing can be read since 2024-06-01 12:00:00 UTC: asking for an access token: cannot reach login.test:443"
        )
        assert "server" not in error.hint

    run(play())


def test_one_request_goes_ahead_and_nobody_waits_for_it(scene: Scene) -> None:
    async def play() -> None:
        await ask(scene.client, asking())
        await scene.outage(Fails(httpx.ConnectTimeout, 15.0))
        await scene.until_probe()
        before, at = scene.asked, scene.now
        errors = await asyncio.gather(*(scene.fail(asking(f"{number}@x")) for number in range(1000)))
        assert scene.asked == before + 1
        assert {type(error) for error in errors} == {ServerAwayError}
        assert scene.now == at + 15.0
        # From the end of the probe on, and twice as long as before.
        assert await scene.next_probe_in() == pytest.approx(10.0)

    run(play())


def test_what_was_on_its_way_before_does_not_put_the_probe_off(scene: Scene) -> None:
    async def play() -> None:
        await ask(scene.client, asking())
        scene.for_one["slow@x"] = Fails(httpx.ReadTimeout, 150.0)
        slow = asyncio.create_task(scene.fail(asking("slow@x")))
        await asyncio.sleep(140.0)
        await scene.outage()
        await scene.until_probe()
        await scene.fail()
        probe_at = scene.now + await scene.next_probe_in()
        assert isinstance(await slow, ServerAwayError)
        assert scene.now + await scene.next_probe_in() == pytest.approx(probe_at)

    run(play())


def test_a_request_for_messages_does_not_go_ahead(scene: Scene) -> None:
    async def play() -> None:
        await scene.outage()
        await scene.until_probe()
        before = scene.asked
        await scene.fail(asking(for_messages=True))
        assert scene.asked == before
        scene.says = Says()
        await ask(scene.client, asking())

    run(play())


def test_a_probe_that_is_cancelled_lets_the_next_one_go(scene: Scene) -> None:
    async def play() -> None:
        await scene.outage()
        scene.says = Fails(httpx.ConnectTimeout, 15.0)
        await scene.until_probe()
        probe = asyncio.create_task(ask(scene.client, asking()))
        await asyncio.sleep(1.0)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        scene.says = Says()
        await ask(scene.client, asking("b@x"))

    run(play())


def test_a_probe_waits_its_time_when_its_mailbox_is_to_be_left_alone(scene: Scene) -> None:
    async def play() -> None:
        scene.for_one["busy@x"] = Says(fault("ErrorServerBusy", backoff="100000"), 500)
        busy = asyncio.create_task(ask(scene.client, asking("busy@x")))
        await asyncio.sleep(1.0)
        await scene.outage()
        scene.says = scene.for_one["busy@x"] = Says()
        await scene.until_probe()
        # It is not the probe as long as it waits, so that another mailbox can be.
        await ask(scene.client, asking())
        await busy
        own = [start.at for start in scene.server.started if start.principal == "busy@x"]
        assert own[1] - own[0] >= 100.0

    run(play())


def test_calls_that_wait_between_attempts_and_at_the_gate_fail_at_once_as_well(scene: Scene) -> None:
    async def play() -> None:
        await ask(scene.client, asking())
        scene.says = REFUSED
        ends: list[float] = []

        async def one(number: int) -> None:
            assert isinstance(await scene.fail(asking(f"{number % 10}@x")), ServerAwayError)
            ends.append(scene.now)

        await asyncio.gather(*(one(number) for number in range(200)))
        # Each has tried for as long as it takes to be sure, and none for as often as it would have by itself.
        assert max(ends) < 5.0
        assert scene.asked < 1 + 200 * 4

    run(play())


def test_a_single_mailbox_finds_out_too(scene: Scene) -> None:
    async def play() -> None:
        scene.says = REFUSED
        assert not isinstance(await scene.fail(), ServerAwayError)
        assert isinstance(await scene.fail(), ServerAwayError)
        assert scene.asked == 5

    run(play())


def test_the_waits_are_forgotten_once_it_was_back(scene: Scene) -> None:
    async def play() -> None:
        await scene.outage()
        for _ in range(6):
            await scene.until_probe()
            await scene.fail()
        assert await scene.next_probe_in() == pytest.approx(300.0)
        scene.says = Says()
        await scene.until_probe()
        await ask(scene.client, asking())
        await scene.outage()
        assert await scene.next_probe_in() == pytest.approx(5.0)

    run(play())


def test_a_server_that_is_back_is_not_met_by_everybody_at_once(scene: Scene) -> None:
    async def play() -> None:
        for number in range(100):
            await ask(scene.client, asking(f"{number}@x"))
        scene.says = Says(after=0.5)
        await asyncio.gather(*(ask(scene.client, asking(f"{number}@x")) for number in range(100)))
        assert scene.server.most == 32
        await scene.outage()
        scene.says = Says(after=0.5)
        await scene.until_probe()
        await ask(scene.client, asking("probe@x"))
        scene.server.most, began, at = 0, scene.asked, scene.now
        calls = [asyncio.create_task(ask(scene.client, asking(f"{number}@x"))) for number in range(600)]
        await asyncio.sleep(0.6)
        assert scene.server.most <= 3
        await asyncio.gather(*calls)
        # And yet it is served in full soon.
        assert scene.server.most == 32
        assert scene.asked - began == 600
        assert scene.now - at < 25.0

    run(play())


def test_a_mailbox_begins_with_one_request_at_a_time(scene: Scene) -> None:
    async def play() -> None:
        await scene.outage()
        scene.says = Says()
        await scene.until_probe()
        await ask(scene.client, asking())
        assert scene.client.gate("a@x").allowance.limit == 1
        await asyncio.gather(*(ask(scene.client, asking()) for _ in range(60)))
        assert scene.client.gate("a@x").allowance.limit == 4

    run(play())
