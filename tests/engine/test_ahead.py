from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from ews_sync.engine.ahead import Ahead, Places


@dataclass
class Server:
    """Answers when it is let, and remembers what it was asked."""

    asked: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    async def ask(self, what: str) -> str:
        self.asked.append(what)
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled.append(what)
            raise
        if self.failure is not None:
            raise self.failure
        return what.upper()


async def test_what_was_begun_is_asked_once() -> None:
    server, ahead = Server(), Ahead[str](Places(3))
    ahead.begin("a", lambda: server.ask("a"))
    ahead.begin("a", lambda: server.ask("a"))
    await asyncio.sleep(0)
    assert server.asked == ["a"]
    server.answer.set()
    assert await ahead.take("a", lambda: server.ask("a")) == "A"
    assert server.asked == ["a"]


async def test_another_key_is_another_question() -> None:
    server, ahead = Server(), Ahead[str](Places(3))
    server.answer.set()
    ahead.begin(("a", 1), lambda: server.ask("old"))
    assert await ahead.take(("a", 2), lambda: server.ask("new")) == "NEW"
    assert await ahead.take(("a", 2), lambda: server.ask("once more")) == "ONCE MORE", "an answer is given once"
    await ahead.drop()


async def test_a_failure_is_raised_in_its_turn_and_forgotten() -> None:
    server, ahead = Server(failure=OSError("broken")), Ahead[str](Places(3))
    server.answer.set()
    ahead.begin("a", lambda: server.ask("a"))
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(OSError, match="broken"):
        await ahead.take("a", lambda: server.ask("a"))
    server.failure = None
    assert await ahead.take("a", lambda: server.ask("a")) == "A"
    assert server.asked == ["a", "a"]


async def test_what_nobody_takes_is_stopped_and_its_failure_is_nobodys() -> None:
    server, ahead = Server(failure=OSError("broken")), Ahead[str](Places(3))
    ahead.begin("waiting", lambda: server.ask("waiting"))
    await asyncio.sleep(0)
    server.answer.set()
    ahead.begin("failing", lambda: server.ask("failing"))
    for _ in range(3):
        await asyncio.sleep(0)
    server.answer.clear()
    ahead.begin("late", lambda: server.ask("late"))
    await asyncio.sleep(0)
    await ahead.drop()
    assert server.cancelled == ["late"]


async def test_who_is_cancelled_leaves_it_for_drop() -> None:
    server, ahead = Server(), Ahead[str](Places(3))
    taking = asyncio.create_task(ahead.take("a", lambda: server.ask("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await ahead.drop()
    assert server.cancelled == ["a"]


async def test_there_are_no_more_answers_ahead_than_places() -> None:
    server, places = Server(), Places(2)
    one, other = Ahead[str](places), Ahead[str](places)
    server.answer.set()
    one.begin("a", lambda: server.ask("a"))
    other.begin("b", lambda: server.ask("b"))
    other.begin("c", lambda: server.ask("c"))
    await asyncio.sleep(0)
    assert server.asked == ["a", "b"]
    assert await other.take("c", lambda: server.ask("c, in its turn")) == "C, IN ITS TURN"
    assert await other.take("b", lambda: server.ask("b")) == "B"
    other.begin("d", lambda: server.ask("d"))
    await one.drop()
    one.begin("e", lambda: server.ask("e"))
    one.begin("f", lambda: server.ask("f"))
    await asyncio.sleep(0)
    assert server.asked == ["a", "b", "c, in its turn", "d", "e"]
    await one.drop()
    await other.drop()
