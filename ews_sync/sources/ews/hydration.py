"""Fetching items: from refs to emails, and what becomes of the items that fail.

An item that was never tried (ErrorBatchProcessingStopped) is asked for again and never counts as bad. One that may
heal is asked for alone a few times and then recorded. One that the server can never turn into MIME is recorded with
the properties that could still be had. When a request fails as a whole, another one about the same folder tells a
sick server from a poisonous item, and only then are its items asked for one by one. When too many in a row fail alike,
it may be the server after all: see `suspicion`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from ews_sync.errors import Asks, Scope, SourceError, ThrottledError
from ews_sync.model import Fetched, ItemRef
from ews_sync.sources.ews.codes import BATCH_STOPPED, TIMED_OUT, error_for, meaning_of
from ews_sync.sources.ews.outcomes import Failure, dead_letter, judged, matched, messages_in, properties
from ews_sync.sources.ews.suspicion import HELD_FOR, IN_A_ROW, LOOK_AGAIN, Suspicion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.model import Clock, Folder, Mailbox
    from ews_sync.sources.ews.operations import ResponseMessage

_TRIES = 3
"""How often an item is asked for that may heal."""
_PATIENCE = 6
"""How many answers in a row may bring nothing before the server, or the mailbox, counts as unwell."""


class AskItems(Protocol):
    """Sends a GetItem and gives its response messages."""

    async def __call__(
        self, mailbox: Mailbox, item_ids: Sequence[str], *, with_mime: bool, with_search_key: bool = True
    ) -> tuple[ResponseMessage, ...]:
        """Ask for the items; raises `SourceError` when the request as a whole fails."""


class Prove(Protocol):
    """Asks for something small in a folder."""

    async def __call__(self, mailbox: Mailbox, folder: Folder) -> object:
        """Return when the server is well and the folder can be read; raises the `SourceError` that tells why not."""


class Hydrator:
    """Turns refs into emails, dead letters, or the knowledge that there is nothing to store."""

    def __init__(self, clock: Clock, ask: AskItems, prove: Prove) -> None:
        self._clock = clock
        self._ask = ask
        self._prove = prove
        self._suspicions: dict[str, Suspicion] = {}

    async def fetch(self, mailbox: Mailbox, folder: Folder, refs: Sequence[ItemRef]) -> list[Fetched]:
        """Give one outcome for each ref, in their order.

        Raises `SourceError` when the server or the mailbox fails as a whole.
        """
        suspicion = self._suspicions.setdefault(mailbox.address, Suspicion())
        run = _Run(self._clock, self._ask, self._prove, mailbox, folder, suspicion)
        distinct = list({ref.id: ref for ref in refs}.values())
        try:
            await run.fetch(distinct)
        except BaseException:
            run.close()
            raise
        given: set[str] = set()
        result = []
        for ref in refs:
            # A server may list an item twice; it is stored once.
            result.append(Fetched(ref) if ref.id in given else run.outcomes[ref.id])
            given.add(ref.id)
        return result


@dataclass(slots=True)
class _Run:
    """One fetch: what has become of its items so far. `failures` counts how often each was tried in vain."""

    clock: Clock
    ask: AskItems
    prove: Prove
    mailbox: Mailbox
    folder: Folder
    suspicion: Suspicion
    outcomes: dict[str, Fetched] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    stuck: int = 0
    rests: int = 0

    def close(self) -> None:
        """Give back what was fetched."""
        for outcome in self.outcomes.values():
            if outcome.email is not None:
                outcome.email.mime.close()

    async def fetch(self, refs: list[ItemRef]) -> None:
        """Fetch `refs`, which are distinct, and put what becomes of each into `outcomes`."""
        batches = deque([refs] if refs else [])
        while batches:
            batch = batches.popleft()
            await self._rest(batch)
            try:
                messages = await self.ask(
                    self.mailbox,
                    [ref.id for ref in batch],
                    with_mime=True,
                    with_search_key=any(ref.email_id is None for ref in batch),
                )
            except SourceError as error:
                batches.extend(await self._after_failure(batch, error))
            else:
                batches.extend(await self._sort_out(batch, messages))

    async def _rest(self, batch: list[ItemRef]) -> None:
        """Wait a little before each new round of tries: what may heal needs time for it."""
        tries = self.failures.get(batch[0].id, 0)
        if tries > self.rests:
            self.rests = tries
            await self.clock.sleep(float(2 ** (tries - 1)))

    async def _after_failure(self, batch: list[ItemRef], error: SourceError) -> list[list[ItemRef]]:
        """Say what to ask for next after a request failed as a whole; raise when it is not about the items."""
        if error.asks is not Asks.RETRY or error.scope is Scope.PROCESS or _is_busy(error):
            raise error
        await self.prove(self.mailbox, self.folder)
        if len(batch) > 1:
            return [[ref] for ref in batch]
        return await self._try_again([(batch[0], Failure(error.code or type(error).__name__, error.summary))])

    async def _sort_out(self, batch: list[ItemRef], messages: tuple[ResponseMessage, ...]) -> list[list[ItemRef]]:
        """Put what the answer decides into `outcomes`; give what is to be asked for next."""
        untried: list[ItemRef] = []
        hopeless: list[tuple[ItemRef, Failure]] = []
        failed: list[tuple[ItemRef, Failure]] = []
        refused = False
        reason: Failure | None = None
        for ref, answer in matched(batch, messages):
            outcome = answer if isinstance(answer, Failure) else judged(self.mailbox, self.folder, ref, answer)
            if isinstance(outcome, Fetched):
                self.outcomes[ref.id] = outcome
                if outcome.email is not None:
                    self.suspicion.fetched(ref.id, outcome.email.mime.size)
                continue
            meaning = meaning_of(outcome.code)
            if meaning.gone:
                self.outcomes[ref.id] = Fetched(ref)
            elif meaning.keeps_trying:
                untried.append(ref)
                reason = reason or outcome
            elif meaning.on_item is Asks.SKIP:
                hopeless.append((ref, outcome))
            else:
                refused = refused or meaning.on_item is None
                failed.append((ref, outcome))
        if refused:
            # The code speaks of the mailbox or the folder. If it is right, that is no fault of the items'.
            await self.prove(self.mailbox, self.folder)
        await self._record(hopeless)
        again = await self._try_again(failed)
        self.stuck = 0 if len(untried) < len(batch) else self.stuck + 1
        if untried and reason is not None:
            await self._keep_patience(reason)
            # One item that ends every batch before it is told apart would hold the others up for ever.
            alone = reason.code == BATCH_STOPPED and self.stuck > 0
            again += [[ref] for ref in untried] if alone else [untried]
        return again

    async def _keep_patience(self, reason: Failure) -> None:
        """Wait before asking again for what was not tried; raise when nothing was for too long."""
        if self.stuck >= _PATIENCE:
            doing = f"fetching from {self.mailbox.address}"
            raise error_for(reason.code, reason.text, doing=doing, backoff=reason.backoff)
        if self.stuck:
            await self.clock.sleep(float(2 ** (self.stuck - 1)))

    async def _try_again(self, failed: list[tuple[ItemRef, Failure]]) -> list[list[ItemRef]]:
        """Count the failures of items that may heal: give those to be asked for alone, and record the others."""
        given_up = []
        again = []
        for ref, failure in failed:
            self.failures[ref.id] = self.failures.get(ref.id, 0) + 1
            if self.failures[ref.id] >= _TRIES:
                given_up.append((ref, failure))
            else:
                again.append([ref])
        if given_up:
            # An item is given up only by a server that is otherwise well.
            await self.prove(self.mailbox, self.folder)
            await self._record(given_up)
        return again

    async def _record(self, bad: list[tuple[ItemRef, Failure]]) -> None:
        """Make dead letters, with the properties that can still be had."""
        if not bad:
            return
        await self._look_whether_it_is_the_server(bad)
        # Before anything is waited for: other fetches of the mailbox must know.
        for ref, failure in bad:
            self.suspicion.recorded(ref.id, failure.code)
        try:
            messages = await self.ask(self.mailbox, [ref.id for ref, _ in bad], with_mime=False)
            known = properties(messages)
        except SourceError as error:
            if error.scope is Scope.PROCESS or _is_busy(error):
                raise
            structlog.get_logger("ews_sync.ews").debug(
                "the properties of an item that cannot be fetched cannot be had either",
                problem=error.summary,
                request_id=error.request_id,
            )
            known = {}
        for ref, failure in bad:
            self.outcomes[ref.id] = dead_letter(self.mailbox, self.folder, ref, failure, known.get(ref.id))

    async def _look_whether_it_is_the_server(self, bad: list[tuple[ItemRef, Failure]]) -> None:
        """Raise when so many items in a row have failed alike that it need not be their fault."""
        code = self.suspicion.of((ref.id, failure.code) for ref, failure in bad)
        if code is None:
            return
        if await self._comes_again():
            self.suspicion.acquit()
        elif self.suspicion.holds(self.clock.monotonic()):
            raise SourceError(
                f"fetching from {self.mailbox.address}: more than {IN_A_ROW} emails in a row were answered with {code}",
                scope=Scope.FOLDER,
                code=code,
                hint="this looks like the server (an upgrade, a transport agent, a virus scanner) rather than like so "
                "many broken emails, so they are not given up: look into the server's log. They are tried again; when "
                f"nothing else of the mailbox can be fetched for {HELD_FOR / 86400:.0f} days, they are recorded as "
                "dead letters",
                retry_after=LOOK_AGAIN,
            )

    async def _comes_again(self) -> bool:
        """Tell whether an item that was fetched before can be fetched now."""
        samples = list(self.suspicion.samples)
        return bool(samples) and messages_in(await self.ask(self.mailbox, samples, with_mime=True)) > 0


def _is_busy(error: SourceError) -> bool:
    """Tell whether an error is about the server or the mailbox, whatever was asked for."""
    return (isinstance(error, ThrottledError) or meaning_of(error.code).keeps_trying) and error.code != TIMED_OUT
