"""Everything that goes wrong between a client and a server, as data.

The effects of the platform are in `platform/faults.py`; the rules are the same.

    plan = FaultPlan(seed=7)
    plan.add(SoapFault("ErrorServerBusy", back_off_ms=500), operation="FindItem", times=2)
    plan.add(ItemError("ErrorItemCorrupt"), item=lambda item: "invoice" in (item.properties.subject or ""))
    plan.add(Truncated(keep=0.5), operation="GetItem", probability=0.1)

Rules can be added and taken away while the server runs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ews_sync.simulator.item import Item


# --- what happens instead of an answer


@dataclass(frozen=True, slots=True)
class HttpError:
    """Another HTTP status, perhaps with Retry-After, and a body: plain text, or HTML as a proxy's page has it."""

    status: int
    retry_after: str | None = None
    body: str = ""
    content_type: str = "text/html"
    headers: tuple[tuple[str, str], ...] = ()


def html_page(status: int = 502) -> HttpError:
    """Return the page that a load balancer shows, with status 200, 502 or another."""
    page = "<!DOCTYPE html><html><head><title>Gateway</title></head><body><p>Something went wrong<br></body></html>"
    return HttpError(status, body=page)


@dataclass(frozen=True, slots=True)
class ConnectionReset:
    """The connection is reset after so many bytes of the answer; None: before its headers."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer, until the client gives up or the server stops."""


@dataclass(frozen=True, slots=True)
class SoapFault:
    """A SOAP fault with HTTP 500, as for a request that fails as a whole."""

    code: str
    text: str = ""
    back_off_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ResponseError:
    """The error code in each response message of an HTTP 200."""

    code: str
    text: str = ""
    back_off_ms: int | None = None


# --- what happens to an answer


@dataclass(frozen=True, slots=True)
class Latency:
    """The answer comes so many seconds later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Truncated:
    """Only the first part (0 to 1) of the body arrives.

    With `honest` the Content-Length is that of the part, as from a proxy that cut it; without it is that of the whole
    and the connection closes early.
    """

    keep: float = 0.5
    honest: bool = True


@dataclass(frozen=True, slots=True)
class BrokenXml:
    """The body is whole, but not well-formed."""


@dataclass(frozen=True, slots=True)
class IllegalCharacters:
    """Character references that XML forbids stand in each subject and each folder's name."""

    references: str = "&#x0;&#xB;&#xFFFF;"


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Other namespace prefixes. Either `messages` or `types` can be empty: the default namespace."""

    soap: str = "soap"
    messages: str = "ns2"
    types: str = "ns3"


@dataclass(frozen=True, slots=True)
class Compressed:
    """The body is gzip (or is not) whatever the server does otherwise."""

    on: bool = True


@dataclass(frozen=True, slots=True)
class ShortPage:
    """FindItem, FindFolder and SyncFolderItems return at most so many entries, whatever was asked for."""

    entries: int


@dataclass(frozen=True, slots=True)
class WithoutProperties:
    """These extended properties (by tag, as 0x670A) are not returned, as by a server that does not have them."""

    tags: frozenset[int] = frozenset({0x670A, 0x670B})


@dataclass(frozen=True, slots=True)
class ItemError:
    """The error code for one item of a batch. With `stops_batch` the items after it are not tried at all."""

    code: str
    text: str = ""
    stops_batch: bool = False


class TargetedEffect:
    """An effect that knows itself which requests it is for: a base for those of another protocol than Exchange's."""

    __slots__ = ()

    def concerns(self, call: Call) -> bool:  # noqa: ARG002 - for those that override it
        """Whether it is for this request; chance and `times` count only those that it is for."""
        return True


Effect: TypeAlias = (
    HttpError
    | ConnectionReset
    | Hang
    | SoapFault
    | ResponseError
    | Latency
    | Truncated
    | BrokenXml
    | IllegalCharacters
    | Prefixes
    | Compressed
    | ShortPage
    | WithoutProperties
    | ItemError
    | TargetedEffect
)
E_ = TypeVar("E_")


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as the rules see it.

    `folders` are paths (Inbox/Claims), `items` are ItemIds; `nth` counts the requests of this operation from 1. A
    request to the platform has a `bucket` (owner/name), perhaps several `mailboxes`, emails' ids as `items`, the `size`
    of its body in bytes, and `content`: what the body says, None where it could not be read.
    """

    operation: str
    account: str = ""
    mailbox: str = ""
    folders: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    nth: int = 1
    bucket: str = ""
    mailboxes: tuple[str, ...] = ()
    size: int = 0
    content: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """An effect, and the requests or items that it is for. What is None matches everything.

    `folder` is a path or a name, `item` an ItemId (the platform's: an email's id) or a predicate, `nth` one number or
    several, `probability` from 0 to 1, `times` how often the rule applies before it is spent, `bucket` is owner/name.
    """

    effect: Effect
    operation: str | None = None
    mailbox: str | None = None
    folder: str | None = None
    item: str | Callable[[Item], bool] | None = None
    nth: int | Collection[int] | None = None
    probability: float = 1.0
    times: int | None = None
    bucket: str | None = None

    def matches(self, call: Call) -> bool:
        """Whether the rule is for this request (chance and `times` aside)."""
        if not self._is_about(call):
            return False
        if isinstance(self.effect, ItemError):
            return True  # its folder and item are those of the item
        if isinstance(self.effect, TargetedEffect) and not self.effect.concerns(call):
            return False
        if isinstance(self.item, str) and self.item not in call.items:
            return False
        return self.folder is None or any(_names(path, self.folder) for path in call.folders)

    def matches_item(self, item: Item) -> bool:
        """Whether the rule is for this item."""
        if self.folder is not None and not _names(item.folder.path, self.folder):
            return False
        if self.item is None:
            return True
        return item.id == self.item if isinstance(self.item, str) else self.item(item)

    def _is_about(self, call: Call) -> bool:
        if self.operation is not None and self.operation != call.operation:
            return False
        if self.bucket is not None and self.bucket != call.bucket:
            return False
        addresses = {address.casefold() for address in (call.mailbox, *call.mailboxes)}
        if self.mailbox is not None and self.mailbox.casefold() not in addresses:
            return False
        return self.nth is None or call.nth in ({self.nth} if isinstance(self.nth, int) else self.nth)


@dataclass(slots=True)
class _Active:
    rule: Rule
    fired: int = 0


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What is to happen to one request."""

    call: Call
    effects: tuple[Effect, ...] = ()
    plan: FaultPlan | None = None

    def find(self, kind: type[E_]) -> E_ | None:
        """Return the effect of a kind, if there is one."""
        return next((effect for effect in self.effects if isinstance(effect, kind)), None)

    def item_error(self, item: Item) -> ItemError | None:
        """Return the error that is to come for an item of this request."""
        return None if self.plan is None else self.plan.for_item(self.call, item)


@dataclass(slots=True)
class FaultPlan:
    """The rules in force, in the order in which they were added. `seed` decides the chances."""

    seed: int = 0
    _active: list[_Active] = field(default_factory=list)
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force; spent ones are gone."""
        return tuple(active.rule for active in self._active)

    def add(  # noqa: PLR0913 - a rule's fields
        self,
        effect: Effect,
        *,
        operation: str | None = None,
        mailbox: str | None = None,
        folder: str | None = None,
        item: str | Callable[[Item], bool] | None = None,
        nth: int | Collection[int] | None = None,
        probability: float = 1.0,
        times: int | None = None,
        bucket: str | None = None,
    ) -> Rule:
        """Add a rule; see `Rule` for what the arguments mean."""
        rule = Rule(effect, operation, mailbox, folder, item, nth, probability, times, bucket)
        self._active.append(_Active(rule))
        return rule

    def remove(self, rule: Rule) -> None:
        """Take a rule away; nothing happens if it is spent."""
        self._active = [active for active in self._active if active.rule is not rule]

    def clear(self) -> None:
        """Take all rules away."""
        self._active = []

    def disturb(self, call: Call) -> Disturbance:
        """Decide what is to happen to a request. Only one effect of each kind applies: that of the first rule."""
        effects: dict[type, Effect] = {}
        for active in list(self._active):
            effect = active.rule.effect
            if isinstance(effect, ItemError) or type(effect) in effects or not active.rule.matches(call):
                continue
            if self._fires(active):
                effects[type(effect)] = effect
        return Disturbance(call, tuple(effects.values()), self)

    def for_item(self, call: Call, item: Item) -> ItemError | None:
        """Decide what is to happen to one item of a request."""
        for active in list(self._active):
            effect = active.rule.effect
            if (
                isinstance(effect, ItemError)
                and active.rule.matches(call)
                and active.rule.matches_item(item)
                and self._fires(active)
            ):
                return effect
        return None

    def _fires(self, active: _Active) -> bool:
        rule = active.rule
        if rule.probability < 1.0 and self._random.random() >= rule.probability:
            return False
        active.fired += 1
        if rule.times is not None and active.fired >= rule.times:
            self._active.remove(active)
        return True


def _names(path: str, wanted: str) -> bool:
    path, wanted = path.casefold(), wanted.casefold()
    return path == wanted or path.rpartition("/")[2] == wanted
