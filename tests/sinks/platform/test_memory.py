"""What batches on their way to the platform take of memory, and that none of it stays when they fail."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.errors import SinkError
from ews_sync.simulator.faults import Latency
from ews_sync.simulator.platform.faults import api_error
from ews_sync.sinks.platform.upload_run import detached
from ews_sync.sinks.platform.uploads import Encoded, body_of, encode, is_quick, room_for
from ews_sync.sources.ews.spool import MimeFile
from tests.sinks.builders import an_email

if TYPE_CHECKING:
    from pathlib import Path

    from ews_sync.model import Email
    from tests.sinks.platform.surroundings import Platform


def emails(count: int, size: int) -> list[Email]:
    return [an_email(f"<{number}@x>", data=b"Subject: a\r\n\r\n" + b"x" * size) for number in range(count)]


def encoded() -> list[Encoded]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Encoded)]


async def sent(group: list[Encoded]) -> bytes:
    return b"".join([piece async for piece in body_of(group).pieces])


@pytest.mark.parametrize("room", [0, 5000, 100_000, 10**9])
async def test_json_is_kept_as_far_as_there_is_room_and_sent_all_the_same(room: int) -> None:
    batch = emails(20, 10_000)
    made = encode(batch, room)
    assert sum(len(one.kept or b"") for one in made) <= room
    assert any(one.kept is not None for one in made) == (room > 20_000)
    assert await sent(made) == await sent(encode(batch, 10**9))
    assert all(one.kept is not None for one in encode(batch, room_for(batch)))


async def test_batches_at_once_share_the_room(platform: Platform) -> None:
    async with platform.opened() as sink:
        sink._room = 60_000
        batches = [
            [an_email(f"<{batch}-{number}@x>", data=b"x" * 10_000) for number in range(10)] for batch in range(4)
        ]
        await asyncio.gather(*(sink.put(batch) for batch in batches))
        assert sink._room == 60_000
    assert len(platform.ids()) == 40


async def test_room_that_is_not_needed_is_for_others_while_a_batch_is_on_its_way(platform: Platform) -> None:
    seen: list[int] = []

    async def look(_: float) -> None:
        seen.append(sink._room)

    platform.server.sleep = look
    platform.server.faults.add(Latency(1.0), operation="put_emails")
    batch = emails(10, 10_000)
    taken = sum(one.size for one in encode(batch, 10**9))
    async with platform.opened() as sink:
        sink._room = 1_000_000
        await sink.put(batch)
        assert seen == [1_000_000 - taken]
        assert sink._room == 1_000_000
    assert taken < room_for(batch)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_an_emails_digest_is_of_what_is_sent_and_not_of_where_it_is_kept(messages: list[bytes]) -> None:
    batch = [an_email("<1@x>", data=data) for data in messages]
    kept, made_again = encode(batch, 10**9), encode(batch, 0)
    assert [(one.size, one.digest) for one in kept] == [(one.size, one.digest) for one in made_again]
    assert len({one.digest for one in kept}) == len({one.kept for one in kept})


def test_only_what_is_in_memory_and_unicode_is_encoded_without_a_thread(tmp_path: Path) -> None:
    assert is_quick([an_email(data=b"plain"), an_email(data="grün".encode())])
    assert not is_quick([an_email(data=b"plain"), an_email(data=b"gr\xfcn")])
    (tmp_path / "message").write_bytes(b"plain")
    with (tmp_path / "message").open("rb") as file:
        assert not is_quick([replace(an_email(), mime=MimeFile(file, 5))])


@pytest.mark.parametrize("status", [500, 503, 422])
async def test_a_batch_that_fails_leaves_nothing_behind_but_why(platform: Platform, status: int) -> None:
    platform.server.faults.add(api_error(status), operation="put_emails")
    batch = emails(3, 10_000)
    async with platform.opened() as sink:
        gc.collect()
        gc.disable()
        try:
            error: SinkError | None = None
            try:
                await sink.put(batch)
            except SinkError as caught:
                # The engine keeps it while it waits, which can be for minutes.
                error = caught
            # The thread that encoded may be a little behind: it lets go before it does anything else.
            for _ in range(100):
                if not encoded():
                    break
                await asyncio.to_thread(int)
            assert not encoded(), error
            known = None if error is None else weakref.ref(error)
            error = None
            # What a busy platform said is remembered, as the reason to leave it alone.
            assert known is None or known() is None or status == 503, "the error knows itself"
        finally:
            gc.enable()


def test_an_error_that_is_kept_knows_no_frames_nor_do_its_causes() -> None:
    def fail() -> None:
        try:
            b"\xff".decode()
        except ValueError as cause:
            raise SinkError("the error") from cause

    with pytest.raises(SinkError) as caught:
        fail()
    error, cause = caught.value, caught.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is not None
    assert detached(error) is error
    assert error.__traceback__ is None
    assert cause.__traceback__ is None
