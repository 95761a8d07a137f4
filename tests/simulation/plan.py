"""What a seed stands for: how the house is set up, what fails how often, and what happens when.

A plan is all that a run depends on, so it says everything when it is printed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from ews_sync.model import StartFrom
from ews_sync.settings.values import Pace
from tests.engine.world import LONG_AGO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

PEOPLE = (
    "mail",
    "mail",
    "burst",
    "move",
    "move",
    "to and fro",
    "copy",
    "delete",
    "draft",
    "draft",
    "send",
    "send",
    "send",
    "update",
    "undated",
    "import",
    "import",
    "no mail",
    "new folder",
    "vanish",
    "rename",
    "poison",
    "indigestible",
    "stuck",
)
"""What people do, and what is wrong with their mail."""
TROUBLE = ("crash", "crash", "crash", "stop", "forget", "clock", "outage", "bucket", "hurry")
"""What the world does to us. A `hurry` is a stop with a grace that is too short."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How likely each call is to go wrong in each way."""

    source: float = 0.0
    """A call of the source fails."""
    sink: float = 0.0
    """A call of the sink fails, with nothing done."""
    lost: float = 0.0
    """A batch is stored, and the answer is lost."""
    late: float = 0.0
    """Of the batches whose answer is lost, or whose process dies: how many are stored only later."""
    part: float = 0.0
    """A batch is stored in part."""
    store: float = 0.0
    """A checkpoint is not saved, or the answer is lost, or it is saved for some folders."""
    slow: float = 0.0
    """An answer takes long."""
    told_again: float = 0.0
    """The feed tells of something once more."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that happens `seconds` and then `steps` callbacks after the act before; `seed` decides the details."""

    kind: str
    seconds: float
    steps: int
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run depends on."""

    seed: int
    sink: str
    mailboxes: int
    folders: int
    old_mail: int
    apart: float
    pace: Pace
    memory: int
    fetches_at_once: int
    turns: int
    grace: float
    interval: float
    page_size: int
    activity: bool
    latency: float
    start: datetime | None
    start_from: StartFrom
    unwanted: bool
    """Whether one of the folders is on the denylist."""
    rates: Rates
    acts: Sequence[Act] = field(default_factory=tuple)
    small: int = 0
    """How many items a folder has at most that is read from its feed alone."""
    feed_size: int = 512

    def __str__(self) -> str:
        lines = [f"  {name}: {getattr(self, name)}" for name in self.__slots__ if name != "acts"]
        acts = [f"    +{act.seconds:.3f}s +{act.steps} steps: {act.kind} (seed {act.seed})" for act in self.acts]
        return "\n".join([*lines, "  acts:", *acts])


def plan_for(seed: int) -> Plan:
    """Give the plan of a seed."""
    dice = random.Random(seed)
    sink = dice.choice(["files", "platform", "lines"])
    apart = dice.choice([0.0, 0.01, 0.3, 5.0, 90.0])
    rates = _rates(dice)
    return Plan(
        seed=seed,
        sink=sink,
        mailboxes=dice.choice([1, 1, 2, 3]),
        folders=dice.choice([1, 2, 3, 3]),
        old_mail=dice.choice([0, 5, 12, 25]),
        apart=apart,
        pace=Pace(
            poll_frequency=dice.choice([1.0, 5.0, 15.0]),
            poll_message_sleep=dice.choice([0.0, 0.0, 0.01]),
            max_concurrent_uploads=dice.choice([0, 1, 8]),
            emails_per_folder=dice.choice([3, 10, 2520]),
            reinfer_batch_size=dice.choice([1, 4, 20]),
        ),
        memory=dice.choice([3_000, 20_000, 6_000_000]),
        fetches_at_once=dice.choice([1, 4, 8]),
        turns=dice.choice([1, 2, 32]),
        grace=dice.choice([1.0, 25.0]),
        interval=dice.choice([1.0, 5.0]),
        page_size=dice.choice([1, 2, 5, 50]),
        activity=dice.random() < 0.8,
        latency=dice.choice([0.01, 0.2]),
        start=LONG_AGO + timedelta(seconds=apart * 5) if dice.random() < 0.3 else None,
        start_from=StartFrom.CONFIG if dice.random() < 0.1 else StartFrom.BUCKET,
        unwanted=dice.random() < 0.2,
        rates=rates,
        acts=_acts(dice, sink),
        # Every third seed has all folders marked and listed, as if they were large.
        small=dice.choice([5, 4000, 4000]) if seed % 3 else 0,
        feed_size=dice.choice([1, 3, 512]),
    )


def _rates(dice: random.Random) -> Rates:
    """Fail in some ways and not in others: where everything fails at once, nothing gets far enough to go wrong."""

    def rate(*choices: float) -> float:
        return dice.choice(choices) if dice.random() < 0.35 else 0.0

    return Rates(
        source=rate(0.02, 0.1, 0.3),
        sink=rate(0.05, 0.2, 0.5),
        lost=rate(0.05, 0.3),
        late=rate(0.5, 1.0),
        part=rate(0.1, 0.4),
        store=rate(0.1, 0.5, 1.0),
        slow=rate(0.05, 0.3),
        told_again=rate(0.1, 0.5),
    )


def _acts(dice: random.Random, sink: str) -> tuple[Act, ...]:
    troubles = [kind for kind in TROUBLE if dice.random() < 0.4 and (kind != "bucket" or sink == "platform")]
    acts = []
    for _ in range(dice.choice([4, 12, 24])):
        kind = dice.choice(troubles) if troubles and dice.random() < 0.3 else dice.choice(PEOPLE)
        seconds = dice.choice([0.0, dice.random(), dice.random() * 3, dice.random() * 20])
        if dice.random() < 0.03:
            seconds = dice.random() * 4000
        acts.append(Act(kind, round(seconds, 3), dice.choice([0, dice.randrange(60)]), dice.randrange(10**6)))
    return tuple(acts)
