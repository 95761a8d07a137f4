from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.errors import (
    Asks,
    AuthenticationError,
    ConnectionFailedError,
    EwsSyncError,
    ProtocolError,
    Scope,
    SourceError,
    ThrottledError,
)
from ews_sync.model import ItemRef
from ews_sync.sources.ews.circuit import ServerAwayError
from ews_sync.sources.ews.codes import error_for
from ews_sync.sources.ews.hydration import Hydrator
from ews_sync.sources.ews.spool import SpoolError
from ews_sync.sources.ews.suspicion import IN_A_ROW
from tests.sources.support import FOLDER, MAILBOX, FakeClock, got, item_xml, message, read, response
from tests.sources.test_codes import NOTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ews_sync.model import DeadLetter, Fetched, Folder, Mailbox, Mime
    from ews_sync.sources.ews.operations import ResponseMessage

    Said = str | Exception


@dataclass(eq=False)
class KeptMime:
    """A message that knows whether it was given back."""

    data: bytes
    closed: bool = False

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        assert not self.closed
        yield self.data

    def read(self, start: int, size: int) -> bytes:
        assert not self.closed
        return self.data[start : start + size]

    def close(self) -> None:
        self.closed = True


@dataclass
class Server:
    """Answers GetItem: `says` maps an item to what it is answered with, in turn; the last one stays.

    A text that begins with "<" is an item, another one an error code; an exception fails the whole request.
    """

    says: dict[str, list[Said]] = field(default_factory=dict)
    requests: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    named: list[bool] = field(default_factory=list)
    """For each request for messages: whether all that it asked for had a name."""
    proofs: int = 0
    proof: EwsSyncError | None = None
    without_mime: Said | None = None
    rearrange: Callable[[list[str]], list[str]] = list
    mimes: list[KeptMime] = field(default_factory=list)
    given: list[Mime] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    hydrator: Hydrator | None = None
    mailboxes: tuple[Mailbox, ...] = (MAILBOX,)

    async def ask(
        self, mailbox: Mailbox, item_ids: Sequence[str], *, with_mime: bool, with_search_key: bool = True
    ) -> tuple[ResponseMessage, ...]:
        assert mailbox in self.mailboxes
        if with_mime:
            self.named.append(not with_search_key)
        await asyncio.sleep(0)
        self.requests.append((tuple(item_ids), with_mime))
        if isinstance(self.without_mime, Exception) and not with_mime:
            raise self.without_mime
        answers = []
        for item_id in item_ids:
            said = self._next(item_id) if with_mime else self.without_mime or item_xml(item_id, mime=None)
            if isinstance(said, Exception):
                raise said
            answers.append(got(said) if said.startswith("<") else message("GetItem", code=said, text=f"text of {said}"))
        return read(response("GetItem", *self.rearrange(answers)), lambda: KeepingWriter(self.mimes)).messages

    async def prove(self, mailbox: Mailbox, folder: Folder) -> None:
        assert (mailbox, folder) == (MAILBOX, FOLDER)
        await asyncio.sleep(0)
        self.proofs += 1
        if self.proof is not None:
            raise self.proof

    async def fetch(self, *item_ids: str) -> list[Fetched]:
        return await self.hydrate([ItemRef(item_id) for item_id in item_ids])

    async def hydrate(self, refs: list[ItemRef]) -> list[Fetched]:
        if self.hydrator is None:
            self.hydrator = Hydrator(self.clock, self.ask, self.prove)
        fetched = await self.hydrator.fetch(MAILBOX, FOLDER, refs)
        assert [outcome.ref.id for outcome in fetched] == [ref.id for ref in refs]
        self.given += [outcome.email.mime for outcome in fetched if outcome.email is not None]
        # Whatever is not handed over has been given back.
        assert [mime for mime in self.mimes if not mime.closed] == [mime for mime in self.mimes if mime in self.given]
        return fetched

    @property
    def tries(self) -> list[tuple[str, ...]]:
        return [item_ids for item_ids, with_mime in self.requests if with_mime]

    def _next(self, item_id: str) -> Said:
        said = self.says.get(item_id, [item_xml(item_id, f"Subject: {item_id}\r\n\r\n".encode())])
        return said.pop(0) if len(said) > 1 else said[0]


class KeepingWriter:
    def __init__(self, made: list[KeptMime]) -> None:
        self._made = made
        self._data = b""

    def write(self, data: bytes) -> None:
        self._data += data

    def finish(self) -> KeptMime:
        self._made.append(KeptMime(self._data))
        return self._made[-1]

    def discard(self) -> None:
        pass


@pytest.fixture
def server() -> Server:
    return Server()


def kinds(fetched: list[Fetched]) -> list[str]:
    return [
        "email"
        if outcome.email
        else outcome.dead_letter.code
        if outcome.dead_letter
        else "draft"
        if outcome.draft
        else "nothing"
        for outcome in fetched
    ]


def letter(fetched: Fetched) -> DeadLetter:
    assert fetched.dead_letter is not None
    return fetched.dead_letter


async def test_one_request_for_a_batch_that_is_well(server: Server) -> None:
    fetched = await server.fetch("a", "b", "c")
    assert kinds(fetched) == ["email"] * 3
    email = fetched[1].email
    assert email is not None
    assert (email.id, email.metadata.folder, email.metadata.size) == ("<b@example.com>", ("Inbox",), 123)
    assert b"".join(email.mime.chunks()) == b"Subject: b\r\n\r\n"
    assert server.requests == [(("a", "b", "c"), True)]
    assert (server.proofs, server.clock.waits) == (0, [])


async def test_nothing_is_asked_for_nothing(server: Server) -> None:
    assert await server.hydrate([]) == []
    assert server.requests == []


@pytest.mark.parametrize("code", ["ErrorItemNotFound", "ErrorMessageNotFound"])
async def test_an_item_that_is_gone_is_no_failure(code: str, server: Server) -> None:
    server.says["b"] = [code]
    assert kinds(await server.fetch("a", "b")) == ["email", "nothing"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [code for code, wanted in NOTES.items() if wanted.item == "recorded"])
async def test_an_item_that_never_heals_is_recorded_with_what_is_known(code: str, server: Server) -> None:
    server.says["b"] = [code]
    server.without_mime = item_xml("b", mime=None, Size="77", DateTimeSent="2026-01-02T00:00:00Z")
    fetched = await server.fetch("a", "b", "c")
    assert kinds(fetched) == ["email", code, "email"]
    dead = letter(fetched[1])
    assert (dead.item_id, dead.email_id, dead.folder, dead.reason) == (
        "b",
        "<b@example.com>",
        ("Inbox",),
        f"text of {code}",
    )
    assert dead.known == {"item_class": "IPM.Note", "size": "77", "sent": "2026-01-02T00:00:00+00:00"}
    assert dead.received is not None
    assert server.requests == [(("a", "b", "c"), True), (("b",), False)]


async def test_what_is_known_may_be_nothing(server: Server) -> None:
    server.says["a"] = ["ErrorItemCorrupt"]
    server.without_mime = ConnectionFailedError("down")
    (fetched,) = await server.hydrate([ItemRef("a", size=5, email_id="<from the listing>")])
    assert letter(fetched).known == {"size": "5"}
    assert letter(fetched).email_id == "<from the listing>"


@pytest.mark.parametrize("code", [code for code, wanted in NOTES.items() if wanted.item == "tried a few times"])
async def test_what_may_heal_is_asked_for_alone_a_few_times_with_waits(code: str, server: Server) -> None:
    server.says["b"] = [code]
    fetched = await server.fetch("a", "b", "c")
    assert kinds(fetched) == ["email", code, "email"]
    assert server.tries == [("a", "b", "c"), ("b",), ("b",)]
    assert server.clock.waits == [1.0, 2.0]
    # The server has shown that it is well otherwise before anything is given up.
    assert server.proofs == 1


async def test_what_heals_is_an_email(server: Server) -> None:
    server.says["a"] = ["ErrorInternalServerTransientError", "ErrorTimeoutExpired", item_xml("a")]
    assert kinds(await server.fetch("a", "b")) == ["email", "email"]


async def test_a_whole_batch_that_cannot_be_had_is_recorded_and_holds_nothing_up(server: Server) -> None:
    names = [f"i{number}" for number in range(12)]
    server.says = {name: ["ErrorInternalServerError"] for name in names}
    assert kinds(await server.fetch(*names)) == ["ErrorInternalServerError"] * 12
    assert server.clock.waits == [1.0, 2.0]


async def test_nothing_is_given_up_while_the_folder_cannot_be_read(server: Server) -> None:
    server.says["b"] = ["ErrorInternalServerError"]
    server.proof = ThrottledError("busy", retry_after=9.0)
    with pytest.raises(ThrottledError):
        await server.fetch("a", "b")
    assert all(mime.closed for mime in server.mimes)


async def test_items_that_were_never_tried_are_asked_for_again_and_never_recorded(server: Server) -> None:
    stopped: list[Said] = ["ErrorBatchProcessingStopped"] * 4
    server.says = {
        "a": ["ErrorInternalServerError"],
        "b": [*stopped, item_xml("b")],
        "c": ["ErrorBatchProcessingStopped", item_xml("c")],
    }
    assert kinds(await server.fetch("a", "b", "c")) == ["ErrorInternalServerError", "email", "email"]


@given(st.data())
async def test_what_was_never_tried_is_never_recorded_whatever_else_is_in_the_batch(data: st.DataObject) -> None:
    others = [code for code in NOTES if code != "ErrorBatchProcessingStopped"]
    names = [f"i{number}" for number in range(data.draw(st.integers(1, 8)))]
    server = Server()
    for name in names:
        stopped: list[Said] = ["ErrorBatchProcessingStopped"] * data.draw(st.integers(0, 8))
        end = data.draw(st.one_of(st.just(item_xml(name)), st.sampled_from(others)))
        server.says[name] = [*stopped, *data.draw(st.lists(st.sampled_from(others), max_size=2)), end]
    try:
        fetched = await server.fetch(*names)
    except SourceError:
        # Nothing was recorded, and all of it will be asked for again.
        return
    assert "ErrorBatchProcessingStopped" not in kinds(fetched)


async def test_one_item_that_ends_every_batch_is_told_apart(server: Server) -> None:
    """A server that answers with less than it was asked for: the word that it stopped, and nothing for the others."""
    stop = message("GetItem", code="ErrorBatchProcessingStopped")
    server.says["b"] = ["ErrorItemCorrupt"]
    server.rearrange = lambda answers: [stop] if len(answers) > 1 else answers
    assert kinds(await server.fetch("a", "b", "c")) == ["email", "ErrorItemCorrupt", "email"]
    assert server.tries == [("a", "b", "c"), ("a",), ("b",), ("c",)]


async def test_progress_renews_the_patience(server: Server) -> None:
    names = [f"i{number}" for number in range(12)]
    for number, name in enumerate(names):
        server.says[name] = [*["ErrorServerBusy"] * 3 * number, item_xml(name)]
    assert kinds(await server.fetch(*names)) == ["email"] * 12


KEPT = [code for code, wanted in NOTES.items() if wanted.item == "never given up"]


@pytest.mark.parametrize("code", KEPT)
@pytest.mark.parametrize("names", [("a",), ("a", "b")])
async def test_temporary_trouble_that_lasts_fails_the_mailbox_and_says_what_it_is(
    code: str, names: tuple[str, ...], server: Server
) -> None:
    server.says = {name: [code] for name in names}
    with pytest.raises(SourceError) as caught:
        await server.fetch(*names)
    assert caught.value.code == code
    assert server.clock.waits == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize("code", KEPT)
async def test_temporary_trouble_of_a_whole_request_is_not_the_items_fault(code: str, server: Server) -> None:
    server.says["a"] = [error_for(code, "", doing="x")]
    with pytest.raises(SourceError) as caught:
        await server.fetch("a", "b")
    assert caught.value.code == code
    assert (len(server.requests), server.proofs) == (1, 0)


# --- Whose fault it is -----------------------------------------------------------------------------------------------

DENIED = [code for code, wanted in NOTES.items() if wanted.item == "the mailbox is asked"]


@pytest.mark.parametrize("code", DENIED)
@pytest.mark.parametrize("names", [("a",), ("a", "b")])
async def test_a_mailbox_that_is_closed_fails_and_none_of_its_items_does(
    code: str, names: tuple[str, ...], server: Server
) -> None:
    server.says = {name: [code] for name in names}
    server.proof = error_for(code, "", doing="x")
    with pytest.raises(SourceError) as caught:
        await server.fetch(*names)
    assert caught.value is server.proof
    assert len(server.requests) == 1


async def test_one_item_that_is_closed_in_a_mailbox_that_is_open_is_recorded(server: Server) -> None:
    server.says["a"] = ["ErrorAccessDenied"]
    assert kinds(await server.fetch("a")) == ["ErrorAccessDenied"]
    assert kinds(await server.fetch("a", "b")) == ["ErrorAccessDenied", "email"]


@pytest.mark.parametrize(
    "error",
    [ConnectionFailedError("reset"), error_for("ErrorTimeoutExpired", "", doing="x"), ProtocolError("broken XML")],
)
async def test_one_item_that_spoils_every_request_is_found_and_recorded(error: SourceError, server: Server) -> None:
    server.says["c"] = [error]
    fetched = await server.fetch("a", "b", "c", "d")
    assert kinds(fetched) == ["email", "email", error.code or type(error).__name__, "email"]
    assert server.tries == [("a", "b", "c", "d"), ("a",), ("b",), ("c",), ("d",), ("c",), ("c",)]
    assert letter(fetched[2]).reason == error.summary
    assert letter(fetched[2]).email_id == "<c@example.com>"


async def test_an_item_whose_properties_spoil_the_request_too_holds_nothing_up(server: Server) -> None:
    server.says["a"] = [ConnectionFailedError("reset")]
    server.without_mime = ConnectionFailedError("reset")
    assert kinds(await server.fetch("a", "b")) == ["ConnectionFailedError", "email"]


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
async def test_a_server_that_is_down_is_not_the_items_fault(names: tuple[str, ...], server: Server) -> None:
    server.says["a"] = [ConnectionFailedError("reset")]
    server.proof = ConnectionFailedError("refused")
    with pytest.raises(ConnectionFailedError, match="refused"):
        await server.fetch(*names)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "code",
    [code for code, wanted in NOTES.items() if wanted.asks is Asks.RETRY and wanted.item == "tried a few times"],
)
async def test_a_code_for_a_whole_batch_that_may_be_one_items_fault_has_it_divided(code: str, server: Server) -> None:
    server.says["b"] = [error_for(code, "", doing="x")]
    fetched = await server.fetch("a", "b", "c")
    assert kinds(fetched) == ["email", code, "email"]
    assert server.tries == [("a", "b", "c"), ("a",), ("b",), ("c",), ("b",), ("b",)]


@pytest.mark.parametrize("error", [ThrottledError("busy"), ServerAwayError("away"), SpoolError("no room")])
async def test_nothing_is_recorded_while_the_server_is_unwell(error: SourceError, server: Server) -> None:
    """What is known of a broken item is had later, with everything else."""
    server.says["a"] = ["ErrorItemCorrupt"]
    server.without_mime = error
    with pytest.raises(type(error)):
        await server.fetch("a", "b")


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("401"),
        ServerAwayError("away"),
        SpoolError("no space left"),
        ThrottledError("503"),
        error_for("ErrorSchemaValidation", "", doing="x"),
    ],
)
async def test_what_dividing_cannot_mend_is_raised_at_once(error: SourceError, server: Server) -> None:
    server.says["a"] = [error]
    with pytest.raises(type(error)):
        await server.fetch("a", "b")
    assert (len(server.requests), server.proofs) == (1, 0)


# --- Odd answers -----------------------------------------------------------------------------------------------------


async def test_what_is_answered_in_another_order_is_matched_by_id(server: Server) -> None:
    server.says["b"] = ["ErrorItemCorrupt"]
    server.rearrange = lambda answers: answers[::-1]
    fetched = await server.fetch("a", "b", "c")
    assert kinds(fetched) == ["email", "ErrorItemCorrupt", "email"]
    assert [outcome.email and outcome.email.id for outcome in fetched] == ["<a@example.com>", None, "<c@example.com>"]


async def test_ids_that_the_server_writes_otherwise_are_matched_by_position(server: Server) -> None:
    server.says = {"a": [item_xml("A")], "b": ["ErrorItemNotFound"], "c": [item_xml("C")]}
    fetched = await server.fetch("a", "b", "c")
    assert [outcome.email and outcome.email.id for outcome in fetched] == ["<A@example.com>", None, "<C@example.com>"]


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_items_that_the_answer_leaves_out_are_asked_for_alone(keep: int, server: Server) -> None:
    server.rearrange = lambda answers: answers if len(answers) == 1 else answers[:keep]
    assert kinds(await server.fetch("a", "b", "c")) == ["email"] * 3


async def test_an_item_that_is_always_left_out_is_recorded(server: Server) -> None:
    server.rearrange = lambda answers: [answer for answer in answers if 'Id="b"' not in answer]
    assert kinds(await server.fetch("a", "b")) == ["email", "LeftOutOfAnswer"]


async def test_one_word_for_the_whole_batch(server: Server) -> None:
    server.says = {"a": ["ErrorServerBusy"]}
    server.rearrange = lambda answers: answers[:1]
    with pytest.raises(ThrottledError):
        await server.fetch("a", "b", "c")


async def test_items_that_nobody_asked_for_are_given_back(server: Server) -> None:
    server.rearrange = lambda answers: [*answers, got(item_xml("x")), *answers]
    assert kinds(await server.fetch("a", "b")) == ["email", "email"]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (item_xml("a", mime=None), "NoMimeContent"),
        (item_xml("a", mime=b""), "NoMimeContent"),
        (item_xml("a").replace("<t:MimeContent>", "<t:MimeContent>*"), "DamagedMimeContent"),
        (item_xml("a", IsDraft="true"), "draft"),
        (item_xml("a", mime=None, IsDraft="true"), "draft"),
        (item_xml("a", ItemClass="IPM.Contact"), "nothing"),
        (item_xml("a", mime=None, ItemClass="IPM.Contact"), "nothing"),
        (item_xml("a", ItemClass="IPM.Appointment").replace("<t:MimeContent>", "<t:MimeContent>*"), "nothing"),
        (item_xml("a", ItemClass="REPORT.IPM.Note.NDR"), "email"),
        (item_xml("a", ItemClass=""), "email"),
    ],
)
async def test_what_becomes_of_an_item(item: str, kind: str, server: Server) -> None:
    server.says["a"] = [item]
    assert kinds(await server.fetch("a", "b")) == [kind, "email"]


@pytest.mark.parametrize("fields", [{"IsDraft": "true"}, {"ItemClass": "IPM.Contact"}])
async def test_what_is_no_mail_makes_no_dead_letter(fields: dict[str, str], server: Server) -> None:
    server.says["a"] = ["ErrorMimeContentConversionFailed"]
    server.without_mime = item_xml("a", mime=None, **fields)
    assert kinds(await server.fetch("a")) == ["draft" if "IsDraft" in fields else "nothing"]


async def test_a_message_that_came_without_being_asked_for_is_given_back(server: Server) -> None:
    server.says["a"] = ["ErrorItemCorrupt"]
    server.without_mime = item_xml("a", b"unasked")
    assert kinds(await server.fetch("a")) == ["ErrorItemCorrupt"]


async def test_an_item_that_is_listed_twice_is_stored_once(server: Server) -> None:
    fetched = await server.fetch("a", "b", "a")
    assert kinds(fetched) == ["email", "email", "nothing"]
    assert server.tries == [("a", "b")]


async def test_a_message_without_any_name_is_named_by_what_it_contains(server: Server) -> None:
    server.says = {name: [item_xml(name, b"same", InternetMessageId="")] for name in ("a", "b")}
    one, two = [outcome.email for outcome in await server.fetch("a", "b")]
    assert one is not None
    assert two is not None
    assert one.id == two.id
    assert one.id.endswith("@no-message-id.ews-sync>")


async def test_what_was_fetched_is_given_back_when_fetching_is_cancelled(server: Server) -> None:
    server.says["b"] = ["ErrorInternalServerError"]
    entered = asyncio.Event()

    class Stopped(FakeClock):
        async def sleep(self, _: float) -> None:
            entered.set()
            await asyncio.Event().wait()

    server.clock = Stopped()
    task = asyncio.create_task(server.fetch("a", "b"))
    await entered.wait()
    assert not all(mime.closed for mime in server.mimes)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert all(mime.closed for mime in server.mimes)


# --- Too many that cannot be had -------------------------------------------------------------------------------------

CORRUPT = "ErrorMimeContentConversionFailed"


def named(count: int, prefix: str = "i") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def in_batches(server: Server, names: list[str]) -> list[str]:
    found = []
    for start in range(0, len(names), 10):
        found += kinds(await server.fetch(*names[start : start + 10]))
    return found


@pytest.mark.parametrize("code", [CORRUPT, "ErrorCorruptData", "ErrorOfTheYear2031", "ErrorInternalServerError"])
async def test_a_server_that_calls_everything_broken_does_not_empty_a_mailbox(code: str, server: Server) -> None:
    names = named(200)
    server.says = {name: [code] for name in names}
    assert await in_batches(server, names[:IN_A_ROW]) == [code] * IN_A_ROW
    with pytest.raises(SourceError) as caught:
        await server.fetch(*names[20:30])
    error = caught.value
    assert (error.asks, error.scope, error.code) == (Asks.RETRY, Scope.FOLDER, code)
    assert error.retry_after == 900.0
    assert "virus scanner" in error.hint
    # It comes again and again, and records nothing until the server is mended.
    for _ in range(10):
        with pytest.raises(SourceError):
            await server.fetch(*names[20:30])
    server.says = {}
    assert await in_batches(server, names[20:]) == ["email"] * 180


async def test_many_broken_items_are_recorded_while_another_one_can_be_had(server: Server) -> None:
    assert await in_batches(server, ["good"]) == ["email"]
    server.says |= {name: [CORRUPT] for name in named(100)}
    server.requests.clear()
    assert await in_batches(server, named(100)) == [CORRUPT] * 100
    # Asked for once more for each twenty of them.
    assert server.tries.count(("good",)) == 4
    assert [mime.closed for mime in server.mimes] == [False] + [True] * 4


@pytest.mark.parametrize("code", [CORRUPT, "ErrorItemNotFound", "ErrorInternalServerError"])
async def test_an_item_that_was_fetched_before_and_is_not_any_more_proves_nothing(code: str, server: Server) -> None:
    await in_batches(server, ["good"])
    server.says |= {name: [CORRUPT] for name in named(30)}
    server.says["good"] = [code]
    with pytest.raises(SourceError, match="more than 20 emails in a row"):
        await in_batches(server, named(30))


async def test_the_proof_can_fail_as_any_request_can(server: Server) -> None:
    await in_batches(server, ["good"])
    server.says |= {name: [CORRUPT] for name in named(30)}
    server.says["good"] = [ThrottledError("busy")]
    with pytest.raises(ThrottledError):
        await in_batches(server, named(30))


async def test_broken_items_between_good_ones_are_nothing_special(server: Server) -> None:
    names = named(200)
    server.says = {name: [CORRUPT] for number, name in enumerate(names) if number % 20}
    assert (await in_batches(server, names)).count(CORRUPT) == 190


async def test_items_that_fail_for_different_reasons_are_nothing_special(server: Server) -> None:
    codes = [CORRUPT, "ErrorItemCorrupt", "ErrorCorruptData", "ErrorVirusDetected"]
    names = named(4 * IN_A_ROW)
    server.says = {name: [codes[number % 4]] for number, name in enumerate(names)}
    assert sorted(set(await in_batches(server, names))) == sorted(codes)
    server.says["one more"] = [CORRUPT]
    with pytest.raises(SourceError, match=CORRUPT):
        await server.fetch("one more")


async def test_items_that_come_again_count_once(server: Server) -> None:
    """Whatever makes a round begin anew, it is the same mail."""
    server.says = {name: [CORRUPT] for name in named(IN_A_ROW + 1)}
    for _ in range(5):
        assert await in_batches(server, named(IN_A_ROW)) == [CORRUPT] * IN_A_ROW
    with pytest.raises(SourceError):
        await server.fetch(named(IN_A_ROW + 1)[-1])


async def test_a_mailbox_of_nothing_but_broken_items_is_not_held_for_ever(server: Server) -> None:
    names = named(100)
    server.says = {name: [CORRUPT] for name in names}
    await in_batches(server, names[:20])
    with pytest.raises(SourceError):
        await server.fetch(*names[20:30])
    server.clock.time += 3 * 24 * 3600 - 1
    with pytest.raises(SourceError):
        await server.fetch(*names[20:30])
    server.clock.time += 1
    assert await in_batches(server, names[20:]) == [CORRUPT] * 80
    # One good item, and it is on its guard again.
    await server.fetch("good")
    server.says |= {name: [CORRUPT] for name in [*named(100, "more"), "good"]}
    with pytest.raises(SourceError):
        await in_batches(server, named(100, "more"))


async def test_one_mailboxs_broken_items_are_not_held_against_another(server: Server) -> None:
    other = replace(MAILBOX, address="other@example.com")
    server.says = {name: [CORRUPT] for name in named(40)}
    await in_batches(server, named(20))
    assert server.hydrator is not None
    server.mailboxes = (MAILBOX, other)
    fetched = await server.hydrator.fetch(other, FOLDER, [ItemRef(name) for name in named(20)])
    assert kinds(fetched) == [CORRUPT] * 20


async def test_fetches_at_the_same_time_know_of_each_other(server: Server) -> None:
    server.says = {name: [CORRUPT] for name in named(80)}
    results = await asyncio.gather(
        *(server.fetch(*named(80)[start : start + 10]) for start in range(0, 80, 10)), return_exceptions=True
    )
    assert sum(isinstance(result, list) for result in results) == 2
