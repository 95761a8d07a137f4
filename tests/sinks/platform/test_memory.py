"""What batches on their way to the platform take of memory, and that none of it stays when they fail."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from ews_sync.errors import SinkError
from ews_sync.simulator.platform.faults import api_error
from ews_sync.sinks.platform.upload_run import detached
from ews_sync.sinks.platform.uploads import Encoded, body_of, encode, room_for
from tests.sinks.builders import an_email

if TYPE_CHECKING:
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
