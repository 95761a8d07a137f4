"""Who is asked to wait waits: every request of a throttled principal, and no request of another one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from ews_sync.errors import ConnectionFailedError, SourceError, ThrottledError
from ews_sync.sources.ews.source import EwsSource
from ews_sync.sources.ews.throttle import LONGEST_TOLD
from ews_sync.telemetry.traffic import Outcome, Traffic
from tests.engine.virtual_time import VirtualClock, run
from tests.sources.support import FOLDER, MAILBOX, fault, got, item_xml, message, ref, response
from tests.sources.virtual_server import Fails, Says, VirtualServer, ask, asking

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Busy:
    """What a busy server says: how long in the body, how long in the header (and as a date), with which status."""

    told: float | None
    header: float | None = None
    as_date: bool = False
    status: int = 500

    @property
    def wait(self) -> float:
        """The seconds for which the principal is to be left alone."""
        body = self.told if self.status == 500 else None
        return min(max(body or 0.0, self.header or 0.0), LONGEST_TOLD)

    def says(self, after: float) -> Says:
        """Say it; a date is a moment, which is told before the answer takes its time."""
        milliseconds = None if self.told is None else str(round(self.told * 1000))
        body = fault("ErrorServerBusy", backoff=milliseconds) if self.status == 500 else b"busy"
        kind = "text/xml" if self.status == 500 else "text/plain"
        text = None
        if self.header is not None:
            text = str(round(self.header))
            if self.as_date:
                moment = VirtualClock().now() + timedelta(seconds=after + self.header + 1)
                text = format_datetime(moment, usegmt=True)
        return Says(body, self.status, kind, text, after)


@dataclass
class Scripted:
    """Answers by script, and looks that nobody comes too early."""

    script: list[Busy | None]
    latencies: list[float]
    told: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    starts: int = 0

    def __call__(self, request: httpx.Request) -> Says | Fails:
        now = asyncio.get_running_loop().time()
        principal = request.headers["X-AnchorMailbox"]
        for heard, until in self.told[principal]:
            # At the very moment at which the answer arrives nobody can have heard it yet.
            assert not heard < now < until - 1e-6, f"asked at {now}, told at {heard} to wait until {until}"
        position, self.starts = self.starts, self.starts + 1
        said = self.script[position] if position < len(self.script) else None
        after = self.latencies[position % len(self.latencies)]
        if said is None:
            return Says(after=after)
        self.told[principal].append((now + after, now + after + said.wait))
        return said.says(after)


BUSY = st.builds(
    Busy,
    told=st.one_of(st.none(), st.integers(-5, 400).map(float), st.just(86400.0 * 365)),
    header=st.one_of(st.none(), st.integers(0, 400).map(float), st.just(1e9)),
    as_date=st.booleans(),
    status=st.sampled_from([500, 429, 503]),
).filter(lambda busy: not (busy.as_date and (busy.header or 0) > 400))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), BUSY), max_size=30),
    st.lists(st.sampled_from([0.01, 0.3, 2.0]), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), min_size=1, max_size=30),
)
def test_no_request_of_a_principal_starts_before_its_time(
    script: list[Busy | None], latencies: list[float], calls: list[tuple[str, int]]
) -> None:
    async def scene() -> int:
        scripted = Scripted(script, latencies)
        wrong: list[AssertionError] = []

        def watched(request: httpx.Request) -> Says | Fails:
            try:
                return scripted(request)
            except AssertionError as error:
                wrong.append(error)
                raise

        client = VirtualServer(watched).connect()

        async def one(principal: str, at: int) -> None:
            await asyncio.sleep(at)
            # It may be busy for longer than the call has attempts.
            await asyncio.gather(ask(client, asking(principal)), return_exceptions=True)

        await asyncio.gather(*(one(principal, at) for principal, at in calls))
        assert wrong == []
        return scripted.starts

    assert run(scene()) >= 1


def test_one_that_is_told_to_wait_holds_up_itself_and_nobody_else() -> None:
    async def scene() -> tuple[float, list[float], list[float]]:
        busy = iter([Busy(300.0).says(0.05)])

        def answer(request: httpx.Request) -> Says | Fails:
            return next(busy, Says()) if request.headers["X-AnchorMailbox"] == "a@x" else Says()

        server = VirtualServer(answer)
        client = server.connect()
        await ask(client, asking("first contact"))
        waiting = [asyncio.create_task(ask(client, asking("a@x"))) for _ in range(20)]
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(ask(client, asking(f"{number}@x")) for number in range(200)))
        took = asyncio.get_running_loop().time() - began
        await asyncio.gather(*waiting)
        own = [start.at for start in server.started if start.principal == "a@x"]
        return took, own[:8], own[8:]

    took, before, after = run(scene())
    assert took < 1.0
    # Those that were on their way before anybody knew, and all the others once the time was over.
    assert before == pytest.approx([0.05] * 8)
    assert min(after) == pytest.approx(300.1)


def test_who_waits_behind_the_gate_is_called_back() -> None:
    """Between the gate and the wire there are other things to wait for, and the server can get busy meanwhile."""

    async def scene() -> list[float]:
        told = iter([Busy(120.0).says(3.0)])

        def answer(request: httpx.Request) -> Says | Fails:
            return next(told, Says(after=0.1)) if request.headers["X-AnchorMailbox"] == "a@x" else Says(after=10.0)

        server = VirtualServer(answer)
        client = server.connect()
        await ask(client, asking("first contact"))
        # All places but one are taken, so one request of a@x goes out and the others wait behind the gate.
        others = [asyncio.create_task(ask(client, asking(f"{n}@x"))) for n in range(31)]
        await asyncio.sleep(0.5)
        own = [asyncio.create_task(ask(client, asking("a@x"))) for _ in range(3)]
        await asyncio.gather(*others, *own)
        return [start.at for start in server.started if start.principal == "a@x"]

    first, *later = run(scene())
    assert len(later) == 3
    assert min(later) >= first + 3.0 + 120.0


@pytest.mark.parametrize(
    ("busy", "waited"),
    [
        (Busy(86400.0 * 365), HOUR),
        (Busy(None, header=1e9, status=503), HOUR),
        (Busy(10.0, header=60.0), 60.0),
        (Busy(60.0, header=10.0), 60.0),
        (Busy(-5.0), 1.0),
        (Busy(0.0), 1.0),
        (Busy(None), 1.0),
    ],
    ids=["a year", "ten to the nine", "header is longer", "body is longer", "negative", "nothing", "no word"],
)
def test_absurd_waits_are_bounded_and_told(busy: Busy, waited: float) -> None:
    async def scene() -> tuple[float, ThrottledError]:
        server = VirtualServer(lambda _: busy.says(0.0))
        client = server.connect(attempts=1)
        with pytest.raises(ThrottledError) as caught:
            await ask(client, asking())
        return client.gate("a@x").wait_left, caught.value

    left, error = run(scene())
    assert left == waited
    assert (error.retry_after or 0.0) in {waited, 0.0}
    assert ("left alone for more than 60 minutes" in error.hint) == (waited == HOUR)


@pytest.mark.parametrize("text", ["1e9", "-5", "12.5", "nan", "tomorrow", "0x10"])
def test_a_header_that_makes_no_sense_is_no_word(text: str) -> None:
    async def scene() -> float:
        client = VirtualServer(lambda _: Says(b"", 429, "text/plain", text)).connect(attempts=1)
        with pytest.raises(ThrottledError):
            await ask(client, asking())
        return client.gate("a@x").wait_left

    assert run(scene()) == 1.0


def test_another_error_that_asks_to_wait_holds_up_its_principal_as_well() -> None:
    async def scene() -> tuple[float, float]:
        body = fault("ErrorMailboxStoreUnavailable", backoff="45000")
        client = VirtualServer(lambda _: Says(body, 500)).connect(attempts=1)
        with pytest.raises(SourceError):
            await ask(client, asking())
        return client.gate("a@x").wait_left, client.gate("b@x").wait_left

    assert run(scene()) == (45.0, 0.0)


def test_at_once_they_become_fewer_and_slowly_more() -> None:
    async def scene() -> list[int]:
        busy = iter([Busy(1.0).says(0.05)])
        server = VirtualServer(lambda _: next(busy, Says()))
        client = server.connect()
        limits = [client.gate("a@x").allowance.limit]
        await asyncio.gather(*(ask(client, asking()) for _ in range(8)))
        limits.append(client.gate("a@x").allowance.limit)
        server.most = 0
        await asyncio.gather(*(ask(client, asking()) for _ in range(8)))
        limits.append(server.most)
        await asyncio.gather(*(ask(client, asking()) for _ in range(200)))
        return [*limits, client.gate("a@x").allowance.limit]

    assert run(scene()) == [8, 4, 4, 8]


# --- Inside an answer with HTTP status 200 ---------------------------------------------------------------------------


def fetching(server: VirtualServer, *, impersonate: bool) -> EwsSource:
    return EwsSource(server.connect(), VirtualClock(), impersonate=impersonate, account="svc")


@pytest.mark.parametrize("impersonate", [True, False])
def test_the_largest_wait_of_several_items_holds_for_whoever_is_charged(impersonate: bool) -> None:  # noqa: FBT001
    def xml(milliseconds: int) -> str:
        return f'<m:MessageXml><t:Value Name="BackOffMilliseconds">{milliseconds}</t:Value></m:MessageXml>'

    async def scene() -> tuple[float, float]:
        answers = iter(
            [
                response(
                    "GetItem",
                    got(item_xml("a")),
                    message("GetItem", code="ErrorServerBusy", extra=xml(2000)),
                    message("GetItem", code="ErrorServerBusy", extra=xml(9000)),
                    message("GetItem", code="ErrorServerBusy", extra=xml(4000)),
                ),
                response("GetItem", *(got(item_xml(name)) for name in "bcd")),
            ]
        )
        server = VirtualServer(lambda _: Says(next(answers)))
        source = fetching(server, impersonate=impersonate)
        fetched = await source.fetch(MAILBOX, FOLDER, [ref(name) for name in "abcd"])
        assert all(outcome.email is not None for outcome in fetched)
        first, second = server.started
        others = "other@example.com" if impersonate else MAILBOX.address
        return second.at - first.at, source._client.gate(others).allowance.not_before

    waited, elsewhere = run(scene())
    assert waited == pytest.approx(9.05)
    assert elsewhere == 0.0


def test_a_good_answer_that_asks_to_wait_is_taken_and_obeyed() -> None:
    async def scene() -> tuple[int, float, int]:
        xml = '<m:MessageXml><t:Value Name="BackOffMilliseconds">7000</t:Value></m:MessageXml>'
        server = VirtualServer(lambda _: Says(response("FindItem", message("FindItem", extra=xml))))
        source = fetching(server, impersonate=True)
        await source.newest(MAILBOX, FOLDER)
        gate = source._client.gate(MAILBOX.address)
        return len(server.started), gate.wait_left, gate.allowance.limit

    assert run(scene()) == (1, 7.0, 4)


def test_who_holds_memory_does_not_wait_for_long() -> None:
    """Messages have their memory reserved, which is everybody's: the caller hears at once when it takes long."""

    async def scene() -> tuple[list[float], list[float | None]]:
        server = VirtualServer(lambda _: Busy(200.0).says(0.0))
        source = fetching(server, impersonate=True)
        errors: list[float | None] = []
        for pause in (0.0, 100.0, 80.0):
            await asyncio.sleep(pause)
            with pytest.raises(ThrottledError) as caught:
                await source.fetch(MAILBOX, FOLDER, [ref("a")])
            errors.append(caught.value.retry_after)
        return [start.at for start in server.started], errors

    # The third one waits for the 20 seconds that are left, and hears it anew.
    assert run(scene()) == ([0.0, 200.0], [200.0, 100.0, 200.0])


def test_what_takes_too_long_is_told_so_that_the_round_can_wait() -> None:
    """Whoever watches a call that waits for hours takes it for stuck."""

    async def scene() -> tuple[list[float], list[float | None]]:
        server = VirtualServer(lambda _: Busy(3000.0).says(0.0))
        client = server.connect()
        told: list[float | None] = []
        for pause in (0.0, 2000.0, 700.0):
            await asyncio.sleep(pause)
            with pytest.raises(ThrottledError) as caught:
                await ask(client, asking())
            told.append(caught.value.retry_after)
        return [start.at for start in server.started], told

    # The third one waits for the 300 seconds that are left, and hears it anew.
    assert run(scene()) == ([0.0, 3000.0], [3000.0, 1000.0, 3000.0])


def test_who_has_tried_for_long_tries_no_more() -> None:
    async def scene() -> tuple[int, float]:
        server = VirtualServer(lambda _: Says(after=2000.0))
        with pytest.raises(ConnectionFailedError, match="did not end within 1800 s"):
            await ask(server.connect(), asking())
        return len(server.started), asyncio.get_running_loop().time()

    assert run(scene()) == (1, 1800.0)


def test_who_waits_behind_others_hears_well_before_two_hours_are_over() -> None:
    async def scene() -> tuple[set[type[object]], float]:
        server = VirtualServer(lambda _: Says(after=1700.0))
        client = server.connect()
        await ask(client, asking("first contact"))
        began = asyncio.get_running_loop().time()
        calls = [asyncio.create_task(ask(client, asking())) for _ in range(30)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        took = asyncio.get_running_loop().time() - began
        # And nobody's place is lost.
        await ask(client, asking())
        return {type(result) for result in results if isinstance(result, Exception)}, took

    assert run(scene()) == ({ThrottledError}, 5400.0)


def test_requests_and_who_has_to_wait_are_shown() -> None:
    async def scene() -> Traffic:
        answers: Iterator[Says | Fails] = iter([Busy(20.0).says(0.05), Fails(after=0.5), Says(after=3.0)])
        traffic = Traffic()
        client = VirtualServer(lambda _: next(answers)).connect(traffic=traffic)
        call = replace(asking("A@x"), operation="GetItem")
        asked = asyncio.create_task(ask(client, call))
        await asyncio.sleep(1.05)
        assert traffic.wait_for("a@X", asyncio.get_running_loop().time()) == pytest.approx(19.0)
        assert traffic.wait_for("b@x", asyncio.get_running_loop().time()) == 0.0
        await asked
        return traffic

    traffic = run(scene())
    assert traffic.requests == {
        ("GetItem", Outcome.THROTTLED): 1,
        ("GetItem", Outcome.FAILED): 1,
        ("GetItem", Outcome.OK): 1,
    }
    assert traffic.durations["GetItem"].total == pytest.approx(3.55)
    assert traffic.throttled_seconds == pytest.approx(20.0)
