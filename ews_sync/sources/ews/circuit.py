"""Whether the server is away, for everybody: a circuit that opens, so that a dead server is not asked over and over.

It opens when requests fail in a row for want of a server, of more than one call and for some seconds, with no good
answer in between. Then nothing is sent any more and every call fails at once, until a wait that grows is over: one
request goes ahead then, and the others still fail at once. An answer that only a living server gives closes it.

Nobody waits here for the probe: with thousands of mailboxes that would be thousands of calls that hold what they have
and all go on at the same moment. They come back in their own time instead, which spreads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from ews_sync.errors import AuthenticationError, ConnectionFailedError, Scope
from ews_sync.sources.ews.throttle import LONGEST_TOLD, doubled

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from ews_sync.errors import SourceError
    from ews_sync.model import Clock

_IN_A_ROW = 5
"""Failures: more than one call makes of itself."""
_A_SILENCE = 3
"""How many failures it counts for that a small request got nothing for minutes."""
_CALLS = 2
_FOR_SECONDS = 3.0
"""A load balancer that drops all connections at once, and takes new ones, is met by the calls' own retries."""
FIRST_WAIT = 5.0
LONGEST_WAIT = 300.0


class ServerAwayError(ConnectionFailedError):
    """Nothing is sent: the server has given nobody a usable answer. `retry_after` is when the next probe may go."""

    scope = Scope.PROCESS


class SilenceError(ConnectionFailedError):
    """Connected, and then nothing for as long as one waits at most, which is minutes."""


class Sign(StrEnum):
    """What the end of a request tells of the server."""

    THERE = "there"
    AWAY = "away"
    SILENT = "silent"
    """Away, and it took minutes to find out."""
    NOTHING = "nothing"


def sign_of(error: SourceError, *, for_messages: bool) -> Sign:
    """Tell what a failed request says of the server.

    Whoever throttles, refuses or faults in the words of EWS is there, whatever it asks for. A page that speaks no EWS
    is nobody's answer, whatever its status: that of one mailbox alone is outweighed by what the others get.
    `for_messages` says that the request asked for messages: one of them can be what makes a server, or a proxy before
    it, slow or sick, so only what never got there counts.
    """
    if isinstance(error, AuthenticationError):
        return Sign.THERE
    if error.scope is Scope.PROCESS:
        # This machine's own trouble.
        return Sign.NOTHING
    # A code that is a status says that there was no SOAP to take a better one from.
    if not isinstance(error, ConnectionFailedError) and not error.code.startswith("HTTP "):
        return Sign.THERE
    if for_messages and error.request_id:
        return Sign.NOTHING
    return Sign.SILENT if isinstance(error, SilenceError) else Sign.AWAY


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the server counts as away: the first failure of the row, in words for an operator.

    `told` is how many seconds it asked us to wait, or 0.
    """

    reason: str
    hint: str
    code: str
    told: float = 0.0


@dataclass(frozen=True, slots=True)
class Outage:
    """What is known of an outage: its first failure was at `since`; a probe may go in `next_probe_in` seconds."""

    since: datetime
    cause: Cause
    next_probe_in: float


@dataclass(frozen=True, slots=True)
class Record:
    """The failures since the last good answer. Times are monotonic seconds, but for `since`. Pure decisions.

    `calls` are those that failed; `probe_at` is None as long as the circuit is closed.
    """

    failures: int = 0
    silences: int = 0
    calls: frozenset[int] = frozenset()
    first_at: float = 0.0
    since: datetime | None = None
    cause: Cause | None = None
    probes: int = 0
    probe_at: float | None = None

    def after_failure(self, call: int, cause: Cause, at: float, now: datetime, *, silent: bool = False) -> Record:
        """Count a failure of the call with this number."""
        record = self if self.since is not None else Record(first_at=at, since=now, cause=cause)
        return replace(
            record,
            failures=record.failures + (_A_SILENCE if silent else 1),
            silences=record.silences + silent,
            calls=record.calls | {call},
        )

    def is_enough(self, at: float) -> bool:
        """Tell whether the circuit is to open."""
        lasts = self.silences > 0 or at - self.first_at >= _FOR_SECONDS
        return self.failures >= _IN_A_ROW and len(self.calls) >= _CALLS and lasts

    def opened(self, at: float, jitter: float, told: float = 0.0) -> Record:
        """Open the circuit, or keep it open after a probe.

        `jitter` in [0, 1) takes up to a tenth off the wait, which is at least the `told` seconds, up to `LONGEST_TOLD`.
        """
        wait = max(doubled(FIRST_WAIT, self.probes, LONGEST_WAIT) * (1 - jitter / 10), min(told, LONGEST_TOLD))
        # Who failed does not matter any more, and an outage may last for weeks.
        return replace(self, calls=frozenset(), probes=self.probes + 1, probe_at=at + wait)


class Trial:
    """A request on its way: the number of its call, and whether it is the one that goes ahead."""

    __slots__ = ("call", "probing")

    def __init__(self, call: int, *, probing: bool) -> None:
        self.call = call
        self.probing = probing


class Circuit:
    """What one client knows of its server. Raises `ServerAwayError` in place of letting a request through."""

    def __init__(self, clock: Clock, jitter: Callable[[], float]) -> None:
        self._clock = clock
        self._jitter = jitter
        self._record = Record()
        self._probe: Trial | None = None

    @property
    def _outage(self) -> Outage | None:
        """What is known while the circuit is open."""
        record = self._record
        if record.probe_at is None or record.since is None or record.cause is None:
            return None
        return Outage(record.since, record.cause, max(0.0, record.probe_at - self._clock.monotonic()))

    def check(self) -> None:
        """Raise when a request would not be let through now."""
        outage = self._outage
        if outage is not None and (outage.next_probe_in > 0 or self._probe is not None):
            raise _away(outage)

    def start(self, call: int, *, may_probe: bool) -> Trial:
        """Let a request through, right before it is sent. Its end must be told to `ended`, whatever it is."""
        self.check()
        outage = self._outage
        if outage is None:
            return Trial(call, probing=False)
        if not may_probe:
            raise _away(outage)
        self._probe = Trial(call, probing=True)
        return self._probe

    def ended(self, trial: Trial, sign: Sign, cause: Cause | None = None) -> bool:
        """Take note of how a request ended; tell whether the server is back with it."""
        if trial is self._probe:
            self._probe = None
        if sign is Sign.THERE:
            was_open = self._record.probe_at is not None
            self._record = Record()
            return was_open
        if sign is not Sign.NOTHING and cause is not None:
            self._failed(trial, cause, silent=sign is Sign.SILENT)
        return False

    def _failed(self, trial: Trial, cause: Cause, *, silent: bool) -> None:
        at = self._clock.monotonic()
        record = self._record
        if record.probe_at is None:
            record = record.after_failure(trial.call, cause, at, self._clock.now(), silent=silent)
            if record.is_enough(at):
                record = record.opened(at, self._jitter(), cause.told)
        elif trial.probing:
            record = record.opened(at, self._jitter(), cause.told)
        self._record = record


def _away(outage: Outage) -> ServerAwayError:
    cause = outage.cause
    return ServerAwayError(
        f"nothing can be read since {outage.since:%Y-%m-%d %H:%M:%S} UTC: {cause.reason}",
        code=cause.code,
        hint=cause.hint or "nothing is lost: it goes on by itself as soon as that is over",
        retry_after=outage.next_probe_in,
    )
