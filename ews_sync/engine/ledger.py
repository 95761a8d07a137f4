"""Ordered confirmation.

Work may finish in any order, but the checkpoint moves over it in the order in which it was read. Pure.

One ledger serves one mailbox, across its folders, so that a checkpoint is a single point in the mailbox's work; an
ordered sink's position means just that point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ews_sync.model import FolderCheckpoint, MailboxCheckpoint

if TYPE_CHECKING:
    from datetime import datetime

    from ews_sync.engine.progress import Effect
    from ews_sync.model import Folder


class Step:
    """A piece of work whose effect is applied as one: so many emails outstanding, and `effect` once it is known."""

    __slots__ = ("begun", "drafts", "dropped", "effect", "folder", "outstanding", "position")

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.outstanding = 0
        self.begun = False
        """Whether any of its emails went on their way to the sink."""
        self.dropped = False
        """Whether it was given up; what still comes of it counts for nothing."""
        self.drafts: frozenset[str] = frozenset()
        """Items that only turned out to be drafts when they were fetched."""
        self.effect: Effect | None = None
        self.position: str | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What came of dropping a folder's steps.

    Whether the checkpoint `moved`, and whether some of what was dropped had been `begun` to be stored.
    """

    moved: bool
    begun: bool


class Ledger:
    """Keeps a mailbox's steps in order, and the checkpoint that they have led to so far."""

    def __init__(self, checkpoint: MailboxCheckpoint) -> None:
        self._steps: list[Step] = []
        self.checkpoint = checkpoint

    @property
    def empty(self) -> bool:
        """Whether everything that was begun is confirmed."""
        return not self._steps

    def begin(self, folder: Folder) -> Step:
        """Begin a step behind all others."""
        step = Step(folder)
        self._steps.append(step)
        return step

    def expect(self, step: Step, count: int) -> None:
        """Add emails that must be confirmed before the step is."""
        step.outstanding += count
        step.begun = step.begun or count > 0

    def confirm(self, step: Step, count: int, now: datetime, position: str | None = None) -> bool:
        """Take note that emails of the step are stored, and where the sink stands.

        Tell whether the checkpoint moved.
        """
        step.outstanding -= count
        if position is not None:
            step.position = position
        return self._settle(now)

    def seal(self, step: Step, effect: Effect, now: datetime) -> bool:
        """Say what the step does, and that no more emails come to it; tell whether the checkpoint moved."""
        step.effect = effect
        return self._settle(now)

    def abandon(self) -> None:
        """Forget everything that is not confirmed: the checkpoint stays, and what was begun will be read again."""
        for step in self._steps:
            step.dropped = True
        self._steps.clear()

    def drop(self, folder_id: str, now: datetime) -> Dropped:
        """Forget what is not confirmed of one folder; the others' steps close ranks."""
        given_up = [step for step in self._steps if step.folder.id == folder_id]
        for step in given_up:
            step.dropped = True
        self._steps = [step for step in self._steps if not step.dropped]
        return Dropped(self._settle(now), any(step.begun for step in given_up))

    def _settle(self, now: datetime) -> bool:
        moved = False
        while self._steps:
            step = self._steps[0]
            if step.effect is None or step.outstanding:
                break
            del self._steps[0]
            self._apply(step, step.effect, now)
            moved = True
        return moved

    def _apply(self, step: Step, effect: Effect, now: datetime) -> None:
        folder = step.folder
        before = self.checkpoint.folders.get(folder.id) or FolderCheckpoint(folder.id, folder.path)
        after = replace(effect.apply(before, now), folder_path=folder.path)
        folders = dict(self.checkpoint.folders)
        folders[folder.id] = after
        self.checkpoint = MailboxCheckpoint(folders, step.position or self.checkpoint.sink_position)
