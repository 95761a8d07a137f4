"""How long to wait after something failed. Pure, but for the jitter that it is given."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TELL_EVERY = 600.0
"""Seconds after which a trouble that goes on is logged again."""


class Backoff:
    """Waits in seconds that double from `first` to `longest`.

    Each is shortened by up to a third at random, so that many do not come back at once.
    """

    def __init__(self, first: float, longest: float, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._failures = 0

    @property
    def failures(self) -> int:
        """How often in a row it failed."""
        return self._failures

    def next(self) -> float:
        """Count a failure and give the wait after it."""
        wait = min(self._longest, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return wait * (1 - self._jitter() / 3)

    def reset(self) -> None:
        """Begin again: it went well."""
        self._failures = 0
