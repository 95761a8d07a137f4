"""Mail as it looks in real mailboxes, made from a seed: the same number always gives the same message.

factory = MailFactory(seed=1)
mail = factory.email(42)
folder.deliver(mail)          # mail.mime() is made whenever it is needed, and not kept
populate(mailbox, 5000)
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from ews_sync.simulator import compose, words
from ews_sync.simulator.properties import Address, Properties, stored_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.simulator.store import Mailbox

Kind: TypeAlias = Literal[
    "plain", "html", "attachments", "forward", "latin1", "utf8", "signed", "meeting", "ndr", "hostile"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_WEIGHTS: Final = (30, 30, 18, 4, 5, 5, 2, 3, 2, 1)
_CLASSES: Final[dict[str, str]] = {
    "signed": "IPM.Note.SMIME.MultipartSigned",
    "meeting": "IPM.Schedule.Meeting.Request",
    "ndr": "REPORT.IPM.Note.NDR",
}
_FIRST_DAY: Final = datetime(2024, 1, 2, 7, 30, tzinfo=UTC)
_DEEPEST_THREAD: Final = 8
_ONE_WITHOUT_ID: Final = 97


@dataclass(frozen=True, slots=True)
class Plan:
    """What a message is going to be: everything but its bytes. `attachments` are their sizes in bytes."""

    number: int
    kind: Kind
    subject: str
    message_id: str | None
    references: tuple[str, ...]
    author: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    importance: str
    paragraphs: int
    attachments: tuple[int, ...]
    rng_state: str


@dataclass(frozen=True, slots=True)
class SimulatedMail:
    """A message that can be made: a `Content` for `Folder.deliver`. `size` is about how long its MIME is to be."""

    factory: MailFactory
    number: int
    sent: datetime
    kind: Kind | None = None
    size: int | None = None

    @property
    def plan(self) -> Plan:
        """What the message is."""
        return self.factory.plan(self.number, self.kind)

    def mime(self) -> bytes:
        """Make the message: the same bytes each time, lines ending with CRLF."""
        return compose.message(self.plan, self.sent, self.size)

    def properties(self) -> Properties:
        """Return its properties, without making the message."""
        plan = self.plan
        length = self.size or 1200 + 400 * plan.paragraphs + sum(plan.attachments) * 4 // 3
        return Properties(
            subject=plan.subject or None,
            item_class=_CLASSES.get(plan.kind, "IPM.Note"),
            message_id=plan.message_id,
            sent=self.sent.replace(microsecond=0),
            sender=plan.author,
            author=plan.author,
            to=plan.to,
            cc=plan.cc,
            in_reply_to=plan.references[-1] if plan.references else None,
            references=" ".join(plan.references) or None,
            importance=plan.importance,
            has_attachments=bool(plan.attachments) or plan.kind in {"signed", "forward"} or self.size is not None,
            size=stored_size(length),
        )


class MailFactory:
    """Makes messages from a seed. The same seed and number give the same message, on every machine."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._plan = lru_cache(maxsize=4096)(self._make_plan)

    def email(
        self, n: int, *, size: int | None = None, kind: Kind | None = None, sent: datetime | None = None
    ) -> SimulatedMail:
        """Return message number `n` (from 0), of about `size` bytes, of a kind; otherwise as chance has it."""
        return SimulatedMail(self, n, sent or _FIRST_DAY + n * timedelta(minutes=17, seconds=11), kind, size)

    def plan(self, n: int, kind: Kind | None = None) -> Plan:
        """Return what message `n` is."""
        return self._plan(n, kind)

    def _make_plan(self, n: int, kind: Kind | None) -> Plan:
        state = f"{self.seed}:{n}"
        rng = random.Random(state)
        drawn = rng.choices(KINDS, _WEIGHTS)[0]
        kind = kind or drawn
        subject, references = self._thread(n)
        if kind == "hostile":
            subject, references = rng.choice(words.HOSTILE_SUBJECTS), ()
        if kind == "ndr":
            subject, references = f"Undeliverable: {subject}", ()
        people = rng.sample(words.PEOPLE, 4)
        domain = rng.choice(words.DOMAINS)
        addresses = [Address(name, f"{account}@{domain}") for name, account in people]
        sizes = tuple(rng.randrange(200, 40_000) for _ in range(rng.randrange(1, 4)))
        return Plan(
            number=n,
            kind=kind,
            subject=subject,
            message_id=self._message_id(n),
            references=references,
            author=addresses[0],
            to=tuple(addresses[1 : rng.randrange(2, 4)]),
            cc=tuple(addresses[3:]) if rng.random() < 0.3 else (),
            importance="High" if rng.random() < 0.05 else "Normal",
            paragraphs=rng.randrange(1, 12),
            attachments=sizes if kind == "attachments" else (),
            rng_state=f"{state}:body",
        )

    def _message_id(self, n: int) -> str | None:
        if n % _ONE_WITHOUT_ID == _ONE_WITHOUT_ID // 2:
            return None
        unique = random.Random(f"{self.seed}:{n}:id").getrandbits(96)
        return f"<{unique:024x}@{words.DOMAINS[n % len(words.DOMAINS)]}>"

    def _thread(self, n: int) -> tuple[str, tuple[str, ...]]:
        """Return the subject, and the Message-IDs of what came before in the conversation, oldest first."""
        chain = self._ancestors(n)
        root = chain[-1] if chain else n
        subject = topic_of(self.seed, root)
        known = (self._message_id(number) for number in reversed(chain))
        return (f"Re: {subject}" if chain else subject), tuple(found for found in known if found)

    def _ancestors(self, n: int) -> list[int]:
        """Return the messages that this one answers, newest first. Answers come up to months later."""
        chain: list[int] = []
        while len(chain) < _DEEPEST_THREAD:
            rng = random.Random(f"{self.seed}:{n}:thread")
            parent = n - 1 - int(rng.paretovariate(0.7))
            if parent < 0 or rng.random() < 0.5:
                break
            chain.append(parent)
            n = parent
        return chain


def topic_of(seed: int, n: int) -> str:
    """Return the subject of the conversation that message `n` begins."""
    rng = random.Random(f"{seed}:{n}:topic")
    return rng.choice(words.TOPICS).format(number=rng.randrange(10_000, 999_999))


def populate(  # noqa: PLR0913 - a mailbox has that many sides
    mailbox: Mailbox,
    count: int,
    *,
    factory: MailFactory | None = None,
    first: int = 0,
    months: int = 18,
    until: datetime | None = None,
    folders: Sequence[tuple[str, ...]] = (("Inbox",), ("Inbox", "Claims"), ("Inbox", "Quotes"), ("Archive",)),
) -> None:
    """Fill a mailbox with messages `first` to `first + count`, over its folders and the months before `until`.

    Messages come in the order of their times, three quarters of them are read, and some have categories; one in a
    hundred is a draft. The same arguments give the same mailbox.
    """
    factory = factory or MailFactory(mailbox.exchange.seed)
    until = until or mailbox.exchange.clock()
    rng = random.Random(f"{factory.seed}:{mailbox.address.casefold()}")
    span = timedelta(days=30 * months)
    begin = until - span
    inboxes = [mailbox.folder(*path) for path in folders]
    drafts = mailbox.folder("Drafts")
    weights = [2 ** (len(inboxes) - place) for place in range(len(inboxes))]
    for place in range(count):
        received = begin + span * ((place + rng.random()) / count)
        mail = factory.email(first + place, sent=received - timedelta(seconds=rng.randrange(2, 90)))
        if rng.random() < 0.01:
            drafts.deliver(mail, received=received, is_read=True, is_draft=True, message_id=None)
            continue
        categories = ("Claims",) if rng.random() < 0.1 else ()
        folder = rng.choices(inboxes, weights)[0]
        folder.deliver(mail, received=received, is_read=rng.random() < 0.75, categories=categories)
