from __future__ import annotations

import asyncio

import pytest

from ews_sync.errors import AuthenticationError, ConnectionFailedError, Scope
from ews_sync.sources.ews.contact import FirstContact


async def test_one_at_a_time_until_the_credentials_are_taken_and_then_all_at_once() -> None:
    contact, inside, most = FirstContact(), 0, []

    async def ask() -> None:
        nonlocal inside
        async with contact.passage("asking"):
            inside += 1
            most.append(inside)
            await asyncio.sleep(0)
            contact.taken()
            inside -= 1

    await asyncio.gather(*(ask() for _ in range(5)))
    assert most == [1] * 5
    most.clear()
    await asyncio.gather(*(ask() for _ in range(5)))
    assert max(most) == 5


async def test_a_refusal_holds_for_everybody_and_is_met_once() -> None:
    contact, tries = FirstContact(), 0

    async def ask() -> None:
        nonlocal tries
        async with contact.passage("asking"):
            tries += 1
            await asyncio.sleep(0)
            error = AuthenticationError("no", code="HTTP 401", request_id="r1")
            contact.refused(error)
            raise error

    results = await asyncio.gather(*(ask() for _ in range(20)), return_exceptions=True)
    assert tries == 1
    assert {(type(result), getattr(result, "request_id", "")) for result in results} == {(AuthenticationError, "r1")}


async def test_a_refusal_after_the_credentials_were_taken_holds_too() -> None:
    contact = FirstContact()
    contact.taken()
    contact.refused(AuthenticationError("no"))
    with pytest.raises(AuthenticationError):
        async with contact.passage("asking"):
            raise AssertionError


async def test_the_refusal_of_one_mailbox_is_not_kept() -> None:
    contact = FirstContact()
    contact.refused(AuthenticationError("no", scope=Scope.MAILBOX))
    async with contact.passage("asking"):
        contact.taken()


async def test_those_who_wait_for_one_that_finds_no_server_need_not_find_out_again() -> None:
    contact, tries = FirstContact(), 0

    async def ask(caller: int) -> None:
        nonlocal tries
        doing = f"listing {caller}"
        async with contact.passage(doing):
            tries += 1
            await asyncio.sleep(0)
            raise ConnectionFailedError(f"{doing}: nobody there")

    results = await asyncio.gather(*(ask(caller) for caller in range(20)), return_exceptions=True)
    assert tries == 1
    assert {type(result) for result in results} == {ConnectionFailedError}
    assert [str(result) for result in results] == [f"listing {caller}: nobody there" for caller in range(20)]
    with pytest.raises(ConnectionFailedError):
        await ask(20)
    assert tries == 2


async def test_what_holds_for_everybody_is_not_said_in_the_name_of_one() -> None:
    contact, tries = FirstContact(), 0

    async def ask() -> None:
        nonlocal tries
        async with contact.passage("asking"):
            tries += 1
            await asyncio.sleep(0)
            raise ConnectionFailedError("away", scope=Scope.PROCESS)

    results = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
    assert tries == 5
    assert {getattr(result, "scope", None) for result in results} == {Scope.PROCESS}


async def test_cancellation_lets_the_next_one_go_ahead() -> None:
    contact = FirstContact()
    entered = asyncio.Event()

    async def hang() -> None:
        async with contact.passage("asking"):
            entered.set()
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await entered.wait()
    waiting = asyncio.create_task(hang())
    await asyncio.sleep(0)
    entered.clear()
    hanging.cancel()
    await entered.wait()
    waiting.cancel()
    assert all(
        isinstance(one, asyncio.CancelledError)
        for one in await asyncio.gather(hanging, waiting, return_exceptions=True)
    )
