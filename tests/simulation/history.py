"""What happened in a run, in order: the trace that a failure is explained with, and the causes of what was repeated."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: at a second of virtual time, of a kind, to some emails (by name) or to none."""

    at: float
    process: int
    kind: str
    detail: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = f" [{' '.join(self.names)}]" if self.names else ""
        return f"{self.at:12.3f}s  process {self.process:<3} {self.kind:<12} {self.detail}{names}"


@dataclass(slots=True)
class History:
    """All that happened. A position in `events` orders everything, also what happened in the same moment."""

    events: list[Event] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    process: int = 0
    causes: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    """By mailbox: where something happened that is a reason to store again, and what."""
    asked: set[tuple[str, str]] = field(default_factory=set)
    """By mailbox and item: what was ever asked for."""
    fetched: dict[tuple[str, str], int] = field(default_factory=dict)
    """By mailbox and item: where the first fetch of it that succeeded began, or it was told of again before that."""
    jumped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By mailbox and item: how often the feed told that it was sent or changed, after it was asked for."""
    uploads: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """By mailbox and item: where it was stored."""
    names: dict[str, str] = field(default_factory=dict)
    """The names of items, for people."""

    def note(self, at: float, kind: str, detail: str, names: tuple[str, ...] = ()) -> int:
        """Take note of something; gives its position."""
        self.events.append(Event(at, self.process, kind, detail, names))
        return len(self.events) - 1

    def fault(self, kind: str) -> None:
        """Count a fault that was injected."""
        self.faults[kind] += 1

    def cause(self, mailbox: str, why: str) -> None:
        """Say that the mailbox has a reason to store something again: the event that was noted last."""
        self.causes[mailbox].append((len(self.events), why))

    def of(self, name: str) -> list[str]:
        """Tell the story of one email, with what concerned everybody."""
        return [str(event) for event in self.events if name in event.names or (not event.names and event.kind in _BIG)]


_BIG = frozenset(
    {"start", "crash", "stop", "ended", "clock", "forget", "bucket", "heal", "outage", "rename", "vanish", "saved"}
)
"""What concerns every email."""
