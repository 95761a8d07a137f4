"""Uploads against the stand-in platform: the contract of all sinks, and what is the platform's own."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import Asks, Scope, SinkError, StorageError
from ews_sync.model import Bucket, Folder, ItemRef, Mailbox, MimeBytes, Recall, Receipt
from ews_sync.simulator.faults import ConnectionReset, HttpError, html_page
from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.calls import Permission
from ews_sync.simulator.platform.faults import (
    AnswerLost,
    ContradictingStatus,
    RefusedEmail,
    RequestTooLarge,
    api_error,
    quota_exceeded,
)
from ews_sync.sinks.platform.health import REFUSALS_IN_A_ROW
from tests.sinks.builders import MAILBOX, RECEIVED, a_letter, an_email
from tests.sinks.contract import SinkContract, Stored
from tests.sinks.platform.surroundings import TOKEN, Platform, put_until_stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from ews_sync.model import Email
    from ews_sync.sinks.platform.sink import PlatformSink
    from tests.sinks.contract import Harness


class PlatformHarness:
    replaces = True
    recall = Recall.ONE_BY_ONE
    locks = False
    tells_apart = False
    names: Sequence[str] = (
        "../../etc/passwd",
        "a/b",
        "a\nb",
        "x" * 700,
        "\u2028\U0001f600",
        "~",
        "%2E",
        "a%2Fb",
        "a b",
        "ä?#&;",
    )

    def __init__(self, platform: Platform, directory: Path) -> None:
        self.platform = platform
        self.directory = directory
        platform.store.create_bucket("project", "bucket2")

    def bucket(self, name: str) -> Bucket:  # noqa: ARG002 - the platform has its own idea of names
        return MAILBOX.bucket

    def sink(self) -> PlatformSink:
        return self.platform.sink(letters=self.directory)

    def stored(self, mailbox: Mailbox) -> Sequence[Stored]:
        emails = self.platform.store.emails(mailbox.bucket.owner, mailbox.bucket.name, mailbox.address)
        return [
            Stored(email["id"], tuple(email["metadata"]["folder"]), email["mime_content"].encode()) for email in emails
        ]

    def letters(self, mailbox: Mailbox) -> Sequence[tuple[str, str]]:
        path = self.directory / mailbox.bucket.owner / mailbox.bucket.name / mailbox.address / "dead-letters.jsonl"
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return [(line["id"], line["code"]) for line in lines]


class TestPlatformSink(SinkContract):
    @pytest.fixture
    async def harness(self, platform: Platform, tmp_path: Path) -> Harness:
        return PlatformHarness(platform, tmp_path)


def emails(count: int, size: int = 100) -> list[Email]:
    return [an_email(f"<{number}@x>", data=b"Subject: a\r\n\r\n" + b"x" * size) for number in range(count)]


# --- Batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_request_and_is_cut_by_bytes(platform: Platform) -> None:
    async with platform.opened(most_bytes=10_000) as sink:
        await sink.put(emails(5))
        assert len(platform.puts()) == 1
        platform.server.log.clear()
        await sink.put([an_email(f"<big-{number}@x>", data=b"y" * 4000) for number in range(5)])
    assert [len(ids) for _, ids in platform.puts()] == [2, 2, 1]
    assert all(record.size <= 10_000 for record in platform.server.log.of("put_emails"))
    assert len(platform.ids()) == 10


async def test_a_large_message_is_streamed_byte_for_byte(platform: Platform) -> None:
    data = b"Subject: large\r\n\r\n" + "äöü \U0001f600 \u2028 \x7f\r\n".encode() * 200_000
    async with platform.opened() as sink:
        await sink.put([an_email("<small@x>"), an_email("<large@x>", data=data)])
    stored = platform.store.email("project", "bucket", MAILBOX.address, "<large@x>")
    assert stored is not None
    assert stored["mime_content"].encode() == data


async def test_what_is_not_changed_is_not_uploaded_again(platform: Platform) -> None:
    async with platform.opened() as sink:
        await sink.put(emails(3))
        await sink.put(emails(3))
        moved = an_email("<1@x>", data=emails(2)[1].mime.read(0, 1000), folder=("Archive",))
        await sink.put([emails(3)[0], moved])
    assert platform.uploads() == {"<0@x>": 1, "<1@x>": 2, "<2@x>": 1}
    stored = platform.store.email("project", "bucket", MAILBOX.address, "<1@x>")
    assert stored is not None
    assert stored["metadata"]["folder"] == ["Archive"]


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_email_is_found_recorded_and_passed_by(platform: Platform, tmp_path: Path, status: int) -> None:
    platform.server.faults.add(RefusedEmail(frozenset({"<7@x>", "<30@x>"}), status=status, message="it is cursed"))
    batch = emails(40)
    async with platform.opened(letters=tmp_path) as sink:
        receipt = await sink.put(batch)
    assert receipt.left == ()
    assert [letter.email_id for letter in receipt.refused] == ["<7@x>", "<30@x>"]
    letter = receipt.refused[0]
    assert (letter.mailbox, letter.folder, letter.code, letter.received) == (
        MAILBOX,
        ("Inbox",),
        f"HTTP {status}",
        RECEIVED,
    )
    assert "it is cursed" in letter.reason
    assert set(platform.ids()) == {email.id for email in batch} - {"<7@x>", "<30@x>"}
    assert set(platform.uploads().values()) == {1}
    lines = (tmp_path / "project" / "bucket" / MAILBOX.address / "dead-letters.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["message_id"] for line in lines] == ["<7@x>", "<30@x>"]


async def test_smaller_uploads_are_learned_from_413(platform: Platform) -> None:
    platform.server.faults.add(RequestTooLarge(400_000))
    async with platform.opened() as sink:
        for number in range(5):
            batch = [an_email(f"<{number}-{index}@x>", data=b"x" * 24_000) for index in range(80)]
            receipt = await sink.put(batch)
            assert receipt.refused == ()
    assert len(platform.ids()) == 400
    refused = [len(ids) for status, ids in platform.puts() if status == 413]
    assert len(refused) <= 4, "it is learned once, and not with every batch"


async def test_an_email_that_is_too_large_by_itself_is_passed_by(platform: Platform) -> None:
    platform.server.faults.add(RequestTooLarge(100_000, as_page=True))
    async with platform.opened() as sink:
        receipt = await sink.put([*emails(5), an_email("<huge@x>", data=b"x" * 200_000), an_email("<after@x>")])
    assert [letter.email_id for letter in receipt.refused] == ["<huge@x>"]
    assert "too large" in receipt.refused[0].reason
    assert len(platform.ids()) == 6


async def test_when_all_are_refused_the_mailbox_fails_and_none_is_passed_by(platform: Platform) -> None:
    platform.server.faults.add(RefusedEmail(where=lambda _: True, message="unknown field: mime_content"))
    async with platform.opened() as sink:
        for _ in range(2):
            with pytest.raises(SinkError, match="unknown field: mime_content") as caught:
                await sink.put(emails(40))
            assert caught.value.asks is Asks.STOP
        platform.server.faults.clear()
        assert (await sink.put(emails(40))).refused == ()


async def test_many_refused_in_a_row_are_passed_by_when_others_are_accepted(platform: Platform) -> None:
    bad = {f"<{number}@x>" for number in range(12)}
    platform.server.faults.add(RefusedEmail(frozenset(bad)))
    async with platform.opened() as sink:
        receipt = await sink.put(emails(30))
    assert receipt.failure is None
    assert {letter.email_id for letter in receipt.refused} == bad
    assert len(platform.ids()) == 18


async def test_single_refused_emails_are_passed_by(platform: Platform) -> None:
    platform.server.faults.add(RefusedEmail(where=lambda _: True))
    async with platform.opened() as sink:
        for number in range(REFUSALS_IN_A_ROW):
            assert len((await sink.put([an_email(f"<{number}@x>")])).refused) == 1
        with pytest.raises(SinkError, match="refuses every email"):
            await sink.put([an_email("<one too many@x>")])


async def test_a_dead_letter_that_cannot_be_recorded_holds_back_that_email_alone(
    platform: Platform, tmp_path: Path
) -> None:
    platform.server.faults.add(RefusedEmail(frozenset({"<7@x>"})))
    directory = tmp_path / "project" / "bucket" / MAILBOX.address
    directory.mkdir(parents=True)
    (directory / "dead-letters.jsonl").mkdir()
    async with platform.opened(letters=tmp_path) as sink:
        receipt = await sink.put(emails(20))
        assert [email.id for email in receipt.left] == ["<7@x>"]
        assert isinstance(receipt.failure, StorageError)
        assert str(tmp_path) in str(receipt.failure)
        tried = len(platform.puts())
        for _ in range(3):
            with pytest.raises(StorageError):
                await sink.put(receipt.left)
        assert len(platform.puts()) == tried, "it was refused once: only the record is tried again"
        (directory / "dead-letters.jsonl").rmdir()
        done = await sink.put(receipt.left)
        assert [letter.email_id for letter in done.refused] == ["<7@x>"]


# --- Failures --------------------------------------------------------------------------------------------------------


async def test_in_a_split_batch_what_is_stored_is_not_uploaded_again(platform: Platform) -> None:
    batch = [an_email(f"<{number}@x>", data=b"x" * 5000) for number in range(8)]
    platform.server.faults.add(api_error(500), operation="put_emails", nth=3)
    async with platform.opened(most_bytes=11_000) as sink:
        receipt = await sink.put(batch)
        assert [email.id for email in receipt.left] == [f"<{number}@x>" for number in range(4, 8)]
        assert receipt.failure is not None
        assert (await sink.put(receipt.left)).failure is None
    assert platform.uploads() == {email.id: 1 for email in batch}


async def test_nothing_of_a_batch_that_fails_at_once_counts(platform: Platform) -> None:
    platform.server.faults.add(api_error(503, retry_after="30"), operation="put_emails", times=1)
    async with platform.opened() as sink:
        with pytest.raises(SinkError) as caught:
            await sink.put(emails(3))
        assert (caught.value.retry_after, caught.value.scope) == (30.0, Scope.PROCESS)
        with pytest.raises(SinkError, match="HTTP 503") as caught:
            await sink.put(emails(3))
        assert caught.value.retry_after == 30.0
        assert len(platform.puts()) == 1, "what is said to one upload is waited by all"
        platform.clock.seconds += 30
        await sink.put(emails(3))
    assert len(platform.ids()) == 3


@pytest.mark.parametrize(
    "effect",
    [
        api_error(500),
        api_error(429),
        api_error(408),
        api_error(409),
        HttpError(502, body="<html>bad gateway</html>", content_type="text/html"),
        html_page(200),
        ConnectionReset(),
        AnswerLost(),
        ContradictingStatus(),
        ContradictingStatus(http_status=500, status="ok"),
    ],
    ids=repr,
)
async def test_what_passes_is_tried_again_until_it_is_stored(platform: Platform, effect: HttpError) -> None:
    platform.server.faults.add(effect, operation="put_emails", times=2)
    async with platform.opened() as sink:
        receipts = await put_until_stored(platform, sink, emails(3))
    assert not any(receipt.refused for receipt in receipts)
    assert len(platform.ids()) == 3


async def test_everything_is_stored_once_the_faults_stop(platform: Platform) -> None:
    faults = platform.server.faults
    faults.add(api_error(500), operation="put_emails", probability=0.05)
    faults.add(api_error(429, retry_after="2"), operation="put_emails", probability=0.03)
    faults.add(ConnectionReset(), operation="put_emails", probability=0.03)
    faults.add(RequestTooLarge(400_000))
    batches = [[an_email(f"<{number}-{index}@x>", data=b"x" * 20_000) for index in range(40)] for number in range(25)]
    async with platform.opened() as sink:
        for batch in batches:
            await put_until_stored(platform, sink, batch)
    assert len(platform.ids()) == 1000
    assert Counter(platform.uploads().values()) == {1: 1000}


@pytest.mark.parametrize("others", [True, False])
async def test_a_poisonous_email_does_not_hold_up_its_batch(platform: Platform, others: bool) -> None:  # noqa: FBT001
    """The platform fails whenever it is given one of the emails: the others come through, and it is named."""
    platform.server.faults.add(RefusedEmail(frozenset({"<3@x>"}), status=500, message="internal error"))
    async with platform.opened() as sink:
        left: Sequence[Email] = emails(30)
        problems: list[SinkError] = []
        for attempt in range(40):
            receipt, problem = await put_once(sink, left)
            left = receipt.left
            if problem is None:
                break
            problems.append(problem)
            if attempt == 3:
                assert [email.id for email in left] == ["<3@x>"], "the others are stored with the first doubt"
            if others:
                await sink.put([an_email(f"<other-{attempt}@x>")])
            platform.clock.seconds += 300
        assert any("<3@x>" in str(error) and error.scope is Scope.MAILBOX for error in problems)
        if others:
            assert [letter.email_id for letter in receipt.refused] == ["<3@x>"]
            assert receipt.refused[0].code == "HTTP 500"
            assert len(problems) > 12, "it had its time"
        else:
            assert [email.id for email in left] == ["<3@x>"], "nothing says that it is the email's fault"
    assert {email.id for email in emails(30)} - set(platform.ids()) == {"<3@x>"}
    assert max(platform.uploads().values()) == 1


async def put_once(sink: PlatformSink, batch: Sequence[Email]) -> tuple[Receipt, SinkError | None]:
    try:
        receipt = await sink.put(batch)
    except SinkError as error:
        return Receipt(left=tuple(batch), failure=error), error
    return receipt, receipt.failure


async def test_an_outage_is_not_made_worse(platform: Platform) -> None:
    """Whole batches wait, and go as whole batches when it is over."""
    await platform.server.stop()
    async with a_sink_that_was_open(platform) as sink:
        for _ in range(10):
            with pytest.raises(SinkError, match="cannot connect"):
                await sink.put(emails(80))
        await platform.server.start()
        platform.server.log.clear()
        await sink.put(emails(80))
        assert len(platform.puts()) == 1
        platform.server.faults.add(api_error(500), operation="put_emails")
        platform.server.log.clear()
        for _ in range(10):
            with pytest.raises(SinkError, match="HTTP 500"):
                await sink.put([an_email(f"<{number}@y>") for number in range(80)])
    assert len(platform.puts()) <= 20, "one upload and one question each time"


@asynccontextmanager
async def a_sink_that_was_open(platform: Platform) -> AsyncIterator[PlatformSink]:
    sink = platform.sink()
    await platform.server.start()
    await sink.open(MAILBOX, None)
    await platform.server.stop()
    try:
        yield sink
    finally:
        await sink.aclose()


async def test_a_quota_is_waited_for_and_nothing_is_passed_by(platform: Platform) -> None:
    platform.server.faults.add(quota_exceeded(), operation="put_emails", times=1)
    async with platform.opened() as sink:
        with pytest.raises(SinkError, match="quota") as caught:
            await sink.put(emails(3))
        assert caught.value.asks is Asks.RETRY
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 600
        await sink.put(emails(3))
    assert len(platform.ids()) == 3


# --- What asks for an operator ---------------------------------------------------------------------------------------


async def test_a_wrong_token_is_everybodys(platform: Platform) -> None:
    sink = platform.sink(token="wrong-token")
    with pytest.raises(SinkError, match="refuses the API token") as caught:
        await sink.open(MAILBOX, None)
    assert (caught.value.asks, caught.value.scope) == (Asks.STOP, Scope.PROCESS)
    assert "wrong-token" not in str(caught.value)
    await sink.aclose()


async def test_a_bucket_that_is_not_there_is_named_and_looked_for_again(platform: Platform) -> None:
    mailbox = Mailbox("x@example.com", Bucket("project", "new"))
    sink = platform.sink()
    with pytest.raises(SinkError, match="bucket project/new is not there") as caught:
        await sink.open(mailbox, None)
    assert (caught.value.asks, caught.value.scope) == (Asks.STOP, Scope.MAILBOX)
    platform.store.create_bucket("project", "new")
    await sink.open(mailbox, None)
    await sink.put([an_email(mailbox=mailbox)])
    platform.store.delete_bucket("project", "new")
    with pytest.raises(SinkError, match="bucket project/new is not there"):
        await sink.put([an_email("<2@x>", mailbox=mailbox)])
    platform.store.create_bucket("project", "new")
    with pytest.raises(SinkError, match="made anew") as caught:
        await sink.put([an_email("<2@x>", mailbox=mailbox)])
    assert caught.value.asks is Asks.RESYNC
    await sink.open(mailbox, None)
    await sink.put([an_email(mailbox=mailbox)])
    assert platform.ids(mailbox) == ["<1@example.com>"], "another bucket of that name is empty"
    await sink.aclose()


async def test_a_token_that_may_only_read(platform: Platform) -> None:
    platform.server.tokens = [Token(TOKEN, permissions=frozenset(Permission) - {Permission.BUCKETS_APPEND})]
    async with platform.opened() as sink:
        with pytest.raises(SinkError, match="lacks the permission") as caught:
            await sink.put(emails(1))
        assert caught.value.asks is Asks.STOP
        assert "upload" in caught.value.hint
        with pytest.raises(SinkError, match="lacks the permission"):
            await sink.check(MAILBOX)


async def test_a_server_that_is_not_there(platform: Platform) -> None:
    await platform.server.stop()
    sink = platform.sink()
    with pytest.raises(SinkError, match=r"cannot connect to 127\.0\.0\.1") as caught:
        await sink.open(MAILBOX, None)
    assert (caught.value.asks, caught.value.scope) == (Asks.RETRY, Scope.PROCESS)
    await platform.server.start()
    await sink.open(MAILBOX, None)
    await sink.aclose()


# --- Asking, and dead letters ----------------------------------------------------------------------------------------


async def test_large_emails_are_not_fetched_to_see_whether_they_are_there(platform: Platform) -> None:
    async with platform.opened() as sink:
        await sink.put([an_email("<a@x>")])
        platform.server.log.clear()
        refs = [ItemRef("i1", size=50_000_000, email_id="<a@x>"), ItemRef("i2", size=500)]
        assert list(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), refs)) == [False, False]
        assert not platform.server.log.of("get_emails")


@pytest.mark.parametrize("status", [400, 403, 404, 405])
async def test_a_platform_that_does_not_answer_questions_gets_the_upload(platform: Platform, status: int) -> None:
    platform.server.faults.add(api_error(status), operation="get_emails")
    async with platform.opened() as sink:
        await sink.put([an_email("<a@x>")])
        refs = [ItemRef("i1", size=1000, email_id="<a@x>")]
        assert list(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), refs)) == [False]


async def test_a_question_that_fails_is_asked_again(platform: Platform) -> None:
    platform.server.faults.add(api_error(503), operation="get_emails", times=1)
    async with platform.opened() as sink:
        refs = [ItemRef("i1", size=1000, email_id="<a@x>")]
        with pytest.raises(SinkError):
            await sink.holds(MAILBOX, Folder("f", ("Inbox",)), refs)
        assert list(await sink.holds(MAILBOX, Folder("f", ("Inbox",)), refs)) == [False]


async def test_without_a_directory_dead_letters_are_the_engines_to_tell(platform: Platform) -> None:
    async with platform.opened() as sink:
        await sink.dead_letter([a_letter()])


async def test_a_directory_for_dead_letters_that_cannot_be_written_is_found_by_check(
    platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with platform.opened(letters=tmp_path / "file") as sink:
        with pytest.raises(SinkError, match="dead letters failed"):
            await sink.check(MAILBOX)


async def test_closing_gives_unsent_messages_back(platform: Platform) -> None:
    """The engine closes messages after a failure: an upload that is cut off must not need them any more."""
    platform.server.faults.add(api_error(500), operation="put_emails", times=1)
    async with platform.opened() as sink:
        email = an_email("<a@x>", data=b"x" * 3_000_000)
        with pytest.raises(SinkError):
            await sink.put([email])
        assert isinstance(email.mime, MimeBytes)
        email.mime.close()
