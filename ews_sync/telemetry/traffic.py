"""What goes between us and the mail server, counted: requests, how long they take, and who is asked to wait.

Plain numbers that only grow, one event loop. `metrics` shows them to Prometheus, /status who has to wait.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum

BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 150.0)
"""Upper bounds in seconds by which the requests' durations are counted; 150 s is when a silent server is given up."""


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    THROTTLED = "throttled"
    FAILED = "failed"


@dataclass(slots=True)
class Durations:
    """How many requests took at most each of `BUCKETS`, and (last) longer; not cumulated. `total` in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Traffic:
    """Counts what is sent to the mail server. An operation is the name of a SOAP operation, such as GetItem."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, Outcome], int] = {}
        self.durations: dict[str, Durations] = {}
        self.throttled_seconds = 0.0
        """For how long the server has asked us to wait, all principals together."""
        self._wait_until: dict[str | None, float] = {}

    def answered(self, operation: str, outcome: Outcome, seconds: float) -> None:
        """Count a request that came to its end, well or not."""
        key = (operation, outcome)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.durations.setdefault(operation, Durations()).add(seconds)

    def throttled(self, mailbox: str | None, now: float, until: float) -> None:
        """Take note that requests for a mailbox wait (None: those for all of them). Monotonic seconds."""
        before = self._wait_until.get(mailbox, now)
        self.throttled_seconds += max(0.0, until - max(before, now))
        self._wait_until[mailbox] = max(before, until)

    def wait_for(self, mailbox: str, now: float) -> float:
        """Give how many seconds the server still wants to be left alone by a mailbox; 0 where it does not."""
        until = max(self._wait_until.get(mailbox.lower(), now), self._wait_until.get(None, now))
        return max(0.0, until - now)
