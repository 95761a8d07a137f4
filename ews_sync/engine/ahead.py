"""Answers that are asked for before their turn, so that nobody waits for a distant server one answer at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Any

T = TypeVar("T")


class Places:
    """How many answers may be kept ahead of their turn, by all together: each takes memory until it is wanted."""

    def __init__(self, count: int) -> None:
        self._free = count

    def take(self) -> bool:
        """Take a place, if there is one; tell whether there was."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """Give a place back."""
        self._free += 1


class Ahead(Generic[T]):
    """What was asked ahead, by a key that says what it was. Whoever makes an answer stale must `drop` it.

    A failure is raised by whoever takes the answer, in its turn like any other.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._begun: dict[Hashable, asyncio.Task[T]] = {}

    def begin(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Ask, where there is a place for the answer, and unless that was begun already."""
        if key not in self._begun and self._places.take():
            self._begun[key] = asyncio.ensure_future(ask())

    async def take(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Give the answer that was begun under `key`; ask for it now when there is none."""
        task = self._begun.get(key)
        if task is None:
            return await ask()
        # Cancelled here, it is still there for `drop` to find.
        await asyncio.wait({task})
        del self._begun[key]
        self._places.give_back()
        return task.result()

    async def drop(self) -> None:
        """Give up all that was not taken."""
        begun = list(self._begun.values())
        self._begun.clear()
        for task in begun:
            task.cancel()
            self._places.give_back()
        # Their failures concern nobody any more.
        await asyncio.gather(*begun, return_exceptions=True)
