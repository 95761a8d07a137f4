"""When too many items in a row cannot be had, is it the items? What is remembered of each mailbox to tell. Pure.

A server that was upgraded badly, a transport agent or a virus scanner can make *every* item of a mailbox fail with a
code that says of each item that it is broken. To record them all would lose the mailbox. So after a number of them in
a row, with the same code and nothing fetched in between, an item that was fetched before has to come once more; when
there is none, or it does not, nothing further is recorded for as long as an operator can need to notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

IN_A_ROW = 20
"""How many items of a mailbox may fail alike before it has to be shown that others can be had."""
HELD_FOR = 3 * 24 * 3600.0
"""Seconds: a weekend, and a day to mend it. A mailbox that really holds nothing but broken items is not held for ever.
"""
LOOK_AGAIN = 900.0
"""Seconds between two tries meanwhile."""
_SAMPLES = 3
_LARGEST_SAMPLE = 256 * 1024


@dataclass(slots=True)
class Suspicion:
    """What a mailbox's items were answered with since one was fetched last.

    `failed` has the ids of those that failed by the code that they were answered with: items that come again after a
    round that had to be repeated count once. `samples` are the ids of items that were fetched not long ago, small
    ones. Times are monotonic seconds.
    """

    failed: dict[str, set[str]] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    held_since: float | None = None

    def fetched(self, item_id: str, size: int) -> None:
        """Take note of an item that was fetched."""
        self.acquit()
        if size <= _LARGEST_SAMPLE and item_id not in self.samples:
            self.samples.append(item_id)
            del self.samples[:-_SAMPLES]

    def acquit(self) -> None:
        """Take note that the server is well: what fails is broken."""
        self.failed.clear()
        self.held_since = None

    def recorded(self, item_id: str, code: str) -> None:
        """Take note of an item that is recorded as a dead letter."""
        known = self.failed.setdefault(code, set())
        if len(known) < IN_A_ROW:
            known.add(item_id)

    def of(self, coming: Iterable[tuple[str, str]]) -> str | None:
        """Give the code that too many items in a row had, when those (id and code) are recorded as well; else None."""
        together: dict[str, set[str]] = {}
        for item_id, code in coming:
            together.setdefault(code, set(self.failed.get(code, ()))).add(item_id)
        return next((code for code, ids in together.items() if len(ids) > IN_A_ROW), None)

    def holds(self, now: float) -> bool:
        """Tell whether nothing is to be recorded now; the time begins with the first question."""
        if self.held_since is None:
            self.held_since = now
        return now - self.held_since < HELD_FOR
